"""What `bench/train.py` and `bench/gpu.py 3` measure beside ours is what they say it is."""

import itertools
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from doubles import tiny_config
from minimind.config import MoEConfig
from minimind.model import CausalLM

BENCH = Path(__file__).parent.parent / "bench"
MIXTURE = replace(tiny_config(), moe=MoEConfig(num_experts=4, moe_intermediate_size=16))


def random_ids(length: int) -> torch.Tensor:
    return torch.randint(tiny_config().vocab_size, (2, length))


@pytest.fixture(autouse=True)
def bench_on_the_path(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCH))


@pytest.mark.parametrize(
    ("config", "kind"), [(tiny_config(), "Qwen3ForCausalLM"), (MIXTURE, "Qwen3MoeForCausalLM")]
)
def test_a_mixture_is_measured_beside_transformers_mixture(config, kind):
    from steps import qwen3_of

    theirs = qwen3_of(config)
    assert type(theirs).__name__ == kind
    ours = sum(one.numel() for one in CausalLM(config).parameters())
    assert sum(one.numel() for one in theirs.parameters()) == ours


@pytest.mark.parametrize("config", [tiny_config(), MIXTURE], ids=["dense", "mixture"])
@pytest.mark.parametrize("system", ["minimind", "transformers", "textbook", "original"])
def test_every_system_learns_its_rows(config, system, monkeypatch):
    import steps

    losses = []
    monkeypatch.setattr("torch.Tensor.backward", watched(torch.Tensor.backward, losses))
    spec = steps.Spec(
        model="tiny", system=system, precision="fp32", mode="eager", variant="plain",
        device="cpu", threads=1, attention="auto",
    )  # fmt: skip
    torch.manual_seed(0)
    step = steps.BUILDERS[system](spec, config, random_ids(33))
    for _ in range(12):
        step()
    assert losses[-1] < losses[0]


def watched(backward, losses):
    def call(self, *args, **named):
        losses.append(self.item())
        return backward(self, *args, **named)

    return call


def test_trainer_does_one_update_each_time_it_is_asked_and_ends_when_it_is_forgotten():
    from hf_trainer import trainer_step
    from steps import qwen3_of

    model = qwen3_of(tiny_config(), use_cache=False)
    step = trainer_step(model, random_ids(32), device="cpu", bf16=True, compiled=False)
    (thread,) = (one for one in threading.enumerate() if one.name == "trainer")
    seen = [model.model.embed_tokens.weight.detach().clone()]
    for _ in range(3):
        step()
        now = model.model.embed_tokens.weight.detach().clone()
        assert not torch.equal(now, seen[-1])
        seen.append(now)
    # An update of Adam's moves a weight by its rate at most, or little more: one each time.
    moved = [(b - a).abs().max().item() for a, b in itertools.pairwise(seen)]
    assert all(0.5e-3 < one < 2e-3 for one in moved), moved
    assert torch.equal(model.model.embed_tokens.weight, seen[-1])
    del step
    assert not thread.is_alive()


def test_what_breaks_in_trainer_is_raised_where_its_step_was_asked_for():
    from hf_trainer import trainer_step
    from steps import qwen3_of

    ids = random_ids(32) + tiny_config().vocab_size
    step = trainer_step(qwen3_of(tiny_config()), ids, device="cpu", bf16=False, compiled=False)
    with pytest.raises(IndexError):
        step()
