"""Muon against an SVD and torch's own Muon, AdamW against torch's, state by name."""

import math

import pytest
import torch
from torch import nn

from minimind.config import OptimConfig
from minimind.errors import CheckpointError
from minimind.train.optim import Muon, Optimizer, build_optimizer, orthogonalize
from minimind.train.schedule import build_schedule


class Toy(nn.Module):
    """Named as a language model is: an embedding, two hidden matrices of one shape, a norm."""

    def __init__(self) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(11, 8)
        self.first = nn.Linear(8, 8, bias=False)
        self.second = nn.Linear(8, 8, bias=False)
        self.up = nn.Linear(8, 24, bias=False)
        self.norm = nn.LayerNorm(8, bias=False)

    def forward(self, ids):
        return self.up(self.norm(self.second(self.first(self.embed_tokens(ids)).tanh())))


def toy(seed=0):
    torch.manual_seed(seed)
    return Toy()


def step(model, optimizer, seed):
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, 11, (4, 5), generator=generator)
    optimizer.zero_grad()
    model(ids).square().mean().backward()
    for part in optimizer.parts if isinstance(optimizer, Optimizer) else [optimizer]:
        part.step()


@pytest.mark.parametrize("shape", [(3, 16, 16), (2, 12, 40), (2, 40, 12)])
def test_orthogonalize_is_the_u_v_of_an_svd(shape):
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    u, _, vt = torch.linalg.svd(matrices, full_matrices=False)
    exact = u @ vt
    ours = orthogonalize(matrices, steps=5)
    # Five steps leave singular values in about [0.7, 1.2] (smallest ones a bit lower), so the
    # direction agrees while the length is only roughly 1; singular *vectors* are untouched.
    singular = torch.linalg.svdvals(ours)
    assert singular.min() > 0.3
    assert singular.max() < 1.3
    cosine = (ours * exact).sum((-2, -1)) / (ours.norm(dim=(-2, -1)) * exact.norm(dim=(-2, -1)))
    assert cosine.min() > 0.97
    rotated = u.mT @ ours @ vt.mT
    off_diagonal = rotated - torch.diag_embed(rotated.diagonal(dim1=-2, dim2=-1))
    assert off_diagonal.abs().max() < 1e-9


@pytest.mark.parametrize("shape", [(16, 16), (12, 40), (40, 12)])
def test_muon_equals_torchs(shape):
    ours = nn.Parameter(torch.randn(shape, generator=torch.Generator().manual_seed(2)))
    twin = nn.Parameter(torch.randn(shape, generator=torch.Generator().manual_seed(3)))
    theirs, theirs_twin = (nn.Parameter(p.detach().clone()) for p in (ours, twin))
    muon = Muon([ours, twin], lr=0.02, momentum=0.95, weight_decay=0.1)
    reference = torch.optim.Muon([theirs, theirs_twin], lr=0.02, momentum=0.95, weight_decay=0.1)
    for seed in range(5):
        for p, q in ((ours, theirs), (twin, theirs_twin)):
            gradient = torch.randn(shape, generator=torch.Generator().manual_seed(10 + seed))
            p.grad, q.grad = gradient.clone(), gradient.clone()
        muon.step()
        reference.step()
    # torch always iterates in bf16 (8 bits of mantissa); five updates of 0.02 each.
    torch.testing.assert_close(ours, theirs, atol=5e-3, rtol=0)
    torch.testing.assert_close(twin, theirs_twin, atol=5e-3, rtol=0)
    torch.testing.assert_close(
        muon.state[ours]["momentum_buffer"], reference.state[theirs]["momentum_buffer"]
    )


def test_muon_moves_a_matrix_by_its_learning_rate():
    for rows, columns in ((32, 32), (64, 32), (32, 64)):
        weight = nn.Parameter(torch.zeros(rows, columns))
        weight.grad = torch.randn(rows, columns, generator=torch.Generator().manual_seed(4))
        Muon([weight], lr=0.02).step()
        spectral = torch.linalg.matrix_norm(weight.detach(), ord=2).item()
        assert spectral == pytest.approx(0.02 * math.sqrt(max(1, rows / columns)), rel=0.3)


def test_adamw_equals_torchs_with_decay_on_matrices_only():
    ours, theirs = toy(), toy()
    config = OptimConfig(kind="adamw", lr=1e-2, weight_decay=0.3, betas=(0.9, 0.95))
    optimizer = build_optimizer(ours, config)
    matrices = [theirs.first.weight, theirs.second.weight, theirs.up.weight]
    rest = [theirs.embed_tokens.weight, theirs.norm.weight]
    reference = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.3}, {"params": rest, "weight_decay": 0.0}],
        lr=1e-2,
        betas=(0.9, 0.95),
        fused=False,
    )
    for seed in range(8):
        step(ours, optimizer, seed)
        step(theirs, reference, seed)
    for (name, p), q in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(p, q, atol=1e-6, rtol=1e-5, msg=name)


def test_muon_gets_the_hidden_matrices_and_adamw_the_rest():
    model = toy()
    adamw, muon = build_optimizer(model, OptimConfig(kind="muon")).parts
    assert isinstance(muon, Muon)
    hidden = {model.first.weight, model.second.weight, model.up.weight}
    assert set(muon.param_groups[0]["params"]) == hidden
    (group,) = adamw.param_groups
    assert set(group["params"]) == {model.embed_tokens.weight, model.norm.weight}
    assert group["weight_decay"] == 0.0


def test_frozen_parameters_are_left_alone():
    model = toy()
    model.embed_tokens.requires_grad_(False)
    model.up.requires_grad_(False)
    before = model.up.weight.clone()
    optimizer = build_optimizer(model, OptimConfig())
    step(model, optimizer, 0)
    assert "up.weight" not in optimizer.state_dict()
    torch.testing.assert_close(model.up.weight, before, atol=0, rtol=0)


@pytest.mark.parametrize("kind", ["muon", "adamw"])
def test_state_goes_through_a_file_by_name_and_the_run_goes_on_bit_for_bit(kind, tmp_path):
    config = OptimConfig(kind=kind)
    straight, resumed = toy(), toy()
    optimizer = build_optimizer(straight, config)
    for seed in range(3):
        step(straight, optimizer, seed)
    state = optimizer.state_dict()
    assert set(state) == dict(straight.named_parameters()).keys()
    torch.save(state, tmp_path / "optimizer.pt")

    resumed.load_state_dict(straight.state_dict())
    again = build_optimizer(resumed, config)
    again.load_state_dict(torch.load(tmp_path / "optimizer.pt", weights_only=True))
    for seed in range(3, 6):
        step(straight, optimizer, seed)
        step(resumed, again, seed)
    for p, q in zip(straight.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(p, q)


def test_state_of_another_optimizer_or_model_is_refused():
    model = toy()
    adamw = build_optimizer(model, OptimConfig(kind="adamw"))
    step(model, adamw, 0)
    with pytest.raises(CheckpointError, match=r"first\.weight.*same optim\.kind"):
        build_optimizer(model, OptimConfig(kind="muon")).load_state_dict(adamw.state_dict())
    with pytest.raises(CheckpointError, match=r"'other\.weight'"):
        adamw.load_state_dict({"other.weight": {}})


def factors(steps=100, **settings):
    schedule = build_schedule(OptimConfig(**settings), steps=steps)
    return [schedule(step) for step in range(steps)]


def test_wsd_warms_up_stays_and_decays():
    curve = factors(schedule="wsd", warmup_share=0.1, decay_share=0.4, final_lr_share=0.0)
    assert curve[:10] == pytest.approx([(i + 1) / 10 for i in range(10)])
    assert curve[10:61] == [1.0] * 51
    assert curve[80] == pytest.approx(0.5)
    assert curve[99] == pytest.approx(1 / 40)


def test_cosine_equals_torchs():
    parameter = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    reference = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=90, eta_min=0.1)
    theirs = []
    for _ in range(90):
        theirs.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        reference.step()
    curve = factors(schedule="cosine", warmup_share=0.1, final_lr_share=0.1)
    assert curve[10:] == pytest.approx(theirs, abs=1e-9)
    assert curve[9] == 1.0


def test_constant_stays():
    assert factors(schedule="constant", warmup_share=0.0) == [1.0] * 100


@pytest.mark.parametrize("kind", ["wsd", "cosine", "constant"])
def test_no_schedule_starts_at_zero_or_fails_on_short_runs(kind):
    for steps in (1, 2, 3):
        curve = factors(steps, schedule=kind, warmup_share=0.5, decay_share=0.5)
        assert curve[0] > 0
        assert all(0 <= factor <= 1 for factor in curve)
