"""Timing things against each other, so that a slow moment of the machine hits all of them."""

from __future__ import annotations

import asyncio
import gc
import random
import statistics
from collections.abc import Callable, Mapping
from time import thread_time
from typing import Any

Block = Callable[[], float]
"""Does a thing some times, and returns the seconds that one of them took."""

Clock = Callable[[], float]
"""Tells seconds."""

Samples = dict[str, list[float]]
"""Seconds of one thing, by its name, round by round."""


def interleaved(blocks: Mapping[str, Block], rounds: int) -> Samples:
    """Run every block once in each round, in another order each time.

    The garbage collector stays on, for its work on what a block makes is part of what the block costs. It runs to its
    end before each block, so that none pays for another's garbage, and leaves out what was there before the first
    round: modules and servers are no block's doing.

    Args:
        blocks: The blocks by name.
        rounds: How many rounds; one more goes before them, to warm up.
    """
    order = list(blocks)
    shuffle = random.Random(0).shuffle
    samples: Samples = {name: [] for name in order}
    for name in order:
        blocks[name]()
    gc.collect()
    gc.freeze()
    try:
        for _ in range(rounds):
            shuffle(order)
            for name in order:
                gc.collect()
                samples[name].append(blocks[name]())
    finally:
        gc.unfreeze()
    return samples


def added(samples: Mapping[str, list[float]], name: str, base: str) -> float:
    """The median of what a block took beyond another in the same round, in seconds."""
    return statistics.median(one - other for one, other in zip(samples[name], samples[base], strict=True))


def repeated(thing: Callable[[], object], count: int, clock: Clock = thread_time) -> Block:
    """A block that does a thing so many times.

    Args:
        thing: The thing.
        count: How many times.
        clock: The time of the thread by default, in which other processes have no part; ``perf_counter`` for things
            that wait.
    """

    def block() -> float:
        start = clock()
        for _ in range(count):
            thing()
        return (clock() - start) / count

    return block


def repeated_async(thing: Callable[[], Any], count: int, runner: asyncio.Runner, clock: Clock = thread_time) -> Block:
    """A block that awaits a thing so many times, one after the other; see ``repeated``."""

    async def times() -> float:
        start = clock()
        for _ in range(count):
            await thing()
        return (clock() - start) / count

    return lambda: runner.run(times())
