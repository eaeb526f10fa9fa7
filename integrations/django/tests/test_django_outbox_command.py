"""``manage.py insider_outbox``: the outbox in the app's own database, by hand and by workers of their own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from django.core.management import CommandError, call_command
from django.test import override_settings
from django_project.insider import credentials, sample
from insider_otel_django.outbox.models import OutboxJob
from insider_otel_django.outbox.store import DjangoOutbox
from outbox_shop import BOUND, OPTIONS, Shop, until

from insider_otel import InsiderTransport, Settings, call_of
from insider_otel.api.operations import operations
from insider_otel.testing import FakeInsider

HERE = Path(__file__).parent
DEFER = {"insider": {"defer": True}}


def manage(*arguments: str, database: Path, **environ: str) -> subprocess.Popen[str]:
    """Start ``manage.py``."""
    return subprocess.Popen(
        [sys.executable, "-m", "django", *arguments],
        cwd=HERE,
        env={
            **os.environ,
            "DJANGO_DATABASE": str(database),
            "DJANGO_INSIDER_OTEL": '{"OUTBOX": "django", "LIMITS": {"user.upsert": "off"}}',
            "DJANGO_SETTINGS_MODULE": "django_project.settings",
            "PYTHONPATH": str(HERE),
            "INSIDER_OTEL_CREDENTIALS_UNIFICATION": json.dumps(_credentials()),
            **environ,
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def _credentials() -> dict[str, str]:
    upsert = next(each for each in operations() if each.name == "user.upsert")
    return credentials(upsert, None)


def test_migrations_are_in_step_with_the_models() -> None:
    call_command("makemigrations", "insider_outbox", check=True, dry_run=True, verbosity=0)


@pytest.mark.once
def test_two_workers_never_send_a_job_twice_and_stop_when_they_are_told(database: Path) -> None:
    fake = FakeInsider(limits={"user.upsert": None})
    with fake.serve() as served:
        hosts = json.dumps({f"127.0.0.1:{served.port}": "*"})
        with ExitStack() as stack:
            workers = [
                stack.enter_context(manage("insider_outbox", "run", database=database, INSIDER_OTEL_HOSTS=hosts))
                for _ in range(2)
            ]
            for worker in workers:
                stack.callback(worker.kill)
                assert worker.stdout is not None
                assert worker.stdout.readline().startswith("Sending the jobs of django")
            sent = _defer_users(60, served.url, json.loads(hosts))
            until(lambda: DjangoOutbox().stats().waiting == 0)
            for worker in workers:
                worker.send_signal(signal.SIGTERM)
            printed = [worker.communicate(timeout=BOUND)[0] for worker in workers]
        assert [worker.returncode for worker in workers] == [0, 0], printed
    received = Counter(each.json["users"][0]["identifiers"]["uuid"] for each in fake.requests)
    assert received == Counter(sent)


def _defer_users(number: int, url: str, hosts: dict[str, str]) -> list[str]:
    """Defer a call for each of some users; returns their names."""
    names = [f"user-{place}" for place in range(number)]
    settings = Settings(outbox="django", hosts=hosts, credentials=credentials)
    request = sample()
    with httpx.Client(transport=InsiderTransport(FakeInsider().transport(), settings=settings)) as app:
        for name in names:
            body = json.loads(request["content"])
            body["users"][0]["identifiers"]["uuid"] = name
            response = app.post(f"{url}/api/user/v1/upsert", headers=request["headers"], json=body, extensions=DEFER)
            assert call_of(response).outcome == "deferred"
    return names


def run_command(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    """What a command prints as JSON."""
    return json.loads(_printed(capsys, *arguments, "--json"))


def _printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with override_settings(INSIDER_OTEL=OPTIONS):
        call_command("insider_outbox", *arguments)
    return capsys.readouterr().out


def test_the_command_lists_shows_retries_and_discards(shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    dead, waiting = shop.defer(), shop.defer("user.upsert")
    _give_up(shop, dead)
    assert run_command(capsys, "stats") | {"oldest_age_s": 0} == {
        "waiting": 1,
        "sending": 0,
        "dead": 1,
        "oldest_age_s": 0,
    }
    assert [job["id"] for job in run_command(capsys, "list", "--dead")["jobs"]] == [dead]
    assert run_command(capsys, "show", dead)["stopped"] == "unsafe"
    assert run_command(capsys, "retry", dead) == {"retried": [dead], "refused": []}
    assert run_command(capsys, "discard", waiting, "--yes") == {"discarded": [waiting], "refused": []}
    assert [job.id for job in shop.outbox.jobs("waiting")] == [dead]
    assert json.loads(_printed(capsys, "--json", "list"))["jobs"][0]["id"] == dead


def test_the_command_drains_the_outbox(shop: Shop, insider: FakeInsider, capsys: pytest.CaptureFixture[str]) -> None:
    shop.defer("user.upsert")
    with insider.serve() as served:
        job = OutboxJob.objects.get()
        codec = shop.engine.desk.codec
        parcel = codec.decode(bytes(job.content))
        job.content = codec.encode(replace(parcel, url=f"{served.url}/api/user/v1/upsert"))
        job.save()
        hosts = {f"127.0.0.1:{served.port}": "*"}
        with override_settings(INSIDER_OTEL={**OPTIONS, "HOSTS": hosts}):
            call_command("insider_outbox", "run", "--drain", "--json")
    assert json.loads(capsys.readouterr().out) == {"sent": 1, "given_up": 0, "waiting": 0, "dead": 0}
    assert len(insider.accepted("user.upsert")) == 1


def test_draining_before_the_tables_are_made_ends_and_says_how_to_make_them(tmp_path: Path) -> None:
    with manage("insider_outbox", "run", "--drain", database=tmp_path / "empty.sqlite3") as command:
        printed, _ = command.communicate(timeout=BOUND)
    assert command.returncode == 1
    assert "manage.py migrate" in printed.splitlines()[-1]
    assert "Traceback" not in printed


@pytest.mark.parametrize(
    ("options", "arguments", "says"),
    [
        ({"INSTRUMENT": False}, ["stats"], '"OUTBOX": "django"'),
        (OPTIONS, ["show", "nobody"], "no job is called 'nobody'"),
        (OPTIONS, ["run", "--concurrency", "0"], "a number from 1"),
    ],
)
def test_the_command_says_what_it_cannot_do(
    database: Path, options: dict[str, Any], arguments: list[str], says: str
) -> None:
    with override_settings(INSIDER_OTEL=options), pytest.raises(CommandError, match=says) as caught:
        call_command("insider_outbox", *arguments)
    assert caught.value.returncode == 2


def _give_up(shop: Shop, job_id: str) -> None:
    """Make a dead letter of a job."""
    leases = shop.outbox.take(10, time.time(), lease=BOUND, pace=lambda pool: 0.0).leases
    mine = next(lease for lease in leases if lease.job.id == job_id)
    verdict = {"category": "network", "rule": "network.read_timeout"}
    shop.outbox.put_back(mine, replace(mine.job, stopped="unsafe", attempts=1, verdict=verdict))
    shop.outbox.release([lease for lease in leases if lease is not mine])
    shop.outbox.close()
