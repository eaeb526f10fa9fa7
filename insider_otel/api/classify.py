"""classify: what a reply from Insider means."""

from __future__ import annotations

from collections.abc import Mapping

from .verdict import Verdict


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
    """What a reply from Insider means; never raises, whatever the bytes."""
    raise NotImplementedError
