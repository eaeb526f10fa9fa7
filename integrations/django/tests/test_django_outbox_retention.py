"""Dead letters have an end in Django's database too, also those of a version that did not know when it gave them up."""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path

from django.core.management import call_command
from django.db import connection
from django.db.migrations.executor import MigrationExecutor
from django.test import override_settings
from django_project.insider import credentials
from insider_otel_django import client
from insider_otel_django.outbox.models import OutboxJob
from insider_otel_django.outbox.store import DjangoOutbox

from insider_otel.delivery.worker import Worker
from insider_otel.http.instrumentor import engine_of

sys.path.append(str(Path(__file__).parents[3]))
from tests.outbox.jobs import NOW, job, put, take

DAY = 86_400.0
OPTIONS = {"INSTRUMENT": False, "OUTBOX": "django", "OUTBOX_WORKER": False, "CREDENTIALS": credentials}


def test_migrating_loses_no_job_and_keeps_a_dead_letter_as_long_as_if_it_were_new(database: Path) -> None:
    before = [("insider_outbox", "0001_initial")]
    call_command("migrate", "insider_outbox", "0001", verbosity=0)
    older = MigrationExecutor(connection).loader.project_state(before).apps.get_model("insider_outbox", "OutboxJob")
    waiting, dead = job(), job(stopped="unsafe")
    for each, state in ((waiting, "waiting"), (dead, "dead")):
        columns = {
            name: value for name, value in OutboxJob.of(each).__dict__.items() if name not in {"_state", "number"}
        }
        del columns["stopped_at"]
        older.objects.create(**{**columns, "state": state})
    call_command("migrate", "insider_outbox", verbosity=0)

    store = DjangoOutbox()
    assert store.jobs() == [waiting, dead]
    later = NOW + 50 * DAY
    assert store.purge(later, retention=DAY, most=10) == {}
    assert store.jobs() == [waiting, replace(dead, stopped_at=later)]
    assert store.purge(later + DAY, retention=DAY, most=10) == {"user.upsert": 1}
    assert store.jobs() == [waiting]
    store.close()


def test_the_app_says_for_how_long_its_worker_keeps_dead_letters(database: Path) -> None:
    store = DjangoOutbox()
    for age in (7201.0, 3600.0):
        one = put(store, id=f"{age:.0f}")
        (lease,) = take(store)
        store.put_back(lease, replace(one, stopped="failed", stopped_at=time.time() - age))
    with override_settings(INSIDER_OTEL={**OPTIONS, "OUTBOX_RETENTION": 7200.0}):
        engine = engine_of(client())
        assert engine is not None
        Worker(engine).run(drain=True)
    assert [each.id for each in store.jobs()] == ["3600"]
    store.close()
