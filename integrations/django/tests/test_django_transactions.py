"""Work that waits for the transaction."""

from __future__ import annotations

import logging
from collections.abc import Generator

import pytest
from django.db import connection, transaction
from django.test import Client
from django_project import views
from insider_otel_django import on_commit

from insider_otel.testing import FakeInsider


@pytest.fixture(autouse=True)
def nothing_committed() -> Generator[None]:
    """Each test begins with a database of its own."""
    views.committed.clear()
    yield
    connection.close()


def test_the_work_has_no_deadline_of_the_request_and_is_not_in_its_summary(fake: FakeInsider) -> None:
    response = Client().get("/order")
    assert views.committed == ["none"]
    assert response.json()["calls"] == 1
    assert len(fake.accepted("mail.send")) == 1


def test_the_work_can_have_a_deadline_of_its_own(fake: FakeInsider) -> None:
    response = Client().get("/order", {"deadline": "25"})
    [left] = views.committed
    assert isinstance(left, float)
    assert 20.0 < left <= 25.0
    assert response.json()["calls"] == 1


def test_nothing_is_sent_after_a_rollback(fake: FakeInsider) -> None:
    Client().get("/order", {"rollback": ""})
    assert fake.accepted("mail.send") == []


def test_without_a_transaction_the_work_is_done_at_once() -> None:
    done: list[int] = []
    on_commit(lambda: done.append(1))
    assert done == [1]


def test_a_failure_of_robust_work_is_logged_by_its_name(caplog: pytest.LogCaptureFixture) -> None:
    done: list[int] = []

    def send_mail() -> None:
        raise ValueError("a mistake")

    with caplog.at_level(logging.ERROR, "django.db.backends.base"), transaction.atomic():
        on_commit(send_mail, robust=True)
        on_commit(lambda: done.append(1))
    assert done == [1]
    assert "send_mail in on_commit()" in caplog.text


@pytest.mark.parametrize("seconds", [-1.0, float("inf")])
def test_what_is_no_deadline_is_refused_at_once_and_not_after_the_commit(seconds: float) -> None:
    with pytest.raises(ValueError, match="deadline is"):
        on_commit(lambda: None, deadline=seconds)
