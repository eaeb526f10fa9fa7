"""What the shop tells Insider: where it goes, and in which words."""

from __future__ import annotations

from typing import Any

from django.conf import settings

from myshop.models import Order

PRODUCTS = {"SKU1": ("Blue shirt", 49.9), "SKU2": ("Red scarf", 19.9)}


def message(host: str, path: str, content: Any) -> dict[str, Any]:
    """A message, as arguments of a client's ``post``, with the keys that its host asks for.

    Args:
        host: Insider's host.
        path: The path there.
        content: The body, for JSON.
    """
    if host in {"mail.useinsider.com", "verify.useinsider.com"}:
        keys = {"X-INS-AUTH-KEY": settings.INSIDER_AUTH_KEY}
    else:
        keys = {"X-PARTNER-NAME": settings.INSIDER_PARTNER, "X-REQUEST-TOKEN": settings.INSIDER_TOKEN}
    return {"url": (settings.INSIDER_URL or f"https://{host}") + path, "json": content, "headers": keys}


def customer(email: str, phone: str) -> dict[str, Any]:
    """A customer who signed up."""
    user = {"identifiers": {"email": email, "phone_number": phone}, "attributes": {"email_optin": True}}
    return message("unification.useinsider.com", "/api/user/v1/upsert", {"users": [user]})


def purchase(order: Order) -> dict[str, Any]:
    """What was bought, as an event of the customer's."""
    event = {
        "event_name": "purchase",
        "timestamp": order.created.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "event_params": {
            "event_group_id": order.number,
            "product_id": order.sku,
            "unit_sale_price": order.price,
            "currency": "USD",
            "quantity": 1,
        },
    }
    user = {"identifiers": {"email": order.email}, "events": [event]}
    return message("unification.useinsider.com", "/api/user/v1/upsert", {"users": [user]})


def thanks(order: Order) -> dict[str, Any]:
    """The mail to who ordered."""
    mail = {
        "subject": f"Your order {order.number}",
        "tos": [{"name": order.email, "email": order.email}],
        "from": {"name": "Shop", "email": "shop@example.com"},
        "content": [{"type": "text/html", "value": "<p>Thank you.</p>"}],
    }
    return message("mail.useinsider.com", "/mail/v1/send", mail)


def catalog() -> dict[str, Any]:
    """All that is for sale."""
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
    return message("catalog.api.useinsider.com", "/v2/ingest", items)


def code(phone: str) -> dict[str, Any]:
    """The wish for a one-time code."""
    return message("verify.useinsider.com", "/v1/generate", {"channel": "sms", "to": phone})


def typed_code(phone: str, typed: str) -> dict[str, Any]:
    """The one-time code as the customer typed it."""
    return message("verify.useinsider.com", "/v1/check", {"to": phone, "code": typed})
