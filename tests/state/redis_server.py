"""A real Redis server for tests: its own process, nothing kept on disk, gone at the end."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

PROGRAMS = ("redis-server", "valkey-server")
MISSING = f"no {' or '.join(PROGRAMS)} on this machine"
_STARTS_WITHIN = 30.0


def find_program() -> str | None:
    """The server to test with; None if none is installed, which is no excuse in CI: it installs one."""
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None and os.environ.get("CI"):
        raise FileNotFoundError(MISSING)
    return program


def skip_without_program() -> None:
    """Skip the test, or the fixture's tests, where there is no server to test with."""
    if find_program() is None:
        pytest.skip(MISSING)


class RedisServer:
    """A server that can be stopped, paused and started anew at the same address.

    Args:
        directory: A place for its socket and its log.
        options: Options of the server, such as ``"maxmemory", "1mb"``.
        tcp: Whether it listens on a free port of 127.0.0.1 instead of on a Unix socket.
    """

    def __init__(self, directory: Path, options: tuple[str, ...], *, tcp: bool) -> None:
        self._directory = directory
        self._options = options
        self.port = free_port() if tcp else 0
        self._socket = directory / "redis.sock"
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def url(self) -> str:
        """Its address, for ``RedisStore``."""
        return self.url_as("")

    @property
    def pid(self) -> int:
        """The number of its process."""
        assert self._process is not None, "the server is stopped"
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether it has been started and not stopped since."""
        return self._process is not None

    def url_as(self, user_and_password: str) -> str:
        """Its address for a user: ``user:password``."""
        account = f"{user_and_password}@" if user_and_password else ""
        return f"redis://{account}127.0.0.1:{self.port}/0" if self.port else f"unix://{account}{self._socket}"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        program = find_program()
        assert program is not None, MISSING
        listen = ("--port", str(self.port), "--bind", "127.0.0.1", "--unixsocket", str(self._socket))
        keep_nothing = ("--save", "", "--appendonly", "no", "--dir", str(self._directory))
        with (self._directory / "log").open("wb") as log:
            self._process = subprocess.Popen([program, *listen, *keep_nothing, *self._options], stdout=log, stderr=log)
        deadline = time.monotonic() + _STARTS_WITHIN
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise RuntimeError(f"{program} did not start: {(self._directory / 'log').read_text()}")
            time.sleep(0.01)

    def stop(self) -> None:
        """Kill it, as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            self._process = None
            self._socket.unlink(missing_ok=True)

    def restart(self) -> None:
        """Kill it and start it anew: it has forgotten everything."""
        self.stop()
        self.start()

    def pause(self) -> None:
        """Let it answer nobody, though its address still takes connections."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it answer again."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def _answers(self) -> bool:
        # Whoever must log in first is told so: that is an answer too.
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(1)
                connection.connect(str(self._socket))
                connection.sendall(b"PING\r\n")
                return connection.recv(64).startswith((b"+PONG", b"-NOAUTH"))
        except OSError:
            return False


@contextmanager
def redis_server(*options: str, tcp: bool = False) -> Iterator[RedisServer]:
    """A server of one's own.

    Args:
        *options: Options of the server, such as ``"--maxmemory", "1mb"``.
        tcp: Whether it listens on a free port of 127.0.0.1 instead of on a Unix socket alone.
    """
    with TemporaryDirectory(prefix="redis-") as directory:
        server = RedisServer(Path(directory), options, tcp=tcp)
        try:
            yield server
        finally:
            server.stop()


def free_port() -> int:
    """A free port of 127.0.0.1, of those that no system gives to whoever asks for any: nobody gets it meanwhile."""
    while True:
        port = random.randrange(10_000, 22_000)
        # A node of a cluster also listens 10,000 higher.
        with socket.socket() as probe, socket.socket() as bus, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            bus.bind(("127.0.0.1", port + 10_000))
            return port
