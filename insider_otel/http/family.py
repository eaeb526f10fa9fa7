"""httpx and httpx2: the same API with other classes, so each is taken from the request's own module."""

from __future__ import annotations

import sys
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import httpx

NAMES = ("httpx", "httpx2")


class Family:
    """The classes of the httpx that a request belongs to.

    Args:
        module: The module ``httpx`` or ``httpx2``.
    """

    __slots__ = ("module",)

    def __init__(self, module: Any) -> None:
        self.module = module

    def body_of(self, request: httpx.Request) -> bytes | None:
        """The request's body if it can be sent a second time: bytes can, a generator or a file cannot."""
        stream: Any = request.stream
        return b"".join(stream) if isinstance(stream, self.module.ByteStream) else None


def family_of(request: httpx.Request) -> Family:
    """The family of a request.

    Args:
        request: A request of httpx or httpx2, or of a class derived from theirs.

    Raises:
        TypeError: It is neither.
    """
    # A class can be hashed; mypy looks at how its instances would be.
    return _family_of_class(type(request))  # type: ignore[arg-type]


@lru_cache(maxsize=64)
def _family_of_class(kind: type) -> Family:
    for base in kind.__mro__:
        name = base.__module__.partition(".")[0]
        if name in NAMES:
            return _family(name)
    raise TypeError(f"{kind.__qualname__} is no request of httpx or httpx2")


@cache
def _family(name: str) -> Family:
    return Family(sys.modules[name])
