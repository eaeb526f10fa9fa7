"""Which node is asked, step by step and without a server: how often, and for how long at most."""

from __future__ import annotations

from binascii import crc_hqx
from collections.abc import Callable, Iterator, Set
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.crc import key_slot

from insider_otel.state.redis_cluster import Cluster
from insider_otel.state.redis_commands import Command, CommandError, KeyMovedError, Node, NodeLostError, Steps
from insider_otel.testing import FakeClock

TIMEOUT = 0.05
ASK: Command = ("EVALSHA", "…", 1, "{tag}:key")
A, B, C = (Node(f"10.0.0.{number}", 6379) for number in (1, 2, 3))
WHOLE = [[0, 16383, [b"10.0.0.1", 6379]]]

Answerer = Callable[[Node | None, Command], Any]


def moved(to: Node) -> KeyMovedError:
    return KeyMovedError(Exception("MOVED"), *to)


def lost() -> NodeLostError:
    return NodeLostError(Exception("lost"))


def drive(steps: Steps[Any], answers: Answerer) -> tuple[list[Node | None], Any]:
    """Carry steps out; returns who was asked and what came of it, an error too."""
    asked: list[Node | None] = []
    try:
        node, command = next(steps)
        while True:
            asked.append(node)
            answer = answers(node, command)
            node, command = steps.throw(answer) if isinstance(answer, Exception) else steps.send(answer)
    except StopIteration as end:
        return asked, end.value
    except CommandError as error:
        return asked, error


def forget_none(but: Set[Node | None]) -> None:
    """Nobody is connected to anything here."""


def cluster_of(told: list[Any]) -> Cluster:
    """A cluster whose map has been read long ago."""
    clock = FakeClock()
    cluster = Cluster("cache", TIMEOUT, forget_none, clock)
    drive(cluster.primaries(), lambda node, command: told)
    clock.advance(3600)
    return cluster


@given(tag=st.text(st.characters(codec="ascii", exclude_characters="{}"), min_size=1))
def test_a_tag_has_the_slot_that_the_driver_finds(tag: str) -> None:
    assert crc_hqx(tag.encode(), 0) % 16384 == key_slot(f"{{{tag}}}:pool:x".encode())


def test_the_first_ask_reads_the_map_and_the_next_is_one_step() -> None:
    cluster = Cluster("cache", TIMEOUT, forget_none, FakeClock())

    def answer(node: Node | None, command: Command) -> Any:
        return WHOLE if command[0] == "CLUSTER" else "done"

    assert drive(cluster.ask("tag", ASK), answer) == ([None, A], "done")
    assert drive(cluster.ask("tag", ASK), answer) == ([A], "done")


def test_a_node_that_does_not_know_its_address_is_where_it_was_asked() -> None:
    cluster = Cluster("cache", TIMEOUT, forget_none, FakeClock())
    answers: Iterator[Any] = iter([[[0, 16383, [None, 7000]]], "done", [[0, 16383, [b"", 7001]]]])
    assert drive(cluster.ask("tag", ASK), lambda *_: next(answers)) == ([None, Node("cache", 7000)], "done")
    assert drive(cluster.primaries(), lambda *_: next(answers))[1] == (Node("cache", 7001),)
    answers = iter([moved(Node("", 7002)), "done"])
    assert drive(cluster.ask("tag", ASK), lambda *_: next(answers))[0] == [Node("cache", 7001), Node("cache", 7002)]


def test_who_is_sent_on_follows_and_reads_the_map_where_it_was_sent_on() -> None:
    cluster = cluster_of(WHOLE)
    answers = iter([moved(B), [[0, 16383, [b"10.0.0.2", 6379]]], "done", "done"])
    assert drive(cluster.ask("tag", ASK), lambda *_: next(answers)) == ([A, A, B], "done")
    assert drive(cluster.ask("tag", ASK), lambda *_: next(answers)) == ([B], "done")


def test_who_is_sent_on_while_another_reads_the_map_only_follows() -> None:
    cluster = cluster_of(WHOLE)
    reading = cluster.ask("tag", ASK)
    next(reading)
    assert reading.throw(moved(B)) == (A, ("CLUSTER", "SLOTS"))
    answers = iter([moved(B), "done"])
    assert drive(cluster.ask("tag", ASK), lambda *_: next(answers)) == ([A, B], "done")


def test_nodes_that_send_each_other_all_asks_are_not_asked_for_ever() -> None:
    cluster = cluster_of(WHOLE)

    def answer(node: Node | None, command: Command) -> Any:
        return WHOLE if command[0] == "CLUSTER" else moved(B if node == A else A)

    asked, error = drive(cluster.ask("tag", ASK), answer)
    assert asked == [A, A, B, A]
    assert isinstance(error, KeyMovedError)


def test_a_lost_node_is_asked_again_only_after_another_was_asked_who_has_its_place() -> None:
    half = [[0, 8191, [b"10.0.0.1", 6379]], [8192, 16383, [b"10.0.0.2", 6379]]]
    taken = [[0, 8191, [b"10.0.0.3", 6379]], [8192, 16383, [b"10.0.0.2", 6379]]]
    cluster = cluster_of(half)
    tag = next(tag for tag in "abcdef" if key_slot(tag.encode()) < 8192)
    down = {A}

    def answer(node: Node | None, command: Command) -> Any:
        if node in down:
            return lost()
        return taken if command[0] == "CLUSTER" else "done"

    assert drive(cluster.ask(tag, ASK), answer)[0] == [A]
    (other, owner), told = drive(cluster.ask(tag, ASK), answer)
    assert other in {None, B}
    assert (owner, told) == (C, "done")


def test_a_lost_node_that_left_is_not_taken_for_lost_when_it_comes_back() -> None:
    clock = FakeClock()
    cluster = Cluster("cache", TIMEOUT, forget_none, clock)
    answers: Iterator[Any] = iter([WHOLE, lost(), [[0, 16383, [b"10.0.0.2", 6379]]], WHOLE, "done"])
    drive(cluster.ask("tag", ASK), lambda *_: next(answers))
    for _ in range(2):
        drive(cluster.primaries(), lambda *_: next(answers))
    clock.advance(3600)
    assert drive(cluster.ask("tag", ASK), lambda *_: next(answers)) == ([A], "done")


def test_who_reads_the_map_says_who_is_in_it() -> None:
    told: list[Set[Node | None]] = []
    cluster = Cluster("cache", TIMEOUT, told.append, FakeClock())
    with_replica = [[0, 16383, [b"10.0.0.1", 6379], [b"10.0.0.2", 6379]]]
    drive(cluster.primaries(), lambda *_: with_replica)
    assert told == [{None, A, B}]


@pytest.mark.parametrize("is_known", [True, False])
@given(
    course=st.lists(
        st.tuples(st.sampled_from(["lost", "moved to A", "moved to B", "done"]), st.floats(0, TIMEOUT)), min_size=20
    )
)
def test_no_ask_takes_longer_than_two_timeouts(is_known: bool, course: list[tuple[str, float]]) -> None:
    """Whatever the nodes say, if each says it in time."""
    clock = FakeClock()
    cluster = Cluster("cache", TIMEOUT, forget_none, clock)
    if is_known:
        drive(cluster.primaries(), lambda *_: WHOLE)
    said = {"lost": lost(), "moved to A": moved(A), "moved to B": moved(B), "done": "done"}
    steps = iter(course)

    def answer(node: Node | None, command: Command) -> Any:
        what, takes = next(steps)
        clock.advance(takes)
        if command[0] == "CLUSTER":
            return said["lost"] if what == "lost" else WHOLE
        return said[what]

    for _ in range(4):
        clock.advance(1)
        began = clock()
        drive(cluster.ask("tag", ASK), answer)
        assert clock() - began <= 2 * TIMEOUT + 1e-9
