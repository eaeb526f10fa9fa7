"""A Django project in process, and the fake Insider in place of the network."""

from __future__ import annotations

import os
from collections.abc import Generator

import django
import pytest
from django.conf import settings
from django.test.utils import setup_test_environment, teardown_test_environment

from insider_otel.http.health import forget
from insider_otel.testing import FakeInsider

# The tests of the library run in the same process: clients that are not the adapter's are not covered unless a test
# says so.
os.environ["DJANGO_SETTINGS_MODULE"] = "django_project.settings"
settings.INSIDER_OTEL = {"INSTRUMENT": False}
django.setup()


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
