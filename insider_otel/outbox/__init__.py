"""Deferred calls at rest: what is kept of a call, and where. What sends them is ``insider_otel.delivery``."""
