"""classify: any bytes at all give a verdict, in bounded time."""

from __future__ import annotations

import codecs
import gzip
import inspect
import json
import sys
import time
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from insider_otel import Category, Verdict, classify
from insider_otel.api import body as bodies
from insider_otel.api.partial_json import close

KEY = '{"error": "Invalid api key"}'
TELLING = [
    *("error", "errors", "message", "status", "success", "status_code", "data", "successful", "fail", "count", "code"),
    *("field", "loc", "validations", "content", "response", "detail", "details", "title", "type", "valid", "invalid"),
    *("keys", "messageIds", "successes", "skipped", "partial"),
]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=5) | st.dictionaries(st.sampled_from(TELLING) | st.text(), inner, max_size=5)
    ),
    max_leaves=20,
)


@settings(max_examples=300, deadline=None)
@given(
    status=st.none() | st.integers(), body=st.binary() | st.text(), url=st.none() | st.text(), truncated=st.booleans()
)
@example(status=200, body=b"\xff\xfe", url=None, truncated=False)
@example(status=400, body=b"\x1f\x8b\x08\x00", url=None, truncated=True)
@example(status=500, body='{"a', url="http://[", truncated=True)
@example(status=10**30, body="\ud800", url="\ud800", truncated=False)
def test_any_bytes_and_any_text_give_a_verdict(
    status: int | None, body: bytes | str, url: str | None, truncated: bool
) -> None:
    """Never an exception."""
    assert isinstance(classify(status, body, url=url, truncated=truncated), Verdict)


@settings(max_examples=400, deadline=None)
@given(status=st.integers(200, 599), reply=JSON, cut=st.integers(0, 200))
def test_any_json_whole_or_cut_gives_a_verdict(status: int, reply: Any, cut: int) -> None:
    """Whatever stands where a message, a count or a code is looked for."""
    text = json.dumps(reply)
    assert isinstance(classify(status, text), Verdict)
    assert isinstance(classify(status, text[:cut], truncated=True), Verdict)


@pytest.mark.parametrize("status", ["200", 200.0, True, object(), [200]])
def test_a_status_that_is_none_gives_a_verdict(status: Any) -> None:
    """A wrong type is the caller's mistake, but not one to fall over."""
    assert classify(status).category in ("unexpected", "success")


@pytest.mark.parametrize("body", [bytearray(KEY, "ascii"), memoryview(KEY.encode()), None])
def test_other_kinds_of_bytes_give_a_verdict(body: Any) -> None:
    """Not promised, and not a reason to fail."""
    assert classify(403, body).category is Category.AUTHENTICATION


@pytest.mark.parametrize(
    "body",
    [
        codecs.BOM_UTF8 + KEY.encode(),
        codecs.BOM_UTF16_LE + KEY.encode("utf-16-le"),
        codecs.BOM_UTF16_BE + KEY.encode("utf-16-be"),
        codecs.BOM_UTF32_LE + KEY.encode("utf-32-le"),
        KEY.encode("utf-16-le"),
        KEY.encode("utf-16-be"),
        "\ufeff" + KEY,
        b'{"error": "Invalid api key", "\xff\xfe": "\xc3("}',
        b'{"error": "Invalid api key", "n": 1e999, "m": NaN}',
        b'{"error": "Invalid api key", "n": ' + b"9" * 10_000 + b"}",
        b'{"error": "Invalid api key\x00\x01", "x": "\t"}',
        b'{"error": "Invalid api key"}{"error": 2}',
        b'{"error": "Invalid api key"}\n<html>',
        '{"error": "Invalid api key", “x',
        '{"error": "Invalid api key", "x": [1, 2}}',
        b'{"error": "Invalid api key"',
        b"\n\n  " + KEY.encode() + b"\n" * 1000,
    ],
    ids=range(17),
)
def test_the_message_is_found_in_every_encoding_and_in_damaged_json(body: bytes | str) -> None:
    """As far as the bytes make sense."""
    assert classify(400, body).category is Category.AUTHENTICATION


@pytest.mark.parametrize("depth", [100, 1000, 100_000, 1_000_000])
@pytest.mark.parametrize(
    ("opening", "closing"), [("[", "]"), ('{"error":', "}"), ('[{"errors":', "}]"), ('{"a":[', "]}")]
)
@pytest.mark.parametrize("status", [200, 400, 500])
def test_json_may_nest_as_deep_as_it_likes(opening: str, closing: str, depth: int, status: int) -> None:
    """The parser's stack is not the caller's problem, closed or not."""
    fallback = {200: "success", 400: "validation", 500: "server_error"}[status]
    assert classify(status, opening * depth + closing * depth).category == fallback
    assert classify(status, opening * depth, truncated=True).category == fallback


def test_a_message_before_what_nests_too_deep_is_read() -> None:
    """What comes first is closed and kept."""
    assert classify(400, '{"error": "Invalid api key", "debug": ' + "[" * 5000).category is Category.AUTHENTICATION


def test_classify_works_at_the_end_of_the_callers_stack() -> None:
    """A reply may arrive deep down in an app's own recursion."""

    def dive(depth: int) -> Verdict:
        return classify(400, KEY) if depth == 0 else dive(depth - 1)

    used = len(inspect.stack(0))
    assert dive(sys.getrecursionlimit() - used - 100).category is Category.AUTHENTICATION


@pytest.mark.parametrize("size", [bodies.PREFIX + 1, 100_000_000])
def test_of_a_huge_body_only_the_beginning_is_looked_at(size: int) -> None:
    """100 MB cost no more than 256 KiB."""
    head = b'{"data": {"successful": {"count": 5}, "fail": {"count": 2, "errors": {"users.0.x": ["'
    verdict = classify(200, head + b"a" * size)
    assert (verdict.category, verdict.accepted, verdict.failed) == (Category.PARTIAL_FAILURE, 5, 2)


CUTS = [
    ('{"data": {"successful": {"count": 12}, "fail": {"count": 3, "errors": {"users.0', 12, 3),
    ('{"data": {"successful": {"count": 12}, "fail": {"count": 3', 12, None),
    ('{"success": true, "message": {"valid": {"count": 4}, "invalid": {"count": 1, "details": [{"fie', 4, 1),
    ('{"successes": [{"udid": "a"}, {"udid": "b"}], "errors": {"NoUserFound": [{"x": 1}, {"x"', 2, 2),
]


@pytest.mark.parametrize(("body", "accepted", "failed"), CUTS)
def test_counts_are_taken_out_of_what_is_left_of_a_body(body: str, accepted: int, failed: int | None) -> None:
    """A number at the very cut is no count: its last digits may be missing."""
    verdict = classify(200, body, truncated=True)
    assert (verdict.accepted, verdict.failed or None) == (accepted, failed)


@pytest.mark.parametrize("record", ['{"udid": "a"}', '["a", "b"]', '{"udid": ["a"], "at": 1}', '{"says": "}, {"}'])
def test_records_are_counted_up_to_the_cut_however_many_there_are(record: str) -> None:
    """A long list is read to its last whole record, and not only as far as somebody had patience."""
    body = '{"errors": {}, "successes": [' + ", ".join([record] * 5_000) + ', {"ud'
    assert classify(200, body, truncated=True).accepted == 5_001


@pytest.mark.parametrize("length", range(42, 80))
def test_a_message_that_was_cut_is_read_as_far_as_it_goes(length: int) -> None:
    """The sense is mostly at its beginning."""
    whole = '{"error": {"message": "Too many attempts, \\"please\\" slow down \\u2026 30 Requests/minute"}}'
    verdict = classify(403, whole[:length], truncated=True)
    assert verdict.category is Category.RATE_LIMIT
    assert verdict.message.startswith("Too many attempts")


@given(reply=JSON, data=st.data())
def test_a_cut_document_is_closed_to_one_that_begins_alike(reply: Any, data: st.DataObject) -> None:
    """Of a list or an object whatever stood before the cut is kept, in its order."""
    text = json.dumps([1, reply, "end"])
    cut = data.draw(st.integers(1, len(text)))
    closed = []
    for document in close(text[:cut]):
        try:
            closed.append(json.loads(document))
        except ValueError:
            continue
    assert closed, "something can always be kept"
    assert all(document[:1] in ([], [1]) for document in closed)


@given(reply=JSON, data=st.data())
def test_of_a_well_formed_document_the_quick_way_to_the_cut_finds_what_the_patient_one_does(
    reply: Any, data: st.DataObject
) -> None:
    """The patient one follows only where the quick one made no sense, so all the documents are looked at here."""
    text = json.dumps({"of": [reply]}, ensure_ascii=data.draw(st.booleans()))
    documents = list(close(text[: data.draw(st.integers(1, len(text) - 1))]))
    half = len(documents) // 2
    assert documents
    assert documents[:half] == documents[half:]


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        pytest.param('{"a": 1}\n{"b": 2}\n{"c', {"a": 1}, id="a document in each line"),
        pytest.param('{"a": "x", "b": 2], "c": 3}, {"d', {"a": "x"}, id="a bracket too many"),
        pytest.param('{"a": "C:\\\\', {"a": "C:\\"}, id="an escaped backslash at the cut"),
        pytest.param('{"a": "x\\', {"a": "x"}, id="half an escape at the cut"),
        pytest.param('{"a": "\\"}\\u20', {"a": '"}'}, id="half a character at the cut"),
    ],
)
def test_of_damaged_json_the_beginning_is_read(text: str, kept: object) -> None:
    """As far as it makes sense."""
    assert bodies.parse(text, truncated=True).value == kept


PIECES = [
    *(
        " ",
        "a",
        "1",
        "[",
        "{",
        '"',
        "\\",
        "'",
        "<",
        "<title>",
        "a ",
        "1 ",
        "1,",
        "1, ",
        "not ",
        "service ",
        "missing a ",
    ),
    *(
        "0 requests ",
        "too many ",
        "either ",
        ".",
        "@",
        "a@",
        "_",
        "a_",
        "aA",
        "é",
        "\x00",
        "(1",
        "&#",
        '{"a":',
        '["',
        '"",',
    ),
    *("-", "retry after 1", "a.", "1.", "users.0."),
]


@pytest.mark.parametrize("text", PIECES)
@pytest.mark.parametrize("wrap", ["{}", '{{"message": "{}"}}', '{{"message": "{}'])
def test_no_text_makes_it_slow(text: str, wrap: str) -> None:
    """As much as is looked at, of anything: no pattern goes back and forth over it. Generous, for a busy machine."""
    hostile = wrap.format(text * (bodies.PREFIX // len(text)))
    for status in (200, 400, 429):
        classify(status, "qx")  # compiles the patterns
        start = time.process_time()
        classify(status, hostile, headers={"RateLimit": hostile[:10_000], "Retry-After": hostile[:10_000]})
        assert time.process_time() - start < 0.5


def test_a_body_of_nothing_but_gzip_means_what_its_status_says() -> None:
    """It should have been decoded before; its bytes are not shown."""
    verdict = classify(503, gzip.compress(b'{"error": "x"}'))
    assert verdict.category is Category.UNAVAILABLE
    assert verdict.message in ("", "[…]")
