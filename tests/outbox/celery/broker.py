"""What lies in the Redis of these tests."""

from __future__ import annotations

import base64
import json
from typing import Any, cast

import redis

from insider_otel.outbox.job import Job
from tests.outbox.celery.shop import DEAD_QUEUE, QUEUE


class Broker:
    """A look into Celery's broker, past Celery.

    Args:
        url: Its URL.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._redis: Any = redis.Redis.from_url(url)

    def clear(self) -> None:
        """Forget everything."""
        self._redis.flushall()

    def messages(self, queue: str = QUEUE) -> list[dict[str, Any]]:
        """The messages in a queue, the oldest first."""
        return [json.loads(message) for message in reversed(self._redis.lrange(queue, 0, -1))]

    def jobs(self, queue: str = QUEUE) -> list[Job]:
        """The jobs in a queue."""
        return [Job.from_json(arguments_of(message)[0]) for message in self.messages(queue)]

    def dead(self) -> list[Job]:
        """The jobs that were given up."""
        return self.jobs(DEAD_QUEUE)

    def held(self) -> int:
        """Messages that are not confirmed, and copies that come back."""
        return cast("int", self._redis.hlen("unacked"))

    def lose(self) -> None:
        """Take a message as a worker does that is killed the same moment."""
        assert self._redis.rpop(QUEUE) is not None

    def everything(self) -> bytes:
        """All that it holds, and what is encoded in it."""
        found = []
        for key in self._redis.scan_iter():
            match self._redis.type(key):
                case b"list":
                    found += self._redis.lrange(key, 0, -1)
                case b"hash":
                    found += [part for pair in self._redis.hgetall(key).items() for part in pair]
                case b"zset":
                    found += self._redis.zrange(key, 0, -1)
                case b"set":
                    found += self._redis.smembers(key)
                case b"string":
                    found.append(self._redis.get(key))
                case other:
                    raise AssertionError(other)
        for message in found[:]:
            found += _inside(message)
        return b"\n".join(found)

    def close(self) -> None:
        """Close the connection."""
        self._redis.close()


def arguments_of(message: dict[str, Any]) -> list[Any]:
    """The arguments of a task, from its message."""
    arguments: list[Any] = json.loads(base64.b64decode(message["body"]))[0]
    return arguments


def _inside(text: bytes) -> list[bytes]:
    """What a message holds that one cannot read at a glance."""
    try:
        value = json.loads(text)
    except ValueError:
        return []
    message = value[0] if isinstance(value, list) else value
    if not isinstance(message, dict) or "body" not in message:
        return []
    body = base64.b64decode(message["body"])
    return [body, base64.b64decode(json.loads(body)[0][0]["content"])]
