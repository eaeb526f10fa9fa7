"""The two servers of the simulation: one that is out for a while, and AWS's row that only one client can write."""

from __future__ import annotations

import numpy as np

from benchmarks.herd.simulator import Integers, Outcome, Seconds


class OutageServer:
    """Refuses everything for a while, and after that what is more than it can do.

    It serves those who come first in each step of time. A request it has no room for costs it nothing, which is kinder
    than servers are: a real one slows down under such a load.

    Args:
        outage: Seconds from 0 for which it serves nobody.
        capacity: Requests that it can serve in a second.
    """

    step = 1 / 16

    def __init__(self, outage: float, capacity: float) -> None:
        self._outage = outage
        self._per_step = capacity * self.step

    def handle(self, clients: Integers, times: Seconds) -> Integers:
        """Serve the first of a step, as many as there is room for."""
        step = int(times[0] // self.step)
        room = 0
        if times[0] >= self._outage:
            # Whole requests only: what is left of one counts for the next step.
            room = int((step + 1) * self._per_step) - int(step * self._per_step)
        return np.where(np.arange(len(clients)) < room, Outcome.SERVED, Outcome.REFUSED)

    def journey(self, count: int) -> Seconds:
        """Half a step there and half a step back: 62.5 ms in all."""
        return np.full(count, self.step / 2)


class RowServer:
    """Rows under optimistic concurrency control, as in the simulation of AWS's architecture blog.

    A client reads the version of its row, and then writes on condition that the version is still the same. The network
    takes 10 ms on average each way, with a standard deviation of 2 ms.

    Args:
        rows: Rows, each with clients of its own: as many runs of the blog's simulation at once.
        clients: Clients of each row, numbered row by row.
        random: Where chance comes from.
    """

    step = 1 / 256
    _MEAN, _DEVIATION = 0.010, 0.002

    def __init__(self, rows: int, clients: int, random: np.random.Generator) -> None:
        self._clients = clients
        self._random = random
        self._version = np.zeros(rows, np.int64)
        self._seen = np.zeros(rows * clients, np.int64)
        self._writes = np.zeros(rows * clients, np.bool_)

    def handle(self, clients: Integers, times: Seconds) -> Integers:
        """Answer reads, and let the first write of each row through whose version is the row's."""
        rows = clients // self._clients
        writes = self._writes[clients]
        # There is one at most in a step: whoever reads its version comes back later than that.
        candidates = np.flatnonzero(writes & (self._seen[clients] == self._version[rows]))
        winners = candidates[np.unique(rows[candidates], return_index=True)[1]]
        won_at = np.full(len(self._version), len(clients))
        won_at[rows[winners]] = winners
        has_won_before = np.arange(len(clients)) > won_at[rows]
        self._seen[clients] = self._version[rows] + has_won_before
        self._version[rows[winners]] += 1
        self._writes[clients] = ~writes
        outcomes = np.where(writes, Outcome.REFUSED, Outcome.CONTINUE)
        outcomes[winners] = Outcome.SERVED
        return outcomes

    def journey(self, count: int) -> Seconds:
        """Normally distributed; the three in a hundred thousand that are below half a step take half a step."""
        return np.maximum(self._random.normal(self._MEAN, self._DEVIATION, count), self.step / 2)
