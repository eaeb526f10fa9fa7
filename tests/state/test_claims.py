"""Claims on content in memory: who has what, for how long, and that no more than so many are kept."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from insider_otel.state.claims import MemoryClaims
from insider_otel.state.protocol import MICROSECONDS, ClaimAsk, ClaimEnd, ClaimReport, ClaimState

CLAIMED, IN_FLIGHT, DONE = ClaimState.CLAIMED, ClaimState.IN_FLIGHT, ClaimState.DONE
KEY, OTHER = b"k" * 16, b"o" * 16
LEASE = 60.0


def at(seconds: float) -> int:
    return round((1_000 + seconds) * MICROSECONDS)


def claim(claims: MemoryClaims, now: float = 0.0, key: bytes = KEY, token: int | None = None) -> int:
    """Ask for a content that is to be had; returns the proof of it."""
    state, age, proof = claims.ask(ClaimAsk(key, LEASE, token), at(now))
    assert (state, age) == (CLAIMED, 0.0)
    assert proof is not None
    return proof


def ask(claims: MemoryClaims, now: float, key: bytes = KEY) -> tuple[ClaimState, float, int | None]:
    return claims.ask(ClaimAsk(key, LEASE), at(now))


def end(claims: MemoryClaims, now: float, how: ClaimEnd, token: int | None, lasts: float = 0.0) -> None:
    claims.report(ClaimReport(KEY, token, how, lasts), at(now))


def test_the_first_to_ask_has_it_and_the_second_learns_since_when() -> None:
    claims = MemoryClaims()
    claim(claims)
    assert ask(claims, 2.5) == (IN_FLIGHT, 2.5, None)


def test_one_that_another_had_sent_before_is_held_no_shorter_than_by_who_has_it_now() -> None:
    """A store that was away hears late of what was sent: little is left of its window then."""
    claims = MemoryClaims()
    claim(claims)
    end(claims, 1.0, ClaimEnd.DONE, None, lasts=0.5)
    assert ask(claims, LEASE - 1.0)[0] is DONE


def test_contents_do_not_mix() -> None:
    claims = MemoryClaims()
    claim(claims)
    claim(claims, key=OTHER)


def test_a_claim_is_free_when_its_lease_is_over() -> None:
    claims = MemoryClaims()
    first = claim(claims)
    assert ask(claims, LEASE - 0.000_001)[0] is IN_FLIGHT
    assert claim(claims, LEASE) != first


def test_whoever_has_it_renews_it() -> None:
    claims = MemoryClaims()
    token = claim(claims)
    assert claim(claims, 50, token=token) == token
    assert ask(claims, 100) == (IN_FLIGHT, 100.0, None)
    assert ask(claims, 50 + LEASE)[0] is CLAIMED


def test_a_proof_of_a_claim_that_ended_renews_nothing() -> None:
    claims = MemoryClaims()
    token = claim(claims)
    claim(claims, LEASE)
    assert claims.ask(ClaimAsk(KEY, LEASE, token), at(LEASE + 1)) == (IN_FLIGHT, 1.0, None)


def test_two_claims_at_one_moment_have_different_proofs() -> None:
    claims = MemoryClaims()
    first = claim(claims)
    end(claims, 0, ClaimEnd.RELEASE, first)
    assert claim(claims) != first


def test_a_content_that_is_done_is_held_back_until_the_window_is_over() -> None:
    claims = MemoryClaims()
    end(claims, 3, ClaimEnd.DONE, claim(claims), lasts=900)
    assert ask(claims, 902.9) == (DONE, 902.9, None)
    assert ask(claims, 903)[0] is CLAIMED


def test_what_is_done_is_done_even_for_whoever_had_it() -> None:
    claims = MemoryClaims()
    token = claim(claims)
    end(claims, 1, ClaimEnd.DONE, token, lasts=900)
    assert claims.ask(ClaimAsk(KEY, LEASE, token), at(2)) == (DONE, 2.0, None)


def test_a_call_that_did_not_have_it_says_that_it_is_done() -> None:
    """Both were let through; the one that did not have the claim succeeded first."""
    claims = MemoryClaims()
    token = claim(claims)
    end(claims, 5, ClaimEnd.DONE, None, lasts=900)
    assert ask(claims, 6) == (DONE, 1.0, None)
    # Whoever had it then fails: that undoes nothing.
    end(claims, 7, ClaimEnd.RELEASE, token)
    end(claims, 7, ClaimEnd.KEEP, token, lasts=1)
    assert ask(claims, 904)[0] is DONE


def test_of_two_who_are_done_the_later_end_of_the_window_counts() -> None:
    claims = MemoryClaims()
    end(claims, 0, ClaimEnd.DONE, None, lasts=900)
    end(claims, 1, ClaimEnd.DONE, None, lasts=10)
    assert ask(claims, 899)[0] is DONE


def test_what_is_released_is_the_next_ones() -> None:
    claims = MemoryClaims()
    end(claims, 1, ClaimEnd.RELEASE, claim(claims))
    claim(claims, 1)


@pytest.mark.parametrize("how", [ClaimEnd.RELEASE, ClaimEnd.KEEP])
@pytest.mark.parametrize("token", [None, 1])
def test_who_does_not_have_it_can_neither_release_nor_keep_it(how: ClaimEnd, token: int | None) -> None:
    claims = MemoryClaims()
    claim(claims)
    end(claims, 1, how, token, lasts=900)
    assert ask(claims, 2) == (IN_FLIGHT, 2.0, None)
    assert ask(claims, LEASE)[0] is CLAIMED


def test_a_claim_that_is_kept_stays_in_flight_until_the_window_is_over() -> None:
    claims = MemoryClaims()
    end(claims, 5, ClaimEnd.KEEP, claim(claims), lasts=895)
    assert ask(claims, 899.9) == (IN_FLIGHT, 899.9, None)
    assert ask(claims, 900)[0] is CLAIMED


@pytest.mark.parametrize("is_forgotten", [False, True])
def test_a_claim_whose_lease_is_over_is_kept_if_nobody_took_it(is_forgotten: bool) -> None:
    claims = MemoryClaims()
    token = claim(claims)
    if is_forgotten:
        claim(claims, LEASE + 1, OTHER)
        assert len(claims) == 1
    end(claims, LEASE + 1, ClaimEnd.KEEP, token, lasts=100)
    assert ask(claims, LEASE + 100) == (IN_FLIGHT, LEASE + 100, None)


def test_reporting_what_was_never_claimed_releases_nothing() -> None:
    claims = MemoryClaims()
    end(claims, 0, ClaimEnd.RELEASE, 7)
    assert len(claims) == 0


# ------------------------------------------------------------------------------------------------------------ bounds


def test_beyond_the_most_the_oldest_goes() -> None:
    claims = MemoryClaims(most=3)
    keys = [bytes([number]) * 16 for number in range(4)]
    for number, key in enumerate(keys):
        claim(claims, number / 10, key)
    assert len(claims) == 3
    assert [ask(claims, 1, key)[0] for key in reversed(keys)] == [IN_FLIGHT, IN_FLIGHT, IN_FLIGHT, CLAIMED]


def test_what_is_over_goes_when_something_new_comes() -> None:
    claims = MemoryClaims()
    for number in range(100):
        claim(claims, number / 10, number.to_bytes(16))
    claim(claims, 10 + LEASE)
    assert len(claims) == 1


@pytest.mark.parametrize("is_new", [False, True], ids=["the same content", "ever new contents"])
def test_claiming_and_releasing_does_not_grow(is_new: bool) -> None:
    claims = MemoryClaims()
    for number in range(10_000):
        key = number.to_bytes(16) if is_new else KEY
        token = claim(claims, number / 1_000, key)
        claims.report(ClaimReport(key, token, ClaimEnd.RELEASE), at(number / 1_000))
        assert len(claims) <= 2


A_MILLION = """
from pathlib import Path
from insider_otel.state.claims import MemoryClaims
from insider_otel.state.protocol import ClaimAsk

def peak():
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024

before, claims = peak(), MemoryClaims()
for number in range(1_050_000):
    claims.ask(ClaimAsk(number.to_bytes(16), 900.0), number)
print(len(claims), peak() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux: reads what a process takes from /proc")
def test_a_million_live_claims_take_less_than_200_mb() -> None:
    """And no more are kept: the oldest 50,000 have gone. In a process of its own, so that nothing else is measured."""
    answer = subprocess.run([sys.executable, "-c", A_MILLION], env={}, check=True, capture_output=True, timeout=120)
    kept, took = map(int, answer.stdout.split())
    assert kept == 1_000_000
    assert 20 * 1_000_000 < took < 200 * 1_000_000


# ------------------------------------------------------------------------------------------------------------- model


@dataclass
class Held:
    token: int | None
    since: int
    until: int
    is_done: bool = False


class Contents(RuleBasedStateMachine):
    """Against a dict that keeps everything, and looks at the clock."""

    @initialize()
    def start(self) -> None:
        self.claims = MemoryClaims()
        self.held: dict[bytes, Held] = {}
        self.tokens: list[tuple[bytes, int]] = [(KEY, 1)]
        self.now = at(0)

    def live(self, key: bytes) -> Held | None:
        held = self.held.get(key)
        return held if held is not None and held.until > self.now else None

    @rule(seconds=st.integers(0, 40))
    def time_passes(self, seconds: int) -> None:
        self.now += seconds * MICROSECONDS

    @rule(number=st.integers(0, 3), lease=st.integers(1, 60))
    def ask(self, number: int, lease: int) -> None:
        key = bytes([number]) * 16
        state, age, token = self.claims.ask(ClaimAsk(key, lease), self.now)
        held = self.live(key)
        if held is None:
            assert (state, age) == (CLAIMED, 0.0)
            assert token is not None
            assert token not in [known for _, known in self.tokens]
            self.tokens.append((key, token))
            self.held[key] = Held(token, token, self.now + lease * MICROSECONDS)
        else:
            assert (state, token) == (DONE if held.is_done else IN_FLIGHT, None)
            assert age == max(self.now - held.since, 0) / MICROSECONDS

    @rule(data=st.data(), lease=st.integers(1, 60))
    def renew(self, data: st.DataObject, lease: int) -> None:
        key, token = data.draw(st.sampled_from(self.tokens))
        held = self.live(key)
        if held is not None:
            state, _, proof = self.claims.ask(ClaimAsk(key, lease, token), self.now)
            if held.token == token and not held.is_done:
                assert (state, proof) == (CLAIMED, token)
                held.until = self.now + lease * MICROSECONDS
            else:
                assert (state, proof) == (DONE if held.is_done else IN_FLIGHT, None)

    @rule(data=st.data(), how=st.sampled_from(ClaimEnd), lasts=st.integers(1, 60), knows=st.booleans())
    def end(self, data: st.DataObject, how: ClaimEnd, lasts: int, knows: bool) -> None:
        key, token = data.draw(st.sampled_from(self.tokens))
        held = self.live(key)
        if held is None:
            return  # what becomes of a claim that is over is told by examples
        self.claims.report(ClaimReport(key, token if knows else None, how, lasts), self.now)
        until = self.now + lasts * MICROSECONDS
        mine = knows and held.token == token and not held.is_done
        if how is ClaimEnd.DONE:
            since = held.since if mine else self.now
            self.held[key] = Held(None, since, max(until, 0 if mine else held.until), is_done=True)
        elif mine and how is ClaimEnd.KEEP:
            held.until = until
        elif mine:
            del self.held[key]

    @invariant()
    def as_many_are_kept_as_are_alive(self) -> None:
        assert len(self.claims) >= sum(self.live(key) is not None for key in self.held)


TestContents = Contents.TestCase
TestContents.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


@given(st.lists(st.integers(0, 30), max_size=60), st.integers(1, 10))
def test_never_more_than_the_most_are_kept_and_the_latest_is_among_them(numbers: list[int], most: int) -> None:
    claims = MemoryClaims(most)
    for now, number in enumerate(numbers):
        key = number.to_bytes(16)
        claims.ask(ClaimAsk(key, 1_000), at(now / 1_000))
        assert len(claims) <= most
        assert claims.ask(ClaimAsk(key, 1_000), at(now / 1_000))[0] is IN_FLIGHT
