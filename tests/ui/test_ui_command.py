"""`minimind ui` as people start it: from another directory, ended by Ctrl-C or worse."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest
from ui_doubles import serving

from minimind.cli.ui import Args, main
from minimind.errors import UserError
from minimind.serve.loading import Loader, LoadSettings

PATIENCE = 300
# A shell that starts us in the background has SIGINT ignored, and children inherit that.
START = (
    "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "from minimind.cli import main; sys.exit(main(sys.argv[1:]))"
)


@contextlib.contextmanager
def command(*flags, cwd, **environment):
    process = subprocess.Popen(
        [sys.executable, "-c", START, "ui", *map(str, flags), "--port", "0"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=cwd,
        env=os.environ | environment,
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def until(process, pattern):
    """Read lines until one matches."""
    for line in process.stdout:
        if found := re.search(pattern, line):
            return found
    raise AssertionError(process.stderr.read())


def wait_until_closed(port):
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)):
                return
        time.sleep(0.05)
    raise AssertionError(f"something still listens on {port}")


def test_one_command_from_anywhere_to_the_first_token_and_a_clean_end(chatty_dir, tmp_path):
    with command(f"poet={chatty_dir}", cwd=tmp_path) as process:
        address = until(process, r"page: (http://127\.0\.0\.1:\d+) \(\d+\.\d s").group(1)
        with urllib.request.urlopen(address, timeout=PATIENCE) as page:
            assert "MiniMind" in page.read().decode()
        ready = until(process, r"first token: \d+\.\d s .* server: (http://127\.0\.0\.1:(\d+)/v1)")
        with urllib.request.urlopen(ready.group(1) + "/models", timeout=PATIENCE) as models:
            assert b'"poet"' in models.read()
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 0
        assert process.stderr.read() == ""
        wait_until_closed(int(ready.group(2)))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_no_server_is_left_behind_by_kill_9(chatty_dir, tmp_path):
    with command(chatty_dir, cwd=tmp_path) as process:
        port = int(until(process, r"server: http://127\.0\.0\.1:(\d+)/v1").group(1))
        process.kill()
        wait_until_closed(port)


@pytest.mark.slow
def test_a_running_server_with_a_key(chatty_dir, tmp_path):
    registry = Loader(LoadSettings(slots=1, queue=1)).load([f"mini={chatty_dir}"], [])
    with serving(registry, api_keys=("secret",)) as server:
        flags = ("--server", server.root, "--api-key-env", "THE_KEY")
        with command(*flags, cwd=tmp_path, THE_KEY="secret") as process:
            address = until(process, r"page: (http://\S+)").group(1)
            until(process, f"server: {server.url}")
            with urllib.request.urlopen(address, timeout=PATIENCE) as page:
                assert "secret" not in page.read().decode()
            request = urllib.request.Request(address, headers={"Host": "evil.example"})
            with pytest.raises(urllib.error.HTTPError, match="400"):
                urllib.request.urlopen(request, timeout=PATIENCE)
            process.send_signal(signal.SIGINT)
            assert process.wait(PATIENCE) == 0
        assert server.server.status == "ready"  # it isn't ours to end


def test_a_checkpoint_that_is_none_ends_it_with_words(tmp_path):
    with command(tmp_path / "nothing", cwd=tmp_path) as process:
        assert process.wait(PATIENCE) == UserError.exit_code
        said = process.stderr.read()
    assert "nothing" in said
    assert "minimind ui: the server ended (exit code 2)" in said


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ([], "give at least one CHECKPOINT"),
        (["x", "--server", "http://127.0.0.1:1"], "either checkpoints or --server"),
        (["x", "--api-key-env", "K"], "--api-key-env is the key of --server"),
        (["--server", "localhost:8000"], "--server localhost:8000"),
        (["--server", "http://h", "--api-key-env", "NO_SUCH_KEY"], "NO_SUCH_KEY"),
        (["x", "--port", "70000"], "--port 70000"),
    ],
)
def test_wrong_flags_are_told_before_anything_starts(flags, said):
    with pytest.raises(UserError, match=re.escape(said)):
        main(flags)


def test_the_page_is_for_this_machine_unless_told_otherwise():
    assert Args().host == "127.0.0.1"
