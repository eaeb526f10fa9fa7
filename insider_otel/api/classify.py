"""classify: what a reply from Insider means."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping

from insider_otel.api.verdict import Verdict


def classify(
    status: int | None,
    body: bytes | str = b"",
    *,
    headers: Mapping[str, str] | None = None,
    url: str | None = None,
    exception: BaseException | None = None,
    truncated: bool = False,
    now: float | None = None,
) -> Verdict:
    """What a reply from Insider, or an exception in its place, means. Never raises, whatever the bytes.

    Args:
        status: The HTTP status; None if no reply came.
        body: The decoded body, or its beginning.
        headers: The reply's headers, names in any case.
        url: The URL of the request; a few of Insider's codes mean different things at different addresses.
        exception: What was raised in place of a reply, or while its body was read.
        truncated: Whether ``body`` is only a beginning. Counts that are lengths of lists are then lower bounds.
        now: The present in seconds since the epoch, for dates in headers; by default the reply's own ``Date``, or
            this machine's clock.

    Returns:
        The verdict: by the row of ``responses.toml`` that knows the reply, else by its status. Its message, code and
        field are safe to export.
    """
    return _reader()(status, body, headers, url, exception, truncated, now)


@functools.cache
def _reader() -> Callable[..., Verdict]:
    # An app needs the patterns at its first reply, and not at its import.
    from insider_otel.api.reading import read  # noqa: PLC0415

    return read
