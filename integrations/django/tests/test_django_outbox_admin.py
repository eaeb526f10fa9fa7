"""Dead letters in the admin: seen, sent again or discarded by who may, and nothing personal on the pages."""

from __future__ import annotations

import re
import time
from collections.abc import Generator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.test import Client, override_settings
from django_project.insider import credentials, sample
from insider_otel_django import client
from insider_otel_django.outbox.models import OutboxJob
from insider_otel_django.outbox.store import DjangoOutbox

from insider_otel.testing import FakeInsider

LIST = "/admin/insider_outbox/outboxjob/"
OPTIONS = {"INSTRUMENT": False, "OUTBOX": "django", "OUTBOX_WORKER": False, "CREDENTIALS": credentials}


@pytest.fixture
def outbox(database: Path, fake: FakeInsider) -> Generator[DjangoOutbox]:
    """An outbox with a dead letter and a job that waits."""
    outbox = DjangoOutbox()
    with override_settings(INSIDER_OTEL=OPTIONS):
        client().request(**sample("mail.send"), extensions={"insider": {"defer": True}})
        [lease] = outbox.take(1, time.time(), lease=60.0, pace=lambda pool: 0.0).leases
        verdict = {"category": "network", "rule": "network.read_timeout", "message": "Insider did not answer"}
        outbox.put_back(lease, replace(lease.job, stopped="duplicate_window", attempts=3, verdict=verdict))
        client().request(**sample(), extensions={"insider": {"defer": True}})
        outbox.close()
        yield outbox


def dead(outbox: DjangoOutbox) -> str:
    """The name of the dead letter."""
    [job] = outbox.jobs("dead")
    return job.id


def visitor(*permissions: str, is_superuser: bool = False) -> Client:
    """Somebody who is logged in."""
    user = User.objects.create_user("jane", is_staff=True, is_superuser=is_superuser)
    user.user_permissions.set(Permission.objects.filter(codename__in=[f"{each}_outboxjob" for each in permissions]))
    visitor = Client()
    visitor.force_login(user)
    return visitor


def act(visitor: Client, action: str, *names: str) -> Any:
    """Do something with some jobs; the page that says what was done."""
    numbers = list(OutboxJob.objects.filter(job_id__in=names).values_list("number", flat=True))
    return visitor.post(LIST, {"action": action, "_selected_action": numbers}, follow=True)


def test_a_dead_letter_is_listed_with_why_it_was_given_up(outbox: DjangoOutbox) -> None:
    page = visitor("view").get(LIST, {"state__exact": "dead"}).content.decode()
    assert re.findall(r'<th class="field-job_id">.*?>(\w+)</a>', page) == [dead(outbox)]
    for shown in ("mail.send", "dead letter", "network", "duplicate_window"):
        assert f">{shown}</td>" in page


def test_a_job_is_shown_without_what_it_holds(outbox: DjangoOutbox) -> None:
    jane = visitor("view")
    content = b"".join(bytes(job.content) for job in OutboxJob.objects.all()).decode()
    trace = "0af7651916cd43dd8448eb211c80319c"
    OutboxJob.objects.update(context={"traceparent": f"00-{trace}-b7ad6b7169203331-01"})
    personal = re.findall(r'[^"\s]+@[^"\s]+', content)
    assert personal
    for row in OutboxJob.objects.all():
        page = jane.get(f"{LIST}{row.number}/change/").content.decode()
        assert row.job_id in page
        assert f"{len(row.content)} bytes, which are not shown" in page
        assert trace in page
        assert not [each for each in personal if each in page]
        assert "_save" not in page
    listed = jane.get(LIST).content.decode()
    assert not [each for each in personal if each in listed]


def test_a_dead_letter_says_until_when_it_is_kept(outbox: DjangoOutbox) -> None:
    jane, row = visitor("view"), OutboxJob.objects.get(job_id=dead(outbox))
    OutboxJob.objects.update(stopped_at=datetime(2026, 1, 1, 9, tzinfo=UTC).timestamp())
    for retention, shown in ((7 * 86_400.0, "2026-01-08 09:00"), (None, "None")):
        with override_settings(INSIDER_OTEL={**OPTIONS, "OUTBOX_RETENTION": retention}):
            page = jane.get(f"{LIST}{row.number}/change/").content.decode()
        field = re.search(r'field-_deleted">.*?class="readonly">(.*?)<', page, re.DOTALL)
        assert field is not None
        assert field[1].startswith(shown)


def test_who_may_change_jobs_sends_a_dead_letter_again(outbox: DjangoOutbox) -> None:
    name = dead(outbox)
    page = act(visitor("change"), "retry", name).content.decode()
    assert "Deferred calls to be sent now: 1." in page
    job = outbox.job(name)
    assert job is not None
    assert (job.stopped, job.ambiguous_since) == (None, None)
    assert job.due <= time.time() < job.expires
    assert [entry.object_repr for entry in LogEntry.objects.all()] == [f"mail.send {name}"]


def test_who_may_delete_jobs_discards_one(outbox: DjangoOutbox) -> None:
    name = dead(outbox)
    page = act(visitor("view", "delete"), "discard", name).content.decode()
    assert "Deferred calls discarded: 1." in page
    assert outbox.job(name) is None
    assert outbox.stats().waiting == 1
    assert [entry.object_repr for entry in LogEntry.objects.all()] == [f"mail.send {name}"]


def test_of_a_database_that_fails_in_between_the_page_says_what_was_done(outbox: DjangoOutbox) -> None:
    name, [other] = dead(outbox), outbox.ids("waiting")
    with connection.cursor() as cursor:
        cursor.execute(
            "CREATE TRIGGER trouble BEFORE DELETE ON insider_outbox_job WHEN old.state = 'dead' "
            "BEGIN SELECT RAISE(ABORT, 'no more'); END"
        )
    page = act(visitor("view", "delete"), "discard", name, other).content.decode()
    assert "Deferred calls discarded: 1." in page
    assert "it refuses the job" in page
    assert outbox.ids() == [name]
    assert [entry.object_repr for entry in LogEntry.objects.all()] == [f"user.upsert {other}"]


@pytest.mark.parametrize("action", ["retry", "discard"])
def test_what_is_being_sent_is_left_alone(outbox: DjangoOutbox, action: str) -> None:
    [lease] = outbox.take(1, time.time(), lease=60.0, pace=lambda pool: 0.0).leases
    page = act(visitor(is_superuser=True), action, lease.job.id).content.decode()
    assert "Left alone, for they are being sent or gone: 1." in page
    assert outbox.begin(lease, time.time())
    outbox.close()


@pytest.mark.parametrize("action", ["retry", "discard", "delete_selected"])
def test_who_may_only_look_changes_nothing(outbox: DjangoOutbox, action: str) -> None:
    jane = visitor("view")
    assert f'value="{action}"' not in jane.get(LIST).content.decode()
    act(jane, action, dead(outbox))
    assert outbox.stats().dead == 1


def test_nobody_adds_edits_or_deletes_jobs_by_hand(outbox: DjangoOutbox) -> None:
    jane = visitor(is_superuser=True)
    number = OutboxJob.objects.get(job_id=dead(outbox)).number
    assert jane.get(f"{LIST}add/").status_code == 403
    assert jane.post(f"{LIST}{number}/change/", {"state": "waiting"}).status_code == 403
    assert jane.post(f"{LIST}{number}/delete/", {"post": "yes"}).status_code == 403
    assert "delete_selected" not in jane.get(LIST).content.decode()
    assert outbox.stats().dead == 1


def test_who_may_not_look_sees_nothing(outbox: DjangoOutbox) -> None:
    assert visitor().get(LIST).status_code == 403
