"""A Django project in process, and the fake Insider in place of the network."""

from __future__ import annotations

import os
import shutil
from collections.abc import Generator
from pathlib import Path

import django
import pytest
from django.conf import settings
from django.core.management import call_command
from django.db import connection
from django.test.utils import setup_test_environment, teardown_test_environment

from insider_otel.http.health import forget
from insider_otel.outbox.opening import all_outboxes
from insider_otel.testing import FakeInsider

# The tests of the library run in the same process: clients that are not the adapter's are not covered unless a test
# says so.
os.environ["DJANGO_SETTINGS_MODULE"] = "django_project.settings"
settings.INSIDER_OTEL = {"INSTRUMENT": False}
django.setup()

from outbox_shop import Shop  # noqa: E402  (its imports need Django to be set up)


@pytest.fixture
def anyio_backend() -> str:
    """Django knows no event loop but asyncio's."""
    return "asyncio"


@pytest.fixture(scope="session", autouse=True)
def django_test_environment() -> Generator[None]:
    """What Django's own test runner sets up."""
    setup_test_environment()
    yield
    teardown_test_environment()


@pytest.fixture
def fake() -> Generator[FakeInsider]:
    """A fake Insider in place of the network; afterwards the process's health is as it was."""
    from insider_otel_django import override

    fake = FakeInsider()
    with override(fake):
        yield fake
    forget()


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with all tables, and nothing in them."""
    path = tmp_path_factory.mktemp("django") / "empty.db"
    _use_database(str(path))
    call_command("migrate", verbosity=0)
    _use_database(":memory:")
    return path


@pytest.fixture
def database(migrated: Path, tmp_path: Path) -> Generator[Path]:
    """The app's database, which all threads and processes share; for this test alone."""
    path = tmp_path / "shop.db"
    shutil.copy(migrated, path)
    _use_database(str(path))
    yield path
    for outbox in all_outboxes():
        if outbox.name == "django":
            outbox.close()
    _use_database(":memory:")


def _use_database(name: str) -> None:
    connection.close()
    connection.settings_dict["NAME"] = name
    # One that is in memory is closed only now.
    connection.close()


@pytest.fixture
def insider() -> FakeInsider:
    """A fake Insider."""
    return FakeInsider()


@pytest.fixture
def shop(database: Path, insider: FakeInsider) -> Generator[Shop]:
    """The app."""
    shop = Shop(insider)
    yield shop
    shop.client.close()
