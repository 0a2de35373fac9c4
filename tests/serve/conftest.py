"""One trained checkpoint and one server for all tests of this folder."""

import os

import pytest
from serve_doubles import running, train_by_heart


@pytest.fixture(scope="session")
def checkpoint_dir(tmp_path_factory):
    return train_by_heart(tmp_path_factory.mktemp("serve") / "mini")


@pytest.fixture(scope="session")
def server(checkpoint_dir):
    with running(checkpoint_dir, slots=4, queue=64) as server:
        yield server


@pytest.fixture(scope="session")
def client(server):
    return server.client()


@pytest.fixture(autouse=True)
def _no_key(monkeypatch):
    for name in list(os.environ):
        if name in {"MINIMIND_API_KEY", "OPENAI_API_KEY", "OPENAI_BASE_URL"}:
            monkeypatch.delenv(name)
