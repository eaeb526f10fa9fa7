"""What textbooks, AWS and Insider say of when to come back."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from benchmarks.herd.simulator import GIVES_UP, Flags, Integers, Seconds

Wait = Callable[[Integers, Seconds, np.random.Generator], Seconds]
"""Seconds to wait, from how often each client has failed (1 and up), its wait before (0 at first), and chance."""


def fixed(seconds: float) -> Wait:
    """The same wait each time."""
    return lambda failures, previous, random: np.full(len(failures), seconds)


def exponential(base: float, cap: float) -> Wait:
    """Twice as long each time, without chance: ``min(cap, base * 2 ** failures)``, as AWS's blog counts."""
    # The power stays finite: beyond 2 ** 60 every cap is reached.
    return lambda failures, previous, random: np.minimum(cap, base * 2.0 ** np.minimum(failures, 60))


def full_jitter(base: float, cap: float) -> Wait:
    """Anything from 0 up to the exponential wait."""
    longest = exponential(base, cap)
    return lambda failures, previous, random: longest(failures, previous, random) * random.random(len(failures))


def equal_jitter(base: float, cap: float) -> Wait:
    """Half of the exponential wait, and anything from 0 up to the other half."""
    longest = exponential(base, cap)
    return lambda failures, previous, random: (
        longest(failures, previous, random) * (0.5 + 0.5 * random.random(len(failures)))
    )


def decorrelated_jitter(base: float, cap: float) -> Wait:
    """Anything from the base up to three times the wait before: AWS's blog's form, of which smithy's is another."""
    return lambda failures, previous, random: np.minimum(cap, random.uniform(base, 3 * np.maximum(previous, base)))


def spread(window: float) -> Wait:
    """A random moment of a window: Insider's advice for 500, 503, 504 and 520, with five minutes."""
    return lambda failures, previous, random: window * random.random(len(failures))


class Formula:
    """Comes back after a wait that a formula gives, until it is served.

    Args:
        wait: The formula.
        clients: How many clients there are.
        random: Where chance comes from.
    """

    def __init__(self, wait: Wait, clients: int, random: np.random.Generator) -> None:
        self._wait = wait
        self._failures = np.zeros(clients, np.int64)
        self._previous = np.zeros(clients)
        self._random = random

    def answered(self, clients: Integers, times: Seconds, served: Flags) -> Seconds:
        """The formula's wait for each that was refused."""
        waits = np.zeros(len(clients))
        refused = clients[~served]
        self._failures[refused] += 1
        waits[~served] = self._wait(self._failures[refused], self._previous[refused], self._random)
        self._previous[refused] = waits[~served]
        return waits


class AwsStandard:
    """The standard mode of AWS's SDKs after their revision of 2026, with the numbers of botocore 1.44.

    A retry needs 14 of the 500 tokens of its process, and gets them back if it succeeds; a success without a retry
    gives one. botocore itself is not run: it cannot be without a service of AWS.

    Args:
        clients: How many clients there are.
        processes: Over how many processes, each with a quota of its own, they are spread.
        random: Where chance comes from.

    Attributes:
        quota: Tokens that each process has left.
    """

    ATTEMPTS = 3
    BASE, CAP = 0.05, 20.0
    QUOTA, COST, REWARD = 500, 14, 1

    def __init__(self, clients: int, processes: int, random: np.random.Generator) -> None:
        self._attempts = [0] * clients
        self.quota = [self.QUOTA] * processes
        self._random = random

    def answered(self, clients: Integers, times: Seconds, served: Flags) -> Seconds:
        """Full jitter over an exponential wait, as long as attempts and tokens last."""
        waits = self._random.random(len(clients))
        for index, (client, is_served) in enumerate(zip(clients.tolist(), served.tolist(), strict=True)):
            process = client % len(self.quota)
            self._attempts[client] += 1
            attempts = self._attempts[client]
            if is_served:
                back = self.REWARD if attempts == 1 else self.COST
                self.quota[process] = min(self.QUOTA, self.quota[process] + back)
            elif attempts < self.ATTEMPTS and self.quota[process] >= self.COST:
                self.quota[process] -= self.COST
                waits[index] *= min(self.BASE * 2 ** (attempts - 1), self.CAP)
            else:
                waits[index] = GIVES_UP
        return waits
