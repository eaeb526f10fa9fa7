"""Pages of the shop."""

from __future__ import annotations

from django.db import transaction
from django.http import HttpResponse, JsonResponse
from django.views.decorators.http import require_POST
from insider_otel_django import InsiderRequest, client, deadline, on_commit

from insider_otel import Category, call_of
from myshop import insider
from myshop.models import Order


@require_POST
def signup(request: InsiderRequest) -> JsonResponse:
    """A visitor signs up; that Insider hears of it late is no reason to turn a customer away."""
    email = request.POST["email"]
    response = request.insider.post(**insider.customer(email, request.POST["phone"]))
    return JsonResponse({"welcome": email, "insider": call_of(response).outcome})


@require_POST
@deadline(2.0)
def order(request: InsiderRequest) -> JsonResponse:
    """A customer orders. The mail is sent once the order is safe, and not at all if it is not."""
    sku = request.POST["sku"]
    with transaction.atomic():
        placed = Order.objects.create(
            number=f"ORDER-{request.POST['number']}",
            email=request.POST["email"],
            sku=sku,
            price=insider.PRODUCTS[sku][1],
        )
        on_commit(lambda: client().post(**insider.thanks(placed)), robust=True, deadline=2.0)
    event = request.insider.post(**insider.purchase(placed))
    return JsonResponse({"order": placed.number, "event": call_of(event).outcome}, status=201)


@require_POST
@deadline(60.0)
def sync_catalog(request: InsiderRequest) -> JsonResponse:
    """The office sends what is for sale, and has time. Insider may take some of it and refuse the rest."""
    call = call_of(request.insider.post(**insider.catalog()))
    return JsonResponse({"outcome": call.outcome, "accepted": call.verdict.accepted, "failed": call.verdict.failed})


@require_POST
def send_code(request: InsiderRequest) -> HttpResponse:
    """A customer asks for a one-time code."""
    request.insider.post(**insider.code(request.POST["phone"])).raise_for_status()
    return HttpResponse(status=204)


@require_POST
async def check_code(request: InsiderRequest) -> HttpResponse:
    """A customer types the code. A typing error is the customer's, whatever status Insider gives it."""
    client_of_loop = await request.ainsider()
    response = await client_of_loop.post(**insider.typed_code(request.POST["phone"], request.POST["code"]))
    if call_of(response).verdict.category is Category.VERIFICATION:
        return JsonResponse({"error": "That is not the code we sent."}, status=422)
    # A failure is answered with 502, 503 or 504.
    response.raise_for_status()
    return HttpResponse(status=204)
