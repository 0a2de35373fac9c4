"""The public API is what `minimind.__all__` lists, and importing it costs nothing."""

import subprocess
import sys

import pytest

import minimind


@pytest.mark.parametrize("name", minimind.__all__)
def test_every_public_name_is_there_and_documented(name):
    value = getattr(minimind, name)
    assert value.__doc__
    assert value.__module__.startswith("minimind.")
    assert name in dir(minimind)


def test_the_list_is_this_one():
    assert minimind.__all__ == [
        "DPO", "CausalLM", "Distill", "Engine", "LoraConfig", "MiniMindError", "ModelConfig",
        "NextToken", "RunConfig", "SamplingParams", "Tokenizer", "Trainer", "generate", "load",
        "load_model_config", "load_run_config", "run", "train_tokenizer",
    ]  # fmt: skip


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = minimind.nothing


def test_importing_minimind_imports_no_torch():
    code = (
        "import sys, minimind; sys.exit(any(m in sys.modules for m in ('torch', 'numpy', 'rich')))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
