"""A real RabbitMQ for tests: its own node, on free ports of 127.0.0.1, gone with all it held at the end."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

# As Debian installs it: what is in the PATH there runs it as a service of the system.
_PROGRAMS = ("/usr/lib/rabbitmq/bin/rabbitmq-server", shutil.which("rabbitmq-server"))
_STARTS_WITHIN = 120.0


def find_program() -> str | None:
    """The server; None if it is not installed."""
    return next((program for program in _PROGRAMS if program and Path(program).exists()), None)


@contextmanager
def rabbitmq_server() -> Iterator[str]:
    """A node of one's own.

    Returns:
        A context manager that gives the URL of its broker.
    """
    program, names = find_program(), shutil.which("epmd")
    assert program is not None, "RabbitMQ is not installed"
    assert names is not None, "Erlang is not installed"
    port, node_port, names_port = _free_ports(3)
    with TemporaryDirectory(prefix="rabbitmq-") as directory:
        environment = {
            **os.environ,
            "HOME": directory,
            "ERL_EPMD_PORT": str(names_port),
            "RABBITMQ_NODENAME": f"insider{port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(port),
            "RABBITMQ_DIST_PORT": str(node_port),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
            "RABBITMQ_MNESIA_BASE": f"{directory}/mnesia",
            "RABBITMQ_LOG_BASE": f"{directory}/log",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{directory}/plugins",
            "RABBITMQ_CONFIG_FILE": f"{directory}/none",
            "RABBITMQ_CONF_ENV_FILE": f"{directory}/none",
        }
        log = Path(directory, "out")
        # A node would start the server of names itself, and leave it behind.
        server_of_names = subprocess.Popen([names, "-port", str(names_port), "-address", "127.0.0.1"])
        try:
            with log.open("wb") as out:
                node = subprocess.Popen([program], env=environment, stdout=out, stderr=out, start_new_session=True)
            try:
                _wait(node, log)
                yield f"amqp://guest:guest@127.0.0.1:{port}//"
            finally:
                node.terminate()
                node.wait(60)
        finally:
            server_of_names.kill()
            server_of_names.wait(10)


def _wait(node: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _STARTS_WITHIN
    while b"completed with" not in log.read_bytes():
        if node.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"RabbitMQ did not start: {log.read_text()[-2000:]}")
        time.sleep(0.1)


def _free_ports(count: int) -> list[int]:
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]
    finally:
        for probe in probes:
            probe.close()
