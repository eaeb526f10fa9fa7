"""The strategies of the herd: the published vectors, and what the libraries really do."""

from __future__ import annotations

import itertools

import httpx
import numpy as np
import pytest
from httpx_retries import Retry, RetryTransport

from benchmarks.herd.scenarios import STRATEGIES, Maker
from benchmarks.herd.shipped import HttpxRetries, InsiderOtel, Stamina
from benchmarks.herd.simulator import Seconds, Strategy
from benchmarks.herd.strategies import AwsStandard, Wait, decorrelated_jitter, equal_jitter, exponential, full_jitter


class Chance(np.random.Generator):
    """Always the same."""

    def __init__(self, value: float) -> None:
        super().__init__(np.random.PCG64(0))
        self._value = value

    def random(self, size: int) -> Seconds:  # type: ignore[override]
        return np.full(size, self._value)


VECTORS = [
    (exponential(1, 20), [2, 4, 8, 16, 20, 20]),
    (exponential(11.7, 76.5), [23.4, 46.8, 76.5, 76.5]),
    (full_jitter(1, 20), [1, 2, 4, 8, 10, 10]),
    (full_jitter(11.7, 76.5), [11.7, 23.4, 38.25, 38.25]),
    (equal_jitter(1, 20), [1.5, 3, 6, 12, 15, 15]),
    (equal_jitter(11.7, 76.5), [17.55, 35.1, 57.375, 57.375]),
]


@pytest.mark.parametrize(("wait", "waits"), VECTORS)
def test_formulas_give_the_vectors_that_smithy_publishes(wait: Wait, waits: list[float]) -> None:
    """With a chance of one half; its first wait is the base, and AWS's blog's twice that."""
    failures = np.arange(1, len(waits) + 1)
    assert wait(failures, np.zeros(len(waits)), Chance(0.5)).tolist() == pytest.approx(waits)


def test_a_decorrelated_wait_lies_between_the_base_and_three_times_the_one_before() -> None:
    """And below the cap."""
    wait, random = decorrelated_jitter(0.5, 20.0), np.random.default_rng(1)
    previous = np.zeros(2_000)
    for _ in range(8):
        waits = wait(np.ones(2_000, np.int64), previous, random)
        assert (waits >= 0.5).all()
        assert (waits <= np.minimum(20.0, 3 * np.maximum(previous, 0.5))).all()
        previous = waits
    assert previous.max() == 20.0


def answer(strategy: Strategy, served: bool, client: int = 0, now: float = 0.0) -> float:
    return float(strategy.answered(np.array([client]), np.array([now]), np.array([served]))[0])


def test_the_standard_mode_waits_and_pays_as_botocore_tests_it() -> None:
    """botocore's test_standard_retry_v2_1: 0.05 s and 0.1 s, three attempts, 14 tokens each, the last ones back."""
    strategy = AwsStandard(3, 1, Chance(1.0))
    assert [answer(strategy, False), answer(strategy, False)] == pytest.approx([0.05, 0.1])
    assert strategy.quota == [472]
    answer(strategy, True)
    assert strategy.quota == [486]
    answer(strategy, True, client=1)
    assert strategy.quota == [487]
    strategy.quota = [14]
    assert answer(strategy, False, client=2) == pytest.approx(0.05)
    assert np.isnan(answer(strategy, False, client=2))


def attempts(make: Maker, *, latency: float = 0.0625) -> tuple[int, float]:
    """Attempts of one call to a server that never comes back, and the seconds they took."""
    strategy = make(np.zeros(1), 1)
    now = latency
    for attempt in itertools.count(1):
        wait = answer(strategy, False, now=now)
        if np.isnan(wait):
            return attempt, now
        now += wait + latency
    raise AssertionError


@pytest.mark.parametrize("retry", [Retry(), Retry(total=5, backoff_factor=0.001)])
def test_httpx_retries_makes_the_attempts_that_its_transport_makes(retry: Retry) -> None:
    """On a transport that always answers 503."""
    sent: list[httpx.Request] = []

    def refuse(request: httpx.Request) -> httpx.Response:
        sent.append(request)
        return httpx.Response(503)

    with httpx.Client(transport=RetryTransport(httpx.MockTransport(refuse), retry=retry)) as client:
        client.get("https://unification.useinsider.com/")
    made, _ = attempts(
        lambda starts, processes: HttpxRetries(1, 1, total=retry.total, backoff_factor=retry.backoff_factor)
    )
    assert made == len(sent) == retry.total + 1


def test_stamina_makes_ten_attempts_and_stops_after_45_seconds_if_they_are_slow() -> None:
    """Its defaults, whichever comes first."""
    assert attempts(lambda starts, processes: Stamina(starts, 1))[0] == 10
    made, seconds = attempts(lambda starts, processes: Stamina(starts, 1), latency=10.0)
    assert made < 10
    assert 45 <= seconds < 45 + 5 + 10


def test_this_library_makes_two_quick_retries_and_three_spread_ones() -> None:
    """What Settings say."""
    strategy = InsiderOtel(np.zeros(1), 1, 1)
    waits = [answer(strategy, False, now=float(index)) for index in range(6)]
    assert all(0 < wait < 1 for wait in waits[:2])
    assert all(1 < wait < 300 for wait in waits[2:5])
    assert np.isnan(waits[5])


def test_the_budget_leaves_a_process_four_quick_retries_while_a_server_is_out() -> None:
    """The real budget, one for each process."""
    strategy = InsiderOtel(np.zeros(2_000), 2, 1)
    waits = strategy.answered(np.arange(2_000), np.full(2_000, 0.1), np.zeros(2_000, np.bool_))
    quick = np.flatnonzero(waits < 1.0)
    assert quick[:8].tolist() == [0, 1, 2, 3, 4, 5, 6, 7]
    assert len(quick) < 20, "besides a few spread ones that chance makes early"


def test_a_deadline_bounds_every_wait_of_this_library() -> None:
    """As in a web request."""
    strategy = InsiderOtel(np.zeros(500), 500, 1, deadline=2.0)
    waits = strategy.answered(np.arange(500), np.full(500, 1.8), np.zeros(500, np.bool_))
    assert np.nanmax(waits) < 0.2
    assert np.isnan(waits).any()


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy_stops_when_it_is_served(name: str) -> None:
    """After one failure, whatever it is."""
    strategy = STRATEGIES[name](np.zeros(1), 1)
    wait = answer(strategy, False, now=0.1)
    assert wait >= 0
    answer(strategy, True, now=0.2 + wait)
