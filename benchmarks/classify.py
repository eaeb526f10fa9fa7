"""What it costs to tell what a reply means."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable
from typing import NamedTuple

import httpx

from benchmarks.common.calls import REPLY, REPLY_HEADERS, UPSERT
from benchmarks.common.timing import Block, Samples, added, interleaved, repeated
from benchmarks.result import Measure, Result, Table
from insider_otel import classify
from insider_otel.api.responses import responses

_ROUNDS, _COUNT = 40, 50
_BIG_ROUNDS, _BIG_COUNT = 20, 2
_SUCCESS_BAR = 3.0
_ERROR_BAR = 15.0
_FIRST_ERROR = 400
_MEGABYTE = 1_000_000
_PREFIX = 256 * 1024
_CLOUDFLARE = (
    b"<!DOCTYPE html><html lang='en-US'><head><title>unification.useinsider.com | 502: Bad gateway</title></head>"
    b"<body><div id='cf-wrapper'><h1>Bad gateway <span>Error code 502</span></h1>"
    + b"<p>The web server reported a bad gateway error.</p>" * 100
    + b"<p>Cloudflare Ray ID: 8f00000000000000</p></div></body></html>"
)


class _Reply(NamedTuple):
    status: int
    body: bytes
    content_type: str = "application/json"
    truncated: bool = False

    def classified(self) -> Callable[[], object]:
        """What a call does with it."""
        headers = httpx.Headers({**REPLY_HEADERS, "content-type": self.content_type})
        url = UPSERT.url if self.status >= _FIRST_ERROR else None
        return lambda: classify(self.status, self.body, headers=headers, url=url, truncated=self.truncated)


_OTHERS = {
    "success of an upsert": _Reply(200, REPLY),
    "no body, 503": _Reply(503, b""),
    f"HTML page of {len(_CLOUDFLARE):,} bytes, 502": _Reply(502, _CLOUDFLARE, "text/html"),
}


def run() -> Result:
    """Measure each reply, and ``json.loads`` of a success, in the same rounds."""
    documented = {
        row.id: _Reply(row.status, (row.body or "").encode()) for row in responses() if row.status is not None
    }
    errors = {name: reply for name, reply in documented.items() if reply.status >= _FIRST_ERROR}
    blocks: dict[str, Block] = {
        "json.loads": repeated(lambda: json.loads(REPLY), _COUNT),
        **{name: repeated(reply.classified(), _COUNT) for name, reply in (_OTHERS | documented).items()},
    }
    small = interleaved(blocks, _ROUNDS)
    big = _big()
    by_error = sorted(statistics.median(small[name]) * 1e6 for name in errors)
    return Result(
        measures=(
            Measure(
                "a success, beyond json.loads of its body",
                added(small, "success of an upsert", "json.loads") * 1e6,
                "µs",
                at_most=_SUCCESS_BAR,
            ),
            Measure(
                f"a documented error: the median of {len(errors)}",
                statistics.median(by_error),
                "µs",
                at_most=_ERROR_BAR,
            ),
            Measure("the slowest of them", by_error[-1], "µs"),
        ),
        tables=(
            _table("Other replies", small | big, [*_OTHERS, *big]),
            _table("Documented replies, the slowest first", small, sorted(documented, key=_slowness(small))),
        ),
        notes=(
            f"json.loads of the success's {len(REPLY)} bytes: {statistics.median(small['json.loads']) * 1e9:.0f} ns.",
            f"Of a long body a call reads {_PREFIX // 1024} KiB for its verdict: the rows that say so classify those.",
        ),
    )


def _slowness(samples: Samples) -> Callable[[str], float]:
    return lambda name: -statistics.median(samples[name])


def _big() -> Samples:
    upserted = json.dumps({"data": {"successful": {"count": 1}, "fail": {}, "padding": "x" * _MEGABYTE}}).encode()
    listed = json.dumps({"data": [{"id": number, "name": "Jane"} for number in range(_MEGABYTE // 30)]}).encode()
    replies = {
        "1 MB of JSON, most of it one string": _Reply(200, upserted),
        "1 MB of JSON, most of it one string: the beginning": _Reply(200, upserted[:_PREFIX], truncated=True),
        "1 MB of JSON, a list of objects": _Reply(200, listed),
        "1 MB of JSON, a list of objects: the beginning": _Reply(200, listed[:_PREFIX], truncated=True),
        "1 MB of JSON with status 500: the beginning": _Reply(500, listed[:_PREFIX], truncated=True),
        "1 MB that is no text: the beginning": _Reply(500, b"\xff\x00" * (_PREFIX // 2), truncated=True),
    }
    return interleaved({name: repeated(reply.classified(), _BIG_COUNT) for name, reply in replies.items()}, _BIG_ROUNDS)


def _table(title: str, samples: Samples, names: list[str]) -> Table:
    rows = tuple((name, f"{statistics.median(samples[name]) * 1e9:,.0f}") for name in names)
    return Table(title, ("reply", "ns"), rows)
