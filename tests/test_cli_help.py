"""`minimind --help` answers at once; every verb has a help page."""

import resource
import shlex
import subprocess
import sys

import pytest

from minimind.cli import VERBS

HELP = "import sys; from minimind.cli import main; code = main({argv!r})"


def cpu_seconds(argv: list[str]) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", "minimind", *argv], check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (after.ru_utime - before.ru_utime) + (after.ru_stime - before.ru_stime)


def test_help_takes_less_than_0_3_seconds_of_cpu_time():
    assert min(cpu_seconds(["--help"]) for _ in range(3)) < 0.3


def test_help_imports_no_torch():
    code = HELP.format(argv=["--help"]) + "; sys.exit(code or 'torch' in sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert shown.returncode == 0
    for verb in VERBS:
        assert f"\n  {verb} " in shown.stdout


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_a_help_page(verb):
    shown = subprocess.run(
        [sys.executable, "-m", "minimind", verb, "--help"], capture_output=True, text=True
    )
    assert shown.returncode == 0, shown.stderr
    assert f"minimind {verb}" in shown.stdout


def test_train_help_and_dry_run_need_no_torch():
    for argv in (["train", "--help"], ["train", "pretrain", "nano", "--dry-run"]):
        code = (
            "import sys\nfrom minimind.cli import main\n"
            f"try:\n    code = main({argv!r})\nexcept SystemExit as stop:\n    code = stop.code\n"
            "sys.exit(code or 'torch' in sys.modules)"
        )
        shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert shown.returncode == 0, shown.stderr
        assert "nano" in shown.stdout or "pretrain" in shown.stdout


def test_a_wrong_verb_names_the_nearest():
    shown = subprocess.run(
        [sys.executable, "-m", "minimind", "trian"], capture_output=True, text=True
    )
    assert shown.returncode == 2
    assert "Did you mean 'train'?" in shown.stderr


@pytest.mark.parametrize("command", ["--help", "ui --help", "--version", "data list"])
def test_a_reader_that_has_seen_enough_causes_no_traceback(command):
    """Written by print, by tyro, and by rich, which would exit with 1."""
    with subprocess.Popen(
        [sys.executable, "-m", "minimind", *command.split()],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 141


def test_a_closed_stdout_causes_no_traceback():
    command = f"exec {shlex.quote(sys.executable)} -m minimind --version >&-"
    shown = subprocess.run(["sh", "-c", command], stderr=subprocess.PIPE, text=True)
    assert (shown.returncode, shown.stderr) == (0, "")
