"""Whether torch.compile works is tried once, and a missing compiler is a reason, not an error."""

from collections.abc import Iterator

import pytest
import torch

from minimind.model import compiler


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    compiler.compile_refusal.cache_clear()
    yield
    compiler.compile_refusal.cache_clear()


def test_what_compiles_is_tried_once(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def compiled(function: object) -> object:
        tried.append(function)
        return function

    monkeypatch.setattr(torch, "compile", compiled)
    for _ in range(2):
        assert compiler.compile_refusal(torch.device("cpu")) is None
        assert compiler.compiles(torch.device("cpu"))
    assert len(tried) == 1


def test_what_is_missing_is_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_x: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("Cannot find a working triton installation.\nMore words")

    monkeypatch.setattr(torch, "compile", lambda _function: refuse)
    reason = "RuntimeError: Cannot find a working triton installation. More words"
    assert compiler.compile_refusal(torch.device("cpu")) == reason
    assert not compiler.compiles(torch.device("cpu"))
