"""`minimind train` in a pipe."""

import signal
import subprocess
import sys
from dataclasses import replace

from minimind import checkpoint
from minimind.config import SaveConfig
from run_doubles import run_directory, tiny_run, write_settings


def test_a_run_whose_reader_is_gone_is_saved_by_ctrl_c(tmp_path):
    """Ctrl-C ends `| tee log` too; what is printed then goes nowhere."""
    config = replace(tiny_run(tmp_path, steps=100_000), save=SaveConfig(every=0))
    with subprocess.Popen(
        [sys.executable, "-m", "minimind", "train",
         str(write_settings(config, tmp_path / "run.toml"))],
        stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        next(line for line in process.stdout if "/100000" in line)
        process.stdout.close()
        process.send_signal(signal.SIGINT)
        assert process.wait(300) == 130
    assert checkpoint.list_checkpoints(run_directory(config))
