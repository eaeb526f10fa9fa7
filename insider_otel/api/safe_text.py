"""Making text from a reply safe to export: what is not known to be harmless does not pass.

Insider's messages repeat what they complain of: e-mail addresses, phone numbers, keys. A list of what such things look
like is never complete, so this works the other way round: only words of ``words.txt`` and small numbers pass, and
everything else becomes ``[…]``.
"""

from __future__ import annotations

import functools
import re
from importlib import resources
from itertools import pairwise

LONGEST = 300
"""Characters of a message that are exported."""

REDACTED = "[…]"

_SCANNED = 2000
_LONGEST_NAME = 120
_LONGEST_SIGN = 3  # "..."
_SHORT_NUMBER = 3  # digits: no one-time code and no phone number is that short
_WORD, _SIGN, _NUMBER, _UNSAFE = "word", "sign", "number", "unsafe"

_EDGES = "'\"“”‘’`()[]{}<>,.;:!?*…$"  # noqa: RUF001
_SIGNS = frozenset("-–—|/&=+#≥≤→•")  # noqa: RUF001
# What may stand inside a token: no "@", and "/" only once in a row, so neither an address nor a URL passes.
_COMPOUND = re.compile(r"[A-Za-z0-9_.\[\]:*/'<>,()=&+|-]{1,120}")
_JOINTS = re.compile(r"[^A-Za-z0-9]+")
_HUMP = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_DIGITS = re.compile(r"-?[0-9]+(?:[.,][0-9]+)*(?:%|[kmg]b|ms|[smhdxk])?", re.IGNORECASE)
_COUNT = r"[0-9]{4,7}|[0-9]{1,3}(?:,[0-9]{3}){1,2}"
# What follows one of these is a value, and a value may be an ordinary word: "name: Grace", "password is summer".
_LABEL = (
    r"(?i)(?:pass(?:word|code|phrase|wd)|pwd|otp|token|secret|key|name|(?<![a-z])city)s?"
    r"['\"“”‘’`)\]}]*"  # noqa: RUF001
)
_LABEL_AT_END = _LABEL + r"([:=]*)$"
_LABEL_WITH_VALUE = _LABEL + r"[:=]['\"“”‘’`]*\w"  # noqa: RUF001
_IS = frozenset({"is", "was", "is:", "was:"})
_GIVES = frozenset({":", "=", "==", "is:", "was:"})
_QUOTES = "'\"“”‘’`"  # noqa: RUF001
# After "is" these say what the value is like and not what it is.
_PREDICATE = (
    r"(?i)a|absent|already|an|being|blank|disabled|duplicate|either|empty|expired|inactive"
    r"|incorrect|invalid|longer|mandatory|malformed|mismatched|missing|neither|no|not|null"
    r"|optional|required|reserved|revoked|shorter|taken|the|too|unknown|unauthorized|used|valid"
    r"|wrong"
)
# Small words that are given names as well, as in "user Will Price not found", but not before what follows a verb.
_GIVEN_NAME = r"(?i)can|may|will"
_FOLLOWS_VERB = r"(?i)also|be|have|not|only"
_LONGEST_FULL_NAME = 3  # words; more capitalised ones in a row are a title: "Requests May Exceed The Limit"
# No name of a person or a place, in whatever letters.
_ACRONYM = "API|CSV|HTML|HTTPS?|ID|IP|JSON|JWT|OTP|SMS|SSL|TLS|UR[IL]|UUID|XML"

_PATH = r"[\w.\[\]*-]+"
_PATH_PARTS = r"([.\[\]]+)"
_BARE_PARTS = ("", "*")

# A longer number passes only right in front of what it counts, which is in the plural: "code 482913: user not found".
_COUNTED = (
    r"(?i)(?:kilo|mega)?bytes|[kmg]b|milliseconds|ms|seconds|minutes|hours|days|characters|chars|records|requests|calls"
    r"|users|profiles|objects|items|elements|entries|products|events|messages|notifications|recipients|addresses|devices"
    r"|identifiers|rows|units"
)


@functools.cache
def vocabulary() -> frozenset[str]:
    """The words that pass, in lower case."""
    lines = resources.files("insider_otel.api").joinpath("words.txt").read_text("utf-8").splitlines()
    return frozenset(word for line in lines if not line.startswith("#") for word in line.split())


def safe_text(text: str, longest: int = LONGEST) -> str:
    """A message as it may be exported.

    Args:
        text: The message.
        longest: Characters the result may have.

    Returns:
        The message in one line, with ``[…]`` in place of all that is not known to be harmless.
    """
    tokens = text[:_SCANNED].split()
    kinds = [_kind(token) for token in tokens]
    passes = [
        kind is _WORD or kind is _SIGN or (kind is _NUMBER and _is_harmless_number(tokens, kinds, at))
        for at, kind in enumerate(kinds)
    ]
    _hide_values(tokens, passes)
    _hide_given_names(tokens, passes)
    _hide_names(tokens, passes)
    shown: list[str] = []
    for token, harmless in zip(tokens, passes, strict=True):
        if harmless:
            shown.append(token)
        elif not shown or shown[-1] is not REDACTED:
            shown.append(REDACTED)
    line = " ".join(shown)
    return line if len(line) <= longest else line[: longest - 1].rstrip() + "…"


def safe_field(text: str) -> str | None:
    """The name or path of a field as it may be exported.

    Args:
        text: A name such as ``phone_number``, or a path such as ``users.0.identifiers`` or ``messages[1].phoneNumber``.

    Returns:
        The path with ``[…]`` in place of parts that are not known to be harmless; None if nothing is left.
    """
    text = text.strip()[:_LONGEST_NAME].strip("'\"<>")
    if text.lower() in vocabulary():
        return text
    if not re.fullmatch(_PATH, text):
        return None
    parts = re.split(_PATH_PARTS, text)
    shown = [
        part if at % 2 or part in _BARE_PARTS or _is_harmless_compound(part) else REDACTED
        for at, part in enumerate(parts)
    ]
    names = [part for part in shown[::2] if part not in _BARE_PARTS]
    if all(name == REDACTED or name.isdigit() for name in names) or not _are_indices(names):
        return None
    path = "".join(shown)
    return path if sum(map(str.isdigit, path)) <= 2 * _SHORT_NUMBER else None


def safe_code(text: str, known: frozenset[str]) -> str | None:
    """An error code as it may be exported.

    Args:
        text: The code.
        known: Numeric codes that are documented; others longer than three digits could be a shopper's one-time code.

    Returns:
        The code; None if it is not known to be harmless.
    """
    code = " ".join(text.split())
    if code in known:
        return code
    if len(code) > _LONGEST_NAME or not code or not all(map(_looks_like_code, code.split())):
        return None
    return None if REDACTED in safe_text(code) else code


def _looks_like_code(token: str) -> bool:
    """Whether it is a number, ``IN_CAPITALS``, ``with_joints`` or ``InHumps``, and not just a word of a sentence."""
    return token.isdigit() or (
        any(map(str.isalpha, token)) and ("_" in token or token.isupper() or _HUMP.search(token) is not None)
    )


def _hide_values(tokens: list[str], passes: list[bool]) -> None:
    """Lets nothing pass that is the value of a name or a secret."""
    for at, token in enumerate(tokens):
        label = re.search(_LABEL_AT_END, token)
        if label is None:
            if re.search(_LABEL_WITH_VALUE, token):
                passes[at] = False
            continue
        value = at + 1
        while value < len(tokens) and (tokens[value] in _GIVES or tokens[value].lower() in _IS):
            value += 1
        if value == len(tokens):
            continue
        between = {word.lower() for word in tokens[at + 1 : value]}
        if tokens[value][0] in _QUOTES:
            _hide_quoted(tokens, passes, value)
        elif label[1] or not _GIVES.isdisjoint(between):
            passes[value] = False
        elif between:
            passes[value] = passes[value] and re.fullmatch(_PREDICATE, tokens[value].strip(_EDGES)) is not None


def _hide_quoted(tokens: list[str], passes: list[bool], start: int) -> None:
    """Lets nothing pass from an opening quote to the closing one."""
    for at in range(start, len(tokens)):
        passes[at] = False
        inner = tokens[at][1:] if at == start else tokens[at]
        if inner.rstrip(".,;:!?)]}")[-1:] in tuple(_QUOTES):
            return


def _hide_given_names(tokens: list[str], passes: list[bool]) -> None:
    """Lets no word pass that is a given name where another name may follow: "Will Price", but not "Will Not"."""
    at = 0
    while at < len(tokens):
        end = at
        while end < len(tokens) and _is_capitalised(tokens[end]):
            end += 1
        if 1 < end - at <= _LONGEST_FULL_NAME:
            for word in range(at, end - 1):
                if (
                    _may_be_name(tokens, word)
                    and re.fullmatch(_GIVEN_NAME, tokens[word].strip(_EDGES))
                    and not re.fullmatch(_FOLLOWS_VERB, tokens[word + 1].strip(_EDGES))
                ):
                    passes[word] = False
        at = end + 1


def _hide_names(tokens: list[str], passes: list[bool]) -> None:
    """Lets no capitalised word pass next to one that does not: "Can Öztürk" is a name though "can" is a word."""
    for step in (1, -1):
        for at in range(len(tokens))[::step]:
            neighbour = at - step
            if passes[at] and 0 <= neighbour < len(tokens) and not passes[neighbour]:
                passes[at] = not _may_be_name(tokens, at)


def _may_be_name(tokens: list[str], at: int) -> bool:
    if not _is_capitalised(tokens[at]):
        return False
    # The dot after an initial ends no sentence.
    starts_sentence = at == 0 or (tokens[at - 1][-1] in ".!?" and len(tokens[at - 1].strip(_EDGES)) > 1)
    return not starts_sentence


def _is_capitalised(token: str) -> bool:
    core = token.strip(_EDGES)
    is_word = core.replace("-", "").replace("'", "").isalpha()
    return is_word and core[0].isupper() and re.fullmatch(_ACRONYM, core) is None


def _kind(token: str) -> str:
    words = vocabulary()
    if token == REDACTED:
        return _UNSAFE
    if token.lower() in words:
        return _WORD
    core = token.strip(_EDGES)
    if not core:
        return _SIGN if len(token) <= _LONGEST_SIGN else _UNSAFE
    if core in _SIGNS:
        return _SIGN
    if core.lower() in words:
        return _WORD if len(token) - len(core) <= 2 * _LONGEST_SIGN else _UNSAFE
    if _DIGITS.fullmatch(core) or not any(map(str.isalpha, core)):
        # Anything of digits and signs counts as a number, so that the groups of a phone number are seen as neighbours.
        return _NUMBER if any(map(str.isdigit, core)) else _UNSAFE
    return _WORD if _is_harmless_compound(core) else _UNSAFE


def _is_harmless_number(tokens: list[str], kinds: list[str], at: int) -> bool:
    # Short numbers in a row may be the groups of a long one.
    before = next((kind for kind in reversed(kinds[:at]) if kind is not _SIGN), _WORD)
    after = next((kind for kind in kinds[at + 1 :] if kind is not _SIGN), _WORD)
    if before is _NUMBER or after is _NUMBER:
        return False
    core = tokens[at].strip(_EDGES)
    if sum(map(str.isdigit, core)) <= _SHORT_NUMBER:
        return _DIGITS.fullmatch(core) is not None
    following = tokens[at + 1].rstrip(_EDGES).partition("/")[0] if at + 1 < len(tokens) else ""
    return tokens[at].endswith(core) and bool(re.fullmatch(_COUNT, core) and re.fullmatch(_COUNTED, following))


def _is_harmless_compound(text: str) -> bool:
    """Whether ``text`` is words of the vocabulary and short numbers, joined: ``users[1].phone_number``."""
    if "//" in text or not _COMPOUND.fullmatch(text):
        return False
    parts = [part for part in _JOINTS.split(text) if part]
    return _are_indices(parts) and all(map(_is_harmless_part, parts))


def _are_indices(parts: list[str]) -> bool:
    """Whether the numbers among the parts of a path can be indices, and not the groups of a phone number."""
    numbers = [part for part in parts if part.isdigit()]
    return sum(map(len, numbers)) <= 2 * _SHORT_NUMBER and not any(
        left.isdigit() and right.isdigit() for left, right in pairwise(parts)
    )


def _is_harmless_part(part: str) -> bool:
    """Whether a run of ASCII letters and digits is a word, words in camel case or a short number."""
    words = vocabulary()
    if part.lower() in words:
        return True
    if not part.isalpha():
        return part.isdigit() and len(part) <= _SHORT_NUMBER
    humps = _HUMP.split(part)
    return len(humps) > 1 and all(len(hump) > 1 and hump.lower() in words for hump in humps)
