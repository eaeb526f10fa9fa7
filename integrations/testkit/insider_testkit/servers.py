"""Real servers in processes of their own: started on a port that they choose, and stopped by their process id."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import httpx

# Seconds; a busy machine may need many times what it needs at rest.
_START = 120.0
_STOP = 60.0
_ANSWER = 120.0
_KIT = Path(__file__).resolve().parents[1]
# For ``server``, where an app starts one of them itself.
UVICORN_READY = r"Uvicorn running on http://127\.0\.0\.1:(?P<port>\d+)"
GUNICORN_READY = r"Listening at: http://127\.0\.0\.1:(?P<port>\d+)"


@dataclass(frozen=True, slots=True)
class Server:
    """A server that runs.

    Attributes:
        port: Its port on 127.0.0.1.
        process: Its process; of gunicorn, the one above the workers.
    """

    port: int
    process: subprocess.Popen[bytes]
    _printed: IO[bytes]

    @property
    def url(self) -> str:
        """Its base URL, without a slash at the end."""
        return f"http://127.0.0.1:{self.port}"

    def get(self, path: str, *, timeout: float = _ANSWER, **options: Any) -> httpx.Response:
        """Visit a page. The options are those of ``httpx.request``."""
        return httpx.get(self.url + path, timeout=timeout, **options)

    def post(self, path: str, *, timeout: float = _ANSWER, **options: Any) -> httpx.Response:
        """Send to a page."""
        return httpx.post(self.url + path, timeout=timeout, **options)

    def visit_and_leave(self, method: str, path: str, *, once: Callable[[], object]) -> bytes:
        """Ask for a page, and go away as soon as something has happened, without waiting for the end of the answer.

        Args:
            method: ``GET`` or ``POST``.
            path: The page.
            once: Says whether it has happened.

        Returns:
            What had been answered by then.

        Raises:
            AssertionError: It did not happen in time, or the server closed the connection before.
        """
        ends = time.monotonic() + _ANSWER
        received = b""
        with socket.create_connection(("127.0.0.1", self.port)) as visitor:
            visitor.sendall(f"{method} {path} HTTP/1.1\r\nHost: shop\r\nContent-Length: 0\r\n\r\n".encode())
            visitor.settimeout(0.02)
            while not once():
                assert time.monotonic() < ends, f"it did not happen; what came: {received!r}"
                with suppress(TimeoutError):
                    part = visitor.recv(4096)
                    assert part, f"the server closed the connection; what came: {received!r}"
                    received += part
        return received

    def output(self) -> str:
        """What it has printed so far."""
        return _text(self._printed)


def uvicorn(
    app: str, *, directory: Path, environ: Mapping[str, str] | None = None, arguments: Sequence[str] = ()
) -> AbstractContextManager[Server]:
    """An ASGI app served by uvicorn, for the length of a ``with`` block.

    Args:
        app: Where it is: ``module:name``.
        directory: The directory that has the module.
        environ: More variables; see ``server``.
        arguments: More arguments of uvicorn.
    """
    command = [sys.executable, "-m", "uvicorn", app, "--host", "127.0.0.1", "--port", "0", *arguments]
    return server(command, ready=UVICORN_READY, directory=directory, environ=environ)


def gunicorn(
    app: str, *, directory: Path, environ: Mapping[str, str] | None = None, arguments: Sequence[str] = ()
) -> AbstractContextManager[Server]:
    """A WSGI app served by gunicorn, for the length of a ``with`` block.

    It listens before its workers are up; requests wait for them.

    Args:
        app: Where it is: ``module:name``.
        directory: The directory that has the module.
        environ: More variables; see ``server``.
        arguments: More arguments of gunicorn: ``--workers``, ``--worker-class``, ``--preload``.
    """
    # The async workers accept at once, and hang up on who asks for nothing within ``keepalive``: 2 seconds by default,
    # which one of many visitors of a busy machine may take between connecting and sending.
    options = ("--bind", "127.0.0.1:0", "--no-control-socket", "--keep-alive", f"{_ANSWER:.0f}", *arguments)
    command = [sys.executable, "-m", "gunicorn", app, *options]
    return server(command, ready=GUNICORN_READY, directory=directory, environ=environ)


@contextmanager
def server(
    command: Sequence[str], *, ready: str, directory: Path, environ: Mapping[str, str] | None = None
) -> Generator[Server]:
    """Any server, for the length of a ``with`` block.

    Args:
        command: What starts it, on 127.0.0.1 and a port of its own choice.
        ready: A regular expression that is found in what it prints once it listens, with a group ``port``.
        directory: Where it is started, and where Python looks for modules; this kit is found too.
        environ: More variables. ``OTEL_*`` and ``INSIDER_OTEL_*`` variables of this process are not passed on.

    Raises:
        AssertionError: It did not start, did not stop when it was told to, or had ended already; shows what it printed.
    """
    with tempfile.TemporaryFile() as printed:
        process = subprocess.Popen(
            command, cwd=directory, env=_environ(directory, environ or {}), stdout=printed, stderr=subprocess.STDOUT
        )
        try:
            yield Server(_port(process, printed, ready), process, printed)
            assert process.poll() is None, f"the server ended by itself, {process.returncode}:\n{_text(printed)}"
        finally:
            stopped = _stop(process)
        assert stopped, f"the server did not stop within {_STOP:g} s:\n{_text(printed)}"


def _environ(directory: Path, more: Mapping[str, str]) -> dict[str, str]:
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "INSIDER_OTEL_"))}
    paths = [str(directory), str(_KIT), environ.get("PYTHONPATH", "")]
    return {
        **environ,
        "PYTHONPATH": os.pathsep.join(path for path in paths if path),
        "PYTHONUNBUFFERED": "1",
        **more,
    }


def _port(process: subprocess.Popen[bytes], printed: IO[bytes], ready: str) -> int:
    ends = time.monotonic() + _START
    while time.monotonic() < ends and process.poll() is None:
        if found := re.search(ready, _text(printed)):
            return int(found["port"])
        time.sleep(0.02)
    raise AssertionError(f"the server did not start:\n{_text(printed)}")


def _text(printed: IO[bytes]) -> str:
    # Read at a place of its own: the offset of the file is the server's, which writes on.
    size = os.fstat(printed.fileno()).st_size
    return os.pread(printed.fileno(), size, 0).decode(errors="replace")


def _stop(process: subprocess.Popen[bytes]) -> bool:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(_STOP)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return False
    return True
