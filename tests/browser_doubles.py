"""A real headless Chromium for tests of pages."""

import importlib.util
import os
import shutil
from collections.abc import Iterator
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
CHROMIUM_FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
]  # fmt: skip


def open_chromium() -> Iterator[Any]:
    """Yield a browser, for a fixture; only one can be open in a thread.

    Skipped where it is missing, unless MINIMIND_BROWSER_TESTS=require (CI).
    """
    if CHROMIUM is None or importlib.util.find_spec("playwright") is None:
        reason = "chromium or the package playwright is not installed"
        if os.environ.get("MINIMIND_BROWSER_TESTS") == "require":
            pytest.fail(reason)
        pytest.skip(reason)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=CHROMIUM_FLAGS, timeout=300_000
        )
        yield browser
        browser.close()
