"""What a web app answers when a call to Insider failed and no view handled it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

from insider_otel.api.verdict import Category
from insider_otel.http.record import call_of

_STATUS = {
    Category.TIMEOUT: 504,
    Category.RATE_LIMIT: 503,
    Category.UNAVAILABLE: 503,
}
_BAD_GATEWAY = 502
_OURS = "insider_otel."
_DETAIL = {
    502: "A service this page needs gave no usable answer.",
    503: "A service this page needs is busy. Please try again in a moment.",
    504: "A service this page needs did not answer in time.",
}


@dataclass(frozen=True, slots=True)
class Failure:
    """An HTTP answer for a failed call. It tells the visitor nothing of what Insider said.

    Attributes:
        status: 502, 503 or 504.
        detail: A sentence for the visitor.
        retry_after: Seconds for the ``Retry-After`` header; None for none.
    """

    status: int
    detail: str
    retry_after: int | None = None

    @property
    def headers(self) -> dict[str, str]:
        """The headers of the answer."""
        return {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}


def failure_of(error: BaseException) -> Failure | None:
    """The answer for an exception that left a view.

    Args:
        error: The exception, or the group of them that the tasks of a view raised.

    Returns:
        The answer; None if the exception, or any of the group, came from no call to Insider.
    """
    if isinstance(error, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", error)
        failures = [failure_of(each) for each in group.exceptions]
        # The first that failed is as good as any; but a mistake of the app's own is not to hide behind it.
        return failures[0] if all(failures) else None
    try:
        call = call_of(error)
    except LookupError:
        return None
    status = _STATUS.get(call.verdict.category, _BAD_GATEWAY)
    after = call.verdict.retry_after if status == 503 else None
    return Failure(status, _DETAIL[status], None if after is None else max(math.ceil(after), 1))


def own_errors(error: BaseException) -> list[BaseException]:
    """What this library itself refused or could not do: a mistake on this side, or an outbox in trouble.

    The texts of its exceptions hold no secret and nothing that Insider said, which those of httpx may.

    Args:
        error: The exception that left a view, or the group of them that its tasks raised.
    """
    if isinstance(error, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", error)
        return [own for each in group.exceptions for own in own_errors(each)]
    return [error] if type(error).__module__.startswith(_OURS) else []
