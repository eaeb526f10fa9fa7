"""A small shop in Flask that tells Insider who signs up, what is ordered and what is for sale."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from flask import Blueprint, Flask, Response, current_app, request
from insider_otel_flask import InsiderOTel, deadline, health, insider

from insider_otel import Category, Outcome, call_of

insider_otel = InsiderOTel()
pages = Blueprint("pages", __name__)

PRODUCTS = {"SKU1": ("Blue shirt", 49.9), "SKU2": ("Red scarf", 19.9)}


def create_app(config: dict[str, Any] | None = None) -> Flask:
    """The shop.

    Args:
        config: Flask config. ``INSIDER_URL`` is where to send instead of Insider's own hosts: a fake; the shop's keys
            are ``INSIDER_PARTNER``, ``INSIDER_TOKEN`` and ``INSIDER_AUTH_KEY``.
    """
    app = Flask(__name__)
    app.config.from_mapping(
        INSIDER_OTEL_REQUEST_DEADLINE=3.0,
        INSIDER_OTEL_ERROR_RESPONSES=True,
        INSIDER_URL=None,
        INSIDER_PARTNER="yourshop",
        INSIDER_TOKEN="your-token",
        INSIDER_AUTH_KEY="your-key",
    )
    app.config.from_mapping(config or {})
    insider_otel.init_app(app)
    app.register_blueprint(pages)
    app.add_url_rule("/health/insider", view_func=health)
    return app


@pages.post("/signup")
def signup() -> dict[str, str]:
    """A visitor signs up; that Insider hears of it late is no reason to turn a customer away."""
    user = {
        "identifiers": {"email": request.form["email"], "phone_number": request.form["phone"]},
        "attributes": {"email_optin": True},
    }
    response = send("unification.useinsider.com", "/api/user/v1/upsert", {"users": [user]})
    return {"welcome": request.form["email"], "insider": call_of(response).outcome}


@pages.post("/orders")
@deadline(2.0)
def order() -> tuple[dict[str, str], int]:
    """A customer orders: one mail, and what was bought for the customer's profile."""
    email, sku = request.form["email"], request.form["sku"]
    name, price = PRODUCTS[sku]
    number = f"ORDER-{request.form['number']}"
    mail = send(
        "mail.useinsider.com",
        "/mail/v1/send",
        {
            "subject": f"Your order {number}",
            "tos": [{"name": email, "email": email}],
            "from": {"name": "Shop", "email": "shop@example.com"},
            "content": [{"type": "text/html", "value": f"<p>Thank you for buying: {name}.</p>"}],
        },
    )
    purchase = {
        "event_name": "purchase",
        "timestamp": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "event_params": {
            "event_group_id": number,
            "product_id": sku,
            "unit_sale_price": price,
            "currency": "USD",
            "quantity": 1,
        },
    }
    user = {"identifiers": {"email": email}, "events": [purchase]}
    event = send("unification.useinsider.com", "/api/user/v1/upsert", {"users": [user]})
    return {"order": number, "mail": call_of(mail).outcome, "event": call_of(event).outcome}, 201


@pages.post("/catalog")
def sync_catalog() -> dict[str, int | str | None]:
    """The office sends what is for sale."""
    items = [
        {
            "item_id": sku,
            "locale": "en_US",
            "name": name,
            "url": f"https://shop.example.com/{sku}",
            "image_url": f"https://shop.example.com/{sku}.jpg",
            "category": ["Clothes"],
            "price": {"USD": price},
            "original_price": {"USD": price},
            "in_stock": 1,
        }
        for sku, (name, price) in PRODUCTS.items()
    ]
    call = call_of(send("catalog.api.useinsider.com", "/v2/ingest", items))
    return {"outcome": call.outcome, "accepted": call.verdict.accepted, "failed": call.verdict.failed}


@pages.post("/code")
def send_code() -> tuple[str, int]:
    """A customer asks for a one-time code."""
    send("verify.useinsider.com", "/v1/generate", {"channel": "sms", "to": request.form["phone"]}).raise_for_status()
    return "", 204


@pages.post("/code/check")
def check_code() -> Response | tuple[dict[str, str], int]:
    """A customer types the code. A typing error is the customer's, whatever status Insider gives it."""
    code = {"to": request.form["phone"], "code": request.form["code"]}
    response = send("verify.useinsider.com", "/v1/check", code)
    call = call_of(response)
    if call.verdict.category is Category.VERIFICATION:
        return {"error": "That is not the code we sent."}, 422
    if call.outcome is not Outcome.SUCCEEDED:
        # Answered with 502, 503 or 504.
        response.raise_for_status()
    return Response(status=204)


def send(host: str, path: str, content: Any) -> Any:
    """Send to Insider, with the keys that its host asks for.

    Args:
        host: Insider's host.
        path: The path there.
        content: The body, for JSON.
    """
    config = current_app.config
    if host in {"mail.useinsider.com", "verify.useinsider.com"}:
        keys = {"X-INS-AUTH-KEY": config["INSIDER_AUTH_KEY"]}
    else:
        keys = {"X-PARTNER-NAME": config["INSIDER_PARTNER"], "X-REQUEST-TOKEN": config["INSIDER_TOKEN"]}
    return insider.post((config["INSIDER_URL"] or f"https://{host}") + path, json=content, headers=keys)
