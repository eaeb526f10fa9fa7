"""The only code that sends: transports for httpx and httpx2, and the instrumentor."""
