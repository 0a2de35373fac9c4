"""The mixture of experts against transformers' Qwen3-MoE and against a plain loop over experts."""

import dataclasses
from pathlib import Path

import pytest
import torch
from model_doubles import random_ids, random_model
from torch.nn import functional as F
from transformers import AutoModelForCausalLM
from transformers.models.qwen3_moe.modeling_qwen3_moe import load_balancing_loss_func

from doubles import byte_tokenizer, tiny_config
from minimind import checkpoint
from minimind.config import InitConfig, LoraConfig, ModelConfig, MoEConfig
from minimind.data.batch import Batch
from minimind.errors import CheckpointError, ConfigError
from minimind.inference.experts import chosen_experts, expert_loads, recorded, routers_of
from minimind.model import CausalLM, KVCache, accounting, inject_lora
from minimind.model.moe import Experts, Router, SparseMoE, sort_by_expert
from minimind.model.upcycle import upcycle
from minimind.settings import load_model_config
from minimind.train.objective import DPO, Distill, NextToken

MIXTURES = {
    "two-of-four": MoEConfig(num_experts=4, moe_intermediate_size=16),
    "one-of-four": MoEConfig(num_experts=4, num_experts_per_tok=1, moe_intermediate_size=24),
    "three-of-five-unnormed": MoEConfig(
        num_experts=5, num_experts_per_tok=3, moe_intermediate_size=24, norm_topk_prob=False
    ),
    "all": MoEConfig(num_experts=3, num_experts_per_tok=3, moe_intermediate_size=8),
}


def mixture(name: str = "two-of-four", **changes: object) -> CausalLM:
    return random_model(tiny_config(moe=dataclasses.replace(MIXTURES[name], **changes)))


@pytest.mark.parametrize("name", MIXTURES)
@torch.no_grad()
def test_transformers_loads_a_checkpoint_as_it_is_and_says_the_same(
    name: str, tmp_path: Path
) -> None:
    model = mixture(name)
    saved = checkpoint.save(tmp_path / "ours", model=model, tokenizer=byte_tokenizer())
    theirs, info = AutoModelForCausalLM.from_pretrained(saved, output_loading_info=True)
    assert type(theirs).__name__ == "Qwen3MoeForCausalLM"
    assert not any(info.values())
    ids = random_ids(model.config, 2, 40)
    expected = theirs(ids).logits
    assert expected.std() > 0.1  # the comparison means something
    assert (model(ids).logits - expected).abs().max() < 1e-4
    cache = KVCache(model.config, batch_size=2, max_length=40)
    pieces = [model(piece, cache=cache).logits for piece in ids.split([17, 1, 22], dim=1)]
    assert (torch.cat(pieces, 1) - expected).abs().max() < 1e-4
    greedy = theirs.generate(ids[:1, :8], max_new_tokens=24, do_sample=False, eos_token_id=None)
    ours = ids[:1, :8]
    for _ in range(24):
        ours = torch.cat([ours, model(ours, logits="last").logits.argmax(-1)], 1)
    assert ours.tolist() == greedy.tolist()
    loaded, _ = checkpoint.load(saved)
    assert loaded.config == model.config
    assert torch.equal(loaded(ids).logits, model(ids).logits)


@torch.no_grad()
def test_what_transformers_saves_is_a_checkpoint_of_ours(tmp_path: Path) -> None:
    model = mixture()
    saved = checkpoint.save(tmp_path / "ours", model=model, tokenizer=byte_tokenizer())
    AutoModelForCausalLM.from_pretrained(saved).save_pretrained(saved)
    (saved / "manifest.json").unlink()
    loaded, _ = checkpoint.load(saved)
    assert dataclasses.replace(model.config) == loaded.config
    ids = random_ids(model.config, 1, 20)
    assert torch.equal(loaded(ids).logits, model(ids).logits)


def by_loop(moe: SparseMoE, x_ND: torch.Tensor) -> torch.Tensor:
    """The same mixture, an expert and a token at a time."""
    config = moe.gate.config
    probs = F.linear(x_ND, moe.gate.weight).softmax(-1)
    out = torch.zeros_like(x_ND)
    for n in range(x_ND.shape[0]):
        best = probs[n].argsort(descending=True)[: config.num_experts_per_tok]
        weights = probs[n, best] / (probs[n, best].sum() if config.norm_topk_prob else 1)
        for weight, e in zip(weights, best.tolist(), strict=True):
            gate, up, down = (
                moe.experts.get_parameter(m)[e] for m in ("gate_proj", "up_proj", "down_proj")
            )
            out[n] = out[n] + weight * (down @ (F.silu(gate @ x_ND[n]) * (up @ x_ND[n])))
    return out


@pytest.mark.parametrize("name", ["two-of-four", "three-of-five-unnormed", "all"])
def test_values_and_gradients_equal_a_loop_over_experts(name: str) -> None:
    moe = mixture(name).model.layers[0].get_submodule("mlp")
    assert isinstance(moe, SparseMoE)
    x_ND = torch.randn(12, 32)
    ours_x, loop_x = x_ND.clone().requires_grad_(), x_ND.clone().requires_grad_()
    weight = torch.randn(12, 32)
    out = moe(ours_x[None])[0]
    (out * weight).sum().backward()
    ours = {n: p.grad.clone() for n, p in moe.named_parameters() if p.grad is not None}
    moe.zero_grad()
    expected = by_loop(moe, loop_x)
    (expected * weight).sum().backward()
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(ours_x.grad, loop_x.grad)
    assert len(ours) == 4
    for n, p in moe.named_parameters():
        torch.testing.assert_close(ours[n], p.grad, msg=n)


def test_experts_without_a_token_and_one_with_all_of_them() -> None:
    config = MIXTURES["two-of-four"]
    experts = Experts(32, config)
    for p in experts.parameters():
        torch.nn.init.normal_(p)
    chosen = torch.tensor([[2, 0]] * 6)
    out = experts(torch.randn(6, 32), chosen, torch.full((6, 2), 0.5))
    out.sum().backward()
    assert experts.gate_proj.grad is not None
    assert (experts.gate_proj.grad[[1, 3]] == 0).all()
    assert (experts.gate_proj.grad[[0, 2]] != 0).any()


def test_sorting_keeps_every_pair() -> None:
    chosen = torch.tensor([[2, 0], [0, 1], [2, 1], [3, 2]])
    pairs = sort_by_expert(chosen, num_experts=5)
    assert pairs.ends_E.tolist() == [2, 4, 7, 8, 8]
    assert pairs.token_S.tolist() == [0, 1, 1, 2, 0, 2, 3, 3]
    assert (pairs.token_S[pairs.slot_NC] == torch.arange(4)[:, None]).all()


def test_a_single_expert_a_token_still_teaches_the_router() -> None:
    """Its weight is 1 whatever the router says; the gradient is as of the log-probability."""
    moe = mixture("one-of-four").model.layers[0].get_submodule("mlp")
    assert isinstance(moe, SparseMoE)
    x = torch.randn(1, 9, 32)
    out = moe(x)
    target = torch.randn(9, 32)
    (out[0] * target).sum().backward()
    logits = F.linear(x[0], moe.gate.weight.detach()).requires_grad_()
    picked = logits.log_softmax(-1).max(-1).values
    (picked * (out[0].detach() * target).sum(-1)).sum().backward()
    torch.testing.assert_close(moe.gate.weight.grad, logits.grad.T @ x[0])


@pytest.mark.parametrize("checkpointed", ["none", "all"])
def test_a_training_step_is_one_graph(checkpointed: str) -> None:
    """Traced whole, forward and backward; `fullgraph` raises at the first break."""
    model, batch = mixture().train(), batch_of(mixture().config)
    model.set_gradient_checkpointing(checkpointed)
    gradients = []
    for objective in (
        NextToken(), torch.compile(NextToken(), dynamic=False, fullgraph=True, backend="aot_eager")
    ):  # fmt: skip
        model.zero_grad()
        objective(model, batch).sum.backward()
        gradients.append({n: p.grad.clone() for n, p in model.named_parameters()})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, msg=name)


# ------------------------------------------------------------------------------- balance


def batch_of(config: ModelConfig, *, rows: int = 4, padded: int = 5) -> Batch:
    ids = random_ids(config, rows, 20)
    documents = torch.zeros_like(ids)
    documents[:, 20 - padded :] = -1
    labels = ids.roll(-1, 1).where(documents >= 0, -100)
    return Batch(input_ids=ids, labels=labels, document_ids=documents)


def test_the_balance_loss_is_that_of_transformers() -> None:
    model = mixture().train()
    batch = batch_of(model.config)
    with recorded(routers_of(model)) as seen:
        output = model(batch.input_ids, document_ids=batch.document_ids)
    mask = (batch.document_ids >= 0).long()
    expected = [load_balancing_loss_func((layer[0],), 4, 2, mask) for layer in seen]
    assert output.auxiliary is not None
    mean = torch.stack([torch.as_tensor(one) for one in expected]).mean()
    torch.testing.assert_close(output.auxiliary.metrics["balance_loss"], mean)
    real = (batch.document_ids >= 0).flatten()
    z = torch.stack([layer[0][real].logsumexp(-1).square().mean() for layer in seen]).mean()
    torch.testing.assert_close(output.auxiliary.metrics["z_loss"], z)
    torch.testing.assert_close(output.auxiliary.loss.detach(), 0.1 * mean + 0.001 * z)
    loads = [output.auxiliary.metrics[f"expert_load/0.{e}"] for e in range(4)]
    assert float(sum(loads)) == pytest.approx(2)
    unpadded = expert_loads(model, [batch])
    torch.testing.assert_close(torch.stack(loads) / 2, unpadded[0])


def test_only_training_has_an_auxiliary_loss_and_a_dense_model_has_none() -> None:
    assert mixture().eval()(random_ids(tiny_config(), 1, 4)).auxiliary is None
    assert random_model(tiny_config()).train()(random_ids(tiny_config(), 1, 4)).auxiliary is None


@pytest.mark.parametrize("kind", ["next-token", "dpo", "distill"])
def test_every_objective_carries_it(kind: str) -> None:
    model, batch = mixture(), batch_of(mixture().config)
    objective = {
        "next-token": NextToken(), "dpo": DPO(reference=mixture()),
        "distill": Distill(teacher=random_model(tiny_config())),
    }[kind]  # fmt: skip
    plain = objective(model.eval(), batch)
    trained = objective(model.train(), batch)
    count = float(trained.count)
    assert count > 0
    balance, z = (float(trained.metrics[f"{name}_loss"]) for name in ("balance", "z"))
    extra = float(trained.sum.detach() - plain.sum.detach())
    assert extra == pytest.approx(0.1 * balance + 0.001 * z, rel=1e-3)
    assert float(trained.metrics["largest_load"]) / count >= 1


@pytest.mark.parametrize("balance", ["loss", "bias"])
def test_balancing_evens_out_a_router_that_prefers_one_expert(balance: str) -> None:
    torch.manual_seed(0)
    config = dataclasses.replace(
        MIXTURES["two-of-four"], router_balance=balance, router_z_loss_coef=0.0
    )
    router = Router(32, config)
    x_ND = torch.randn(512, 32) + 0.7  # what it reads has a mean, as a residual stream has
    torch.nn.init.normal_(router.weight, std=0.02)
    with torch.no_grad():
        router.weight[0] += 0.05
    optimizer = torch.optim.AdamW(router.parameters(), lr=3e-3, weight_decay=0.0)

    def loads() -> torch.Tensor:
        logits = router(x_ND)
        everyone = torch.ones(512, dtype=torch.bool)
        return router.routing(x_ND, logits, router.choose(logits)[0], everyone)

    before = loads().load_E
    for _ in range(100):
        optimizer.zero_grad()
        loads().balance.backward()
        optimizer.step()
    after = loads().load_E
    assert before.max() / before.min().clamp(min=1e-3) > 3
    assert after.max() / after.min() < 1.5


def test_the_bias_moves_nothing_but_the_router() -> None:
    model = mixture(router_balance="bias", router_z_loss_coef=0.0).train()
    output = model(random_ids(model.config, 2, 16))
    output.auxiliary.loss.backward()
    moved = {n for n, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    assert moved == {f"model.layers.{n}.mlp.gate.weight" for n in range(2)}


# ------------------------------------------------------------------------------ upcycling


@torch.no_grad()
def test_an_upcycled_model_computes_what_the_dense_one_does() -> None:
    dense = random_model(tiny_config())
    ids = random_ids(dense.config, 2, 30)
    copies = upcycle(dense, MoEConfig(num_experts=4, moe_intermediate_size=64))
    assert (copies(ids).logits - dense(ids).logits).abs().max() < 1e-5
    slices = MoEConfig(num_experts=8, num_experts_per_tok=8, moe_intermediate_size=16)
    sliced = upcycle(dense, slices)
    for router in routers_of(sliced):
        router.weight.zero_()  # all equally: the mean over the slices is the whole
    assert (sliced(ids).logits - dense(ids).logits).abs().max() < 1e-4
    noisy = upcycle(dense, MoEConfig(num_experts=4, moe_intermediate_size=64), noise=0.1)
    difference = (noisy(ids).logits - dense(ids).logits).abs().max()
    assert 1e-3 < difference < dense(ids).logits.abs().max()


@pytest.mark.parametrize(
    ("moe", "said"),
    [
        (MoEConfig(num_experts=4, moe_intermediate_size=24), "24 doesn't divide .* 64"),
        (MoEConfig(num_experts=6, moe_intermediate_size=16), "6 can't be divided by 4"),
    ],
)
def test_sizes_that_do_not_divide_are_refused(moe: MoEConfig, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        upcycle(random_model(tiny_config()), moe)


def test_what_has_experts_is_not_upcycled_again() -> None:
    with pytest.raises(ConfigError, match="has experts already"):
        upcycle(mixture(), MIXTURES["two-of-four"])


# -------------------------------------------------------------------------- sizes, refusals


@pytest.mark.parametrize(("preset", "total", "active"), [("moe", 64.9, 27.16),
                                                         ("moe-198m", 191.7, 64.3)])  # fmt: skip
def test_presets_have_the_sizes_they_claim(preset: str, total: float, active: float) -> None:
    config = load_model_config(preset)
    with torch.device("meta"):
        model = CausalLM(config)
    counted = sum(p.numel() for p in model.parameters())
    assert counted == accounting.count_parameters(config).total
    assert counted / 1e6 == pytest.approx(total, rel=2e-3)
    assert accounting.active_parameters(config).total / 1e6 == pytest.approx(active, rel=2e-3)
    assert all(config.hidden_size % n == 0 for n in (8, 256))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"num_experts": 2, "num_experts_per_tok": 3}, "num_experts_per_tok = 3: there are only"),
        ({"num_experts": 0}, "num_experts = 0: must be at least 1"),
        ({"moe_intermediate_size": 20}, "moe_intermediate_size = 20: must be a multiple of 8"),
        ({"router_aux_loss_coef": -1.0}, "router_aux_loss_coef = -1.0"),
    ],
)
def test_impossible_mixtures_are_refused(changes: dict[str, float], said: str) -> None:
    with pytest.raises(ConfigError, match=rf"model\.moe\.{said}"):
        tiny_config(moe=MoEConfig(**changes))
    with pytest.raises(ConfigError, match=rf"init\.upcycle\.{said}"):  # named as it was typed
        InitConfig(upcycle=MoEConfig(**changes))


def test_a_mixture_is_a_qwen3_with_one_window() -> None:
    with pytest.raises(ConfigError, match="model_type = 'llama'"):
        tiny_config(moe=MoEConfig(), model_type="llama")
    with pytest.raises(ConfigError, match="layer_types mixes windows"):
        tiny_config(
            moe=MoEConfig(), sliding_window=4,
            layer_types=("sliding_attention", "full_attention"),
        )  # fmt: skip
    with pytest.raises(ConfigError, match="hidden_size = 36"):
        tiny_config(moe=MoEConfig(), hidden_size=36)


def test_adapters_go_on_attention_only() -> None:
    with pytest.raises(ConfigError, match="experts of a mixture can't have adapters") as caught:
        inject_lora(mixture(), LoraConfig())
    assert "--lora.target-modules k_proj o_proj q_proj v_proj" in str(caught.value)
    targets = ("q_proj", "k_proj", "v_proj", "o_proj")
    assert len(inject_lora(mixture(), LoraConfig(target_modules=targets))) == 8


def test_a_file_that_lacks_an_expert_says_which() -> None:
    model = mixture()
    state = model.state_dict()
    del state["model.layers.1.mlp.experts.3.up_proj.weight"]
    with pytest.raises(RuntimeError, match=r"layers\.1\.mlp\.experts\.3\.up_proj"):
        model.load_state_dict(state)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"mlp_only_layers": [0]}, "mlp_only_layers = .0."),
        ({"decoder_sparse_step": 2}, "decoder_sparse_step = 2"),
        ({"num_experts": None}, "lacks num_experts"),
    ],
)
def test_foreign_mixtures_of_another_kind_are_refused(
    changes: dict[str, object], said: str
) -> None:
    values = checkpoint.hf_config(mixture().config, byte_tokenizer()) | changes
    with pytest.raises(CheckpointError, match=said):
        checkpoint.config_from_hf(values)


# --------------------------------------------------------------------------- looking, decoding


def test_chosen_experts_are_those_with_the_highest_scores() -> None:
    model = mixture()
    ids = random_ids(model.config, 1, 7)[0].tolist()
    chosen, weights = chosen_experts(model, ids)
    assert chosen.shape == weights.shape == (2, 7, 2)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 7))
    with pytest.raises(ConfigError, match="the model is dense"):
        chosen_experts(random_model(tiny_config()), ids)
