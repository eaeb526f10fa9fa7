"""Where calls are kept that are sent later, and the credentials to send them with."""

from __future__ import annotations

import difflib
import json
import os
import shlex
import stat
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from insider_otel.api.operations import Operation, operations
from insider_otel.cli.checks.environment import Environment, Finding, Level
from insider_otel.cli.durations import seconds_text
from insider_otel.outbox.credentials import NO_CREDENTIALS, given_in
from insider_otel.outbox.protocol import OutboxError, Stats
from insider_otel.outbox.sqlite_outbox import SQLiteOutbox
from insider_otel.policy.outbox_url import OutboxURL
from insider_otel.policy.setting_checks import CREDENTIALS_PREFIX
from insider_otel.policy.settings import SettingsError, variable_of

_VARIABLE = variable_of("outbox")
_KEY = variable_of("outbox_key")

_STARTS_NOT = "insider-otel refuses to start with it."
_WITHOUT = "A call that does not fit its deadline then fails, for it cannot be kept."
_AS_THE_APP = "Run the doctor as the app's user. The file and its directory have to be writable."
_LONG_WAIT = 600.0
"""Seconds, twice as long as Insider asks to spread retries over: who waits for longer may wait for a worker."""

_NEEDS = {"celery": "celery", "django": "insider-otel-django"}
"""The distribution that a kind of outbox needs, which is the name of its extra as well."""


def outbox(environment: Environment) -> Iterator[Finding]:
    """Whether calls can be kept for later, where the environment says."""
    url = _url(environment)
    if url is None:
        return
    if environment.variable(_KEY) and "cryptography" not in environment.versions:
        yield Finding(
            Level.ERROR,
            f"{_KEY} is set, and cryptography is not installed",
            _STARTS_NOT,
            "pip install 'insider-otel[encryption]'",
        )
    needed = _NEEDS.get(url.scheme)
    if needed is not None and needed not in environment.versions:
        yield Finding(
            Level.ERROR,
            f"{_VARIABLE} is {url.display}, and {needed} is not installed",
            _STARTS_NOT,
            f"pip install 'insider-otel[{url.scheme}]'",
        )
    elif url.scheme == "celery":
        yield Finding(
            Level.NOTE,
            f"deferred calls go to the queue {url.queue} of the app's Celery, which cannot be seen from here",
            "Whether the broker can be reached, and a worker sends what is in the queue, only the app's Celery knows.",
            f"celery -A APP inspect active_queues has to name {url.queue}; celery -A APP worker -Q {url.queue} sends.",
        )
    elif url.scheme == "django":
        yield Finding(
            Level.NOTE,
            "deferred calls are kept in the Django app's database, which cannot be seen from here",
            "Whether its tables are there, and how many calls wait in them, only the app knows.",
            "manage.py insider_outbox stats tells.",
        )
    else:
        yield from _file(url)


def _url(environment: Environment) -> OutboxURL | None:
    """The outbox; None if there is none, or if the setting cannot be used, which another check tells."""
    text = environment.variable(_VARIABLE)
    try:
        return OutboxURL.parse(text) if text else None
    except SettingsError:
        return None


# ---------------------------------------------------------------------------------------------------------- sqlite


def _file(url: OutboxURL) -> Iterator[Finding]:
    # Where a link leads: there the file is, and what sqlite keeps beside it.
    path = Path(os.path.realpath(url.path))
    try:
        store = SQLiteOutbox(path, timeout=url.timeout, sync=url.sync)
        mode = _mode(path)
    except (OSError, OutboxError) as error:
        yield Finding(
            Level.ERROR, f"{_VARIABLE} cannot be used: {error}", _STARTS_NOT, "Correct the variable, or what it names."
        )
        return
    if mode is None:
        yield _absent(url, path.parent)
        return
    # Rights are for the owner to change if it is a file of calls, and nothing else; on Windows the bits say nothing.
    if mode & 0o077 and stat.S_ISREG(mode) and sys.platform != "win32":
        yield Finding(
            Level.WARNING,
            f"others than its owner have rights to the outbox {url.display} ({stat.filemode(mode)})",
            "It holds what deferred calls say, personal data included.",
            f"chmod 600 {' '.join(map(shlex.quote, _files(path)))}",
        )
    if not (os.access(path, os.R_OK | os.W_OK) and os.access(path.parent, os.W_OK | os.X_OK)):
        # Not even opened: sqlite would read it, and leave files beside it that its owner cannot write.
        yield Finding(
            Level.ERROR, f"the outbox {url.display} cannot be used: it is not writable", _WITHOUT, _AS_THE_APP
        )
        return
    try:
        # There is no such pool: what can be changed is found out, and nothing changed.
        store.hold_pool("doctor", until=0)
        stats = store.stats()
    except OutboxError as error:
        yield Finding(Level.ERROR, f"the outbox cannot be used: {error}", _WITHOUT, _AS_THE_APP)
        return
    finally:
        store.close()
    yield from _filled(url, stats, time.time())


def _mode(path: Path) -> int | None:
    """The rights to a file; None if it is not there. The first deferred call makes it; who only looks does not."""
    try:
        return os.stat(path).st_mode
    except FileNotFoundError:
        return None


def _files(path: Path) -> list[str]:
    """The file, and those that sqlite has made beside it."""
    return [name for name in (f"{path}{suffix}" for suffix in ("", "-shm", "-wal")) if os.path.exists(name)]


def _absent(url: OutboxURL, directory: Path) -> Finding:
    if os.access(directory, os.W_OK | os.X_OK):
        return Finding(Level.OK, f"the outbox {url.display} is not there yet; the first deferred call makes it")
    return Finding(
        Level.ERROR,
        f"the outbox {url.display} cannot be made: {directory} is not writable",
        _WITHOUT,
        _AS_THE_APP,
    )


def _filled(url: OutboxURL, stats: Stats, now: float) -> Iterator[Finding]:
    age = 0.0 if stats.oldest is None else max(now - stats.oldest, 0.0)
    oldest = f", the oldest for {seconds_text(age)}" if stats.waiting else ""
    text = f"the outbox {url.display} can be read and written: {stats.waiting} waiting{oldest}, {stats.dead} dead"
    yield Finding(Level.OK, text)
    if age > _LONG_WAIT and not stats.leased:
        yield Finding(
            Level.NOTE,
            f"a call has been in the outbox for {seconds_text(age)}, and none is being sent",
            "It may have been told to wait for so long, or no worker runs: that cannot be seen from here.",
            "If the app has no worker in it: insider-otel outbox run. insider-otel outbox list says when each is due.",
        )
    if stats.dead:
        yield Finding(
            Level.NOTE,
            f"{stats.dead} deferred call{' was' if stats.dead == 1 else 's were'} given up, and kept",
            "They are never sent unless somebody asks for it, and deleted in the end.",
            "insider-otel outbox list --dead says why; outbox retry sends them again, outbox discard forgets them.",
        )


# ----------------------------------------------------------------------------------------------------- credentials


def credentials(environment: Environment) -> Iterator[Finding]:
    """Whether deferred calls can be sent: their credentials are not stored with them."""
    is_needed = _url(environment) is not None
    variables = sorted(
        name for name in environment.variables if name.startswith(CREDENTIALS_PREFIX) and environment.variable(name)
    )
    if is_needed and not variables:
        yield Finding(
            Level.WARNING,
            f"{_VARIABLE} is set, and no {CREDENTIALS_PREFIX}<PRODUCT>",
            "Credentials are not stored with a deferred call. Without any insider-otel refuses to start, unless the "
            "code sets Settings(credentials=…).",
            f"Set one for each product whose calls may be deferred: {CREDENTIALS_PREFIX}MAIL="
            '\'{"X-INS-AUTH-KEY": "…"}\'.',
        )
    by_product: dict[str, list[Operation]] = {}
    for operation in operations():
        by_product.setdefault(operation.product.upper(), []).append(operation)
    for variable in variables:
        product, separator, account = variable.removeprefix(CREDENTIALS_PREFIX).partition("__")
        if product in by_product:
            yield _provided(variable, environment.variable(variable), by_product[product], is_needed=is_needed)
        else:
            close = difflib.get_close_matches(product, by_product, n=1)
            yield Finding(
                Level.ERROR if is_needed else Level.WARNING,
                f"{variable} names no product of Insider's",
                _refused(is_needed=is_needed),
                f"Did you mean {CREDENTIALS_PREFIX}{close[0]}{separator}{account}?"
                if close
                else f"Unset it. The products are: {', '.join(sorted(by_product))}.",
            )


def _refused(*, is_needed: bool) -> str:
    return _STARTS_NOT if is_needed else "If the code sets an outbox, insider-otel refuses to start with it."


def _provided(variable: str, text: str, of_product: list[Operation], *, is_needed: bool) -> Finding:
    """What a variable provides. Nothing of it is repeated: who mixes up names and values has a secret for a name."""
    given = {place.lower() for place in given_in(text)}
    if not given:
        places = next((each.credentials for each in of_product if each.credentials), ("X-INS-AUTH-KEY",))
        example = json.dumps(dict.fromkeys(places, "…"), ensure_ascii=False)
        return Finding(
            Level.ERROR if is_needed else Level.WARNING,
            f"{variable} {NO_CREDENTIALS}",
            _refused(is_needed=is_needed),
            f"{variable}='{example}'",
        )
    lacking = {
        operation.name: [place for place in operation.credentials if place.lower() not in given]
        for operation in of_product
        if operation.deferrable and operation.credentials
    }
    unsendable = [name for name, places in lacking.items() if places]
    if not unsendable:
        return Finding(Level.OK, f"{variable} has the credentials that are documented")
    if len(unsendable) == len(lacking):
        fewest = min(lacking.values(), key=len)
        return Finding(
            Level.WARNING,
            f"{variable} does not have {', '.join(fewest)}",
            "No call of that product that carries what is documented can be deferred: nobody could put it back.",
            "Add what the calls carry: the names in any case, each with a text that is not empty.",
        )
    return Finding(
        Level.NOTE,
        f"{variable} does not have {', '.join(sorted({place for places in lacking.values() for place in places}))}",
        f"Calls of {', '.join(unsendable)} that carry it cannot be deferred; others of the product can.",
        "Add it if you make such calls.",
    )
