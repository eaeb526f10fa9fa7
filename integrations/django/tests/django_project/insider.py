"""What its views send."""

from __future__ import annotations

import os
from typing import Any

from insider_otel.testing import sample_request


def sample(operation: str = "user.upsert") -> dict[str, Any]:
    """A good request, as keyword arguments of a client's ``request``."""
    request = sample_request(operation, base_url=os.environ.get("INSIDER_URL"))
    return {"method": request.method, "url": request.url, "headers": request.headers, "content": request.content}
