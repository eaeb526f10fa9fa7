"""A real browser, without a screen, that has no network: Debian's package ``chromium``, driven by playwright."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser

_PATH = shutil.which("chromium")

needs_chromium = pytest.mark.skipif(
    (_PATH is None or importlib.util.find_spec("playwright") is None) and not os.environ.get("CI"),
    reason="Chromium or playwright is missing; Debian has the package chromium, and playwright is in the group browser",
)
"""Skips where the browser is missing; in CI it has to be there, and the test fails."""


@contextmanager
def chromium() -> Generator[Browser]:
    """The browser, for the length of a ``with`` block."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # Whatever it would ask of the network ends at a proxy that is not there. As root it has no sandbox.
        browser = playwright.chromium.launch(
            executable_path=_PATH, chromium_sandbox=os.geteuid() != 0, proxy={"server": "http://127.0.0.1:9"}
        )
        try:
            yield browser
        finally:
            browser.close()
