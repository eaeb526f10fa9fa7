"""What really ships: the waits of httpx-retries, of stamina and of this library, asked of their own code."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import cast

import httpx
import numpy as np
import stamina
import tenacity
from httpx_retries import Retry

from benchmarks.herd.simulator import GIVES_UP, Flags, Integers, Seconds
from insider_otel import Settings, classify
from insider_otel.api.operations import find
from insider_otel.policy.budget import RetryBudget
from insider_otel.policy.call import CallMachine, CallPlan, plan_call
from insider_otel.policy.limits import UNDOCUMENTED_WINDOW
from insider_otel.policy.steps import Send, Wait

_METHOD, _STATUS = "POST", 503
"""What is sent, and what a server says that is out or has no room."""


class HttpxRetries:
    """httpx-retries, for POST: without ``allowed_methods`` it would not retry what is sent to Insider at all.

    Args:
        clients: How many clients there are.
        seed: Of the random numbers of the process, which are those that the library uses.
        total: As for its ``Retry``; its default if left out.
        backoff_factor: As for its ``Retry``; its default if left out.
    """

    def __init__(self, clients: int, seed: int, *, total: int = 10, backoff_factor: float = 0.0) -> None:
        random.seed(seed)
        retry = Retry(total=total, backoff_factor=backoff_factor, allowed_methods=[_METHOD])
        # One for each number of retries made: it keeps nothing else, and says so itself ("can safely be reused").
        self._retries = [retry]
        while not self._retries[-1].is_exhausted():
            self._retries.append(self._retries[-1].increment())
        self._made = [0] * clients

    def answered(self, clients: Integers, times: Seconds, served: Flags) -> Seconds:
        """``backoff_strategy`` of the next retry, while there is one."""
        waits = np.full(len(clients), GIVES_UP)
        for index in np.flatnonzero(~served).tolist():
            client = int(clients[index])
            made = self._made[client]
            if self._retries[made].is_exhausted() or not self._retries[made].is_retry(_METHOD, _STATUS, False):
                continue
            self._made[client] = made + 1
            waits[index] = self._retries[made + 1].backoff_strategy()
        return waits


class Stamina:
    """stamina with its defaults: 10 attempts, 45 s in all.

    Args:
        starts: When each client's first attempt begins, in seconds.
        seed: Of the random numbers of the process, which are those that the library uses.
    """

    def __init__(self, starts: Seconds, seed: int) -> None:
        random.seed(seed)
        # What it hands to tenacity; there is no public way to ask it for a wait without sleeping for it.
        options = stamina.retry_context(on=httpx.HTTPError)._t_kw
        self._wait = cast("Callable[[tenacity.RetryCallState], float]", options["wait"])
        self._stop = cast("Callable[[tenacity.RetryCallState], bool]", options["stop"])
        self._state = tenacity.RetryCallState(tenacity.Retrying(), None, (), {})
        self._starts = starts
        self._attempts = [0] * len(starts)

    def answered(self, clients: Integers, times: Seconds, served: Flags) -> Seconds:
        """The wait that stamina gives tenacity, unless it says stop."""
        waits = np.full(len(clients), GIVES_UP)
        state = self._state
        for index in np.flatnonzero(~served).tolist():
            client = int(clients[index])
            self._attempts[client] += 1
            state.attempt_number = self._attempts[client]
            state.start_time = float(self._starts[client])
            state.outcome_timestamp = float(times[index])
            wait = self._wait(state)
            if not self._stop(state):
                waits[index] = wait
        return waits


class InsiderOtel:
    """This library: the machine of a call, and a retry budget for each process.

    Args:
        starts: When each client's first attempt begins, in seconds.
        processes: Over how many processes the clients are spread.
        seed: Of the machines' random numbers.
        deadline: Seconds that a call may take; None for no bound, as in a worker.
    """

    _VERDICTS = (classify(_STATUS), classify(200, b'{"data": {"successful": {"count": 1}, "fail": {}}}'))

    def __init__(self, starts: Seconds, processes: int, seed: int, *, deadline: float | None = None) -> None:
        self._starts = starts
        self._deadline = deadline
        self._budgets = [RetryBudget() for _ in range(processes)]
        self._random = random.Random(seed).random
        self._machines: dict[int, CallMachine] = {}
        self._plan = self._plan_until(None)

    def answered(self, clients: Integers, times: Seconds, served: Flags) -> Seconds:
        """What the machine of each call says next."""
        waits = np.full(len(clients), GIVES_UP)
        replies = zip(clients.tolist(), times.tolist(), served.tolist(), strict=True)
        for index, (client, now, is_served) in enumerate(replies):
            machine = self._machines.get(client) or self._begun(client)
            step = machine.answered(self._VERDICTS[is_served], now)
            if isinstance(step, Wait):
                waits[index] = step.seconds
                # Nothing else can happen to the call until then, so it may as well be told now.
                if not isinstance(machine.resume(now + step.seconds), Send):
                    raise TypeError("the machine waited for an attempt that it does not make")
            else:
                del self._machines[client]
        return waits

    def _begun(self, client: int) -> CallMachine:
        start = float(self._starts[client])
        plan = self._plan if self._deadline is None else self._plan_until(start + self._deadline)
        machine = CallMachine(plan, self._budgets[client % len(self._budgets)], self._random)
        machine.start(start)
        self._machines[client] = machine
        return machine

    @staticmethod
    def _plan_until(deadline: float | None) -> CallPlan:
        operation = find("POST", "unification.useinsider.com", "/api/user/v1/upsert")
        assert operation is not None
        # Limits are not held: what is asked here is what retries do to a server.
        return plan_call(
            Settings(),
            operation,
            replayable=True,
            deadline=deadline,
            limited=False,
            rate_window=lambda: UNDOCUMENTED_WINDOW,
        )
