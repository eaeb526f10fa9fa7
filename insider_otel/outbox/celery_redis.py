"""What Celery on Redis lacks: its gap is closed, and messages can be looked at, and deleted when their time is over.

A message is not lost with a worker that is killed the moment it takes it.

Celery takes a message off its list, and then notes that it has it: a worker that is killed between, or whose connection
is gone, takes the message with it. So a copy of each job is put where Celery keeps the messages that its workers have
not confirmed. There it is delivered again by Celery's own means, unless the job is over by then.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from functools import cache, partial
from importlib import import_module
from typing import Any

_COMES_BACK = 6
"""Visibility timeouts until a copy is delivered: six hours unless Celery is set otherwise. So rarely is a message lost
that nothing is gained by haste, and one that only waits for a worker must not be taken for lost."""

_READ_AT_ONCE = 100

Settle = Callable[[Callable[[], object]], bool]
"""Is called with what is to be done about a message; that done, it has left its queue. Returns whether it was there."""

# Nobody else has the message then, and it is where Celery finds what a process took that is no more.
_TAKE = """
local taken = redis.call('LREM', KEYS[1], -1, ARGV[1])
if taken > 0 then
    redis.call('HSET', KEYS[2], ARGV[2], ARGV[3])
    redis.call('ZADD', KEYS[3], ARGV[4], ARGV[2])
end
return taken
"""


def is_redis(transport: Any) -> bool:
    """Whether a transport of kombu's is that of Redis, of whatever kind.

    Args:
        transport: Its class.
    """
    return getattr(transport, "driver_type", None) == "redis"


@cache
def keeping_copies(transport: Any) -> Any:
    """A transport that keeps a copy of each message that it sends.

    Args:
        transport: The class of a transport of kombu's, for Redis.
    """

    def put(channel: Any, queue: str, message: dict[str, Any], **options: Any) -> None:
        job_id = message["properties"]["correlation_id"]
        _keep(channel, queue, message, job_id)
        try:
            plain(channel, queue, message, **options)
        except Exception:
            with suppress(Exception):
                forget(channel, job_id)
            raise

    plain: Any = transport.Channel._put
    channel = type("Channel", (transport.Channel,), {"_put": put})
    return type("Transport", (transport,), {"Channel": channel})


def forget(channel: Any, job_id: str) -> None:
    """Forget the copy of a job: it is over.

    Args:
        channel: A channel to Redis.
        job_id: The name of the job.
    """
    with channel.conn_or_acquire() as client, client.pipeline() as pipe:
        pipe.zrem(channel.unacked_index_key, _tag(job_id))
        pipe.hdel(channel.unacked_key, _tag(job_id))
        pipe.execute()


def drop_expired(channel: Any, queue: str, now: float) -> list[Any]:
    """Delete the messages of a queue that nobody reads whose time is over. RabbitMQ does so by itself.

    None is taken off the queue but those, so none is lost with a process that is killed meanwhile.

    Args:
        channel: A channel to Redis.
        queue: The queue.
        now: The present moment, in seconds since 1970.

    Returns:
        The messages, as kombu has them.
    """
    dropped: list[Any] = []
    with channel.conn_or_acquire() as client:
        for key in _lists(channel, queue):
            left = 0
            # The oldest is the last of the list; others may meanwhile put new ones before the first.
            while texts := client.lrange(_full(channel, key), -left - _READ_AT_ONCE, -left - 1):
                messages = [(text, _message(channel, text)) for text in texts]
                expired = [(text, message) for text, message in messages if _is_expired(message, now)]
                # Another worker may have been quicker.
                dropped += [message for text, message in expired if client.lrem(_full(channel, key), -1, text)]
                left += len(texts) - len(expired)
    return dropped


def look(channel: Any, queue: str) -> list[tuple[Any, Settle]]:
    """The messages of a queue that nobody reads, the oldest first. None is taken off the queue.

    Args:
        channel: A channel to Redis.
        queue: The queue.

    Returns:
        The messages, as kombu has them, each with what settles it.
    """
    found: list[tuple[Any, Settle]] = []
    with channel.conn_or_acquire() as client:
        for key in _lists(channel, queue):
            seen = 0
            while texts := client.lrange(_full(channel, key), -seen - _READ_AT_ONCE, -seen - 1):
                seen += len(texts)
                settle = partial(_settle, channel, queue, key)
                found += [(_message(channel, text), partial(settle, text)) for text in reversed(texts)]
    return found


def _settle(channel: Any, queue: str, key: str, text: bytes, act: Callable[[], object]) -> bool:
    """Take a message off its list, and do what is to be done about it; one process only does so.

    If that fails, it is put back; if the process is killed, Celery does so after a visibility timeout.
    """
    name = f"dead:{uuid.uuid4().hex}"
    keys = [_full(channel, each) for each in (key, channel.unacked_key, channel.unacked_index_key)]
    with channel.conn_or_acquire() as client:
        if not client.eval(_TAKE, len(keys), *keys, text, _tag(name), _as_taken(json.loads(text), queue), time.time()):
            return False
        try:
            act()
        except BaseException:
            # If the broker does not take it, Celery puts it back.
            with suppress(Exception), client.pipeline() as pipe:
                pipe.zrem(channel.unacked_index_key, _tag(name))
                pipe.hdel(channel.unacked_key, _tag(name))
                pipe.rpush(key, text)
                pipe.execute()
            raise
    forget(channel, name)
    return True


def _lists(channel: Any, queue: str) -> list[str]:
    """The keys of the lists that hold a queue: one for each priority."""
    return [channel._q_for_pri(queue, priority) for priority in channel.priority_steps]


def _full(channel: Any, key: str) -> str:
    # kombu puts the prefix only before the keys of the commands that it uses itself.
    return f"{channel.global_keyprefix}{key}"


def _message(channel: Any, text: bytes) -> Any:
    return channel.Message(json.loads(text), channel=channel)


def _is_expired(message: Any, now: float) -> bool:
    expires: str | None = message.headers.get("expires")
    return expires is not None and datetime.fromisoformat(expires) <= datetime.fromtimestamp(now, UTC)


def _keep(channel: Any, queue: str, message: dict[str, Any], job_id: str) -> None:
    # Each delivery has a tag of its own: to confirm that of the copy is not to forget a later one.
    properties = {**message["properties"], "delivery_tag": str(uuid.uuid4())}
    copy = _as_taken({**message, "properties": properties}, queue)
    # Celery delivers again what it notes as taken for longer than one visibility timeout.
    taken_at = time.time() + (_COMES_BACK - 1) * channel.visibility_timeout
    with channel.conn_or_acquire() as client, client.pipeline() as pipe:
        pipe.zadd(channel.unacked_index_key, {_tag(job_id): taken_at})
        pipe.hset(channel.unacked_key, _tag(job_id), copy)
        pipe.execute()


def _as_taken(message: dict[str, Any], queue: str) -> str:
    """A message as Celery keeps one that was taken, to put it back into its queue."""
    text: str = import_module("kombu.utils.json").dumps([message, "", queue])
    return text


def _tag(job_id: str) -> str:
    return f"insider-otel:{job_id}"
