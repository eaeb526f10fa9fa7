"""insider-otel: OpenTelemetry middleware for calls to Insider (useinsider.com)."""
