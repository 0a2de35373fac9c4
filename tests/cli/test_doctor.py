"""`minimind doctor`: checks against real and made-up machines, and a short real trial."""

import json

import pytest
import torch

from minimind import cli
from minimind.doctor import checks, timing
from minimind.settings import load_model_config, load_run_config

TINY = (
    "--model.hidden-size", "32", "--model.intermediate-size", "64", "--model.vocab-size", "300",
    "--model.num-hidden-layers", "2", "--data.sequence-length", "32", "--train.no-compile",
    "--train.batch-rows", "8", "--train.micro-batch-rows", "2", "--train.device", "cpu",
)  # fmt: skip


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_an_nvidia_gpu_is_found_without_torch(tmp_path):
    assert checks.find_nvidia(tmp_path) is None
    bus = tmp_path / "sys/bus/pci/devices"
    write(bus / "0000:00:01.0/vendor", "0x8086\n")
    write(bus / "0000:00:01.0/class", "0x030000\n")
    write(bus / "0000:00:02.0/vendor", "0x10de\n")
    write(bus / "0000:00:02.0/class", "0x040300\n")  # its sound device
    assert checks.find_nvidia(tmp_path) is None
    write(bus / "0000:00:03.0/vendor", "0x10de\n")
    write(bus / "0000:00:03.0/class", "0x030200\n")
    assert "0000:00:03.0" in checks.find_nvidia(tmp_path)
    write(tmp_path / "proc/driver/nvidia/version", "NVRM version: 570\n")
    assert checks.find_nvidia(tmp_path) == "/proc/driver/nvidia"


def test_a_cpu_only_torch_beside_a_gpu_is_an_error_with_the_fix():
    bad = checks.check_torch("PCI device 1", cuda_build=None, cuda_works=False)
    assert bad.level == "error"
    assert "pip uninstall torch" in bad.fix
    driver = checks.check_torch("PCI device 1", cuda_build="13.0", cuda_works=False)
    assert driver.level == "error"
    assert "nvidia-smi" in driver.fix
    assert checks.check_torch("GPU 0", cuda_build="13.0", cuda_works=True).level == "ok"
    assert checks.check_torch(None, cuda_build=None, cuda_works=False).level == "ok"


@pytest.mark.parametrize(
    ("check", "level"),
    [
        (checks.check_bf16({"bf16": 3e11, "fp32": 1e11}), "ok"),
        (checks.check_bf16({"bf16": 1e11, "fp32": 1e11}), "warning"),
        (checks.check_memory(None, parameters=1), "ok"),
        (checks.check_memory(20 * 10**9, parameters=65_000_000), "ok"),
        (checks.check_memory(3 * 10**9, parameters=65_000_000), "warning"),
        (checks.check_memory(10**9, parameters=65_000_000), "error"),
        (checks.check_threads(8, cores=8), "ok"),
        (checks.check_threads(1, cores=8), "warning"),
        (checks.check_threads(8, cores=2), "warning"),
    ],
)
def test_levels(check, level):
    assert check.level == level
    assert bool(check.fix) == (level != "ok")


@pytest.mark.parametrize(("free", "level"), [(10e9, "ok"), (3e9, "warning"), (1e9, "error")])
def test_disk(free, level, tmp_path):
    check = checks.check_disk(int(free), parameters=65_000_000, checkpoints=4, where=tmp_path)
    assert check.level == level


def test_a_missing_compiler_is_a_warning(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    check = checks.check_compiler()
    assert check.level == "warning"
    assert "apt install g++" in check.fix


def test_what_the_system_says(tmp_path):
    write(tmp_path / "meminfo", "MemTotal: 100 kB\nMemAvailable:   2000 kB\n")
    assert checks.available_memory(tmp_path / "meminfo") == 2_048_000
    assert checks.available_memory(tmp_path / "nothing") is None
    write(tmp_path / "cpu.max", "100000 100000\n")
    assert checks.usable_cores(tmp_path / "cpu.max") == 1
    write(tmp_path / "cpu.max", "max 100000\n")
    assert checks.usable_cores(tmp_path / "cpu.max") == checks.usable_cores(tmp_path / "none") >= 1


def test_flops_are_those_that_torch_counts():
    from torch.utils.flop_counter import FlopCounterMode

    from minimind.model import CausalLM

    model = load_model_config("nano")
    ids = torch.randint(model.vocab_size, (1, 128))
    # eager attention multiplies all T x T scores, twice what causal attention needs
    network = CausalLM(model)
    network.set_attention("eager")
    with FlopCounterMode(display=False) as counter:
        network(ids).logits.sum().backward()
    attention = 12 * model.num_attention_heads * model.head_dim * 128 * model.num_hidden_layers
    ours = timing.training_flops_per_token(model, sequence_length=128) + attention / 2
    assert counter.get_total_flops() / 128 == pytest.approx(ours, rel=0.03)


def test_a_trial_trains_for_real_and_adds_up():
    config = load_run_config(["nano"], list(TINY))
    trial = timing.time_training(config, seconds=0.5, rates={"fp32": 1e11, "bf16": 2e11})
    assert trial.steps >= 2
    assert trial.tokens_per_second == pytest.approx(8 * 32 / trial.step_seconds)
    assert 0 <= trial.update_seconds < trial.step_seconds
    assert 0 < trial.matrix_share < 1
    assert trial.peak_memory_bytes > 1e7
    estimate = timing.estimate(trial, parameters=1000, price=3.6)
    assert estimate.tokens == 20_000
    assert estimate.hours == pytest.approx(20_000 / trial.tokens_per_second / 3600)
    assert estimate.cost == pytest.approx(3.6 * estimate.hours)


def test_a_micro_batch_that_takes_too_long_is_made_smaller():
    config = load_run_config(["64m"])
    rows = timing._rows_in_time(config, seconds=3, rate=700)
    assert rows * 512 / 700 <= 3 < 2 * rows * 512 / 700
    assert timing._rows_in_time(config, seconds=3, rate=1e6) == config.train.micro_batch_rows


def test_the_command_prints_json_for_programs_and_a_table_for_people(capsys):
    args = ["doctor", "nano", "--seconds", "0.2", "--tokens", "1000000", "--price", "2", *TINY]
    assert cli.main([*args, "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    names = [check["name"] for check in figures["checks"]]
    assert names == [
        "Python", "torch", "device", "matrix rate", "C++ compiler", "disk", "RAM", "threads",
    ]  # fmt: skip
    assert figures["training"]["tokens_per_second"] > 0
    assert figures["estimate"]["tokens"] == 1_000_000
    assert figures["estimate"]["cost"] > 0
    assert cli.main(args) == 0
    table = capsys.readouterr().out
    for text in ("this machine", "tokens/s", "MFU", "1,000,000 tokens", "cost"):
        assert text in table


def test_an_error_level_check_gives_exit_code_1_and_no_trial(capsys, monkeypatch):
    monkeypatch.setattr(checks, "find_nvidia", lambda: "PCI device 0000:00:03.0")
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert cli.main(["doctor", "nano", "--json", *TINY]) == 1
    figures = json.loads(capsys.readouterr().out)
    assert figures["training"] is None
    assert [check["level"] for check in figures["checks"] if check["name"] == "torch"] == ["error"]


@pytest.mark.parametrize(
    ("args", "message"),
    [(["64mm"], "64m"), (["nano", "--price", "-1"], "--price"), (["nano", "--pric", "1"], "pric")],
)
def test_wrong_input(capsys, args, message):
    try:
        code = cli.main(["doctor", *args])
    except SystemExit as exit_:
        code = exit_.code
    assert code == 2
    assert message in capsys.readouterr().err
