"""The steps of a script: what the fake does instead of, or besides, answering as usual."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

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

LONGEST_DELAY = 3600.0
"""Most seconds that an answer may be late: beyond that it is a ``timeout``."""


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

    Raises:
        ValueError: The status is none of a final reply.
    """
    if not 200 <= status <= 599:
        raise ValueError(f"status is {status!r}; a status is a number from 200 to 599")
    return Step(Reply.of(status, body, headers), processed=processed)


def delay(seconds: float, then: str | Step = OK) -> Step:
    """Answer late.

    In process a delay beyond the client's read timeout raises its ``ReadTimeout``, as the wire would.

    Args:
        seconds: How late, at most an hour; really waited if served, on the fake's clock in process.
        then: What to answer.

    Raises:
        ValueError: The delay, with that of the step it is added to, is no number of seconds from 0 to 3600.
    """
    step = step_of(then)
    # Written so that it also refuses nan.
    if not (seconds >= 0 and step.delay + seconds <= LONGEST_DELAY):
        raise ValueError(
            f"seconds is {seconds!r}; a delay is 0 or more and {LONGEST_DELAY:g} at most in all, or write timeout"
        )
    return replace(step, delay=step.delay + seconds)


def truncate(after_bytes: int, of: str | Step = OK) -> Step:
    """Answer, but close the connection in the middle of the body.

    Args:
        after_bytes: Bytes of the body that get through.
        of: What to answer.

    Raises:
        ValueError: The number of bytes is below 0.
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


_BARE: dict[str, Callable[[], Step]] = {OK: Step, "reset": reset, "timeout": timeout}
_NUMBERED: dict[str, tuple[Callable[[str], Any], Callable[[Any, str], Step], str]] = {
    "delay": (float, delay, "a number of seconds, as in delay:2"),
    "truncate": (int, truncate, "a whole number of bytes, as in truncate:10"),
}


def step_of(step: str | Step) -> Step:
    """A step as it may stand in a script.

    Args:
        step: One that is made already, or its spelling: ``ok``, an HTTP status (``503``), the id of a documented
            response, ``reset``, ``timeout``, ``delay:SECONDS`` or ``truncate:BYTES``; the last two may go on with
            another step (``delay:2:503``).

    Raises:
        ValueError: It is none of these spellings, there is no documented response of that id, or a number is out of
            its range.
        TypeError: It is neither text nor a step.
    """
    if isinstance(step, Step):
        return step
    if not isinstance(step, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"step {step!r} is neither text, such as 'ok' or '503', nor made by a function of {__name__}")
    text = step.strip()
    name, colon, rest = text.partition(":")
    if name in _NUMBERED:
        return _numbered(text, name, rest)
    if not text:
        raise ValueError("a step is empty; for the usual answer write ok")
    if colon:
        raise ValueError(f"step {text!r}: only delay and truncate take a number")
    if name in _BARE:
        return _BARE[name]()
    return reply(int(name)) if name.isascii() and name.isdigit() else documented(name)


def _numbered(text: str, name: str, rest: str) -> Step:
    read, make, wanted = _NUMBERED[name]
    number, colon, then = rest.partition(":")
    try:
        value = read(number)
    except ValueError:
        raise ValueError(f"step {text!r}: after {name} comes {wanted}") from None
    return make(value, then if colon else OK)
