"""A span processor of the app's own that breaks costs it what the processor does, and no call."""

from __future__ import annotations

import httpx
import pytest
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.trace import SpanKind

from insider_otel import InsiderTransport, Settings, call_of

MAIL = "https://mail.useinsider.com/mail/v1/send"


class Broken(SpanProcessor):
    """Raises when a span of one kind ends."""

    def __init__(self, kind: SpanKind) -> None:
        self._kind = kind

    def on_end(self, span: ReadableSpan) -> None:
        if span.kind is self._kind:
            raise RuntimeError("jane@example.com")


@pytest.mark.parametrize("kind", [SpanKind.CLIENT, SpanKind.INTERNAL], ids=["attempt", "call and wait"])
def test_a_span_processor_that_raises_does_not_have_a_mail_sent_again(
    kind: SpanKind, caplog: pytest.LogCaptureFixture
) -> None:
    """An app that gets an exception asks again, and Insider had taken the mail."""
    tracer_provider = TracerProvider(shutdown_on_exit=False)
    tracer_provider.add_span_processor(Broken(kind))
    replies = [503, 202]
    transport = InsiderTransport(
        httpx.MockTransport(lambda _: httpx.Response(replies.pop(0), json={})),
        tracer_provider=tracer_provider,
        settings=Settings(quick_delay=0.0),
    )
    mail = {"subject": f"Your order ({kind.name})", "to": [{"email": "jane@example.com"}]}
    with httpx.Client(transport=transport, headers={"X-INS-AUTH-KEY": "key"}) as client:
        outcomes = [call_of(client.post(MAIL, json=mail)).outcome for _ in range(2)]
    assert outcomes == ["succeeded", "held_back"]
    assert {record.getMessage() for record in caplog.records} == {
        "a span could not be ended: a span processor raised RuntimeError"
    }
