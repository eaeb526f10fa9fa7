"""What goes out for one attempt of a call, and what comes back of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from insider_otel.api.classify import classify
from insider_otel.api.responses import answer_is_ambiguous, may_have_arrived
from insider_otel.api.verdict import Verdict
from insider_otel.http import local
from insider_otel.http.app_stream import app_stream
from insider_otel.http.body import Prefix
from insider_otel.http.family import Family
from insider_otel.http.record import EXTENSION
from insider_otel.telemetry.suppression import http_suppression

if TYPE_CHECKING:
    import httpx

ATTEMPT = "insider_otel.attempt"
"""Extension of a request that is an attempt already: a second transport of ours under the first lets it through."""

_FIRST_ERROR = 400
_SHORTEST_TIMEOUT = 0.001


class Answer(NamedTuple):
    """What an attempt brought.

    Attributes:
        verdict: What it means.
        result: What the app gets if the call ends here: a response, or the exception that came instead of one.
        ambiguous: Whether Insider may have processed the request without our knowing.
        unread: Whether the response has a long body, whose rest the app has yet to read.
        broken: The error in which the response's body ended, if it did; the app meets it there.
    """

    verdict: Verdict
    result: httpx.Response | Exception
    ambiguous: bool = False
    unread: bool = False
    broken: Exception | None = None

    @property
    def error(self) -> Exception | None:
        """The exception that it ended in, if it did."""
        return self.result if isinstance(self.result, Exception) else self.broken


def fresh_request(family: Family, app: httpx.Request, *, is_in_memory: bool, left: float | None) -> httpx.Request:
    """A request of its own for one attempt: what is below may change it, and its trace headers are its own.

    Args:
        family: The httpx that the app's request belongs to.
        app: The app's request.
        is_in_memory: Whether its body is.
        left: Seconds until the call's deadline, which none of its timeouts may exceed; None for no bound.
    """
    extensions: dict[str, Any] = {**app.extensions, ATTEMPT: True}
    # Of the call before, if the app sends its request again.
    extensions.pop(EXTENSION, None)
    if left is not None:
        left = max(left, _SHORTEST_TIMEOUT)
        timeouts = app.extensions.get("timeout", {})
        extensions["timeout"] = {
            phase: left if timeouts.get(phase) is None else min(timeouts[phase], left)
            for phase in ("connect", "read", "write", "pool")
        }
    # What is not in memory is made by the app's own code while it is sent.
    stream = app.stream if is_in_memory else app_stream(family.module, app.stream, http_suppression())
    request: httpx.Request = family.module.Request(
        app.method, app.url, headers=app.headers, stream=stream, extensions=extensions
    )
    if is_in_memory:
        # Transports below us that sign or log a request may ask for its content, as they can of the app's.
        request.read()
    return request


def answer_of(request: httpx.Request, response: httpx.Response, prefix: Prefix) -> Answer:
    """What a response means.

    Args:
        request: The app's request.
        response: The response to it.
        prefix: The beginning of its body.
    """
    status = response.status_code
    if prefix.broken is not None and status < _FIRST_ERROR:
        # A success that broke off leaves open what it would have said; a refusal is one without its body too.
        verdict = classify(None, exception=prefix.broken)
        return Answer(verdict, response, ambiguous=True, broken=prefix.broken)
    if prefix.undecodable is not None and status < _FIRST_ERROR:
        # So does one that cannot be read; the app gets it all the same.
        verdict = classify(None, exception=prefix.undecodable)
        return Answer(verdict, response, ambiguous=True, unread=prefix.unread)
    url = str(request.url) if status >= _FIRST_ERROR else None
    verdict = classify(status, prefix.content, headers=response.headers, url=url, truncated=prefix.truncated)
    return Answer(verdict, response, answer_is_ambiguous(status), prefix.unread, prefix.broken)


def unanswered(error: Exception) -> Answer:
    """What an exception means that came in place of a response.

    Args:
        error: The exception.
    """
    return Answer(classify(None, exception=error), error, may_have_arrived(error))


def unsent(family: Family, request: httpx.Request) -> Answer:
    """What a call gets whose deadline had passed before its first attempt.

    Args:
        family: The httpx that its request belongs to.
        request: The app's request.
    """
    verdict = local.DEADLINE_PASSED
    return Answer(verdict, family.module.ConnectTimeout(verdict.advice, request=request))
