"""One product for q, k and v and one for gate and up: the same training, the same files."""

from dataclasses import replace

import pytest
import torch

from doubles import tiny_config
from minimind import checkpoint
from minimind.config import LoraConfig, ModelConfig, MoEConfig, OptimConfig, TrainConfig
from minimind.data.batch import Batch
from minimind.errors import ConfigError
from minimind.model import CausalLM, inject_lora
from minimind.model.layers import Linear, project_together
from minimind.train import NextToken, Trainer, build_optimizer, build_schedule
from minimind.train.run import run
from run_doubles import curve, run_directory, tiny_run


def trainer(config: ModelConfig, *, fused: bool, kind: str = "muon", **changes) -> Trainer:
    torch.manual_seed(0)
    model = CausalLM(config)
    optim = OptimConfig(kind=kind, schedule="constant")  # pyright: ignore[reportArgumentType]
    train = TrainConfig(compile=False, precision="fp32", fuse_projections=fused)
    return Trainer(
        model=model,
        objective=NextToken(),
        optimizer=build_optimizer(model, optim),
        schedule=build_schedule(optim, steps=10),
        config=replace(train, **changes),
        steps=10,
    )


def losses(made: Trainer, *, steps: int = 6) -> list[float]:
    ids = torch.randint(0, 60, (4, 33), generator=torch.Generator().manual_seed(1))
    batch = Batch(input_ids=ids[:, :-1], labels=ids[:, 1:])
    return [made.train_step([batch]).loss for _ in range(steps)]


@pytest.mark.parametrize("bias", [False, True])
def test_products_together_are_the_products_apart(bias):
    layers = [Linear(8, size, bias=bias) for size in (16, 4, 4)]
    x = torch.randn(2, 3, 8)
    for one, layer in zip(project_together(x, layers), layers, strict=True):
        torch.testing.assert_close(one, layer(x))


@pytest.mark.parametrize("kind", ["muon", "adamw"])
@pytest.mark.parametrize("shape", ["qwen3", "qwen2", "moe"])
def test_the_curve_is_that_of_products_apart(kind, shape):
    config = tiny_config()
    if shape == "qwen2":
        config = replace(config, model_type="qwen2")
    if shape == "moe":
        config = replace(config, moe=MoEConfig(num_experts=4, moe_intermediate_size=32))
    apart = losses(trainer(config, fused=False, kind=kind))
    together = losses(trainer(config, fused=True, kind=kind))
    # Muon orthogonalises in bf16, which carries a last bit's difference on.
    assert together == pytest.approx(apart, rel=1e-4)


def test_parameters_keep_their_names_and_muon_sees_each_matrix():
    made = trainer(tiny_config(), fused=True)
    plain = trainer(tiny_config(), fused=False)
    assert made.model.state_dict().keys() == plain.model.state_dict().keys()
    losses(made, steps=1)
    state = made.optimizer.state_dict()
    for name, weight in made.model.named_parameters():
        if name.endswith(("q_proj.weight", "k_proj.weight", "gate_proj.weight", "up_proj.weight")):
            assert state[name]["momentum_buffer"].shape == weight.shape


def test_in_bf16_and_checkpointed_too():
    config = tiny_config()
    apart = losses(trainer(config, fused=False, precision="bf16"))
    together = losses(trainer(config, fused=True, precision="bf16", gradient_checkpointing="all"))
    assert together == pytest.approx(apart, rel=5e-3)


def test_adapters_are_refused():
    model = CausalLM(tiny_config())
    inject_lora(model, LoraConfig(rank=2, target_modules=("q_proj",)))
    with pytest.raises(ConfigError, match=r"self_attn holds a LoRALinear.*\[lora\]"):
        model.set_fused_projections()


def test_a_run_saves_qwen3s_names_and_may_be_resumed_apart(tmp_path):
    config = tiny_run(tmp_path, steps=8)
    run(config)
    fused = replace(config, name="fused", train=replace(config.train, fuse_projections=True))
    run(replace(fused, train=replace(fused.train, steps=4), optim=fused.optim))
    apart = replace(fused, train=replace(fused.train, fuse_projections=False))
    run(apart, resume=True)
    first, _ = checkpoint.load(run_directory(config))
    second, _ = checkpoint.load(run_directory(apart))
    assert first.state_dict().keys() == second.state_dict().keys()
    steps = [line["step"] for line in curve(run_directory(apart)) if "loss" in line]
    assert steps == list(range(1, 9))
