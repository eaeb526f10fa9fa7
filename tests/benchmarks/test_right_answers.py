"""The benchmark of right answers: what is right comes from documents, and peers are really asked."""

from __future__ import annotations

import pytest

from benchmarks import right_answers
from benchmarks.right_answers import mark
from benchmarks.right_answers.peers import OURS, PEERS, by_status
from benchmarks.right_answers.replies import DOCUMENTED, LOST, STANDARD, Reply

NOTHING = by_status(frozenset(), frozenset())
EVERYTHING = by_status(frozenset(range(600)), frozenset(range(600)))


def test_all_documented_replies_are_put() -> None:
    """97 of them; eleven are worth a retry, and six say that Insider has what it was sent."""
    assert len(DOCUMENTED) == 97
    assert sum(reply.retry for reply in DOCUMENTED) == 11
    assert sum(not reply.failed for reply in DOCUMENTED) == 6


def test_marks_name_what_is_wrong_in_both_directions() -> None:
    """A rule that never retries misses what one that always does gets right, and the other way round."""
    never, always = mark(NOTHING, "POST", DOCUMENTED), mark(EVERYTHING, "POST", DOCUMENTED)
    assert (len(never.missed), never.needless) == (11, ())
    assert (len(always.needless), always.missed) == (86, ())
    assert set(never.missed).isdisjoint(always.needless)


def test_this_library_is_wrong_about_none_and_sees_every_lost_record() -> None:
    """Through its transport, not by asking its classifier."""
    for method in ("POST", "GET"):
        marks = mark(PEERS[OURS], method, DOCUMENTED)
        assert (marks.needless, marks.missed, marks.false_alarms, marks.unseen) == ((), (), (), ())
    assert mark(PEERS[OURS], "POST", LOST).unseen == ()


@pytest.mark.parametrize("name", [name for name in PEERS if name != OURS])
def test_a_rule_that_knows_only_statuses_sees_no_record_lost_in_a_200(name: str) -> None:
    """Whoever it is."""
    assert len(mark(PEERS[name], "POST", LOST).unseen) == len(LOST)


@pytest.mark.parametrize("name", PEERS)
@pytest.mark.parametrize("method", ["POST", "GET"])
def test_nobody_retries_a_plain_success_or_takes_it_for_a_failure(name: str, method: str) -> None:
    """The least one can ask, and proof that every peer runs."""
    heard = PEERS[name](method, Reply("ok", 200, "{}", retry=False, failed=False))
    assert (heard.retried, heard.failed) == (False, False)


@pytest.mark.parametrize(
    ("name", "method", "status", "retried"),
    [
        ("httpx-retries", "GET", 503, True),
        ("httpx-retries", "POST", 503, False),
        ("httpx-retries", "GET", 500, False),
        ("stamina, `on=httpx.HTTPError`", "POST", 404, True),
        ("stamina, hook for 5xx", "POST", 404, False),
        ("stamina, hook for 5xx", "POST", 500, True),
        ("tenacity, raise_for_status", "POST", 401, True),
        ("urllib3 Retry", "GET", 503, False),
        ("azure-core RetryPolicy", "POST", 429, False),
        ("azure-core RetryPolicy", "GET", 429, True),
        ("botocore, standard mode", "POST", 429, True),
        ("botocore, standard mode", "POST", 520, False),
    ],
)
def test_a_peer_decides_as_its_project_says(name: str, method: str, status: int, retried: bool) -> None:
    """Spot checks of defaults that are easily believed to be otherwise."""
    assert PEERS[name](method, Reply("x", status, "", retry=False, failed=True)).retried is retried


def test_a_413_with_retry_after_is_temporary_for_those_who_read_the_standard() -> None:
    """azure-core comes back, so does urllib3 after a GET, and so does this library."""
    told = [reply for reply in STANDARD if reply.name == "413 with Retry-After"]
    assert mark(PEERS["azure-core RetryPolicy"], "POST", told).missed == ()
    assert mark(PEERS["urllib3 Retry"], "GET", told).missed == ()
    assert mark(PEERS[OURS], "POST", told).missed == ()
    assert mark(PEERS["httpx-retries"], "GET", told).missed == ("413 with Retry-After",)


def test_every_peer_has_its_row_in_the_tables() -> None:
    """Also in the one of the replies that only a standard documents."""
    counts = right_answers.run().tables[3]
    assert [row[0] for row in counts.rows] == [*PEERS]


def test_each_mistake_is_named() -> None:
    """How many each gets wrong, and which: as many cells of a peer's column as its count says."""
    counts, which = right_answers.run().tables[:2]
    for row in counts.rows:
        mistakes = [cells[which.header.index(row[0])] for cells in which.rows]
        assert [mistakes.count("needless"), mistakes.count("missed")] == [int(row[2]), int(row[3])]
