"""`minimind chat` with a pipe and in a real (pseudo-)terminal."""

import io
import subprocess
import sys

import pexpect
import pytest
import torch

from doubles import byte_tokenizer, tiny_config
from minimind import checkpoint, cli
from minimind.model import CausalLM

PATIENCE = 300  # seconds; a shared machine may take long


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("chat") / "c"
    model = CausalLM(tiny_config(max_position_embeddings=160))
    return checkpoint.save(path, model=model, tokenizer=byte_tokenizer())


def command(directory, *flags):
    return [sys.executable, "-m", "minimind", "chat", str(directory), "--seed", "1", *flags]


@pytest.fixture
def piped(directory, capsys, monkeypatch):
    """Run `minimind chat` in this process on some input; give (exit code, stdout, stderr)."""

    def run(text, *flags):
        monkeypatch.setattr(sys, "stdin", io.StringIO(text))
        try:
            code = cli.main(
                ["chat", str(directory), "--seed", "1", "--max-new-tokens", "12", *flags]
            )
        except SystemExit as exit_:
            code = exit_.code
        return code, *capsys.readouterr()

    return run


def test_piped_messages_give_one_answer_each_and_nothing_else(directory, piped):
    _, answer, _ = piped("hello\n")
    real = subprocess.run(
        command(directory, "--max-new-tokens", "12"),
        input="hello\n\nagain\n/reset\nhello\n/exit\nnever read\n",
        capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert real.returncode == 0
    assert len(answer) > 1
    assert real.stdout.startswith(answer)
    assert real.stdout.endswith(answer)  # after /reset the same question, the same answer
    assert len(real.stdout) > 2 * len(answer)
    assert "empty" in real.stderr


def test_commands(piped):
    code, out, err = piped(
        "/help\n/system 你是诗人\n/params\n/params temperature 0\n/params top-k=5\n"
        "/params tmperature 1\n/params top_p 7\n/params top_k x\n/params seed random\n"
        "/rest\n/system\n"
    )
    assert code == 0
    assert out == ""
    for text in (
        "/reset", "system: 你是诗人", "repetition_penalty", "temperature = 0.0", "top_k = 5",
        "no parameter 'tmperature'. Did you mean 'temperature'?", "--top-p 7.0: must be",
        "give a whole number", "seed = None", "no command /rest. Did you mean '/reset'?",
    ):  # fmt: skip
        assert text in err


def test_a_full_context_is_told_in_one_line_and_a_long_message_is_refused(piped):
    code, _, err = piped("a\n" * 8 + "长" * 80 + "\nb\n", "--system", "short")
    assert code == 0
    assert "old turns dropped" in err
    assert "context is 160" in err


@pytest.mark.parametrize(
    ("flags", "message"),
    [(["--top-p", "3"], "--top-p 3.0: must be"), (["--temprature", "1"], "temprature")],
)
def test_wrong_flags(piped, flags, message):
    code, _, err = piped("", *flags)
    assert code == 2
    assert message in err


def test_a_checkpoint_that_is_not_there(capsys):
    assert cli.main(["chat", "nowhere"]) == 2
    assert "nowhere" in capsys.readouterr().err


@pytest.mark.skipif(sys.platform == "win32", reason="pexpect needs a Unix terminal")
def test_a_terminal_session(directory):
    line = command(directory, "--max-new-tokens", "140", "--temperature", "1.5", "--top-p", "1")
    child = pexpect.spawn(
        line[0], line[1:], encoding="utf-8", timeout=PATIENCE, dimensions=(40, 120)
    )
    child.expect("often wrong")
    child.expect("> ")
    child.sendline("/params max_new_tokens 8")
    child.expect("max_new_tokens = 8")
    child.expect("> ")
    child.sendline("hello")
    child.expect(r"cut at max_new_tokens, 8 tokens, \d+ tokens/s, 0 prompt tokens")
    child.expect("> ")
    child.send("\x1b[A")  # arrow up: readline brings the last line back
    child.expect("hello")
    child.send("\r")
    child.expect(r"tokens/s, [1-9]\d* prompt tokens from the cache")
    child.expect("> ")
    # The prompt is printed a moment before readline listens, and a signal in between is seen only
    # when it does: then with the next one.
    for _ in range(60):
        child.sendintr()
        if child.expect(["Ctrl-D leaves", pexpect.TIMEOUT], timeout=2) == 0:
            break
    child.expect("> ")
    child.sendeof()
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0


@pytest.mark.skipif(sys.platform == "win32", reason="pexpect needs a Unix terminal")
def test_ctrl_c_stops_the_answer_not_the_program(tmp_path):
    torch.manual_seed(0)
    shape = {"max_position_embeddings": 20_000, "hidden_size": 128, "num_hidden_layers": 6}
    path = checkpoint.save(
        tmp_path / "c", model=CausalLM(tiny_config(**shape)), tokenizer=byte_tokenizer()
    )
    # Greedy and without a penalty a random tied model repeats one token: it never ends by itself.
    line = command(
        path, "--max-new-tokens", "15000", "--temperature", "0", "--repetition-penalty", "1"
    )
    child = pexpect.spawn(
        line[0], line[1:], encoding="utf-8", timeout=PATIENCE, dimensions=(40, 120)
    )
    child.expect("> ")
    child.sendline("/params seed 3")
    child.expect("> ")
    child.sendline("hello")
    child.expect("hello\r\n")
    child.expect(".{3}")  # the answer has begun
    child.sendintr()
    child.expect(r"stopped, \d+ tokens")
    child.expect("> ")
    child.sendline("/exit")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0
