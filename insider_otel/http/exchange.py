"""One call over HTTP: the machine's decisions carried out, traced and recorded, without any I/O of its own.

``Exchange.run`` is a generator of effects. The sync and the async driver carry the effects out and send back what they
brought, so that the course of a call is written once.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from math import inf
from time import time_ns
from typing import TYPE_CHECKING

from insider_otel.api.classify import classify
from insider_otel.api.operations import Operation
from insider_otel.api.verdict import Category, Verdict
from insider_otel.http import local
from insider_otel.http.attempt import Answer, answer_of, fresh_request, unanswered, unsent
from insider_otel.http.body import read_prefix
from insider_otel.http.effects import REDELIVERY, Close, Effects, Sleep, Transmit
from insider_otel.http.engine import Engine
from insider_otel.http.family import Family
from insider_otel.http.gate import Gate, Turn
from insider_otel.http.health import note_outcome
from insider_otel.http.record import Call, attach_record, remember_record
from insider_otel.http.scope import current_scope
from insider_otel.policy import testing_mode
from insider_otel.policy.limits import opens_in
from insider_otel.policy.steps import Done, Outcome, Progress, Refuse, Reserve, Send, Step, Stop, Wait, outcome_of
from insider_otel.state.dropped import finish_later
from insider_otel.telemetry.call import CallTrace, WaitTrace
from insider_otel.telemetry.delivery import DeliveryTrace
from insider_otel.telemetry.suppression import attached, suppressing

if TYPE_CHECKING:
    import httpx

    from insider_otel.http.redelivery import Redelivery
    from insider_otel.telemetry.attempt import AttemptTrace

_FAILED = frozenset({Outcome.FAILED, Outcome.PARTLY_FAILED})


def _sleeps() -> bool:
    testing = testing_mode.current()
    return testing is None or testing.sleep


class Exchange:
    """One call.

    Args:
        engine: What it shares with others.
        family: The httpx it is made with.
        request: The app's request; never sent itself. Nothing of it is changed but that it gets the call's record.
        operation: The operation it calls.
        is_closed: Says whether the client that it is made with is closed.
    """

    __slots__ = (
        "_attempting",
        "_began",
        "_body",
        "_deadline",
        "_engine",
        "_family",
        "_gate",
        "_in_the_air",
        "_is_closed",
        "_last",
        "_later",
        "_machine",
        "_operation",
        "_rate_limited",
        "_record",
        "_redelivery",
        "_request",
        "_scope",
        "_trace",
        "_waited",
        "_waiting",
    )

    def __init__(
        self,
        engine: Engine,
        family: Family,
        request: httpx.Request,
        operation: Operation,
        is_closed: Callable[[], bool],
    ) -> None:
        now = engine.clock()
        self._began = now
        self._engine = engine
        self._family = family
        self._request = request
        self._operation = operation
        self._is_closed = is_closed
        self._scope = current_scope()
        self._body = family.body_of(request)
        redelivery: Redelivery | None = request.extensions.get(REDELIVERY)
        self._redelivery = redelivery
        self._later = engine.later(operation, request, self._body)
        self._deadline = engine.deadline(self._scope, now) if redelivery is None else now + redelivery.deadline
        self._gate = gate = Gate(engine.state, engine.settings, operation, request, self._body, holds=engine.holds)
        self._machine = engine.machine(
            operation,
            replayable=self._body is not None,
            deadline=self._deadline,
            rate_window=lambda: opens_in(gate.limit, engine.wall_clock()),
            redelivery=redelivery,
        )
        telemetry = engine.telemetry_for(request)
        if redelivery is None:
            self._trace = CallTrace(telemetry, operation, now)
        else:
            self._trace = DeliveryTrace(telemetry, operation, now, redelivery.job.id, redelivery.links)
        self._last: Answer | None = None
        self._record: Call | None = None
        self._waited = 0.0
        self._rate_limited = 0
        self._in_the_air = False
        # What is open under the call.
        self._attempting: AttemptTrace | None = None
        self._waiting: WaitTrace | None = None

    def run(self) -> Effects[httpx.Response | Exception]:
        """The course of the call, from the first step to the response, or the exception, that the app gets.

        An exception is returned and not raised: a generator cannot raise every one of them.
        """
        with attached(self._trace.context):
            try:
                return (yield from self._see_through())
            except GeneratorExit:
                finish_later(partial(self._drop, self._engine.clock(), time_ns()))
                raise
            finally:
                # An exception's traceback holds this frame; holding the exception in turn would make a cycle.
                self._last = None

    def _see_through(self) -> Effects[httpx.Response | Exception]:
        try:
            return (yield from self._course())
        except GeneratorExit:
            raise
        except BaseException as exc:
            try:
                yield from self._leave_gate(None)
                with suppress(Exception):
                    # What broke the course off is what the app is to see, not a stream that cannot be closed.
                    yield from self._drop_answer()
            except GeneratorExit:
                raise
            except BaseException:
                self._abandon(exc)
                raise
            self._abandon(exc)
            raise

    def _course(self) -> Effects[httpx.Response | Exception]:
        if self._later is not None and self._later.is_wanted:
            response = yield from self._hand_over(0.0)
            assert response is not None, "what the app asked for is done, or raises"
            return response
        step = self._machine.start(self._engine.clock())
        while True:
            match step:
                case Reserve():
                    turn = yield from self._ask(step)
                    if turn.held_back is not None:
                        return (yield from self._hold_back(turn.held_back))
                    step = self._machine.admitted(
                        turn.wait, self._engine.clock(), granted=turn.granted, closed=turn.closed
                    )
                case Send():
                    if self._redelivery is not None:
                        self._redelivery.begin()
                    step = yield from self._attempt(step)
                case Wait():
                    yield from self._wait(step)
                    self._heed_scope()
                    self._heed_closing()
                    step = self._machine.resume(self._engine.clock())
                case Refuse():
                    return (yield from self._hand_over(step.retry_after)) or (yield from self._refuse(step))
                case Done():
                    wait = self._retry_in(step)
                    if wait is not None and (later := (yield from self._hand_over(wait))):
                        return later
                    return (yield from self._conclude(step.stopped))

    def _ask(self, step: Reserve) -> Effects[Turn]:
        turn = yield from self._gate.ask(step.longest_wait)
        if turn.store_lost is not None:
            self._trace.store_unavailable(turn.store_lost)
        if turn.in_flight is not None:
            self._trace.in_flight(turn.in_flight)
        return turn

    def _attempt(self, step: Send) -> Effects[Step]:
        cause = self._cause()
        if cause is not None:
            self._trace.retried(cause)
        yield from self._drop_answer()
        left = None if self._deadline is None else self._deadline - self._engine.clock()
        request = fresh_request(self._family, self._request, is_in_memory=self._body is not None, left=left)
        self._attempting = trace = self._trace.start_attempt(request, step.resend_count, self._engine.clock())
        self._in_the_air = True
        # One CLIENT span for one attempt: what would make another, below us, is told not to.
        with attached(suppressing(trace.context)):
            try:
                response = yield Transmit(request)
                trace.connected(response)
                reading = read_prefix(self._family.module, response, self._body_is_over, self._left)
                answer = answer_of(self._request, response, (yield from reading))
            except Exception as exc:
                answer = unanswered(exc)
                trace.unanswered(exc, answer.verdict, self._engine.clock())
            except GeneratorExit:
                raise
            except BaseException:
                self._break_off(self._engine.clock())
                raise
            else:
                trace.answered(response, answer.verdict, answer.error, self._engine.clock())
                # Its body may hold the error that it ends in, and the error's traceback this frame.
                del response
        self._in_the_air, self._attempting = False, None
        try:
            return (yield from self._judge(answer))
        finally:
            # An exception's traceback holds this frame, or one that does.
            del answer

    def _cause(self) -> Verdict | None:
        """What made the next attempt necessary; None if it is the first one of the call."""
        if self._last is not None:
            return self._last.verdict
        return None if self._redelivery is None else self._redelivery.cause

    def _break_off(self, now: float, ended: int | None = None) -> None:
        """An attempt, if one is in the air, has nobody any more who waits for its answer."""
        trace, self._attempting = self._attempting, None
        if trace is not None:
            self._gate.interrupted(now)
            trace.cancelled(now, ended)

    def _heed_scope(self) -> None:
        """Leave the deadline of a request behind that is over: what its threads and tasks go on with has none."""
        if self._scope is not None and self._scope.is_closed and self._redelivery is None:
            self._deadline = self._engine.deadline(None, self._began)
            self._machine.unbind(self._deadline)

    def _heed_closing(self) -> None:
        """Leave no time for another attempt to a call whose client was closed while it waited."""
        if self._is_closed():
            self._deadline = self._engine.clock()
            self._machine.unbind(self._deadline)

    def _left(self) -> float:
        return inf if self._deadline is None else self._deadline - self._engine.clock()

    def _drop_answer(self) -> Effects[None]:
        """Close the last answer, which nobody will read: its connection is needed."""
        last, self._last = self._last, None
        if last is not None and not isinstance(last.result, Exception):
            yield Close(last.result.stream)

    def _judge(self, answer: Answer) -> Effects[Step]:
        now = self._engine.clock()
        verdict, answered = answer.verdict, answer.error is None
        self._last = answer
        if verdict.category is Category.RATE_LIMIT:
            self._rate_limited += 1
            self._trace.rate_limited(verdict)
        elif verdict.category is Category.DUPLICATE:
            self._trace.duplicate(verdict)
        yield from self._gate.answered(
            verdict,
            sent_at=self._machine.sent_at,
            now=now,
            answered=answered,
            arrived=answered or answer.ambiguous,
            closed_for=self._machine.block(verdict),
        )
        self._heed_scope()
        return self._machine.answered(verdict, now, ambiguous=answer.ambiguous)

    def _wait(self, step: Wait) -> Effects[None]:
        cause = None if self._last is None else self._last.verdict
        now = self._engine.clock()
        self._waiting = self._trace.start_wait(step.seconds, step.reason.value, step.source.value, cause, now)
        try:
            if _sleeps():
                yield Sleep(step.seconds)
        except GeneratorExit:
            raise
        except BaseException:
            self._break_off_wait(self._engine.clock())
            raise
        self._end_wait(step.seconds)

    def _break_off_wait(self, now: float, ended: int | None = None) -> None:
        """A wait, if the call is in one, is over before its time."""
        if self._waiting is not None:
            self._end_wait(max(now - self._waiting.began, 0.0), ended)

    def _end_wait(self, seconds: float, ended: int | None = None) -> None:
        wait, self._waiting = self._waiting, None
        if wait is not None:
            self._waited += seconds
            wait.finish(seconds, ended)

    def _retry_in(self, step: Done) -> float | None:
        """In how many seconds a call that is over may be sent again; None for never."""
        if step.retry_in is None and self._redelivery is not None and self._last is not None:
            return self._redelivery.wait_after(self._last.verdict)
        return step.retry_in

    def _hand_over(self, wait: float) -> Effects[httpx.Response | None]:
        """Have the call go on later, in the same trace; None if it cannot."""
        if self._later is None:
            return None
        machine, now = self._machine, self._engine.clock()
        verdict = None if self._last is None else self._last.verdict
        ambiguous_for = None if machine.ambiguous_since is None else now - machine.ambiguous_since
        progress = Progress(wait, machine.attempts, ambiguous_for, verdict)
        job = yield from self._later.keep(self._trace.context, progress)
        if job is None:
            return None
        with suppress(Exception):
            # It is kept: whoever asks again because an answer cannot be closed would have it sent twice.
            yield from self._drop_answer()
        yield from self._leave_gate(verdict)
        self._trace.deferred(job, wait, verdict)
        # To the app it is accepted; who looks at the trace wants to know why it was not done.
        return self._answer_here(202, f"deferred; job={job}", local.DEFERRED, Outcome.DEFERRED, cause=verdict)

    def _hold_back(self, age: float) -> Effects[httpx.Response]:
        """Answer in Insider's place: it has taken the same content a short while ago."""
        yield from self._drop_answer()
        self._trace.held_back(age)
        return self._answer_here(202, "held_back", local.HELD_BACK, Outcome.HELD_BACK)

    def _refuse(self, step: Refuse) -> Effects[httpx.Response]:
        """Answer in Insider's place: its limit has no room before the deadline.

        Raises:
            RuntimeError: The client was closed while the call waited for room; httpx says it in the same words.
        """
        if self._is_closed():
            raise RuntimeError("Cannot send a request, as the client has been closed.")
        yield from self._leave_gate(None)
        verdict = local.rate_limit_refused(step.retry_after)
        self._rate_limited += 1
        self._trace.refused(verdict)
        return self._answer_here(429, "refused", verdict)

    def _answer_here(
        self, status: int, kind: str, verdict: Verdict, outcome: Outcome | None = None, *, cause: Verdict | None = None
    ) -> httpx.Response:
        """End the call with a response that is made here."""
        response = local.response(self._family.module, self._request, status, kind, verdict)
        attach_record(response, self._close_record(verdict, None, outcome))
        self._finish(cause)
        return response

    def _conclude(self, stopped: Stop | None) -> Effects[httpx.Response | Exception]:
        """Give the app what the last attempt brought."""
        last = self._last or unsent(self._family, self._request)
        yield from self._leave_gate(last.verdict)
        record = self._close_record(last.verdict, stopped)
        attach_record(last.result, record)
        if last.broken is not None:
            attach_record(last.broken, record)
        if not last.unread:
            self._finish()
        return last.result

    def _leave_gate(self, verdict: Verdict | None) -> Effects[None]:
        machine = self._machine
        ambiguous_since = machine.ambiguous_since
        if ambiguous_since is None and self._in_the_air:
            ambiguous_since = machine.sent_at
        yield from self._gate.ended(
            verdict, sent_at=machine.sent_at, ambiguous_since=ambiguous_since, now=self._engine.clock()
        )

    def _close_record(self, verdict: Verdict, stopped: Stop | None, outcome: Outcome | None = None) -> Call:
        self._record = Call(
            operation=self._operation,
            verdict=verdict,
            outcome=outcome or outcome_of(verdict),
            attempts=self._machine.attempts,
            waited=self._waited,
            stopped=stopped,
        )
        remember_record(self._request, self._record)
        if self._redelivery is not None:
            since = self._machine.ambiguous_since
            self._redelivery.ended(self._record, None if since is None else self._engine.clock() - since)
        return self._record

    def _body_is_over(self, error: BaseException | None) -> None:
        """The app has read, closed or dropped the rest of a long body, or given up in the middle of it."""
        if self._record is None or self._trace.ended:
            return
        if isinstance(error, GeneratorExit):
            finish_later(partial(self._finish, now=self._engine.clock(), ended=time_ns()))
            return
        if isinstance(error, Exception):
            attach_record(error, self._close_record(classify(None, exception=error), None))
        elif error is not None:
            self._record = None
        self._finish()

    def _abandon(self, exc: BaseException) -> None:
        """The course was left by an exception: a cancellation, or a sleep that failed."""
        if self._redelivery is not None and not self._redelivery.has_begun:
            # Another worker has the job, or the outbox does not say: nothing was sent.
            self._finish()
            return
        if isinstance(exc, Exception):
            was_refused = self._later is not None and self._later.is_wanted
            verdict = local.NOT_DEFERRED if was_refused else classify(None, exception=exc)
            attach_record(exc, self._close_record(verdict, None))
        self._finish()

    def _drop(self, now: float, ended: int) -> None:
        """Do what is left of a call that was dropped: its generators end without a word where they are.

        Args:
            now: The moment of it.
            ended: The same in nanoseconds since 1970.
        """
        self._break_off(now, ended)
        self._break_off_wait(now, ended)
        self._gate.dropped()
        self._finish(now=now, ended=ended)

    def _finish(self, cause: Verdict | None = None, *, now: float | None = None, ended: int | None = None) -> None:
        """End the trace, and count the call in its scope. Without a record the call was cancelled.

        Args:
            cause: What trace and health page give as the call's verdict, if not the record's.
            now: The moment of its end, if it is past.
            ended: The same in nanoseconds since 1970.
        """
        record = self._record
        self._trace.finish(
            outcome=Outcome.CANCELLED.value if record is None else record.outcome.value,
            verdict=None if record is None else cause or record.verdict,
            failed=record is not None and record.outcome in _FAILED,
            stopped=None if record is None or record.stopped is None else record.stopped.value,
            attempts=self._machine.attempts,
            waited=self._waited,
            now=self._engine.clock() if now is None else now,
            ended=ended,
        )
        if record is not None:
            note_outcome(self._operation.product, record.outcome, cause or record.verdict)
        if self._scope is not None:
            self._scope.record(
                record, attempts=self._machine.attempts, waited=self._waited, rate_limited=self._rate_limited
            )
