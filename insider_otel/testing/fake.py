"""FakeInsider: answers like Insider, in process or on a socket."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from insider_otel.api.operations import Limit, Operation, operations_by_name
from insider_otel.testing._account import Profile, flat_identifiers
from insider_otel.testing._documented import UNKNOWN_STATUS
from insider_otel.testing._insider import Insider, operation_of
from insider_otel.testing._names import known
from insider_otel.testing._records import RecordedRequest, record
from insider_otel.testing._wire import End, Plan, Reply, Request
from insider_otel.testing.faults import Step, step_of

if TYPE_CHECKING:
    from insider_otel.testing.server import ServedFake

EVERY = "*"
"""In a script: whatever operation comes next."""


@dataclass(slots=True)
class _Script:
    steps: deque[Step]
    repeat: bool

    def next(self) -> Step | None:
        if not self.steps:
            return None
        step = self.steps.popleft()
        if self.repeat:
            self.steps.append(step)
        return step


class FakeInsider:
    """Insider, for tests and demonstrations: an ASGI app, an httpx transport and a server on a socket.

    It checks credentials, JSON, sizes and required fields as documented, counts records, keeps users and one-time
    codes, ignores the same mail for 15 minutes, and holds every documented rate limit. Where Insider's pages are silent
    it answers in the manner of the same host; ``dialects.toml`` and ``exchanges.toml`` say what is documented.

        fake = FakeInsider()
        fake.script("mail.send", "service_unavailable", "ok")
        client = httpx.Client(transport=InsiderTransport(fake.transport()))
        client.post("https://mail.useinsider.com/mail/v1/send", json=mail, headers={"X-INS-AUTH-KEY": "any"})
        assert len(fake.accepted("mail.send")) == 1

    Args:
        clock: Tells the time in seconds since 1970: for rate limits, the duplicate window and codes that run out. A
            ``FakeClock`` also takes the delays of an in-process transport.
        credentials: The right values, by header or ``body:api_key``; a bearer token without the word. Any value is
            right for a credential that is not named, but none may be missing.
        limits: Limits by pool, in place of the documented ones: ``{"user.upsert": "5/60s"}``, None to lift one.
        retry_after: Whether a reply to one request too many says when to come back. Insider mostly does not.
        duplicate_status: Status of the reply to a duplicate; it is not documented.
        keep: How many of the latest requests to remember; None for all of them. For a fake that is served for days.

    Attributes:
        requests: Every request so far, or the latest of them, in the order of arrival.

    Raises:
        ValueError: A limit cannot be read, its pool does not exist, or ``keep`` is below 1.
    """

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.time,
        credentials: Mapping[str, str] | None = None,
        limits: Mapping[str, str | Limit | None] | None = None,
        retry_after: bool = False,
        duplicate_status: int = UNKNOWN_STATUS,
        keep: int | None = None,
    ) -> None:
        if keep is not None and keep < 1:
            raise ValueError(f"keep is {keep!r}; it is 1 or more, or None to remember every request")
        self.clock = clock
        self.requests: list[RecordedRequest] = []
        self._insider = Insider(clock, credentials or {}, limits or {}, retry_after, duplicate_status)
        self._scripts: dict[str, _Script] = {}
        self._keep = keep
        self._rays = 0
        self._lock = threading.Lock()

    # ------------------------------------------------------------------------------------------- what a test says

    def script(self, operation: str, *steps: str | Step, repeat: bool = False) -> None:
        """Say what happens to the next requests of an operation; after that it answers as usual again.

        A script replaces the operation's former one. Without steps it ends it.

        Args:
            operation: Name of the operation, or ``*`` for whichever comes next and has no script of its own.
            *steps: One for each request, in text: ``ok``, an HTTP status (``503``), the id of a documented response,
                ``reset``, ``timeout``, ``delay:SECONDS`` or ``truncate:BYTES``, the last two with another step after
                them if need be (``delay:2:503``); or what ``delay``, ``reset``, ``timeout``, ``truncate``,
                ``documented`` and ``reply`` make. A status, an id and a broken connection in text mean that the
                request was not processed.
            repeat: Whether to begin again after the last step.

        Raises:
            ValueError: There is no such operation, or a step cannot be read.
        """
        if operation != EVERY:
            known(operations_by_name(), operation, "operation", "`insider-otel operations` lists them")
        read = deque(step_of(step) for step in steps)
        with self._lock:
            self._scripts[operation] = _Script(read, repeat)

    def reset(self) -> None:
        """Forget everything: requests, scripts, users, codes, duplicates and what was used of the limits."""
        with self._lock:
            self.requests.clear()
            self._scripts.clear()
            self._insider.forget()

    # ----------------------------------------------------------------------------------------- what a test asks

    def accepted(self, operation: str) -> list[RecordedRequest]:
        """The requests of an operation that Insider took: neither refused nor ignored as duplicates.

        Args:
            operation: Name of the operation.

        Raises:
            ValueError: There is no such operation.
        """
        known(operations_by_name(), operation, "operation", "`insider-otel operations` lists them")
        return [each for each in self.requests if each.accepted and each.operation == operation]

    def profile(self, **identifiers: str) -> Profile | None:
        """The user with any of these identifiers, as upserts left it.

        Args:
            **identifiers: ``email``, ``phone_number``, ``uuid`` …
        """
        return self._insider.account.profile(flat_identifiers(identifiers))

    def code(self, to: str) -> str | None:
        """The one-time code that was sent to a phone number and waits to be checked.

        Args:
            to: The phone number.
        """
        code = self._insider.account.codes.get(to)
        return code.code if code else None

    # ------------------------------------------------------------------------------------------------- its shells

    async def __call__(
        self,
        scope: MutableMapping[str, Any],
        receive: Callable[[], Awaitable[MutableMapping[str, Any]]],
        send: Callable[[MutableMapping[str, Any]], Awaitable[None]],
    ) -> None:
        """The ASGI 3 app, for a server. In process use ``transport``.

        ``httpx.ASGITransport(app=fake)`` can neither break a connection off nor give up on one: a ``reset`` or a
        ``truncate`` is an ``AssertionError`` of httpx's there, and a ``timeout`` hangs.
        """
        from insider_otel.testing.asgi import run_asgi  # noqa: PLC0415  (only a served fake needs it)

        await run_asgi(self.handle, scope, receive, send)

    def transport(self) -> Any:
        """A transport for ``Client`` and ``AsyncClient`` of httpx and httpx2: no socket, no server, every step.

        Returns:
            The transport. It is typed ``Any`` because httpx and httpx2 each ask for a base class of their own.
        """
        from insider_otel.testing.transport import FakeTransport  # noqa: PLC0415  (httpx is slow to import)

        return FakeTransport(self.handle, self.clock)

    def serve(self, port: int = 0) -> AbstractContextManager[ServedFake]:
        """Serve on 127.0.0.1, in a thread of its own, for the length of a ``with`` block.

        Args:
            port: The port; 0 for any that is free.

        Returns:
            A context manager that gives ``.url`` and ``.hosts`` (for ``Settings.hosts``).
        """
        from insider_otel.testing.server import serve  # noqa: PLC0415  (uvicorn is an extra)

        return serve(self, port)

    # ------------------------------------------------------------------------------------------------ its decisions

    def handle(self, request: Request) -> Plan:
        """Decide what happens to a request. Plain and quick: what carries the plan out is a shell's business.

        Args:
            request: The request.
        """
        with self._lock:
            operation = operation_of(request)
            step = self._step(operation)
            taken = False
            reply: Reply | None = None
            if step.processed:
                reply, taken = self._insider.answer(operation, request)
            if step.answer is not None:
                reply = step.answer
            reply = self._marked(reply or Reply(200))
            silent = step.end in {End.RESET, End.SILENCE}
            self.requests.append(record(operation, request, accepted=taken, status=None if silent else reply.status))
            if self._keep is not None:
                del self.requests[: -self._keep]
            return Plan(reply, delay=step.delay, end=step.end, after_bytes=step.after_bytes)

    def _step(self, operation: Operation) -> Step:
        for name in (operation.name, EVERY):
            script = self._scripts.get(name)
            step = script.next() if script else None
            if step is not None:
                return step
        return Step()

    def _marked(self, reply: Reply) -> Reply:
        """With the ray of Cloudflare, the one thing in a reply that names it."""
        self._rays += 1
        return replace(reply, headers={"cf-ray": f"{self._rays:016x}-IST", **reply.headers})
