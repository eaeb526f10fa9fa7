"""Where the credentials of a deferred call come from when it is sent: they are never stored with it."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import cast

from insider_otel.api.operations import IN_BODY, Operation, operations
from insider_otel.policy.setting_checks import CREDENTIALS_PREFIX, SettingsError

Credentials = Mapping[str, str]
"""Credentials by place: ``{"X-PARTNER-NAME": …, "X-REQUEST-TOKEN": …}`` or ``{"body:api_key": …}``."""

NO_CREDENTIALS = "is not a JSON object of headers (or body:field) to credentials, of which one at least is not empty"

Provider = Callable[[Operation, str | None], Credentials | None]
"""Returns the credentials for an operation and an account (the app's own name for it, None if it has one only)."""

_TAKES = "takes an insider_otel.Operation, whose name is operation.name, and the account"

_PARTNER = "x-partner-name"
_SALT_BYTES = 16

_ALWAYS_CREDENTIALS = frozenset({"authorization", "x-api-key"})
# Not Insider's to ask for: a proxy's, and what a server has put there itself, as Cloudflare does.
_NEVER_CREDENTIALS = frozenset({"proxy-authorization", "cookie"})


@cache
def _credential_headers() -> frozenset[str]:
    places = {place.lower() for operation in operations() for place in operation.credentials}
    return _ALWAYS_CREDENTIALS | {place for place in places if not place.startswith(IN_BODY)}


_TELLING_PARTS = ("token", "secret", "auth", "password", "api-key", "apikey", "signature", "session")


# Names of fields and parameters, without what stands between their words. Not "token" by itself: a device has one too.
_TELLING_NAMES = frozenset(
    {
        "accesstoken",
        "apikey",
        "apisecret",
        "apitoken",
        "auth",
        "authkey",
        "authorization",
        "authtoken",
        "bearertoken",
        "clientsecret",
        "password",
        "refreshtoken",
        "requesttoken",
        "secret",
        "secretkey",
        "xapikey",
        "xinsauthkey",
        "xrequesttoken",
    }
)


def is_telling(name: str) -> bool:
    """Whether a field of a body, or a parameter of a URL, looks as if it carried a credential.

    Args:
        name: Its name, in any case.
    """
    return "".join(char for char in name.lower() if char.isalnum()) in _TELLING_NAMES


def is_credential_header(name: str) -> bool:
    """Whether a header carries a credential, or looks as if it did.

    Args:
        name: Its name, in any case.
    """
    name = name.lower()
    if name in _NEVER_CREDENTIALS:
        return False
    return name in _credential_headers() or any(part in name for part in _TELLING_PARTS)


class CredentialsError(LookupError):
    """Credentials that are missing or cannot be had. Its text is ours, and repeats nothing of them."""


def variable_of(product: str, account: str | None) -> str:
    """The environment variable with the credentials of a product.

    Args:
        product: Insider's product, for instance ``mail``.
        account: The app's own name for the account.
    """
    name = f"{product}__{account}" if account else product
    return CREDENTIALS_PREFIX + "".join(char if char.isalnum() else "_" for char in name).upper()


def given_in(text: str) -> dict[str, str]:
    """The credentials in the value of a variable, by place; none if it is no JSON object with any.

    Args:
        text: The value.
    """
    try:
        value: object = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    pairs = cast("dict[str, object]", value) if isinstance(value, dict) else {}
    return {place: one for place, one in pairs.items() if isinstance(one, str) and one}


def from_environment(operation: Operation, account: str | None) -> Credentials | None:
    """Credentials from ``INSIDER_OTEL_CREDENTIALS_<PRODUCT>``, or ``…_<PRODUCT>__<ACCOUNT>``: a JSON object.

    Args:
        operation: The operation.
        account: The app's own name for the account.

    Raises:
        SettingsError: The variable cannot be read, or holds none. The error repeats nothing of it.
    """
    variable = variable_of(operation.product, account)
    text = os.environ.get(variable, "").strip()
    if not text:
        return None
    given = given_in(text)
    if not given:
        raise SettingsError(f"{variable} {NO_CREDENTIALS}")
    return given


def provide(
    provider: Provider | None, operation: Operation, account: str | None, places: Iterable[str]
) -> dict[str, str]:
    """The credentials that a request of an operation needs.

    Args:
        provider: The app's own provider; None for the environment.
        operation: The operation.
        account: The app's own name for the account.
        places: Where credentials are needed: names of headers in lower case, or ``body:`` and that of a field.

    Returns:
        The credentials, by place.

    Raises:
        CredentialsError: Some are missing, or cannot be had.
    """
    wanted = tuple(places)
    if not wanted:
        # A proxy adds them, as it did before.
        return {}
    given = _ask(provider or from_environment, operation, account)
    by_place = {place.lower(): value for place, value in given.items() if isinstance(place, str)}
    missing = [place for place in wanted if not _is_text(by_place.get(place.lower()))]
    if missing:
        them = "it" if len(missing) == 1 else "them"
        raise CredentialsError(
            f"nobody provides {' and '.join(missing)}, and credentials are not stored with a call: "
            f"let Settings.credentials, which {_TAKES}, return {them}, or put {them} into "
            f"{variable_of(operation.product, account)}"
        )
    return {place: cast("str", by_place[place.lower()]) for place in wanted}


def owner_of(credentials: Mapping[str, str], salt: bytes | None = None) -> str | None:
    """Whose credentials they are: a salted hash of the partner's name, which stays when a token is replaced.

    Args:
        credentials: By place, headers in lower case.
        salt: Of 16 bytes; a new one by default.

    Returns:
        The salt and the hash; None if they do not say whose they are.
    """
    name = credentials.get(_PARTNER)
    if name is None:
        return None
    salt = secrets.token_bytes(_SALT_BYTES) if salt is None else salt
    digest = hashlib.blake2b(name.encode("utf-8", "surrogatepass"), salt=salt, person=b"insider-owner", digest_size=16)
    return salt.hex() + digest.hexdigest()


def is_owner(owner: str, credentials: Mapping[str, str]) -> bool:
    """Whether credentials are an owner's.

    Args:
        owner: What ``owner_of`` returned.
        credentials: By place, headers in lower case.
    """
    return owner_of(credentials, bytes.fromhex(owner[: 2 * _SALT_BYTES])) == owner


def _is_text(value: object) -> bool:
    return isinstance(value, str) and value != ""


def _ask(provider: Provider, operation: Operation, account: str | None) -> Mapping[object, object]:
    try:
        # Whatever its type says, it is the app's.
        given = cast("object", provider(operation, account))
    except SettingsError as error:
        if provider is from_environment:
            raise CredentialsError(str(error)) from None
        raise CredentialsError("Settings.credentials raised SettingsError") from None
    except Exception as error:  # noqa: BLE001  (the app's own code may raise anything)
        # Its text is the app's, and may hold what it was about to return.
        raise CredentialsError(f"Settings.credentials raised {type(error).__name__}; it {_TAKES}") from None
    if given is not None and not isinstance(given, Mapping):
        raise CredentialsError(f"Settings.credentials returned {type(given).__name__}, which is no mapping")
    return cast("Mapping[object, object]", given or {})
