"""Whether two requests say the same: by meaning where it is clear, by bytes where it is not."""

from __future__ import annotations

import json
import random
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from insider_otel.api.operations import operations
from insider_otel.state.content import canonical_json, content_key

MAIL, UPSERT = (
    next(operation for operation in operations() if operation.name == name) for name in ("mail.send", "user.upsert")
)
OWNER = bytes(range(16))


def key(body: bytes | str, *, content_type: str | None = "application/json", target: str = "/mail/v1/send") -> bytes:
    return content_key(MAIL, OWNER, target, content_type, body.encode() if isinstance(body, str) else body)


def test_a_key_is_16_bytes_that_stay_the_same() -> None:
    """Processes of different releases share a store: another value here lets duplicates through while they change."""
    assert key('{"to": "jane@example.com", "n": 1.50}').hex() == "6c7aa7beda4e12be6dc34f3ce3369a77"


# ------------------------------------------------------------------------------------------------------ by meaning


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ('{"a":1,"b":[true,null]}', ' {\n"b": [true, null],\t"a": 1}\r\n'),
        ('{"a":"é","b":"😀/"}', '{"a":"\\u00e9","b":"\\ud83d\\uDE00\\/"}'),
        ('{"\\u0061":1}', '{"a":1}'),
        ("[1]", "[1.0]"),
        ("[1]", "[1e0]"),
        ("[1]", "[10E-1]"),
        ("[100]", "[1e+2]"),
        ("[0.010]", "[1e-2]"),
        ("[-1.50]", "[-15e-1]"),
        ("[0]", "[-0.0e5]"),
        ("[12345678901234567890.5]", "[123456789012345678905e-1]"),
        (f"[1{'0' * 10_000}]", "[1e10000]"),
    ],
)
def test_spelling_does_not_matter(one: str, other: str) -> None:
    assert key(one) == key(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("[1]", '["1"]'),
        ("[1]", '["1e0"]'),
        ("[1]", "[true]"),
        ("[0]", "[false]"),
        ("[0]", "[null]"),
        ("[0]", '[""]'),
        ("[1]", "[-1]"),
        ("[1]", "[10]"),
        ("[1]", "1"),
        ("[1,2]", "[2,1]"),
        ('{"a":null}', "{}"),
        ("{}", "[]"),
        ("[[1],2]", "[1,[2]]"),
        ('{"a":"A"}', '{"a":"a"}'),
        ('{"A":1}', '{"a":1}'),
        ('["é"]', '["e\u0301"]'),
        ("[9007199254740993]", "[9007199254740992]"),
        ("[0.1]", "[0.1000000000000000000000000000001]"),
        ("[1e400]", "[1e401]"),
        (f"[{'9' * 5000}]", f"[{'9' * 4999}8]"),
        ("[true]", '["true"]'),
    ],
)
def test_meaning_does(one: str, other: str) -> None:
    assert key(one) != key(other)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.decimals(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
    lambda children: (
        st.lists(children, max_size=4) | st.dictionaries(st.text("abé\n", max_size=3), children, max_size=4)
    ),
    max_leaves=12,
)


def spelt(value: Any, chance: random.Random) -> str:
    """One of the many spellings of a value."""
    space = chance.choice(["", " ", "\n\t"])
    match value:
        case bool() | None:
            text = json.dumps(value)
        case int() | Decimal():
            text = spelt_number(Decimal(value), chance)
        case str():
            text = json.dumps(value, ensure_ascii=chance.random() < 0.5)
        case list():
            text = f"[{space}{','.join(spelt(item, chance) for item in value)}{space}]"
        case dict():
            names = list(value)
            chance.shuffle(names)
            members = (f"{spelt(name, chance)}:{spelt(value[name], chance)}" for name in names)
            text = f"{{{space}{','.join(members)}{space}}}"
        case _:
            raise TypeError(value)
    return f"{space}{text}{space}"


def spelt_number(number: Decimal, chance: random.Random) -> str:
    sign, digits, exponent = number.as_tuple()
    assert isinstance(exponent, int)
    whole = "".join(map(str, digits)) + "0" * (zeros := chance.randrange(4))
    exponent -= zeros
    minus = "-" if sign else ""
    if -20 < exponent < 0 and chance.random() < 0.5:
        whole = whole.rjust(1 - exponent, "0")
        head = whole[:exponent].lstrip("0") or "0"
        return f"{minus}{head}.{whole[exponent:]}"
    whole = whole.lstrip("0") or "0"
    if exponent == 0 and chance.random() < 0.5:
        return f"{minus}{whole}"
    return f"{minus}{whole}{chance.choice(['e', 'E'])}{chance.choice(['+', '']) if exponent >= 0 else ''}{exponent}"


@given(value=json_values, seed=st.integers())
def test_however_a_value_is_spelt_it_is_the_same(value: Any, seed: int) -> None:
    chance = random.Random(seed)
    one, other = spelt(value, chance), spelt(value, chance)
    assert canonical_json(one.encode()) is not None
    assert key(one) == key(other)


def leaves(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    match value:
        case list() if value:
            return [leaf for index, item in enumerate(value) for leaf in leaves(item, (*path, index))]
        case dict() if value:
            return [leaf for name, item in value.items() for leaf in leaves(item, (*path, name))]
        case _:
            return [path]


def changed(value: Any, path: tuple[Any, ...], leaf: Any) -> Any:
    if not path:
        return leaf
    copy = value.copy()
    copy[path[0]] = changed(value[path[0]], path[1:], leaf)
    return copy


def kind(value: Any) -> object:
    """Tells values apart that Python holds for equal: 1 and True."""
    match value:
        case list():
            return [kind(item) for item in value]
        case dict():
            return {name: kind(item) for name, item in value.items()}
        case bool() | None | str():
            return (type(value), value)
        case _:
            return (Decimal, value)


@given(value=json_values, leaf=json_values, data=st.data())
def test_whatever_leaf_differs_it_is_another(value: Any, leaf: Any, data: st.DataObject) -> None:
    other = changed(value, data.draw(st.sampled_from(leaves(value))), leaf)
    assume(kind(other) != kind(value))
    chance = random.Random(0)
    assert key(spelt(value, chance)) != key(spelt(other, chance))


# -------------------------------------------------------------------------------------------------------- by bytes


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"not JSON",
        b'{"a": 1',
        b'{"a": 1} {}',
        b'{"a": 1, "a": 2}',
        b'{"a": 1, "\\u0061": 1}',
        b'{"b": {"a": 1, "a": 1}}',
        b"[NaN]",
        b"[Infinity]",
        b"[-Infinity]",
        b'["\\ud800"]',
        b'["\\u0000"]',
        b'["\0"]',
        b'["\xff"]',
        b"\xef\xbb\xbf[1]",
        "[1]".encode("utf-16"),
        b"[" * 100_000 + b"]" * 100_000,
        b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
        b"[1e" + b"9" * 10_000 + b"]",
        b"[01]",
    ],
    ids=lambda body: repr(body[:20]),
)
def test_what_is_no_json_or_not_clear_counts_by_its_bytes(body: bytes) -> None:
    assert canonical_json(body) is None
    assert key(body) != key(body + b" ")


@pytest.mark.parametrize(
    ("content_type", "by_meaning"),
    [
        (None, True),
        ("", True),
        ("application/json", True),
        ("Application/JSON; charset=utf-8", True),
        ("application/vnd.api+json", True),
        ("text/plain", False),
        ("application/x-www-form-urlencoded", False),
        ("multipart/form-data; boundary=json", False),
    ],
)
def test_the_content_type_says_whether_a_body_is_json(content_type: str | None, by_meaning: bool) -> None:
    same = key('{"a":1}', content_type=content_type) == key('{"a": 1}', content_type=content_type)
    assert same is by_meaning


def test_a_body_by_its_bytes_never_equals_one_by_its_meaning() -> None:
    """A body can be written that looks like the common spelling of another."""
    spelling = canonical_json(b"[1]")
    assert spelling is not None
    assert canonical_json(spelling) is None
    assert key(spelling) != key("[1]")
    assert key("[]", content_type="text/plain") != key("[]")


# ------------------------------------------------------------------------------------------------ what else counts


def test_operation_owner_path_and_query_count() -> None:
    body = b'{"a":1}'
    first = content_key(MAIL, OWNER, "/mail/v1/send?a=1", None, body)
    others = {
        content_key(UPSERT, OWNER, "/mail/v1/send?a=1", None, body),
        content_key(MAIL, OWNER[::-1], "/mail/v1/send?a=1", None, body),
        content_key(MAIL, OWNER, "/mail/v1/send?a=2", None, body),
        content_key(MAIL, OWNER, "/mail/v1/send", None, body),
        content_key(MAIL, OWNER, "/mail/v1/send?a=1", None, b"{}"),
    }
    assert first not in others
    assert len(others) == 5
    assert content_key(MAIL, OWNER, b"/mail/v1/send?a=1", None, body) == first


@given(
    one=st.tuples(st.text(max_size=3), st.binary(max_size=3)),
    other=st.tuples(st.text(max_size=3), st.binary(max_size=3)),
)
def test_where_the_path_ends_and_the_body_begins_is_clear(one: tuple[str, bytes], other: tuple[str, bytes]) -> None:
    assume(one != other)
    keys = {key(body, target=target, content_type="text/plain") for target, body in (one, other)}
    assert len(keys) == 2


@given(body=st.binary(), content_type=st.none() | st.text())
def test_any_body_has_a_key(body: bytes, content_type: str | None) -> None:
    assert len(key(body, content_type=content_type)) == 16
