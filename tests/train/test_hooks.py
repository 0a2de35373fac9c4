"""Log, validate, sample and save around a real run; trackers with their real packages."""

import io
import math
import sys

import pytest
import torch
from rich.console import Console
from test_trainer import Clock, Rows, make_trainer, poison, structured_rows

from doubles import byte_tokenizer
from minimind import checkpoint
from minimind.config import SaveConfig
from minimind.data.batch import Batch
from minimind.errors import ConfigError, MissingExtraError
from minimind.train import Log, Sample, Save, Validate
from minimind.train import trainer as trainer_module
from minimind.train.device import peak_flops
from minimind.train.hooks import evaluate, text_bytes, token_byte_lengths
from minimind.train.metrics import MetricsLog, read_metrics
from minimind.train.trackers import make_tracker


def console(*, terminal=False):
    return Console(file=io.StringIO(), force_terminal=terminal, width=200)


def held_out(rows=4, seed=7):
    ids = structured_rows(rows, seed=seed)
    return Batch(input_ids=ids[:, :-1], labels=ids[:, 1:]).split(2)


@pytest.fixture
def metrics(tmp_path):
    return MetricsLog(tmp_path / "metrics.jsonl")


def test_log_writes_a_line_every_so_many_steps_and_at_the_end(metrics):
    shown = console()
    log = Log(metrics, every=4, console=shown, flops_per_token=1e6, peak_flops=1e12, label="sft")
    trainer = make_trainer(loader=Rows(structured_rows(80)), steps=10, hooks=[log])
    trainer.fit()
    lines = read_metrics(metrics.path)
    assert [line["step"] for line in lines] == [4, 8, 10]
    assert [line["tokens"] for line in lines] == [4 * 128, 8 * 128, 10 * 128]
    for line in lines:
        assert line["tokens_per_second"] > 0
        assert line["mfu"] == pytest.approx(line["tokens_per_second"] * 1e6 / 1e12)
    assert lines[-1]["seconds"] == pytest.approx(trainer.counters.seconds)
    plain = shown.file.getvalue()
    assert len(plain.splitlines()) == 3
    assert "sft 8/10 · loss" in plain
    assert "\x1b" not in plain


def test_log_shows_a_bar_in_a_terminal(metrics):
    shown = console(terminal=True)
    log = Log(metrics, every=1, console=shown)
    make_trainer(loader=Rows(structured_rows(80)), steps=3, hooks=[log]).fit()
    assert "3/3 loss" in shown.file.getvalue().replace("\x1b[0m", "")


def test_the_rate_has_nothing_of_other_hooks(metrics, monkeypatch):
    clock = Clock()
    monkeypatch.setattr(trainer_module, "time", clock)
    slow = [Log(metrics, every=2, console=console()), lambda *_: clock.pass_by(10.0)]
    trainer = make_trainer(loader=Rows(structured_rows(80)), steps=4, hooks=slow)
    trainer.fit()
    last = read_metrics(metrics.path)[-1]
    assert last["tokens_per_second"] > 2 * 128 / 0.1


def test_a_skipped_step_is_a_line_with_a_null_loss(metrics):
    log = Log(metrics, every=100, console=console())
    trainer = make_trainer(loader=Rows(structured_rows(80)), steps=3, hooks=[log])
    poison(trainer)
    trainer.fit()
    lines = read_metrics(metrics.path)
    assert [line["step"] for line in lines] == [1, 2, 3]
    assert lines[-1]["loss"] is None
    assert lines[-1]["skipped_steps"] == 3


def test_lines_past_a_checkpoint_and_half_lines_are_cut(metrics):
    for step in range(1, 6):
        metrics.write({"loss": 1.0}, step=step)
    with metrics.path.open("a") as file:
        file.write('{"step": 6, "lo')
    metrics.cut_after(3)
    metrics.write({"loss": 0.5}, step=4)
    assert [line["step"] for line in read_metrics(metrics.path)] == [1, 2, 3, 4]


def test_validation_is_the_mean_over_labels_and_bits_per_byte(metrics):
    trainer = make_trainer()
    batches = held_out()
    lengths = token_byte_lengths(byte_tokenizer())
    assert (lengths == 1).sum() == 256
    n_bytes = sum(text_bytes(batch, lengths) for batch in batches)
    assert n_bytes == sum(batch.learnt_tokens for batch in batches)
    figures = evaluate(trainer, batches, text_bytes=n_bytes)
    logits = torch.cat([trainer.model(batch.input_ids).logits for batch in batches])
    labels = torch.cat([batch.labels for batch in batches])
    expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten()).item()
    assert figures["loss"] == pytest.approx(expected, rel=1e-5)
    assert figures["bits_per_byte"] == pytest.approx(expected / math.log(2), rel=1e-5)


def test_validation_changes_nothing_of_the_training(metrics):
    plain = make_trainer(loader=Rows(structured_rows(80)))
    validate = Validate(held_out(), every=3, metrics=metrics)
    validated = make_trainer(loader=Rows(structured_rows(80)), hooks=[validate])
    assert plain.fit().loss == validated.fit().loss
    assert [line["step"] for line in read_metrics(metrics.path)] == [3, 6, 9, 12, 15, 18, 20]
    first, *_, last = [line["validation_loss"] for line in read_metrics(metrics.path)]
    assert last < first
    assert validate.last == (20, last)


def test_further_sets_are_measured_apart(metrics):
    """What is added to the held-out rows changes nothing of their figures."""
    trainer = make_trainer(loader=Rows(structured_rows(80)), steps=2)
    lengths, other = token_byte_lengths(byte_tokenizer()), held_out()[:1]
    validate = Validate(
        held_out(), every=0, metrics=metrics, byte_lengths=lengths, also={"text": other}
    )
    trainer.hooks = [validate]
    trainer.fit()
    (line,) = read_metrics(metrics.path)
    alone = evaluate(trainer, other, text_bytes=sum(text_bytes(b, lengths) for b in other))
    assert line["validation_text_loss"] == alone["loss"]
    assert line["validation_text_bits_per_byte"] == alone["bits_per_byte"]
    assert line["validation_loss"] == evaluate(trainer, held_out())["loss"] != alone["loss"]
    assert validate.last == (2, line["validation_loss"])


def test_samples_are_written_and_leave_the_random_state_alone(tmp_path):
    sample = Sample(
        lambda prompt: prompt + str(torch.rand(1).item() > 2),
        prompts=["你好", "hi"],
        every=2,
        path=tmp_path / "samples.txt",
    )
    before = torch.get_rng_state()
    make_trainer(loader=Rows(structured_rows(80)), steps=4, hooks=[sample])
    torch.set_rng_state(before)
    trainer = make_trainer(loader=Rows(structured_rows(80)), steps=4, hooks=[sample])
    state = torch.get_rng_state()
    trainer.fit()
    assert torch.equal(torch.get_rng_state(), state)
    text = (tmp_path / "samples.txt").read_text(encoding="utf-8")
    assert text.startswith("## step 2\n> 你好\n你好False\n\n> hi\nhiFalse\n\n## step 4\n")


def test_samples_may_be_drawn_with_any_kernel_in_a_deterministic_run(tmp_path):
    def say(prompt):
        assert not torch.are_deterministic_algorithms_enabled()
        return prompt

    sample = Sample(say, prompts=["hi"], every=2, path=tmp_path / "samples.txt")
    trainer = make_trainer(loader=Rows(structured_rows(80)), steps=2, hooks=[sample])
    torch.use_deterministic_algorithms(True)
    try:
        trainer.fit()
        assert torch.are_deterministic_algorithms_enabled()
    finally:
        torch.use_deterministic_algorithms(False)
    assert (tmp_path / "samples.txt").read_text(encoding="utf-8") == "## step 2\n> hi\nhi\n\n"


def saving(run, *, validation=None, **config):
    tokenizer = byte_tokenizer()

    def save(trainer):
        return checkpoint.save(
            checkpoint.checkpoint_path(run, trainer.step),
            model=trainer.model,
            tokenizer=tokenizer,
            trainer_state=trainer.state_dict(),
        )

    return Save(save, run=run, config=SaveConfig(**config), validation=validation)


def test_save_keeps_the_last_ones(tmp_path):
    save = saving(tmp_path, every=3, keep_last=2)
    trainer = make_trainer(loader=Rows(structured_rows(80)), steps=10, hooks=[save])
    trainer.fit()
    names = [path.name for path in checkpoint.list_checkpoints(tmp_path)]
    assert names == ["step-000009", "step-000010"]
    assert trainer.last_checkpoint == tmp_path / "checkpoints" / "step-000010"


def test_save_keeps_the_best_by_validation(tmp_path, metrics):
    validate = Validate(held_out(), every=2, metrics=metrics)
    save = saving(tmp_path, validation=validate, every=4, keep_last=1)

    def spoil(trainer, report):
        if report.step == 6:
            torch.nn.init.normal_(trainer.model.model.embed_tokens.weight)

    hooks = [validate, save, spoil]
    make_trainer(loader=Rows(structured_rows(80)), steps=10, hooks=hooks).fit()
    losses = {line["step"]: line["validation_loss"] for line in read_metrics(metrics.path)}
    assert min(losses, key=losses.get) == 6
    assert checkpoint.best(tmp_path).name == "step-000006"
    assert checkpoint.best_loss(tmp_path) == losses[6]
    names = [path.name for path in checkpoint.list_checkpoints(tmp_path)]
    assert names == ["step-000006", "step-000010"]


def test_what_was_saved_goes_on_exactly(tmp_path):
    straight = make_trainer(loader=Rows(structured_rows(80)), steps=8)
    expected = straight.fit().loss
    first = make_trainer(
        loader=Rows(structured_rows(80)), steps=8, hooks=[saving(tmp_path, every=5)]
    )
    first.fit()
    directory = checkpoint.checkpoint_path(tmp_path, 5)
    model, _ = checkpoint.load(directory)
    second = make_trainer(loader=Rows(structured_rows(80)), steps=8)
    second.model.load_state_dict(model.state_dict())
    second.load_state_dict(checkpoint.load_trainer_state(directory))
    assert second.fit().loss == expected


def test_tensorboard_gets_the_figures(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    tracker = make_tracker("tensorboard", name="t", directory=tmp_path)
    metrics = MetricsLog(tmp_path / "metrics.jsonl", tracker=tracker)
    metrics.write({"loss": 2.5, "grad_norm": math.nan}, step=3)
    metrics.write({"loss": 1.5}, step=4)
    metrics.finish()
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(e.step, e.value) for e in events.Scalars("loss")] == [(3, 2.5), (4, 1.5)]
    assert events.Tags()["scalars"] == ["loss"]


def test_wandb_offline_writes_a_run_without_a_network(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB__SERVICE_WAIT", "300")  # seconds for its service to start
    tracker = make_tracker("wandb-offline", name="t", directory=tmp_path, settings={"lr": 1.0})
    tracker.log({"loss": 2.5}, step=1)
    tracker.finish()
    assert list(tmp_path.glob("wandb/offline-run-*/*.wandb"))


def test_swanlab_offline_writes_below_the_run(tmp_path):
    pytest.importorskip("swanlab")
    tracker = make_tracker("swanlab", name="t", directory=tmp_path)
    tracker.log({"loss": 2.5}, step=1)
    tracker.finish()
    assert list((tmp_path / "swanlab").rglob("*"))


def test_a_missing_tracker_names_the_extra(tmp_path, monkeypatch):
    for package in ("wandb", "tensorboard", "swanlab"):
        monkeypatch.setitem(sys.modules, package, None)
    for kind in ("wandb", "wandb-offline", "tensorboard", "swanlab"):
        with pytest.raises(MissingExtraError, match=r"pip install 'minimind\[track\]'"):
            make_tracker(kind, name="t", directory=tmp_path)
    assert make_tracker("none", name="t", directory=tmp_path) is None
    with pytest.raises(ConfigError, match="Did you mean 'wandb'"):
        make_tracker("wandbb", name="t", directory=tmp_path)


def test_the_peak_is_known_for_gpus_by_name(monkeypatch):
    cuda = torch.device("cuda")
    for name, peak in {
        "NVIDIA H100 PCIe": 756e12,
        "NVIDIA A100-SXM4-80GB": 312e12,
        "NVIDIA GeForce RTX 4090": 165e12,
        "Tesla T4": 65e12,
        "NVIDIA L40S": 362e12,
    }.items():
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda _, name=name: name)
        assert peak_flops(cuda) == peak
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "Some Other GPU")
    assert peak_flops(cuda) is None
    assert peak_flops(torch.device("cpu")) is None
