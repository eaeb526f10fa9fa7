"""The pytest plugin: three fixtures, next to nothing until one is used, and tests that know nothing of each other."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import insider_otel.testing

SHOP = """
import httpx
from insider_otel import InsiderTransport


def test_a_mail_is_sent_once(insider_fake, insider_clock, insider_spans):
    insider_fake.script("mail.send", "gateway_timeout", "ok")
    transport = InsiderTransport(
        insider_fake.transport(),
        clock=insider_clock,
        sleep=insider_clock.sleep,
        tracer_provider=insider_spans.tracer_provider,
    )
    with httpx.Client(transport=transport) as client:
        client.post(
            "https://mail.useinsider.com/mail/v1/send",
            headers={"X-INS-AUTH-KEY": "any"},
            json={
                "subject": "Your order",
                "tos": [{"email": "jane@example.com"}],
                "from": {"email": "shop@example.com"},
                "content": [{"type": "text/plain", "value": "Thank you."}],
            },
        )
    assert insider_spans.tree() == [
        "call mail.send succeeded",
        "  POST /mail/v1/send 504",
        "  wait retry",
        "  POST /mail/v1/send 202",
    ]
    assert len(insider_fake.accepted("mail.send")) == 1


def test_each_test_has_its_own(insider_fake, insider_spans):
    assert insider_fake.requests == []
    assert insider_spans.tree() == []
"""

FORGETFUL = """
import httpx
import pytest
from insider_otel import InsiderTransport, Settings, call_of
from insider_otel.testing import sample_request, set_testing


@pytest.mark.parametrize("operation", ["mail.send", "mail.campaign_create"] * 2)
def test_of_the_process_clock(operation, insider_fake):
    sample = sample_request(operation)
    settings = Settings(limits={"mail.campaign_create": "1/60s"}, deadline=30.0)
    transport = InsiderTransport(insider_fake.transport(), settings=settings)
    with set_testing(hold=True), httpx.Client(transport=transport) as client:
        outcomes = []
        for _ in range(2):
            response = client.request(sample.method, sample.url, headers=sample.headers, content=sample.content)
            outcomes.append(str(call_of(response).outcome))
    assert outcomes == ["succeeded", {"mail.send": "held_back", "mail.campaign_create": "failed"}[operation]]
"""


OWN_CLOCK = """
import httpx
import pytest
from insider_otel import InsiderTransport, Settings
from insider_otel.testing import FakeClock, FakeInsider, sample_request

CLOCK = FakeClock()
FAKE = FakeInsider(clock=CLOCK, limits={"mail.send": None})
TRANSPORT = InsiderTransport(
    FAKE.transport(), clock=CLOCK, sleep=CLOCK.sleep, settings=Settings(limits={"sms.send": "1/day"})
)


@pytest.mark.parametrize("operation", ["mail.send", "sms.send"] * 2)
def test_of_a_clock_that_all_tests_share(operation):
    FAKE.reset()
    sample = sample_request(operation)
    with httpx.Client(transport=TRANSPORT) as client:
        client.request(sample.method, sample.url, headers=sample.headers, content=sample.content)
    assert len(FAKE.accepted(operation)) == 1
"""


def run_pytest(folder: Path, *arguments: str, before: str = "") -> subprocess.CompletedProcess[str]:
    """Run pytest in another process, with our plugin and no other."""
    code = f"{before}\nimport sys, pytest\nsys.exit(pytest.main(sys.argv[1:]))"
    plugin = ("-p", "insider_otel.testing.plugin", "-p", "no:cacheprovider")
    return subprocess.run(
        [sys.executable, "-c", code, *plugin, "--rootdir", str(folder), str(folder), *arguments],
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_shop_tests_with_the_fixtures(tmp_path: Path) -> None:
    (tmp_path / "test_shop.py").write_text(SHOP)
    done = run_pytest(tmp_path, "-q")
    assert "2 passed" in done.stdout, done.stdout + done.stderr


def test_what_one_test_has_sent_does_not_bear_on_the_next(tmp_path: Path) -> None:
    """Each test is held to limits and holds back its own repeats, and nobody else's."""
    (tmp_path / "test_shop.py").write_text(FORGETFUL)
    done = run_pytest(tmp_path, "-q")
    assert "4 passed" in done.stdout, done.stdout + done.stderr


def test_nor_does_it_where_they_share_a_clock_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "test_shop.py").write_text(OWN_CLOCK)
    done = run_pytest(tmp_path, "-q")
    assert "4 passed" in done.stdout, done.stdout + done.stderr


def test_without_the_sdk_only_the_spans_are_missing_and_say_why(tmp_path: Path) -> None:
    (tmp_path / "test_shop.py").write_text(
        "def test_spans(insider_spans): ...\ndef test_fake(insider_fake): insider_fake.transport()\n"
    )
    done = run_pytest(tmp_path, "-q", before="import sys; sys.modules['opentelemetry.sdk'] = None")
    assert "1 passed, 1 error" in done.stdout
    assert 'capturing spans needs the OpenTelemetry SDK: pip install "insider-otel[testing]"' in done.stdout


def test_without_uvicorn_only_serving_is_missing_and_says_why() -> None:
    code = (
        "import sys; sys.modules['uvicorn'] = None\n"
        "from insider_otel.testing import FakeInsider\n"
        "try: FakeInsider().serve()\n"
        "except ImportError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.strip() == 'serving the fake needs uvicorn: pip install "insider-otel[testing]"'


def test_loading_the_plugin_loads_nothing_large() -> None:
    code = (
        "import sys, insider_otel.testing.plugin\n"
        "large = ['opentelemetry.sdk', 'uvicorn', 'httpx2', 'insider_otel.testing.fake']\n"
        "print([name for name in large if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.strip() == "[]"


def test_every_public_name_is_there() -> None:
    names = insider_otel.testing.__all__
    assert sorted(names) == names
    for name in names:
        assert getattr(insider_otel.testing, name).__module__.startswith("insider_otel.")


def test_another_name_is_not() -> None:
    assert not hasattr(insider_otel.testing, "FakeOutsider")
