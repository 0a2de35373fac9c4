"""One trained checkpoint, real servers on it, pages in front of them, one headless Chromium."""

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "serve"))  # serve_doubles: servers in this process

from serve_doubles import paced
from ui_doubles import PagesBehind, need, serving, train_to_chat

from browser_doubles import open_chromium
from minimind.serve.loading import Loader, LoadSettings


@pytest.fixture(autouse=True)
def _no_key(monkeypatch):
    monkeypatch.delenv("MINIMIND_API_KEY", raising=False)


@pytest.fixture(scope="session")
def chatty_dir(tmp_path_factory):
    return train_to_chat(tmp_path_factory.mktemp("ui") / "mini")


@pytest.fixture(scope="session")
def chatty(chatty_dir):
    registry = Loader(LoadSettings(slots=4, queue=16)).load([f"mini={chatty_dir}"], [])
    with serving(registry) as server:
        yield server


@pytest.fixture(scope="session")
def slow(chatty_dir):
    """The same model at 50 tokens a second, one character each."""
    registry = Loader(LoadSettings(slots=4, queue=16)).load([f"mini={chatty_dir}"], [])
    with serving(paced(registry, per_second=50)) as server:
        yield server


@pytest.fixture(scope="session")
def chromium():
    yield from open_chromium()


@pytest.fixture(scope="session")
def chatty_page(chatty, chromium):
    need("gradio", "httpx")
    with PagesBehind(chatty.url, chromium) as pages:
        yield pages


@pytest.fixture(scope="session")
def slow_page(slow, chromium):
    need("gradio", "httpx")
    with PagesBehind(slow.url, chromium) as pages:
        yield pages
