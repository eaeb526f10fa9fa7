"""Who understands Insider: documented replies put to each peer's default rule, and to this library."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.result import Measure, Result, Table
from benchmarks.right_answers.peers import OURS, PEERS, Peer
from benchmarks.right_answers.replies import DOCUMENTED, LOST, STANDARD, Reply

_METHODS = ("POST", "GET")


@dataclass(frozen=True, slots=True)
class Marks:
    """What one peer got wrong, by the names of the replies.

    Attributes:
        needless: Retries of what no retry can heal.
        missed: Retries that were not made, though the same request could have succeeded later.
        false_alarms: "It failed", of what Insider has.
        unseen: Failures that it takes for a success.
    """

    needless: tuple[str, ...]
    missed: tuple[str, ...]
    false_alarms: tuple[str, ...]
    unseen: tuple[str, ...]

    @property
    def wrong_retries(self) -> int:
        """How often it decided wrongly about a retry."""
        return len(self.needless) + len(self.missed)


def mark(peer: Peer, method: str, replies: Sequence[Reply]) -> Marks:
    """Put replies to a peer.

    Args:
        peer: The peer.
        method: The method of the request that they answer.
        replies: The replies.
    """
    heard = [(reply, peer(method, reply)) for reply in replies]
    return Marks(
        needless=tuple(reply.name for reply, said in heard if said.retried and not reply.retry),
        missed=tuple(reply.name for reply, said in heard if reply.retry and not said.retried),
        false_alarms=tuple(reply.name for reply, said in heard if said.failed and not reply.failed),
        unseen=tuple(reply.name for reply, said in heard if reply.failed and not said.failed),
    )


def run() -> Result:
    """Put every reply to every peer, in answer to a POST and to a GET."""
    documented = _mark_all(DOCUMENTED)
    standard = _mark_all(STANDARD)
    lost = {name: mark(peer, "POST", LOST) for name, peer in PEERS.items()}
    return Result(
        measures=(
            *_wrong(f"{OURS}: of {len(DOCUMENTED)} documented, wrong about a retry", documented[OURS], at_most=0),
            *_wrong(f"{OURS}: of {len(STANDARD)} others, wrong about a retry", standard[OURS]),
            Measure(
                f"{OURS}: of {len(LOST)} replies 200 that lost records, unseen", len(lost[OURS].unseen), "", at_most=0
            ),
        ),
        tables=(
            _counts(f"Retry or not, {len(DOCUMENTED)} documented replies: wrong decisions", documented),
            _which("Which of the documented ones, after a POST", documented, DOCUMENTED),
            _failures(documented, lost),
            _counts(f"Retry or not, {len(STANDARD)} replies that Insider does not document: wrong decisions", standard),
            _which("Which of the undocumented ones, after a POST", standard, STANDARD),
            Table(
                "What is right for the undocumented ones",
                ("reply", "retry", "who says so"),
                tuple((reply.name, "yes" if reply.retry else "no", reply.source) for reply in STANDARD),
            ),
        ),
        notes=(
            f"{OURS} was written against the documented replies: no mistake there is the least to ask of it.",
            "The duplicate reply has no documented status; it is put with 504, with which it is documented.",
            "Most of Insider's operations are a POST, which httpx-retries and urllib3 do not repeat by default.",
            "raise_for_status cannot be overlooked; this library returns the response, as httpx does, and records.",
            "When a retry comes is not asked: limits last a second to a day, the peers' first waits at most a second.",
        ),
    )


_ByMethod = Mapping[str, Mapping[str, Marks]]


def _wrong(what: str, marks: Mapping[str, Marks], at_most: float | None = None) -> Iterator[Measure]:
    for method, each in marks.items():
        yield Measure(f"{what} ({method})", each.wrong_retries, "", at_most=at_most)


def _mark_all(replies: Sequence[Reply]) -> _ByMethod:
    return {name: {method: mark(peer, method, replies) for method in _METHODS} for name, peer in PEERS.items()}


def _counts(title: str, marks: _ByMethod) -> Table:
    header = ("rule", *(f"{method}: {kind}" for method in _METHODS for kind in ("wrong", "needless", "missed")))
    rows = (
        (
            name,
            *(
                str(count)
                for method in _METHODS
                for count in (each[method].wrong_retries, len(each[method].needless), len(each[method].missed))
            ),
        )
        for name, each in marks.items()
    )
    return Table(title, header, tuple(rows))


def _which(title: str, marks: _ByMethod, replies: Sequence[Reply]) -> Table:
    after_post = [each["POST"] for each in marks.values()]
    rows = ((reply.name, *(_mistake(each, reply.name) for each in after_post)) for reply in replies)
    return Table(title, ("reply", *marks), tuple(row for row in rows if any(row[1:])))


def _mistake(marks: Marks, name: str) -> str:
    return "needless" if name in marks.needless else "missed" if name in marks.missed else ""


def _failures(documented: _ByMethod, lost: Mapping[str, Marks]) -> Table:
    rows = (
        (
            name,
            _listed(documented[name]["POST"].false_alarms),
            _listed(documented[name]["POST"].unseen),
            f"{len(LOST) - len(marks.unseen)} of {len(LOST)}",
        )
        for name, marks in lost.items()
    )
    return Table(
        "Does it say that the call failed? Peers with raise_for_status, this library in its record of the call",
        (
            "rule",
            "says so of what Insider has",
            "takes a documented failure for a success",
            "sees records lost in a 200",
        ),
        tuple(rows),
    )


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(names) or "-"
