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


@pytest.mark.parametrize("compiled", [False, True])
def test_a_mask_on_a_gpu_is_never_given_to_cudnn(compiled: bool) -> None:
    def allowed(x: torch.Tensor, *, device: str, masked: bool) -> torch.Tensor:
        with compiler.sound_kernels(torch.device(device), masked=masked):
            on = torch.backends.cuda.cudnn_sdp_enabled()
        return x + int(on)

    asked = torch.compile(allowed, backend="eager") if compiled else allowed
    x, before = torch.zeros(()), torch.backends.cuda.cudnn_sdp_enabled()
    assert asked(x, device="cuda", masked=True) == 0
    assert asked(x, device="cuda", masked=False) == int(before)
    assert asked(x, device="cpu", masked=True) == int(before)
    assert torch.backends.cuda.cudnn_sdp_enabled() is before
