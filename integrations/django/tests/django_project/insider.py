"""What its views send."""

from __future__ import annotations

import os
from typing import Any

from insider_otel.api.operations import Operation
from insider_otel.testing import sample_request


def sample(operation: str = "user.upsert") -> dict[str, Any]:
    """A good request, as keyword arguments of a client's ``request``."""
    request = sample_request(operation, base_url=os.environ.get("INSIDER_URL"))
    return {"method": request.method, "url": request.url, "headers": request.headers, "content": request.content}


def credentials(operation: Operation, account: str | None) -> dict[str, str]:
    """The credentials of a good request, for calls that are sent later."""
    headers = sample_request(operation.name).headers
    return {name: value for name, value in headers.items() if name.lower() != "content-type"}
