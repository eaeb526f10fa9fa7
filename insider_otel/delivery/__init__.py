"""Deferred calls on their way: what sends the jobs of an outbox, and decides what becomes of them."""
