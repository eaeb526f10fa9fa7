"""What is kept of a request: all that it needs to be sent again, but its credentials."""

from __future__ import annotations

import base64
import gzip
import io
import json
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast
from urllib.parse import parse_qsl, unquote_plus, urlsplit

from insider_otel.api.operations import IN_BODY, Operation
from insider_otel.outbox.credentials import CredentialsError, is_credential_header, is_owner, is_telling, owner_of

# No other header is kept: what is not known to be harmless may be a secret. Those that say where a request goes, how
# long it is and to which trace it belongs are made anew with each attempt.
KEPT_HEADERS = frozenset(
    {
        "accept",
        "accept-language",
        "content-encoding",
        "content-language",
        "content-type",
        "idempotency-key",
        "user-agent",
    }
)
_SHORTEST_SECRET = 6
"""Characters. A credential shorter than that, such as a partner's short name, stands in any text by chance."""


_LONGEST_INFLATED = 64 * 1024 * 1024
"""Bytes of a compressed body that are looked at; far more than Insider takes."""


_ANOTHER_ACCOUNT = (
    "the credentials at hand are of another account than those it was made with. This outbox is shared by several "
    'accounts: name them by account, extensions={"insider": {"account": …}}'
)


class ContentError(ValueError):
    """What is stored of a call and cannot be read. Its text is ours, and repeats nothing of it."""


class CannotDefer(Exception):  # noqa: N818  (it is no fault of the library's: the call cannot wait)
    """A call that cannot be kept for later; says why, and what to do about it."""


@dataclass(frozen=True, slots=True)
class Parcel:
    """A request without its credentials.

    Attributes:
        method: HTTP method.
        url: Where it goes.
        headers: Those of its headers that are kept.
        body: Its body. Fields that carry credentials are null in it.
        places: Where credentials are to be put back: names of headers, or ``body:`` and that of a field.
        owner: Whose credentials they were, as ``credentials.owner_of`` says; None if they, or the older version of
            insider-otel that kept the call, did not say.
    """

    method: str
    url: str = field(repr=False)
    headers: tuple[tuple[str, str], ...] = field(repr=False)
    body: bytes = field(repr=False)
    places: tuple[str, ...] = ()
    owner: str | None = None

    def to_bytes(self) -> bytes:
        """As it is stored, before encryption."""
        try:
            body: dict[str, str] = {"text": self.body.decode("utf-8")}
        except UnicodeDecodeError:
            body = {"base64": base64.b64encode(self.body).decode("ascii")}
        kept = {"method": self.method, "url": self.url, "headers": self.headers, "places": self.places}
        value = {**kept, "owner": self.owner, **body}
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")

    @classmethod
    def from_bytes(cls, content: bytes) -> Parcel:
        """A parcel from what ``to_bytes`` returned.

        Raises:
            ContentError: It is no parcel.
        """
        try:
            value: Any = json.loads(content.decode("utf-8", "surrogatepass"))
            text = value.get("text")
            body = base64.b64decode(value["base64"], validate=True) if text is None else text.encode("utf-8")
            headers = tuple((str(name), str(text)) for name, text in value["headers"])
            method, url, places = str(value["method"]), str(value["url"]), tuple(value["places"])
            return cls(method, url, headers, body, places, value.get("owner"))
        except (AttributeError, KeyError, TypeError, ValueError):
            raise ContentError("the stored call is damaged") from None

    def request(self, credentials: Mapping[str, str]) -> tuple[list[tuple[str, str]], bytes]:
        """The headers and the body to send, with the credentials back in their places.

        Args:
            credentials: By place; those of all ``places``.

        Raises:
            CredentialsError: They are another account's.
        """
        if self.owner is not None and not is_owner(self.owner, credentials):
            raise CredentialsError(_ANOTHER_ACCOUNT)
        headers = [*self.headers, *((place, credentials[place]) for place in self.places if not _is_field(place))]
        fields = {place.removeprefix(IN_BODY): credentials[place] for place in self.places if _is_field(place)}
        return headers, _with_fields(self.body, fields) if fields else self.body


def credentials_in(operation: Operation, headers: Mapping[str, str], body: bytes) -> dict[str, str]:
    """The credentials that a request carries, by place: what is not to be stored.

    Args:
        operation: Says which fields of the body carry credentials.
        headers: Its headers, by name in any case.
        body: Its body.

    Raises:
        CannotDefer: They are in a body that cannot be read.
    """
    found = {name.lower(): value for name, value in headers.items() if is_credential_header(name)}
    fields = [place for place in operation.credentials if _is_field(place)]
    if fields:
        members = _members(body)
        for place in fields:
            value = members.get(place.removeprefix(IN_BODY))
            if value is not None:
                found[place] = value if isinstance(value, str) else json.dumps(value)
    return found


def pack(
    *, method: str, url: str, headers: Iterable[tuple[str, str]], body: bytes, credentials: Mapping[str, str]
) -> Parcel:
    """What is kept of a request.

    Args:
        method: HTTP method.
        url: Where it goes.
        headers: All its headers.
        body: Its body.
        credentials: The credentials in it, by place.

    Returns:
        The request without its credentials.

    Raises:
        CannotDefer: A credential would be stored with it.
    """
    fields = [place.removeprefix(IN_BODY) for place in credentials if _is_field(place)]
    kept = tuple((name, value) for name, value in headers if name.lower() in KEPT_HEADERS)
    if not all(value.isascii() for _, value in kept):
        raise CannotDefer("one of its headers is not ASCII")
    body = _with_fields(body, dict.fromkeys(fields)) if fields else body
    parcel = Parcel(method, url, kept, body, (*credentials,), owner_of(credentials))
    _refuse_secrets(parcel, credentials.values())
    return parcel


def _is_field(place: str) -> bool:
    return place.startswith(IN_BODY)


def _refuse_secrets(parcel: Parcel, secrets: Iterable[str]) -> None:
    parts = urlsplit(parcel.url)
    if parts.username is not None or parts.password is not None:
        raise CannotDefer("its URL holds a user name or a password, which is not stored: send it in a header")
    query = parse_qsl(parts.query, keep_blank_values=True)
    telling = next((name for name, _ in query if is_telling(name)), None)
    if telling is not None:
        raise CannotDefer(f"its URL holds {telling!r}, which looks like a credential: send it in a header")
    bodies = _readable(parcel)
    members = [member for body in bodies for member in _strings(body)]
    if _header(parcel, "content-type").partition(";")[0].strip() == "application/x-www-form-urlencoded":
        members += [member for body in bodies for member in parse_qsl(body)]
    named = next((name for name, value in members if name is not None and value and is_telling(name)), None)
    if named is not None:
        raise CannotDefer(
            f"its body holds {named!r}, which looks like a credential and is none that Insider documents there"
        )
    texts = {
        "URL": [parcel.url, unquote_plus(parcel.url), unquote_plus(unquote_plus(parcel.url))],
        "headers": [value for _, value in parcel.headers],
        "body": [*bodies, *map(unquote_plus, bodies), *(value for _, value in members)],
    }
    for secret in {*secrets}:
        # "Bearer xyz" may stand elsewhere without its scheme.
        for form in {secret, secret.rpartition(" ")[2]}:
            for place, spellings in texts.items():
                if len(form) >= _SHORTEST_SECRET and any(form in text for text in spellings):
                    raise CannotDefer(
                        f"a credential stands in its {place} too, where it would be stored: send it in its place only"
                    )


def _header(parcel: Parcel, name: str) -> str:
    """The value of a header in lower case; empty if there is none."""
    return ", ".join(value.lower() for each, value in parcel.headers if each.lower() == name)


def _readable(parcel: Parcel) -> set[str]:
    """The body as text, as whoever gets it may read it, to look for secrets in."""
    coding = _header(parcel, "content-encoding") or "identity"
    body = parcel.body
    if coding in {"gzip", "x-gzip", "deflate"}:
        body = _inflated(body, coding)
    elif coding != "identity":
        raise CannotDefer(f"its body is compressed with {coding}, so nobody can see whether a credential is in it")
    return {body.decode(encoding, "replace") for encoding in ("utf-8", json.detect_encoding(body))}


def _inflated(body: bytes, coding: str) -> bytes:
    try:
        if coding == "deflate":
            inflater = zlib.decompressobj()
            inflated = inflater.decompress(body, _LONGEST_INFLATED)
            is_whole = inflater.eof and not inflater.unused_data
        else:
            # It may have several members.
            with gzip.GzipFile(fileobj=io.BytesIO(body)) as file:
                inflated = file.read(_LONGEST_INFLATED)
                is_whole = not file.read(1)
    except (EOFError, OSError, zlib.error):
        raise CannotDefer("its body is not compressed as its Content-Encoding says") from None
    if not is_whole:
        raise CannotDefer(
            "its compressed body is cut off, too large, or followed by more: nobody can look into all of it"
        )
    return inflated


def _strings(body: str) -> list[tuple[str | None, str]]:
    """Every text in a body of JSON, with the name of the field that holds it; of other bodies none."""
    try:
        waiting: list[tuple[str | None, object]] = [(None, json.loads(body))]
    except (ValueError, RecursionError):
        return []
    found: list[tuple[str | None, str]] = []
    while waiting:
        name, value = waiting.pop()
        if isinstance(value, str):
            found.append((name, value))
        elif isinstance(value, dict):
            waiting.extend(cast("dict[str, object]", value).items())
        elif isinstance(value, list):
            waiting.extend((name, item) for item in cast("list[object]", value))
    return found


def _with_fields(body: bytes, values: Mapping[str, str | None]) -> bytes:
    """A JSON body whose fields have other values; the rest means what it meant, and may be spelt otherwise."""
    members = _members(body)
    members.update(values)
    try:
        return json.dumps(members, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode("utf-8")
    except ValueError:
        raise CannotDefer(_NO_JSON) from None


def _members(body: bytes) -> dict[str, object]:
    try:
        value: object = json.loads(body)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise CannotDefer(_NO_JSON)
    return cast("dict[str, object]", value)


_NO_JSON = "its credentials are in its body, which is no JSON object that can be read and written"


class Codec:
    """Writes parcels and reads them, encrypted if there is a key.

    Args:
        keys: Fernet keys, separated by commas, as in ``Settings.outbox_key``: the first encrypts, all of them decrypt.
            None for no encryption.

    Raises:
        ImportError: There is a key, and the package ``cryptography`` is not installed.
        ValueError: A key is none.
    """

    def __init__(self, keys: str | None = None) -> None:
        self._fernet: Any = None
        if keys:
            try:
                from cryptography.fernet import Fernet, MultiFernet  # noqa: PLC0415  (who has no key needs no package)
            except ImportError as error:
                raise ImportError('outbox_key needs cryptography: pip install "insider-otel[encryption]"') from error
            self._fernet = MultiFernet([Fernet(key) for key in keys.split(",")])

    def encode(self, parcel: Parcel) -> bytes:
        """What is stored of a parcel."""
        content = parcel.to_bytes()
        return _PLAIN + content if self._fernet is None else _FERNET + self._fernet.encrypt(content)

    def decode(self, content: bytes) -> Parcel:
        """The parcel of what is stored.

        Args:
            content: What ``encode`` returned, in whatever process.

        Raises:
            ContentError: It cannot be read, and why.
        """
        mark, content = content[:1], content[1:]
        if mark == _PLAIN:
            return Parcel.from_bytes(content)
        if mark != _FERNET:
            raise ContentError("the stored call is of another version of insider-otel, or damaged")
        if self._fernet is None:
            raise ContentError("the stored call is encrypted, and there is no outbox_key (INSIDER_OTEL_OUTBOX_KEY)")
        from cryptography.fernet import InvalidToken  # noqa: PLC0415

        try:
            return Parcel.from_bytes(self._fernet.decrypt(content))
        except InvalidToken:
            raise ContentError(
                "the stored call is encrypted with another key: add it to outbox_key (INSIDER_OTEL_OUTBOX_KEY), behind "
                "the present one"
            ) from None


_PLAIN = b"p"
_FERNET = b"f"
