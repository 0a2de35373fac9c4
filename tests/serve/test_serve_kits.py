"""Adapters of a domain kit: served as they come, with the kit's system prompt."""

import contextlib
import shutil
from dataclasses import replace
from pathlib import Path

import openai
import pytest
import torch
from serve_doubles import Running

from minimind import checkpoint
from minimind.cli import main
from minimind.config import KitConfig, LoraConfig, RunConfig
from minimind.errors import CheckpointError, ConfigError
from minimind.model import inject_lora
from minimind.serve.adapters import AdapterFolder
from minimind.serve.loading import Loader, LoadSettings
from minimind.serve.run import Listening
from minimind.serve.server import ServeSettings

SYSTEM = "只说水果。"
ASKED = [{"role": "user", "content": "数到十"}]


def save_adapter(
    base: Path,
    directory: Path,
    *,
    kit: KitConfig | None = None,
    seed: int = 3,
    strength: float = 0.05,
):
    """Write adapters that change what the model says."""
    model, tokenizer = checkpoint.load(base)
    lora = LoraConfig(rank=4, alpha=8.0)
    inject_lora(model, lora)
    torch.manual_seed(seed)
    for name, parameter in model.named_parameters():
        if name.endswith("lora_B"):
            torch.nn.init.normal_(parameter, std=strength)
    run = replace(RunConfig(), lora=lora, kit=kit)
    return checkpoint.save(directory, model=model, tokenizer=tokenizer, run=run, base=base)


@pytest.fixture(scope="module")
def kit_dir(checkpoint_dir, tmp_path_factory):
    directory = tmp_path_factory.mktemp("kit") / "fruit/checkpoints/step-000007"
    kit = KitConfig(name="fruit", disclaimer="no", system=SYSTEM)
    return save_adapter(checkpoint_dir, directory, kit=kit).parent.parent


@contextlib.contextmanager
def serving(base, adapters=(), folder=None, **settings):
    loader = Loader(LoadSettings(slots=2, **settings))
    server = Running(loader.load([f"mini={base}"], adapters), Listening(), ServeSettings())
    if folder is not None:
        server.server.folder = AdapterFolder(folder, loader.load_adapter)
    try:
        yield server
    finally:
        server.stop()
        server.join()


def prompt_tokens(client, model, messages):
    answer = client.chat.completions.create(model=model, messages=messages, max_tokens=1)
    return answer.usage.prompt_tokens


def test_the_kits_system_prompt_opens_conversations_without_one(checkpoint_dir, kit_dir):
    own = [{"role": "system", "content": SYSTEM}, *ASKED]
    silent = [{"role": "system", "content": ""}, *ASKED]
    with serving(checkpoint_dir, [f"fruit={kit_dir}"]) as server:
        client = server.client()
        assert [model.id for model in client.models.list()] == ["mini", "fruit"]
        bare = prompt_tokens(client, "mini", ASKED)
        opened = prompt_tokens(client, "fruit", ASKED)
        assert opened == prompt_tokens(client, "mini", own) > bare
        assert prompt_tokens(client, "fruit", own) == opened
        assert prompt_tokens(client, "fruit", silent) < opened
        # With it the answer is that of the adapter to the same messages, merged by hand.
        said = client.chat.completions.create(
            model="fruit", messages=ASKED, temperature=0, max_tokens=12
        )
        same = client.chat.completions.create(
            model="fruit", messages=own, temperature=0, max_tokens=12
        )
        assert said.choices[0].message.content == same.choices[0].message.content
    with serving(checkpoint_dir, [f"fruit={kit_dir}"], kit_prompt=False) as server:
        assert prompt_tokens(server.client(), "fruit", ASKED) == bare


def test_an_adapter_put_into_the_folder_is_served_without_a_restart(
    checkpoint_dir, kit_dir, tmp_path, caplog
):
    folder = tmp_path / "adapters"
    folder.mkdir()
    (folder / "notes.txt").write_text("no adapter")
    (folder / "empty").mkdir()
    with serving(checkpoint_dir, folder=folder) as server:
        client = server.client()
        with pytest.raises(openai.NotFoundError, match="'fruit' does not exist"):
            client.chat.completions.create(model="fruit", messages=ASKED)
        shutil.copytree(kit_dir, folder / "fruit")
        server.server.folder._looked = 0  # a second later
        said = client.chat.completions.create(model="fruit", messages=ASKED, max_tokens=3)
        assert said.model == "fruit"
        save_adapter(checkpoint_dir, folder / "plain", seed=4)
        server.server.folder._looked = 0
        models = {model.id: model for model in client.models.list()}
        assert set(models) == {"mini", "fruit", "plain"}
        assert models["plain"].parent == "mini"
        # One that can't be read is told once and passed over; the others go on.
        broken = shutil.copytree(folder / "plain", folder / "broken")
        (broken / "adapter_config.json").write_text("{")
        with caplog.at_level("WARNING", logger="minimind.serve"):
            for _ in range(2):
                server.server.folder._looked = 0
                assert len(list(client.models.list())) == 3
        assert sum("broken" in record.message for record in caplog.records) == 1
        assert client.models.retrieve("fruit").id == "fruit"


def greedy(client, model, messages):
    answer = client.chat.completions.create(
        model=model, messages=messages, temperature=0, max_tokens=40
    )
    return answer.choices[0].message.content


def test_two_kits_and_their_base_answer_by_name_and_as_their_exports_do(
    checkpoint_dir, kit_dir, tmp_path
):
    """Not merged beside the base, and merged for good by `export hf`: the same greedy answers."""
    second = save_adapter(
        checkpoint_dir, tmp_path / "law", kit=KitConfig(name="law", system="只说法律。"), seed=5
    )
    merged = {}
    for name, adapter in (("fruit", kit_dir), ("law", second)):
        merged[name] = tmp_path / f"{name}-merged"
        main(["export", "hf", str(adapter), str(merged[name]), "--dtype", "fp32", "--no-verify"])
    beside = [f"fruit={kit_dir}", f"law={second}"]
    with serving(checkpoint_dir, beside) as server:
        client = server.client()
        said = {name: greedy(client, name, ASKED) for name in ("mini", "fruit", "law")}
    assert len(set(said.values())) == 3
    with serving(merged["fruit"]) as fruit, serving(merged["law"]) as law:
        assert greedy(fruit.client(), "mini", ASKED) == said["fruit"]
        assert greedy(law.client(), "mini", ASKED) == said["law"]


def test_a_running_answer_goes_on_while_a_kit_is_loaded(checkpoint_dir, kit_dir, tmp_path):
    folder = tmp_path / "adapters"
    folder.mkdir()
    story = [{"role": "user", "content": "数到十"}]
    with serving(checkpoint_dir, folder=folder) as server:
        client = server.client()
        alone = greedy(client, "mini", story)
        stream = client.chat.completions.create(
            model="mini", messages=story, temperature=0, max_tokens=40, stream=True
        )
        first = next(stream).choices[0].delta.content or ""
        shutil.copytree(kit_dir, folder / "fruit")
        server.server.folder._looked = 0
        assert greedy(client, "fruit", ASKED) != alone
        rest = [chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices]
        assert first + "".join(rest) == alone


def test_an_adapter_of_another_base_is_refused_with_both_names(checkpoint_dir, tmp_path):
    model, tokenizer = checkpoint.load(checkpoint_dir)
    with torch.no_grad():
        model.model.norm.weight += 1
    other = checkpoint.save(tmp_path / "other", model=model, tokenizer=tokenizer)
    adapter = save_adapter(other, tmp_path / "adapter")
    loader = Loader(LoadSettings(slots=1))
    with pytest.raises(CheckpointError) as raised:
        loader.load([f"mini={checkpoint_dir}"], [f"a={adapter}"])
    assert str(other) in str(raised.value)
    assert f"{checkpoint_dir} (mini)" in str(raised.value)
    with pytest.raises(ConfigError, match="no such folder"):
        AdapterFolder(tmp_path / "nowhere", loader.load_adapter)
