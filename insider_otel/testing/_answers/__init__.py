"""What Insider answers to a good request, by operation."""

from __future__ import annotations

from insider_otel.testing._answers import catalog, codes, messaging, push, users
from insider_otel.testing._answers._ask import Answer, Ask
from insider_otel.testing._wire import Reply
from insider_otel.testing.samples import exchanges

__all__ = ["ANSWERS", "Answer", "Ask", "answer"]

ANSWERS: dict[str, Answer] = {
    **users.ANSWERS,
    **messaging.ANSWERS,
    **codes.ANSWERS,
    **push.ANSWERS,
    **catalog.ANSWERS,
}


def answer(ask: Ask) -> Reply:
    """What Insider answers to a request that passed the checks of its host."""
    always = exchanges()[ask.operation.name].reply
    return ANSWERS[ask.operation.name](ask) if always is None else always
