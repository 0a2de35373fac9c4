"""The README's commands are real: every one parses, and both languages give the same ones."""

import re
import shlex
from pathlib import Path

import pytest

from minimind.cli import VERBS
from minimind.settings import load_run_config, preset_names

ROOT = Path(__file__).parent.parent
FILES = ["README.md", "README.zh-CN.md"]


def commands(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    blocks = re.findall(r"```sh\n(.*?)```", text, flags=re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines() if line.strip()]
    lines += re.findall(r"`(minimind train [^`]*--[^`]*)`", text)
    return [shlex.split(line, comments=True) for line in lines]


def test_the_first_two_commands_are_the_quickstart_and_the_tests():
    for name in FILES:
        assert commands(name)[:2] == [["make", "quickstart"], ["make", "test"]]


def test_both_languages_give_the_same_commands():
    english, chinese = (commands(name) for name in FILES)
    assert [words[:3] for words in english] == [words[:3] for words in chinese]


def test_nothing_is_left_to_fill_in():
    for name in [*FILES, "docs/LOG.md"]:
        assert "@@" not in (ROOT / name).read_text(encoding="utf-8")


def test_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text()
    for words in commands("README.md"):
        if words[0] == "make":
            assert re.search(rf"^{words[1]}:", makefile, flags=re.MULTILINE), words


@pytest.mark.parametrize(
    "words", [w for w in commands("README.md") if w[0] == "minimind"], ids=" ".join
)
def test_every_verb_and_every_training_setting_is_real(words):
    assert words[1] in VERBS
    if words[1] == "train":
        first_flag = next(i for i, word in enumerate(words) if word.startswith("-"))
        presets, flags = words[2:first_flag], words[first_flag:]
        assert set(presets) <= set(preset_names())
        config = load_run_config(presets, flags)
        assert config.data.train
        assert config.train.steps or config.train.tokens or config.train.epochs


def test_presets_in_the_tables_have_the_counts_they_claim():
    torch = pytest.importorskip("torch")
    from minimind.model import CausalLM
    from minimind.settings import load_model_config

    for name in FILES:
        text = (ROOT / name).read_text(encoding="utf-8")
        rows = re.findall(r"^\| `(\S+)`.*\| ([\d.]+)M \|$", text, flags=re.MULTILINE)
        assert {row[0] for row in rows} == {"nano", "26m", "64m", "64m-wide", "104m"}
        for preset, millions in rows:
            with torch.device("meta"):
                model = CausalLM(load_model_config(preset))
            count = sum(weight.numel() for weight in model.parameters())
            assert f"{count / 1e6:.2f}".startswith(millions), preset
