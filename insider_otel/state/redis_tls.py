"""The TLS context of a Redis store: made before a connection needs it, and anew when a certificate is replaced."""

from __future__ import annotations

import logging
import os
import ssl
from typing import Any

_log = logging.getLogger("insider_otel")


class TLS:
    """A TLS context that goes with the files that the address of a store names. Safe between threads.

    To make one, redis-py reads all certificates of the system, which takes as long as an answer may.

    Args:
        options: What the driver made of the address: its class of connections to event loops, and their options.

    Raises:
        OSError: A file cannot be read, or holds no certificate, or a key that is not that of the certificate.
    """

    def __init__(self, options: dict[str, Any]) -> None:
        self._connection_class = options["connection_class"]
        others = {"connection_class", "max_connections"}
        self._options = {name: value for name, value in options.items() if name not in others}
        self._files = [options[name] for name in ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile") if name in options]
        self._has_complained = False
        self._read = self._changes()
        self._context = self._make()

    @property
    def context(self) -> ssl.SSLContext:
        """What was made of the files when they could last be used."""
        return self._context

    @property
    def is_outdated(self) -> bool:
        """Whether a file has changed since it was read, and be it in vain: reading takes as long as an answer may."""
        try:
            return self._changes() != self._read
        except OSError:
            return False  # it is being replaced: what was read is as good as before

    def renew(self) -> None:
        """Make the context from the files as they are now, if they can be used: they are replaced one by one."""
        try:
            self._read = self._changes()
            self._context = self._make()
        except OSError as error:
            if not self._has_complained:
                self._has_complained = True
                _log.warning(
                    "the redis store goes on with the certificates that it has read, as %s cannot be used now: %s",
                    ", ".join(self._files),
                    error,
                )
        else:
            self._has_complained = False

    def _make(self) -> ssl.SSLContext:
        context: ssl.SSLContext = self._connection_class(**self._options).ssl_context.get()
        # Not every redis-py does so by itself.
        context.check_hostname = context.verify_mode != ssl.CERT_NONE and self._options.get("ssl_check_hostname", True)
        return context

    def _changes(self) -> list[tuple[int, int]]:
        found = [os.stat(file) for file in self._files]
        return [(status.st_ino, status.st_mtime_ns) for status in found]
