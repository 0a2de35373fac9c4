"""Settings that every test needs before torch is imported."""

import contextlib
import importlib.util
import os
import shutil
import signal
import sys
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
# A shell that starts us in the background has SIGINT ignored, and every child inherits that: the
# tests that interrupt would wait for ever.
with contextlib.suppress(ValueError):  # not in the main thread
    signal.signal(signal.SIGINT, signal.default_int_handler)
sys.path.insert(0, str(Path(__file__).parent))

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
CHROMIUM_FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
]  # fmt: skip


@pytest.fixture(scope="session")
def chromium():
    """One headless Chromium for all tests: two Playwrights can't run in one thread.

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
            executable_path=CHROMIUM, args=CHROMIUM_FLAGS, timeout=120_000
        )
        yield browser
        browser.close()
