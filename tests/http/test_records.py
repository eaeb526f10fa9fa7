"""``call_of`` finds the record of a call behind whatever the app has of it."""

from __future__ import annotations

from typing import Any

import pytest

from insider_otel import Call, call_of
from insider_otel.policy.steps import Outcome

from .conftest import Rig
from .test_calls import UPSERT


def raised(rig: Rig, handler: Any, *, hook: bool = False, **options: Any) -> Exception:
    """What an app gets that makes a call with ``raise_for_status``, by itself or in a hook of its client."""

    def check(response: Any) -> None:
        response.raise_for_status()

    async def check_async(response: Any) -> None:
        response.raise_for_status()

    client: dict[str, Any] = {}
    if hook:
        client["event_hooks"] = {"response": [check_async if rig.flavour.is_async else check]}
    transport = rig.wrap(rig.flavour.answering(handler))
    try:
        rig.flavour.post(UPSERT, transport=transport, client=client, json={}, **options).raise_for_status()
    except rig.flavour.module.HTTPError as error:
        failed: Exception = error
        return failed
    raise AssertionError("the call succeeded")


@pytest.mark.parametrize("hook", [False, True], ids=["by the app", "by a hook"])
def test_of_the_exception_that_raise_for_status_raises(rig: Rig, hook: bool) -> None:
    error = raised(rig, lambda request: rig.flavour.module.Response(401), hook=hook)
    call = call_of(error)
    assert (call.operation.name, call.outcome) == ("user.upsert", Outcome.FAILED)
    assert call.verdict.category == "authentication"


def test_of_too_many_redirects(rig: Rig) -> None:
    def handler(request: Any) -> Any:
        return rig.flavour.module.Response(307, headers={"location": UPSERT})

    error = raised(rig, handler, follow_redirects=True)
    assert type(error).__name__ == "TooManyRedirects"
    call = call_of(error)
    assert (call.operation.name, call.outcome, call.attempts) == ("user.upsert", Outcome.FAILED, 1)


def test_of_a_redirect_that_cannot_be_followed(rig: Rig) -> None:
    def handler(request: Any) -> Any:
        return rig.flavour.module.Response(307, headers={"location": "https://example.com:port/"})

    assert isinstance(call_of(raised(rig, handler, follow_redirects=True)), Call)


@pytest.mark.parametrize("answer", [500, "ConnectError"])
def test_of_no_call_that_a_redirect_led_away_from_insider(rig: Rig, answer: Any) -> None:
    module = rig.flavour.module

    def handler(request: Any) -> Any:
        if request.url.host != "example.com":
            return module.Response(307, headers={"location": "https://example.com/"})
        if isinstance(answer, int):
            return module.Response(answer)
        raise getattr(module, answer)("refused", request=request)

    with pytest.raises(LookupError, match="no Insider call"):
        call_of(raised(rig, handler, follow_redirects=True))


def test_of_no_call_that_a_redirect_led_past_the_transport(rig: Rig) -> None:
    """As with the instrumentor, which leaves requests to other hosts where they are."""
    module = rig.flavour.module

    def elsewhere(request: Any) -> Any:
        raise module.ConnectError("refused", request=request)

    def redirected(request: Any) -> Any:
        return module.Response(307, headers={"location": "https://example.com/"})

    mounts = {"all://example.com": rig.flavour.answering(elsewhere)}
    transport = rig.wrap(rig.flavour.answering(redirected))
    with pytest.raises(module.ConnectError) as refused:
        rig.flavour.post(UPSERT, transport=transport, client={"mounts": mounts}, json={}, follow_redirects=True)
    with pytest.raises(LookupError, match="no Insider call"):
        call_of(refused.value)


def test_of_no_exception_whose_attributes_cannot_be_read() -> None:
    class LazyError(Exception):
        @property
        def request(self) -> object:
            raise KeyError("working outside of a request")

    with pytest.raises(LookupError, match="no Insider call"):
        call_of(LazyError())


def test_of_no_call_that_only_shares_its_extensions_with_one(rig: Rig) -> None:
    module, shared = rig.flavour.module, {"timeout": {"connect": 5.0}}

    def handler(request: Any) -> Any:
        if request.url.host == "example.com":
            raise module.ConnectError("refused", request=request)
        return module.Response(200, json={})

    transport = rig.wrap(rig.flavour.answering(handler))
    assert isinstance(call_of(rig.flavour.post(UPSERT, transport=transport, json={}, extensions=shared)), Call)
    # Through a transport that is none of ours, and could not forget what is not its own.
    plain = rig.flavour.answering(handler)
    with pytest.raises(module.ConnectError) as refused:
        rig.flavour.post("https://example.com/", transport=plain, json={}, extensions=shared)
    with pytest.raises(LookupError, match="no Insider call"):
        call_of(refused.value)


def test_an_exception_that_tells_of_no_request_came_from_no_call(rig: Rig) -> None:
    with pytest.raises(LookupError, match="no Insider call"):
        call_of(rig.flavour.module.ConnectError("of the app's own"))
