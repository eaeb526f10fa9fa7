"""The retry budget, by gRPC's numbers (A6)."""

from __future__ import annotations

import threading

from hypothesis import given
from hypothesis import strategies as st

from insider_otel.policy.budget import RetryBudget


def test_five_failures_in_a_row_end_quick_retries() -> None:
    budget = RetryBudget()
    allowed = []
    for _ in range(6):
        budget.failed()
        allowed.append(budget.allows_retry())
    assert allowed == [True, True, True, True, False, False]


def test_one_more_retry_takes_ten_successes() -> None:
    budget = RetryBudget()
    for _ in range(6):
        budget.failed()
    for _ in range(10):
        budget.succeeded()
        assert not budget.allows_retry()
    budget.succeeded()
    assert budget.allows_retry()


def test_successes_do_not_save_more_than_the_capacity() -> None:
    budget = RetryBudget()
    for _ in range(100):
        budget.succeeded()
    assert budget.tokens == 10


@given(st.lists(st.booleans(), max_size=300))
def test_tokens_are_exact_and_bounded(history: list[bool]) -> None:
    budget, model = RetryBudget(), 10_000
    for failure in history:
        if failure:
            budget.failed()
            model = max(0, model - 1000)
        else:
            budget.succeeded()
            model = min(10_000, model + 100)
        assert budget.tokens == model / 1000
        assert budget.allows_retry() == (model > 5000)


def test_threads_lose_no_token() -> None:
    budget = RetryBudget()
    for _ in range(10):
        budget.failed()

    def succeed() -> None:
        for _ in range(12):
            budget.succeeded()

    threads = [threading.Thread(target=succeed) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert budget.tokens == 9.6
