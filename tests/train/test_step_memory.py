"""What `minimind params` predicts of a step's peak is what the step holds, within 15 %."""

from pathlib import Path

import pytest

from minimind.model.accounting import training_memory
from minimind.settings import load_model_config

BENCH = Path(__file__).parents[2] / "bench"


@pytest.mark.parametrize(
    ("preset", "optimizer", "layers", "rows"),
    [
        ("nano", "muon", "none", 8),
        ("nano", "adamw", "all", 8),
        ("nano", "muon", "all", 1),  # the update is the peak
        pytest.param("26m", "muon", "none", 2, marks=pytest.mark.slow),
        pytest.param("moe", "adamw", "none", 1, marks=pytest.mark.slow),
    ],
)
def test_the_peak_of_a_step_is_predicted(preset, optimizer, layers, rows, monkeypatch):
    monkeypatch.syspath_prepend(str(BENCH))
    import memory

    length = 256
    measured, _ = memory.measured({
        "preset": preset, "optimizer": optimizer, "layers": layers, "rows": rows,
        "length": length, "compile": False, "device": "cpu", "attention": "auto",
    })  # fmt: skip
    predicted = training_memory(
        load_model_config(preset), micro_batch_rows=rows, sequence_length=length
    ).total(optimizer=optimizer, checkpointed=layers == "all")
    assert predicted == pytest.approx(measured, rel=0.15)
