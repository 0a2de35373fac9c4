"""NextToken against torch, DPO against trl's own code, Distill against the plain formula."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F

from doubles import tiny_config
from minimind.data.batch import IGNORE, Batch
from minimind.errors import ConfigError
from minimind.model import CausalLM
from minimind.train.objective import DPO, Distill, NextToken, sequence_log_probs


def model(seed=0, **changes):
    torch.manual_seed(seed)
    # Ten times the usual spread, so that distributions are far from uniform.
    return CausalLM(tiny_config(initializer_range=0.2, **changes))


def ragged_batch(rows=4, length=24, seed=0):
    """Rows with a prompt that isn't learnt and padding that isn't either."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(16, 272, (rows, length + 1), generator=generator)
    labels = ids[:, 1:].clone()
    for row in range(rows):
        start, end = sorted(torch.randint(1, length, (2,), generator=generator).tolist())
        labels[row, :start] = IGNORE
        labels[row, end + 1 :] = IGNORE
    return Batch(input_ids=ids[:, :-1], labels=labels)


def gradients(model):
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_same_gradients(ours, theirs, *, atol):
    assert ours.keys() == theirs.keys()
    for name, gradient in ours.items():
        torch.testing.assert_close(gradient, theirs[name], atol=atol, rtol=1e-4, msg=name)


@pytest.mark.parametrize("chunk", [7, 1024])
def test_next_token_is_torchs_cross_entropy(chunk):
    ours, theirs, batch = model(), model(), ragged_batch()
    loss = NextToken(chunk=chunk)(ours, batch)
    loss.sum.backward()
    logits = theirs(batch.input_ids).logits
    expected = F.cross_entropy(logits.flatten(0, 1), batch.labels.flatten(), reduction="sum")
    expected.backward()
    assert loss.count == batch.learnt_tokens
    torch.testing.assert_close(loss.sum, expected, atol=0, rtol=1e-6)
    assert_same_gradients(gradients(ours), gradients(theirs), atol=1e-5)


@pytest.fixture(scope="module")
def trl_trainer(tmp_path_factory):
    """A real DPOTrainer around transformers' Qwen3 with our weights."""
    trl = pytest.importorskip("trl")
    transformers = pytest.importorskip("transformers")
    from datasets import Dataset

    from minimind.checkpoint import hf_config
    from minimind.tokenizer import SPECIAL_TOKENS, train_tokenizer

    tokenizer = train_tokenizer([], vocab_size=256 + len(SPECIAL_TOKENS))
    directory = tmp_path_factory.mktemp("trl")
    tokenizer.save(directory)
    raw = {k: v for k, v in hf_config(tiny_config(), tokenizer).items() if k != "model_type"}
    config = transformers.Qwen3Config(**raw)

    def foreign(ours):
        foreign = transformers.Qwen3ForCausalLM(config)
        foreign.load_state_dict(ours.state_dict(), strict=False)
        return foreign

    row = {"prompt": ["1"], "chosen": ["2"], "rejected": ["3"]}
    trainer = trl.DPOTrainer(
        model=foreign(model(1)),
        ref_model=foreign(model(2)),
        args=trl.DPOConfig(
            output_dir=str(directory / "out"),
            beta=0.3,
            loss_type="sigmoid",
            report_to=[],
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            per_device_train_batch_size=2,
        ),
        train_dataset=Dataset.from_dict(row),
        processing_class=transformers.AutoTokenizer.from_pretrained(directory),
    )
    trainer.model.train()
    return trainer


def trl_inputs(batch):
    """Our rows in trl's layout: all chosen first, and a mask over unshifted ids."""
    order = [*range(0, batch.rows, 2), *range(1, batch.rows, 2)]
    ids = torch.cat([batch.input_ids, batch.labels[:, -1:].clamp(min=0)], dim=1)[order]
    mask = torch.zeros_like(ids)
    mask[:, 1:] = (batch.labels[order] != IGNORE).long()
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "completion_mask": mask}


def test_dpo_is_trls(trl_trainer):
    batch = ragged_batch(rows=6)
    policy = model(1)
    loss = DPO(reference=model(2), beta=0.3, chunk=16)(policy, batch)
    (loss.sum / loss.count).backward()

    trl_trainer.model.zero_grad()
    theirs = trl_trainer._compute_loss(trl_trainer.model, trl_inputs(batch), False)
    theirs.backward()
    assert loss.count == 3
    torch.testing.assert_close(loss.sum / loss.count, theirs, atol=1e-5, rtol=1e-5)
    foreign = gradients(trl_trainer.model)
    # A tied model of transformers names the shared matrix once.
    assert_same_gradients(gradients(policy), foreign, atol=2e-5)
    logged = trl_trainer._metrics["train"]
    for ours, name in [
        ("accuracy", "rewards/accuracies"),
        ("margin", "rewards/margins"),
        ("chosen_reward", "rewards/chosen"),
        ("rejected_reward", "rewards/rejected"),
    ]:
        mean = (loss.metrics[ours] / loss.count).item()
        assert mean == pytest.approx(logged[name][-1], abs=1e-4), ours


def test_dpo_starts_at_ln_2_and_leaves_its_reference_alone():
    policy = model(1)
    reference = copy.deepcopy(policy)
    loss = DPO(reference=reference)(policy, ragged_batch())
    assert (loss.sum / loss.count).item() == pytest.approx(math.log(2), abs=1e-6)
    loss.sum.backward()
    assert all(p.grad is None and not p.requires_grad for p in reference.parameters())


def test_conservative_dpo_mixes_both_orders():
    batch, policy, reference = ragged_batch(), model(1), model(2)
    swapped = Batch(input_ids=batch.input_ids[[1, 0, 3, 2]], labels=batch.labels[[1, 0, 3, 2]])
    plain = DPO(reference=reference)
    smoothed = DPO(reference=reference, label_smoothing=0.2)(policy, batch).sum
    expected = 0.8 * plain(policy, batch).sum + 0.2 * plain(policy, swapped).sum
    torch.testing.assert_close(smoothed, expected)


def plain_distillation(student, teacher, batch, *, temperature, alpha):
    keep = batch.labels != IGNORE
    student_logits = student(batch.input_ids).logits[keep]
    with torch.no_grad():
        teacher_logits = teacher(batch.input_ids).logits[keep]
    kl = F.kl_div(
        F.log_softmax(student_logits / temperature, -1),
        F.softmax(teacher_logits / temperature, -1),
        reduction="sum",
    )
    cross_entropy = F.cross_entropy(student_logits, batch.labels[keep], reduction="sum")
    return alpha * temperature**2 * kl + (1 - alpha) * cross_entropy


@pytest.mark.parametrize(("temperature", "alpha"), [(1.0, 1.0), (2.0, 0.5), (4.0, 0.0)])
def test_distill_is_the_plain_formula(temperature, alpha):
    batch, teacher = ragged_batch(), model(5, num_hidden_layers=3)
    ours, theirs = model(1), model(1)
    loss = Distill(teacher=teacher, temperature=temperature, alpha=alpha, chunk=10)(ours, batch)
    loss.sum.backward()
    expected = plain_distillation(theirs, teacher, batch, temperature=temperature, alpha=alpha)
    expected.backward()
    torch.testing.assert_close(loss.sum, expected, atol=1e-3, rtol=1e-5)
    assert_same_gradients(gradients(ours), gradients(theirs), atol=1e-4)
    assert all(p.grad is None for p in teacher.parameters())


def test_distill_refuses_another_vocabulary():
    with pytest.raises(ConfigError, match="300, the student one of 272"):
        Distill(teacher=model(vocab_size=300))(model(), ragged_batch())


def objectives():
    return [NextToken(), DPO(reference=model(2)), Distill(teacher=model(2))]


@pytest.mark.parametrize("objective", objectives(), ids=lambda o: type(o).__name__)
def test_rows_without_labels_add_nothing(objective):
    batch = ragged_batch()
    silent = Batch(
        input_ids=torch.cat([batch.input_ids, batch.input_ids]),
        labels=torch.cat([batch.labels, torch.full_like(batch.labels, IGNORE)]),
    )
    first, second = model(1), model(1)
    alone, together = objective(first, batch), objective(second, silent)
    alone.sum.backward()
    together.sum.backward()
    assert together.count == alone.count
    torch.testing.assert_close(together.sum, alone.sum)
    assert_same_gradients(gradients(second), gradients(first), atol=1e-4)


@pytest.mark.parametrize("objective", objectives(), ids=lambda o: type(o).__name__)
def test_a_batch_without_labels_is_zero_and_never_nan(objective):
    batch = ragged_batch()
    empty = Batch(input_ids=batch.input_ids, labels=torch.full_like(batch.labels, IGNORE))
    policy = model(1)
    loss = objective(policy, empty)
    loss.sum.backward()
    assert loss.sum == 0
    assert loss.count == 0
    assert all(torch.count_nonzero(g) == 0 for g in gradients(policy).values())


def test_sequence_log_probs_add_up_the_labels():
    batch, policy = ragged_batch(), model(1)
    log_probs = F.log_softmax(policy(batch.input_ids).logits, -1)
    picked = log_probs.gather(2, batch.labels.clamp(min=0)[:, :, None])[:, :, 0]
    expected = (picked * (batch.labels != IGNORE)).sum(1)
    torch.testing.assert_close(sequence_log_probs(policy, batch), expected)
