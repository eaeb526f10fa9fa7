"""Setting an app up: the extension pattern, its config keys, and errors that help."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import httpx
import httpx2
import pytest
from flask import Flask
from flask_calls import call
from insider_otel_flask import InsiderOTel, insider, override
from insider_testkit.frames import assert_frames_hold_none_of

from insider_otel import InsiderInstrumentor, SettingsError
from insider_otel.testing import CapturedSpans, FakeInsider
from insider_otel.web import WebApp, WebOptions

AppFactory = Callable[..., Flask]


def options_of(app: Flask) -> WebOptions:
    web_app = app.extensions["insider_otel"]
    assert isinstance(web_app, WebApp)
    return web_app.options


def test_an_app_needs_one_line() -> None:
    app = Flask("shop")
    InsiderOTel(app)
    assert options_of(app) == WebOptions()
    with app.app_context():
        assert isinstance(insider._get_current_object(), httpx.Client)  # type: ignore[attr-defined]


def test_one_extension_serves_the_apps_of_a_factory() -> None:
    """Nothing of an app stays in the extension, and ``init_app`` gives nothing back."""
    extension = InsiderOTel()
    apps = [Flask(name) for name in ("shop", "office")]
    for number, app in enumerate(apps, 1):
        app.config["INSIDER_OTEL_REQUEST_DEADLINE"] = float(number)
        assert extension.init_app(app) is None  # type: ignore[func-returns-value]
    assert [options_of(app).request_deadline for app in apps] == [1.0, 2.0]
    with apps[0].app_context():
        first = insider._get_current_object()  # type: ignore[attr-defined]
        with apps[1].app_context():
            assert insider._get_current_object() is not first  # type: ignore[attr-defined]


def test_options_and_settings_are_config_keys() -> None:
    app = Flask("shop")
    app.config.from_mapping(
        INSIDER_OTEL_REQUEST_DEADLINE=3,
        INSIDER_OTEL_ERROR_RESPONSES=True,
        INSIDER_OTEL_INSTRUMENT=False,
        INSIDER_OTEL_LIMITS={"user.upsert": "100/60s"},
        INSIDER_OTEL_HOSTS={"127.0.0.1:8080": "*"},
        INSIDER_OTEL_QUICK_RETRIES=0,
    )
    InsiderOTel(app)
    options = options_of(app)
    assert (options.request_deadline, options.error_responses, options.instrument) == (3, True, False)
    assert str(options.settings.pool_limits["user.upsert"]) == "100/60s"
    assert options.settings.hosts == {"127.0.0.1:8080": "*"}
    assert options.settings.quick_retries == 0


def test_variables_of_the_environment_win(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INSIDER_OTEL_REQUEST_DEADLINE", "1.5")
    monkeypatch.setenv("INSIDER_OTEL_QUICK_RETRIES", "4")
    app = Flask("shop")
    app.config.from_mapping(INSIDER_OTEL_REQUEST_DEADLINE=3.0, INSIDER_OTEL_QUICK_RETRIES=0)
    InsiderOTel(app)
    assert options_of(app).request_deadline == 1.5
    assert options_of(app).settings.quick_retries == 4


def test_keys_that_are_no_option_are_an_error_that_names_them_all() -> None:
    app = Flask("shop")
    app.config.from_mapping(INSIDER_OTEL_DEADLNE=3.0, INSIDER_OTEL_RETRIES=1, INSIDER_OTEL_DEADLINE=3.0)
    with pytest.raises(
        SettingsError, match=r"INSIDER_OTEL_DEADLNE, INSIDER_OTEL_RETRIES, .*INSIDER_OTEL_QUICK_RETRIES"
    ):
        InsiderOTel(app)
    assert "insider_otel" not in app.extensions


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("INSIDER_OTEL_REQUEST_DEADLINE", "soon"),
        ("INSIDER_OTEL_ERROR_RESPONSES", "yes"),
        ("INSIDER_OTEL_STATE", "mysql://cache"),
    ],
)
def test_a_value_that_cannot_be_used_is_an_error_that_names_its_key(key: str, value: str) -> None:
    app = Flask("shop")
    app.config[key] = value
    with pytest.raises(SettingsError, match=key):
        InsiderOTel(app)


@pytest.mark.parametrize("wrong", [{"REQUEST_DEADLINE": -1}, {"QUICK_DELAY": -1}, {"QUICK_RETRY": 1}], ids=str)
def test_an_error_reporter_that_sends_variables_gets_none_of_the_other_values(wrong: dict[str, int]) -> None:
    app = Flask("shop")
    key = "a2tr" * 10 + "a2s="
    app.config.from_mapping(
        INSIDER_OTEL_OUTBOX_KEY=key,
        INSIDER_OTEL_STATE="redis://:hunter2pass@cache.example.com/0",
        **{f"INSIDER_OTEL_{name}": value for name, value in wrong.items()},
    )
    with pytest.raises(SettingsError) as refused:
        InsiderOTel(app)
    assert_frames_hold_none_of((key, "hunter2pass"), refused.value)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"request_deadline": 2.0}, r'no request_deadline: set app\.config\["INSIDER_OTEL_REQUEST_DEADLINE"\]'),
        ({"quick_retries": 0}, r'no quick_retries: set app\.config\["INSIDER_OTEL_QUICK_RETRIES"\]'),
        ({"tracer": None}, "no tracer; it takes module, tracer_provider, meter_provider, logger_provider"),
    ],
)
def test_an_option_in_place_of_a_config_key_is_an_error_that_names_the_key(given: Any, says: str) -> None:
    with pytest.raises(TypeError, match=says):
        InsiderOTel(**given)


def test_an_app_is_set_up_once() -> None:
    app = Flask("shop")
    InsiderOTel(app)
    with pytest.raises(RuntimeError, match=r"'shop' uses insider-otel already"):
        InsiderOTel(app)


def test_an_app_that_serves_already_is_left_alone() -> None:
    app = Flask("shop")
    wsgi_app = app.wsgi_app
    app.test_client().get("/")
    with pytest.raises(AssertionError, match="first request"):
        InsiderOTel(app)
    assert "insider_otel" not in app.extensions
    assert app.wsgi_app == wsgi_app


def test_outside_of_an_app_the_client_says_what_to_do() -> None:
    with pytest.raises(RuntimeError, match=r"with app\.app_context\(\)"):
        insider.get("https://unification.useinsider.com")
    assert "unbound" in repr(insider)


def test_in_an_app_without_the_extension_the_client_says_so() -> None:
    with Flask("bare").app_context(), pytest.raises(RuntimeError, match=r"'bare' does not use insider-otel yet"):
        insider.get("https://unification.useinsider.com")


def test_commands_of_the_app_have_the_client_too(make_app: AppFactory, insider_fake: FakeInsider) -> None:
    app = make_app()

    @app.cli.command("sync")
    def sync() -> None:
        call("catalog.ingest")

    with override(app, insider_fake):
        assert app.test_cli_runner().invoke(args=["sync"]).exit_code == 0
    assert len(insider_fake.accepted("catalog.ingest")) == 1


def test_the_client_may_be_one_of_httpx2(insider_fake: FakeInsider, insider_spans: CapturedSpans) -> None:
    app = Flask("shop")
    InsiderOTel(app, module=httpx2, tracer_provider=insider_spans.tracer_provider)
    with app.app_context(), override(app, insider_fake):
        assert isinstance(insider._get_current_object(), httpx2.Client)  # type: ignore[attr-defined]
        assert isinstance(call(), httpx2.Response)
    assert insider_spans.tree() == ["call user.upsert succeeded", "  POST /api/user/v1/upsert 200"]


def test_clients_of_the_views_themselves_are_covered(make_app: AppFactory, insider_spans: CapturedSpans) -> None:
    """Code that calls ``httpx.post`` already needs no change."""
    fake = FakeInsider()
    with fake.serve() as served:
        app = make_app(hosts=served.hosts)

        @app.post("/signup")
        def signup() -> str:
            httpx.post(
                f"{served.url}/api/user/v1/upsert",
                json={"users": [{"identifiers": {"email": "jane@example.com"}}]},
                headers={"X-PARTNER-NAME": "shop", "X-REQUEST-TOKEN": "any"},
            )
            return "welcome"

        assert app.test_client().post("/signup").status_code == 200
    assert insider_spans.tree() == ["call user.upsert succeeded", "  POST /api/user/v1/upsert 200"]


def test_the_instrumentor_stays_off_where_it_is_not_wanted() -> None:
    app = Flask("shop")
    app.config["INSIDER_OTEL_INSTRUMENT"] = False
    InsiderOTel(app)
    assert not InsiderInstrumentor().is_instrumented_by_opentelemetry


def test_the_client_is_closed_when_its_app_is_gone() -> None:
    app = Flask("shop")
    InsiderOTel(app)
    with app.app_context():
        client = insider._get_current_object()  # type: ignore[attr-defined]
    assert not client.is_closed
    del app
    gc.collect()
    assert client.is_closed
