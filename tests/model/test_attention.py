"""Every backend gives the same attention; boundaries and windows hold."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from model_doubles import random_ids, random_model

from doubles import tiny_config
from minimind.errors import ConfigError
from minimind.model import BACKENDS, CausalLM, compiler
from minimind.model.attention import Mask, attend, build_masks, choose_backend

ON_CPU = [backend for backend in BACKENDS if backend != "flash"]
PACKED = tiny_config(head_dim=16)
WINDOWED = tiny_config(
    head_dim=16, sliding_window=7, layer_types=("full_attention", "sliding_attention")
)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("config", [PACKED, WINDOWED], ids=["full", "window"])
@pytest.mark.parametrize("backend", ON_CPU)
@torch.no_grad()
def test_a_packed_row_equals_its_documents_alone(backend: str, config) -> None:
    model = random_model(config)
    model.set_attention(backend)
    lengths, T = (9, 1, 17, 8), 40  # and five pads
    ids = random_ids(config, 2, T)
    documents = torch.full((2, T), -1)
    positions = torch.zeros(2, T, dtype=torch.int64)
    begins = [sum(lengths[:i]) for i in range(len(lengths))]
    for number, (begin, length) in enumerate(zip(begins, lengths, strict=True)):
        documents[:, begin : begin + length] = number
        positions[:, begin : begin + length] = torch.arange(length)
    packed = model(ids, position_ids=positions, document_ids=documents).logits
    assert packed.isfinite().all()  # the pads too
    for begin, length in zip(begins, lengths, strict=True):
        alone = model(ids[:, begin : begin + length]).logits
        torch.testing.assert_close(packed[:, begin : begin + length], alone, rtol=0, atol=1e-4)


def test_padding_gives_no_nan_gradient() -> None:
    for backend in ("sdpa", "eager"):
        model = random_model(WINDOWED)
        model.set_attention(backend)
        documents = torch.full((2, 12), -1)
        documents[0, :7] = 0  # the second row is nothing but padding
        out = model(random_ids(WINDOWED, 2, 12), document_ids=documents).logits
        out[documents == 0].sum().backward()
        assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


@given(
    documents=st.lists(st.integers(1, 6), min_size=1, max_size=6),
    pads=st.integers(0, 3),
    window=st.none() | st.integers(1, 20),
)
@settings(max_examples=50, deadline=None)
def test_the_mask_is_the_rule(documents: list[int], pads: int, window: int | None) -> None:
    row = [number for number, length in enumerate(documents) for _ in range(length)] + [-1] * pads
    T = len(row)
    masks = build_masks(
        "sdpa", windows=[window], T=T, device=torch.device("cpu"),
        document_ids_BT=torch.tensor([row]),
    )  # fmt: skip
    allowed = masks[window].allowed
    assert allowed is not None
    for query in range(T):
        for key in range(T):
            expected = (
                key <= query and row[key] == row[query] and (window is None or query - key < window)
            )
            assert allowed[0, 0, query, key].item() is expected


def test_masks_are_shared_by_layers_and_left_out_where_possible() -> None:
    device = torch.device("cpu")
    masks = build_masks("sdpa", windows=[None, 8, 100], T=50, device=device, document_ids_BT=None)
    assert masks[None].causal
    assert masks[None].allowed is None
    assert masks[100] is masks[None]  # a window longer than the row
    assert masks[8].allowed is not None
    assert masks[8].allowed.shape == (1, 1, 50, 50)


def test_auto_chooses_by_device_and_need(monkeypatch: pytest.MonkeyPatch) -> None:
    refusals: list[str | None] = [None]
    monkeypatch.setattr(compiler, "compile_refusal", lambda device: refusals[-1])
    cpu, cuda = torch.device("cpu"), torch.device("cuda")

    def choose(
        backend: str, device: torch.device, *, blocks: bool, grad: bool = True, T: int = 512
    ) -> str:
        return choose_backend(backend, device=device, needs_blocks=blocks, needs_grad=grad, T=T)

    assert choose("auto", cpu, blocks=True) == "sdpa"
    assert choose("auto", cuda, blocks=False) == "sdpa"
    assert choose("auto", cuda, blocks=True) == "flex"
    assert choose("auto", cuda, blocks=True, T=128) == "sdpa"  # one block: nothing to skip
    refusals.append("no Triton")
    assert choose("auto", cuda, blocks=True) == "sdpa"
    assert choose("flex", cuda, blocks=True) == "flex"  # who asks for it is told what is missing
    assert choose("flex", cpu, blocks=True, grad=False) == "flex"
    with pytest.raises(ConfigError, match=r"'flex' has no backward pass on cpu.*attention auto"):
        choose("flex", cpu, blocks=True)


def test_auto_on_a_cpu_is_eager_only_inside_a_compiled_training_step_of_short_rows() -> None:
    @torch.compile(backend="eager")
    def chosen(x: torch.Tensor, *, grad: bool, T: int) -> torch.Tensor:
        backend = choose_backend("auto", device=x.device, needs_blocks=True, needs_grad=grad, T=T)
        return x + BACKENDS.index(backend)

    def named(*, grad: bool, T: int) -> str:
        return BACKENDS[int(chosen(torch.zeros(()), grad=grad, T=T))]

    assert named(grad=True, T=512) == "eager"
    assert named(grad=True, T=513) == "sdpa"
    assert named(grad=False, T=512) == "sdpa"


def test_a_backend_that_is_not_there_is_refused() -> None:
    model = CausalLM(tiny_config())
    with pytest.raises(ConfigError, match=r"'spda'.*Did you mean 'sdpa'"):
        model.set_attention("spda")
    with pytest.raises(ConfigError, match=r"'flash' runs on CUDA only.*cpu"):
        model.set_attention("flash")
    model.set_attention("flex")
    with pytest.raises(ConfigError, match="no backward pass"):
        model(random_ids(model.config, 1, 8), document_ids=torch.zeros(1, 8, dtype=torch.int64))


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_a_single_query_in_half_precision_is_the_last_query_of_many(kv_heads: int) -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(3, heads, 9, 16) for heads in (4, kv_heads, kv_heads))
    lengths = torch.tensor([4, 9, 6])
    allowed = torch.arange(9)[None, None, None] < lengths[:, None, None, None]
    expected = attend(q[:, :, -1:], k, v, Mask("eager", allowed=allowed))
    half = [x.bfloat16() for x in (q[:, :, -1:], k, v)]
    made = attend(half[0], half[1], half[2], Mask("sdpa", allowed=allowed))
    assert made.dtype == torch.bfloat16
    torch.testing.assert_close(made.float(), expected, rtol=0, atol=0.02)
    alone = attend(q[:, :, -1:], k, v, Mask("single", allowed=allowed))
    torch.testing.assert_close(alone, expected, rtol=0, atol=1e-6)
