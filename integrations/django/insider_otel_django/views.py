"""What visitors see of insider-otel: the health page, and the answer for a failed call that no view handled."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

from django.http import HttpResponse, JsonResponse
from django.template import TemplateDoesNotExist, loader
from django.utils.cache import patch_vary_headers
from django.utils.html import format_html
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from insider_otel.http.health import health as state_of_health

if TYPE_CHECKING:
    from django.http import HttpRequest

    from insider_otel.web import Failure

_PAGE = '<!doctype html>\n<html lang="en"><title>{title}</title><h1>{title}</h1><p>{detail}</p></html>\n'


@never_cache
@require_safe
def health(request: HttpRequest) -> JsonResponse:
    """How the calls to Insider go, as JSON: ``path("health/insider/", insider_otel_django.health)``. It asks nobody.

    The status is 200 even if Insider is in trouble: that is no reason to take the shop off the load balancer.
    """
    return JsonResponse(state_of_health())


def failed_response(request: HttpRequest, failure: Failure) -> HttpResponse:
    """The answer: a page, from the template ``502.html``, ``503.html`` or ``504.html`` if there is one; or JSON.

    Args:
        request: The request that failed.
        failure: What to say.
    """
    response: HttpResponse
    if request.get_preferred_type(["text/html", "application/json"]) == "application/json":
        response = JsonResponse({"detail": failure.detail}, status=failure.status, headers=failure.headers)
    else:
        response = HttpResponse(_page(request, failure), status=failure.status, headers=failure.headers)
    patch_vary_headers(response, ["Accept"])
    return response


def _page(request: HttpRequest, failure: Failure) -> str:
    try:
        template = loader.get_template(f"{failure.status}.html")
    except TemplateDoesNotExist:
        return format_html(_PAGE, title=HTTPStatus(failure.status).phrase, detail=failure.detail)
    return template.render({"detail": failure.detail, "retry_after": failure.retry_after}, request)
