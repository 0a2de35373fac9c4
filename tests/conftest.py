"""Settings that every test needs before torch is imported."""

import contextlib
import os
import signal
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
# A shell that starts us in the background has SIGINT ignored, and every child inherits that: the
# tests that interrupt would wait for ever.
with contextlib.suppress(ValueError):  # not in the main thread
    signal.signal(signal.SIGINT, signal.default_int_handler)
sys.path.insert(0, str(Path(__file__).parent))

from browser_doubles import open_chromium

# The same examples every time: a run's verdict is that of the code. Others: HYPOTHESIS=search. How
# long an example takes says how busy the machine is, nothing of what is tested.
settings.register_profile(
    "same", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("search", deadline=None, max_examples=1_000)
settings.load_profile(os.environ.get("HYPOTHESIS", "same"))


@pytest.fixture(scope="module")
def chromium():
    """A headless Chromium, for a module: while one is open no coroutine can run in this thread."""
    yield from open_chromium()
