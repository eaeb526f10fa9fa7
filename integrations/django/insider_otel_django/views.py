"""The health page: ``path("health/insider/", insider_otel_django.health)``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.http import JsonResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from insider_otel.http.health import health as state_of_health

if TYPE_CHECKING:
    from django.http import HttpRequest


@never_cache
@require_safe
def health(request: HttpRequest) -> JsonResponse:
    """What this process knows of its calls to Insider; it asks nobody.

    The status is 200 even if Insider is in trouble: that is no reason to take the shop off the load balancer.
    """
    return JsonResponse(state_of_health())
