"""Documents as sequences of their own: where they start, and that they see what a mask lets."""

import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from model_doubles import random_ids, random_model

from doubles import tiny_config
from flash_doubles import use_flash_on_cpu
from minimind.errors import ConfigError
from minimind.model.attention import Mask, attend, build_masks
from minimind.model.varlen import check_flash, document_starts, flash

DOCUMENTS = torch.tensor([[0] * 12 + [1] * 8, [0] * 3 + [1] * 15 + [-1] * 2])


@given(
    lengths=st.lists(st.lists(st.integers(1, 8), max_size=8), min_size=1, max_size=5),
    pads=st.integers(0, 4),
)
@settings(max_examples=100, deadline=None)
def test_where_documents_start(lengths: list[list[int]], pads: int) -> None:
    T = max(sum(row) for row in lengths) + max(pads, 1)
    ids, starts = [], []
    for number, row in enumerate(lengths):
        at = number * T
        for length in row:
            starts.append(at)
            at += length
        if at < (number + 1) * T:
            starts.append(at)  # padding
        flat = [document for document, length in enumerate(row) for _ in range(length)]
        ids.append(flat + [-1] * (T - len(flat)))
    found = document_starts(torch.tensor(ids))
    assert found.dtype == torch.int32
    assert found.tolist() == [*starts, T * len(lengths)]


@pytest.mark.parametrize("window", [None, 1, 5])
@pytest.mark.parametrize("documents", [None, DOCUMENTS], ids=["rows", "documents"])
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_flash_is_sdpa_in_values_and_gradients(monkeypatch, window, documents, kv_heads) -> None:
    use_flash_on_cpu(monkeypatch)
    torch.manual_seed(0)
    made = [torch.randn(2, heads, 20, 16).bfloat16() for heads in (4, kv_heads, kv_heads)]
    towards = torch.randn(2, 4, 20, 16)
    results = {}
    for backend in ("flash", "sdpa"):
        inputs = [x.clone().requires_grad_() for x in made]
        given_as = inputs if backend == "flash" else [x.float() for x in inputs]
        mask = build_masks(
            backend, windows=[window], T=20, device=towards.device, document_ids_BT=documents
        )[window]
        out = attend(given_as[0], given_as[1], given_as[2], mask).float()
        (out * towards).sum().backward()
        results[backend] = [out, *(x.grad for x in inputs)]
    for mine, expected in zip(results["flash"], results["sdpa"], strict=True):
        torch.testing.assert_close(mine, expected, rtol=0.02, atol=0.04)


def test_a_model_needs_no_host_when_it_is_told_the_starts(monkeypatch) -> None:
    use_flash_on_cpu(monkeypatch)
    config = tiny_config(head_dim=16)
    model = random_model(config).bfloat16()
    ids = random_ids(config, 2, 20)
    expected = model(ids, document_ids=DOCUMENTS).logits
    model.set_attention("flash")
    by_itself = model(ids, document_ids=DOCUMENTS).logits
    monkeypatch.setattr("minimind.model.attention.document_starts", None)
    told = model(ids, document_ids=DOCUMENTS, document_starts=document_starts(DOCUMENTS)).logits
    assert torch.equal(told, by_itself)
    torch.testing.assert_close(told, expected, rtol=0, atol=0.05)


def test_nobody_waits_for_a_compiler_who_only_wants_a_model() -> None:
    say = "import sys, minimind.model; print('torch._dynamo' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", say], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "False"


def test_what_flash_cannot_do_is_refused(monkeypatch) -> None:
    q = torch.randn(1, 2, 8, 16)
    with pytest.raises(ConfigError, match=r"bf16 or fp16.*--train.precision bf16"):
        attend(q, q, q, Mask("flash"))
    odd = torch.randn(1, 2, 8, 12).bfloat16()
    with pytest.raises(ConfigError, match=r"multiple of 8 up to 256, the model's have 12"):
        flash(odd, odd, odd, starts=None, window=None)
    model = random_model(tiny_config())
    with pytest.raises(ConfigError, match=r"CUDA only, the model is on cpu.*attention auto"):
        model.set_attention("flash")
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla T4")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    with pytest.raises(ConfigError, match=r"8\.0 or more.*Tesla T4 has 7\.5.*attention auto"):
        check_flash(torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 9))
    check_flash(torch.device("cuda"))
