"""What users have for their own tests, and the page that tells how it goes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from flask import Flask, jsonify
from flask_calls import call
from insider_otel_flask import health, override

from insider_otel.testing import FakeInsider

AppFactory = Callable[..., Flask]


def test_a_fake_takes_the_place_of_insider_for_a_block(make_app: AppFactory) -> None:
    app = make_app()
    app.add_url_rule("/", view_func=lambda: call().text, endpoint="index")
    outer, inner = FakeInsider(), FakeInsider()
    with override(app, outer):
        app.test_client().get("/")
        with override(app, inner.transport()):
            app.test_client().get("/")
        app.test_client().get("/")
    assert (len(outer.accepted("user.upsert")), len(inner.accepted("user.upsert"))) == (2, 1)


def test_a_fake_replaces_the_client_of_one_app_only(make_app: AppFactory) -> None:
    shop, office = make_app("shop"), make_app("office")
    for_shop, for_office = FakeInsider(), FakeInsider()
    with override(shop, for_shop), override(office, for_office):
        for app in (shop, office, office):
            with app.app_context():
                call()
    assert (len(for_shop.requests), len(for_office.requests)) == (1, 2)


def test_only_an_app_with_the_extension_can_be_given_a_fake() -> None:
    with pytest.raises(RuntimeError, match=r"'bare' does not use insider-otel yet"):
        override(Flask("bare"), FakeInsider())


def test_health_is_one_line_to_mount(make_app: AppFactory, insider_fake: FakeInsider) -> None:
    """Beside an endpoint ``health`` that the app has already."""
    app = make_app()
    app.add_url_rule("/health", endpoint="health", view_func=lambda: jsonify(status="up"))
    app.add_url_rule("/health/insider", view_func=health)
    with override(app, insider_fake):
        with app.app_context():
            call()
        answer = app.test_client().get("/health/insider")
    assert answer.status_code == 200
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.json is not None
    assert answer.json["products"]["unification"]["outcome"] == "succeeded"
    assert len(insider_fake.requests) == 1
