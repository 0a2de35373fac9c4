"""The micro-batch that fits, by prediction; what it predicts is measured in bench/memory.py."""

import pytest

from minimind.cli import main
from minimind.cli.speedrun import parse_budget
from minimind.errors import ConfigError
from minimind.model.accounting import loss_chunk, training_memory
from minimind.settings import load_model_config, load_run_config
from minimind.train import NextToken
from minimind.train.fit import fitted, largest_micro_batch

GB = 10**9


def needed(preset: str, rows: int, layers: str) -> int:
    memory = training_memory(
        load_model_config(preset), micro_batch_rows=rows, sequence_length=512, device="cuda"
    )
    return memory.total(optimizer="muon", checkpointed=layers == "all")


@pytest.mark.parametrize("preset", ["26m", "64m", "104m"])
@pytest.mark.parametrize("memory", [2 * GB, 3 * GB, 10 * GB, 20 * GB, 120 * GB])
def test_the_largest_that_fits_is_taken(preset: str, memory: int) -> None:
    shape = load_model_config(preset)
    rows, layers = largest_micro_batch(
        shape, sequence_length=512, most_rows=128, optimizer="muon", memory=memory
    )
    assert needed(preset, rows, layers) <= memory
    assert rows == 128 or needed(preset, 2 * rows, layers) > memory
    if layers == "all":
        assert needed(preset, 4, "none") > memory


def test_a_card_of_12_gb_trains_64m_without_checkpointing() -> None:
    rows, layers = largest_micro_batch(
        load_model_config("64m"), sequence_length=512, most_rows=128, optimizer="muon",
        memory=int(11.5 * GB * 0.85),
    )  # fmt: skip
    assert rows >= 16
    assert layers == "none"


def test_nothing_fits() -> None:
    with pytest.raises(ConfigError, match=r"one row of 512 tokens needs about .* GB"):
        largest_micro_batch(
            load_model_config("104m"), sequence_length=512, most_rows=8, optimizer="adamw",
            memory=GB // 2,
        )  # fmt: skip


def test_a_cpu_keeps_the_presets_micro_batch() -> None:
    config = load_run_config(["pretrain", "64m", "speedrun"])
    assert (config.train.batch_rows, config.model.intermediate_size) == (512, 4096)
    if config.train.device == "cpu":
        assert fitted(config) == config


@pytest.mark.parametrize(
    ("text", "minutes"), [("2h", 120), ("1h30m", 90), ("90m", 90), ("90", 90), ("0.5h", 30)]
)
def test_a_budget_is_hours_and_minutes(text: str, minutes: float) -> None:
    assert parse_budget(text) == minutes


@pytest.mark.parametrize("text", ["", "two hours", "-2h", "0", "h"])
def test_no_budget(text: str) -> None:
    with pytest.raises(ConfigError, match="--budget"):
        parse_budget(text)


def test_a_machine_without_a_gpu_is_told_what_it_can_do(capsys, monkeypatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert main(["speedrun"]) == 2
    assert "minimind quickstart" in capsys.readouterr().err


def test_on_a_gpu_the_loss_takes_few_large_chunks_of_any_vocabulary() -> None:
    assert loss_chunk(12_000, device="cpu") == 1024
    assert loss_chunk(12_000, device="cuda") == 8192  # 0.4 GB of logits in fp32
    assert loss_chunk(151_936, device="cuda") == 1024  # an imported Qwen3: no more than on a CPU
    assert NextToken().chunk is None
