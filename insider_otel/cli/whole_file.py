"""Files that are written whole or not at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path


class NotWrittenError(Exception):
    """A file cannot be written; the text says which and why."""


@contextmanager
def whole_file(path: str) -> Generator[Callable[[str], None]]:
    """Make ready to write a file, which takes the place of what had its name at once and with all of its text.

    That its folder takes it is known when the ``with`` block begins. If it is never written, or not to its end, what
    was there stays as it was, and nothing is left beside it.

    Args:
        path: Its name. Where that is a symbolic link, what it leads to is replaced.

    Yields:
        What writes it, given the text.

    Raises:
        NotWrittenError: It cannot be written.
    """
    target = Path(os.path.realpath(path))
    # Opened as any file is, and not by tempfile: whoever may read what else is written here may read this.
    draft = target.with_name(f".{target.name}.{secrets.token_hex(4)}")

    def write(text: str) -> None:
        with _said_of(path):
            draft.write_text(text, "utf-8")
            draft.replace(target)

    with _said_of(path):
        # A device or a pipe would not be written to but replaced, and a folder cannot be.
        if target.exists() and not target.is_file():
            raise NotWrittenError(f"{path!r} is no regular file; choose another name")
        draft.touch(exist_ok=False)
    try:
        yield write
    finally:
        draft.unlink(missing_ok=True)


@contextmanager
def _said_of(path: str) -> Generator[None]:
    try:
        yield
    except OSError as error:
        raise NotWrittenError(f"{path!r} cannot be written: {error.strerror}") from error
