"""One request in process, by Django's own test clients: its scope, its client, its deadline."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable
from itertools import islice
from typing import Any
from wsgiref.util import FileWrapper

import httpx
import pytest
from asgiref.sync import async_to_sync
from django.core.exceptions import SynchronousOnlyOperation
from django.core.handlers.wsgi import WSGIHandler
from django.http import HttpResponse
from django.test import AsyncClient, Client, RequestFactory, override_settings
from django_project import views
from insider_otel_django import InsiderMiddleware, InsiderRequest, client

from insider_otel.http.scope import current_scope
from insider_otel.testing import FakeInsider, reply

Get = Callable[[str], Any]


def get_sync(path: str) -> Any:
    """As under WSGI."""
    return Client(raise_request_exception=False).get(path)


def get_async(path: str) -> Any:
    """As under ASGI."""

    async def get() -> Any:
        return await AsyncClient(raise_request_exception=False).get(path)

    return async_to_sync(get)()


both_stacks = pytest.mark.parametrize("get", [get_sync, get_async])


@both_stacks
@pytest.mark.parametrize("path", ["/signup", "/signup/async"])
def test_a_view_calls_with_the_requests_client_under_the_requests_deadline(
    fake: FakeInsider, get: Get, path: str
) -> None:
    result = get(path).json()
    assert result["outcome"] == "succeeded"
    assert 0.0 < result["remaining"] <= 5.0


def test_a_request_has_what_its_type_tells_a_type_checker(fake: FakeInsider) -> None:
    seen: list[Any] = []
    InsiderMiddleware(lambda request: seen.append(request) or HttpResponse())(RequestFactory().get("/signup"))
    [request] = seen
    assert all(hasattr(request, name) for name in InsiderRequest.__annotations__)
    assert isinstance(request.insider, httpx.Client)
    assert isinstance(async_to_sync(request.ainsider)(), httpx.AsyncClient)


@both_stacks
@pytest.mark.parametrize("path", ["/async-to-thread", "/thread-to-async"])
def test_threads_and_loops_that_a_view_hands_work_to_are_in_its_scope(fake: FakeInsider, get: Get, path: str) -> None:
    result = get(path).json()
    assert result["calls"] == 2
    assert result["remaining"] <= 5.0


@both_stacks
@pytest.mark.parametrize("path", ["/hasty", "/hasty/async", "/hasty/class", "/hasty/class/async"])
def test_a_view_can_have_a_deadline_of_its_own(fake: FakeInsider, get: Get, path: str) -> None:
    fake.script("user.upsert", reply(429, headers={"Retry-After": "60"}), repeat=True)
    with override_settings(INSIDER_OTEL={"INSTRUMENT": False, "REQUEST_DEADLINE": 600.0}):
        result = get(path).json()
    assert 0 < result["remaining"] <= 20.0
    assert (result["outcome"], result["attempts"], result["stopped"]) == ("failed", 1, "deadline")


def test_a_view_can_have_no_deadline(fake: FakeInsider) -> None:
    assert get_sync("/patient").json()["remaining"] is None


def test_the_deadline_of_all_requests_is_a_setting(fake: FakeInsider) -> None:
    with override_settings(INSIDER_OTEL={"INSTRUMENT": False, "REQUEST_DEADLINE": 60.0}):
        assert 5.0 < get_sync("/signup").json()["remaining"] <= 60.0
    assert 0.0 < get_sync("/signup").json()["remaining"] <= 5.0


@pytest.mark.parametrize("view", [views.hasty, views.Hasty.as_view()], ids=["function", "class"])
def test_a_view_called_by_a_test_keeps_its_deadline(fake: FakeInsider, view: Any) -> None:
    result = json.loads(view(RequestFactory().get("/hasty")).content)
    assert 0 < result["remaining"] <= 20.0


@pytest.mark.parametrize("view", [views.hasty_async, views.HastyAsync.as_view()], ids=["function", "class"])
@pytest.mark.anyio
async def test_an_async_view_called_by_a_test_keeps_its_deadline(fake: FakeInsider, view: Any) -> None:
    result = json.loads((await view(RequestFactory().get("/hasty"))).content)
    assert 0 < result["remaining"] <= 20.0


@both_stacks
def test_a_request_counts_its_own_calls_only(fake: FakeInsider, get: Get) -> None:
    assert [get("/signup").json()["calls"] for _ in range(3)] == [1, 1, 1]


@pytest.mark.parametrize("path", ["/signup", "/signup/async", "/broken", "/failing", "/nowhere", "/stream", "/order"])
def test_nothing_of_a_request_is_left_in_its_thread(fake: FakeInsider, path: str) -> None:
    response = get_sync(path)
    assert current_scope() is None
    if response.streaming:
        for _ in response:
            # Between two parts the thread is the server's.
            assert current_scope() is None
        response.close()


@pytest.mark.anyio
async def test_the_sync_client_is_not_given_to_a_running_loop() -> None:
    with pytest.raises(SynchronousOnlyOperation, match="async_client"):
        client()


def test_requests_of_one_thread_have_one_client(fake: FakeInsider) -> None:
    assert client() is client()


@pytest.mark.anyio
async def test_the_middleware_changes_no_thread(fake: FakeInsider, caplog: pytest.LogCaptureFixture) -> None:
    """Django would say so while it is in debug mode."""
    with override_settings(DEBUG=True), caplog.at_level(logging.DEBUG, "django.request"):
        response = await AsyncClient().get("/signup/async")
    assert response.json()["thread"] == threading.get_ident()
    assert not [record for record in caplog.records if "adapted" in record.getMessage()]


# ------------------------------------------------------------------------------------------------ streaming responses


def read(response: Any) -> list[Any]:
    """The parts of a response, each read as JSON, and the response closed."""
    parts = [json.loads(part) for part in response]
    response.close()
    return parts


def test_a_streaming_response_is_in_the_requests_scope(fake: FakeInsider) -> None:
    parts = read(get_sync("/stream"))
    assert [part["calls"] for part in parts] == [2, 3]
    assert all(part["remaining"] <= 5.0 for part in parts)


@pytest.mark.anyio
async def test_an_async_streaming_response_is_in_the_requests_scope(fake: FakeInsider) -> None:
    response: Any = await AsyncClient().get("/stream/async")
    parts = [json.loads(part) async for part in response.streaming_content]
    assert [part["calls"] for part in parts] == [2, 3]
    assert all(part["remaining"] <= 5.0 for part in parts)
    assert current_scope() is None


def test_the_scope_ends_with_the_response(fake: FakeInsider, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    def note_scope() -> Any:
        seen.append(current_scope())
        return seen[-1]

    monkeypatch.setattr(views, "current_scope", note_scope)
    response = get_sync("/stream")
    next(iter(response))
    assert not seen[0].is_closed
    response.close()
    assert seen[0].is_closed


@pytest.mark.parametrize("parts", [1, 3], ids=["the visitor leaves", "read to the end"])
def test_what_a_stream_does_when_it_ends_belongs_to_the_request(fake: FakeInsider, parts: int) -> None:
    """Else a call there could wait for minutes in the worker."""
    views.tidied.clear()
    response = get_sync("/stream/tidy")
    list(islice(response, parts))
    response.close()
    [call] = views.tidied
    assert call["calls"] == 1
    assert call["remaining"] <= 5.0
    assert current_scope() is None


def test_a_file_is_sent_in_the_servers_own_way(fake: FakeInsider) -> None:
    """By ``wsgi.file_wrapper``, which may use ``sendfile``: wrapped, the file could not be sent like that."""
    environ = RequestFactory().get("/file").environ
    handle: Any = WSGIHandler()
    sent = handle({**environ, "wsgi.file_wrapper": FileWrapper}, lambda *_: None)
    assert isinstance(sent, FileWrapper)
    assert b"".join(sent) == b"0123456789" * 1000
    sent.close()


def test_a_response_can_be_cached(fake: FakeInsider) -> None:
    """The cache pickles it, from further out or from further in."""
    cache = "django.middleware.cache.UpdateCacheMiddleware"
    fetch = "django.middleware.cache.FetchFromCacheMiddleware"
    ours = "insider_otel_django.InsiderMiddleware"
    for middleware in ([cache, ours, fetch], [ours, cache, fetch]):
        with override_settings(MIDDLEWARE=middleware):
            first = Client().get("/signup", {"order": middleware.index(ours)})
            second = Client().get("/signup", {"order": middleware.index(ours)})
        assert first.content == second.content
    assert len(fake.accepted("user.upsert")) == 2
