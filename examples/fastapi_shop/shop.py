"""A small shop that talks to Insider: sign-up, order, catalog, one-time code. FastAPI with insider-otel."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import Any

import httpx
from fastapi import BackgroundTasks, Depends, FastAPI, HTTPException
from insider_otel_fastapi import Insider, InsiderMiddleware, SyncInsider, deadline, insider_health
from pydantic import BaseModel

from insider_otel import Category, call_of

app = FastAPI(title="Shop", telemetry={"operation_spans": False})
# No page takes longer than three seconds because of Insider, and a call that nothing here handles is no 500.
app.add_middleware(InsiderMiddleware, request_deadline=3.0, error_responses=True)
app.get("/health/insider")(insider_health)


def insider_url(host: str, path: str) -> str:
    """Insider's own address, or that of a fake in its place."""
    return os.environ.get("SHOP_INSIDER_URL", f"https://{host}.useinsider.com") + path


USERS = insider_url("unification", "/api/user/v1/upsert")
MAIL = insider_url("mail", "/mail/v1/send")
CATALOG = insider_url("catalog.api", "/v2/ingest")
CODE = insider_url("verify", "/v1/generate")
CODE_CHECK = insider_url("verify", "/v1/check")

PARTNER = {"X-PARTNER-NAME": os.environ["SHOP_INSIDER_PARTNER"], "X-REQUEST-TOKEN": os.environ["SHOP_INSIDER_TOKEN"]}
KEY = {"X-INS-AUTH-KEY": os.environ["SHOP_INSIDER_KEY"]}


class Signup(BaseModel):
    """A new customer."""

    email: str
    name: str


class Order(BaseModel):
    """What a customer bought."""

    number: str
    email: str
    product: str
    price: float


class Product(BaseModel):
    """A product of the catalog."""

    id: str
    name: str
    price: float


class Check(BaseModel):
    """A one-time code as the customer typed it."""

    phone: str
    code: str


@app.post("/signup", status_code=201)
async def signup(new: Signup, insider: Insider) -> None:
    """Insider learns of the customer before the page says welcome."""
    user = {"identifiers": {"email": new.email}, "attributes": {"name": new.name, "email_optin": True}}
    (await insider.post(USERS, headers=PARTNER, json={"users": [user]})).raise_for_status()


@app.post("/orders", status_code=201)
async def order(new: Order, insider: Insider, tasks: BackgroundTasks) -> None:
    """The purchase is an event of the customer's. The mail is sent after the page, and in no hurry."""
    purchase = {
        "event_name": "purchase",
        "timestamp": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "event_params": {
            "event_group_id": new.number,
            "product_id": new.product,
            "unit_sale_price": new.price,
            "currency": "USD",
            "quantity": 1,
        },
    }
    user = {"identifiers": {"email": new.email}, "events": [purchase]}
    (await insider.post(USERS, headers=PARTNER, json={"users": [user]})).raise_for_status()
    tasks.add_task(send_mail, insider, new)


async def send_mail(insider: httpx.AsyncClient, order: Order) -> None:
    """Thank the customer. Sent twice within 15 minutes, it is sent once."""
    mail = {
        "subject": f"Your order {order.number}",
        "tos": [{"email": order.email, "name": order.email}],
        "from": {"email": "shop@example.com", "name": "Shop"},
        "content": [{"type": "text/html", "value": "<p>Thank you.</p>"}],
    }
    await insider.post(MAIL, headers=KEY, json=mail)


# A nightly job calls it, and has time. A plain `def`: FastAPI runs it in a thread.
@app.post("/catalog", dependencies=[Depends(deadline(60.0))])
def sync_catalog(products: list[Product], insider: SyncInsider) -> dict[str, int]:
    """Insider takes some products and refuses others in one and the same answer: the verdict counts them."""
    items = [
        {
            "item_id": product.id,
            "locale": "en_US",
            "name": product.name,
            "url": f"https://shop.example.com/{product.id}",
            "image_url": f"https://shop.example.com/{product.id}.jpg",
            "category": ["All"],
            "price": {"USD": product.price},
            "original_price": {"USD": product.price},
            "in_stock": 1,
        }
        for product in products
    ]
    response = insider.post(CATALOG, headers=PARTNER, json=items)
    response.raise_for_status()
    return {"sent": len(items), "refused": call_of(response).verdict.failed or 0}


@app.post("/codes", status_code=202)
async def send_code(phone: str, insider: Insider) -> None:
    """Send a one-time code by SMS."""
    (await insider.post(CODE, headers=KEY, json={"channel": "sms", "to": phone})).raise_for_status()


@app.post("/codes/check")
async def check_code(check: Check, insider: Insider) -> dict[str, Any]:
    """A mistyped code is answered with 401, which here is the customer's slip and not ours: the verdict tells them."""
    response = await insider.post(CODE_CHECK, headers=KEY, json={"to": check.phone, "code": check.code})
    if call_of(response).verdict.category is Category.VERIFICATION:
        raise HTTPException(422, "That code is not right, or too old.")
    response.raise_for_status()
    return {"verified": True}
