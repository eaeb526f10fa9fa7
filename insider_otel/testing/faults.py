"""The steps of a script: what the fake does instead of, or besides, answering as usual."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from insider_otel.testing._documented import documented_reply
from insider_otel.testing._wire import End, Reply


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a script; made by the functions below.

    Attributes:
        answer: The reply in place of the usual one; None for the usual one.
        processed: Whether Insider does what it was asked for before this happens: a mail is accepted, then the
            connection breaks, and the retry meets the duplicate window.
        delay: Seconds before the answer.
        end: How the answer ends.
        after_bytes: Bytes of the body that get through before a truncated end.
    """

    answer: Reply | None = None
    processed: bool = True
    delay: float = 0.0
    end: End = End.COMPLETE
    after_bytes: int = 0


OK = "ok"
"""In a script: answer as usual. (The documented response of that id is what a good upsert gets anyway.)"""


def documented(
    response: str, *, processed: bool = False, status: int | None = None, headers: Mapping[str, str] | None = None
) -> Step:
    """Answer with a documented response; its bare id in a script does the same.

    Args:
        response: Its id, as ``insider-otel responses`` lists them.
        processed: Whether Insider did what it was asked for all the same.
        status: Another status than the documented one.
        headers: Headers to add, such as ``Retry-After``.

    Raises:
        ValueError: There is no such response.
    """
    answer = documented_reply(response)
    return Step(replace(answer, status=status or answer.status, headers=headers or {}), processed=processed)


def reply(
    status: int, body: object = b"", headers: Mapping[str, str] | None = None, *, processed: bool = False
) -> Step:
    """Answer with a reply of your own.

    Args:
        status: HTTP status code.
        body: Bytes or text as they are, anything else as JSON.
        headers: Headers to add.
        processed: Whether Insider did what it was asked for all the same.
    """
    return Step(Reply.of(status, body, headers), processed=processed)


def delay(seconds: float, then: str | Step = OK) -> Step:
    """Answer late.

    In process a delay beyond the client's read timeout raises its ``ReadTimeout``, as the wire would.

    Args:
        seconds: How late; really waited if served, on the fake's clock in process.
        then: What to answer.
    """
    if seconds < 0:
        raise ValueError(f"seconds is {seconds!r}; a delay is 0 or more")
    step = step_of(then)
    return replace(step, delay=step.delay + seconds)


def truncate(after_bytes: int, of: str | Step = OK) -> Step:
    """Answer, but close the connection in the middle of the body.

    Args:
        after_bytes: Bytes of the body that get through.
        of: What to answer.
    """
    if after_bytes < 0:
        raise ValueError(f"after_bytes is {after_bytes!r}; it is 0 or more")
    return replace(step_of(of), end=End.TRUNCATED, after_bytes=after_bytes)


def reset(*, processed: bool = False) -> Step:
    """Reset the connection instead of answering.

    Args:
        processed: Whether Insider did what it was asked for before that.
    """
    return Step(processed=processed, end=End.RESET)


def timeout(*, processed: bool = False) -> Step:
    """Never answer: the client's read timeout ends it.

    Args:
        processed: Whether Insider did what it was asked for all the same.
    """
    return Step(processed=processed, end=End.SILENCE)


def step_of(step: str | Step) -> Step:
    """A step as it may stand in a script: itself, ``ok``, or the id of a documented response.

    Raises:
        ValueError: There is no documented response of that id.
        TypeError: It is neither text nor a step.
    """
    if isinstance(step, Step):
        return step
    if not isinstance(step, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"step {step!r} is neither the id of a documented response nor made by one of {__name__}")
    return Step() if step == OK else documented(step)
