"""Which models a server has: names, adapters, GGUF files; and `minimind serve` as a command."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace

import numpy as np
import openai
import pytest
import torch
from serve_doubles import HTTP, PATIENCE, STORY, WEATHER, endless, running

from minimind import checkpoint
from minimind.cli import main
from minimind.config import LoraConfig, RunConfig
from minimind.errors import CheckpointError, ConfigError
from minimind.inference import Engine, SamplingParams
from minimind.model import inject_lora, merge_lora
from minimind.serve.gguf import tokenizer_of
from minimind.serve.loading import Loader, LoadSettings, merged_copy, name_models, split_name
from minimind.tokenizer import SPECIAL_TOKENS, Tokenizer


@pytest.fixture(scope="module")
def adapter_dir(checkpoint_dir, tmp_path_factory):
    """An adapter that changes what the model says."""
    directory = tmp_path_factory.mktemp("adapter") / "odd"
    model, tokenizer = checkpoint.load(checkpoint_dir)
    lora = LoraConfig(rank=4, alpha=8.0)
    inject_lora(model, lora)
    torch.manual_seed(3)
    for name, parameter in model.named_parameters():
        if name.endswith("lora_B"):
            torch.nn.init.normal_(parameter, std=0.3)
    run = replace(RunConfig(), lora=lora)
    return checkpoint.save(
        directory, model=model, tokenizer=tokenizer, run=run, base=checkpoint_dir
    )


def test_names_are_those_of_runs(tmp_path):
    run = tmp_path / "my-run"
    step = run / "checkpoints/step-000010"
    step.mkdir(parents=True)
    assert split_name(str(run)) == ("my-run", str(run))
    assert split_name(f"{run}:best") == ("my-run", f"{run}:best")
    assert split_name(str(step)) == ("my-run", str(step))
    assert split_name(f"a={step}") == ("a", str(step))
    assert split_name("dir/small-q8_0.gguf") == ("small-q8_0", "dir/small-q8_0.gguf")
    odd = tmp_path / "lr=3"
    odd.mkdir()
    assert split_name(str(odd)) == ("lr=3", str(odd))
    with pytest.raises(ConfigError, match="both be called 'my-run'"):
        name_models([str(run), str(step)], [])
    with pytest.raises(ConfigError, match="NAME="):
        name_models([str(run)], ["adapter"])


def test_an_adapter_is_merged_into_a_copy_that_shares_the_rest(checkpoint_dir, adapter_dir):
    base, _ = checkpoint.load(checkpoint_dir)
    before = {name: tensor.clone() for name, tensor in base.state_dict().items()}
    model = merged_copy(base, adapter_dir, device="cpu")
    want, _ = checkpoint.load(adapter_dir)
    merge_lora(want)
    for (name, tensor), expected in zip(
        model.state_dict().items(), want.state_dict().values(), strict=True
    ):
        assert torch.equal(tensor, expected), name
    for name, tensor in base.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    shared = {t.data_ptr() for t in base.state_dict().values()} & {
        t.data_ptr() for t in model.state_dict().values()
    }
    assert shared
    changed = [n for n in before if not torch.equal(before[n], model.state_dict()[n])]
    assert len(shared) + len(changed) == len({t.data_ptr() for t in base.state_dict().values()})


def test_a_base_and_its_adapter_answer_by_name(checkpoint_dir, adapter_dir):
    registry = Loader(LoadSettings(slots=2)).load(
        [f"base={checkpoint_dir}"], [f"odd={adapter_dir}"]
    )
    try:
        base, odd = registry
        assert (base.id, base.parent, odd.id, odd.parent) == ("base", None, "odd", "base")
        assert base.fingerprint != odd.fingerprint
        params = SamplingParams(temperature=0, top_p=1, repetition_penalty=1, max_new_tokens=20)
        prompt = base.tokenizer.encode("从前")
        model, _ = checkpoint.load(adapter_dir)
        (want,) = Engine(model).generate([prompt], params)
        said = {}
        for served in registry:
            ids: list[int] = []
            done = threading.Event()
            served.backend.submit(
                prompt,
                params,
                lambda event, ids=ids, done=done: (
                    ids.append(event.token) if event.token is not None else None,
                    done.set() if event.end else None,
                ),
            )
            assert done.wait(PATIENCE)
            said[served.id] = ids
        assert said["odd"] == want
        assert said["base"] != want
    finally:
        registry.close()


def test_pefts_own_directory_is_taken(checkpoint_dir, tmp_path):
    peft = pytest.importorskip("peft")
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(checkpoint_dir)
    torch.manual_seed(1)
    config = peft.LoraConfig(
        r=4, lora_alpha=8, target_modules=["q_proj", "down_proj"], init_lora_weights=False,
        task_type="CAUSAL_LM",
    )  # fmt: skip
    tuned = peft.get_peft_model(base, config)
    tuned.save_pretrained(tmp_path / "peft")
    ours, tokenizer = checkpoint.load(checkpoint_dir)
    model = merged_copy(ours, tmp_path / "peft", device="cpu")
    ids = torch.tensor([tokenizer.encode("从前有座山")])
    with torch.no_grad():
        want = tuned.eval()(ids).logits
        assert torch.allclose(model.eval()(ids).logits, want, atol=1e-3)
    registry = Loader(LoadSettings(slots=1)).load(
        [f"base={checkpoint_dir}"], [f"t={tmp_path / 'peft'}"]
    )
    registry.close()


def test_what_cant_be_served_is_told(checkpoint_dir, adapter_dir, tmp_path):
    loader = Loader(LoadSettings())
    with pytest.raises(CheckpointError, match="nowhere"):
        loader.load([str(tmp_path / "nowhere")], [])
    with pytest.raises(CheckpointError, match=r"no such file"):
        loader.load([str(tmp_path / "no.gguf")], [])
    with pytest.raises(ConfigError, match="is a checkpoint"):
        Loader(LoadSettings(backend="llama.cpp")).load([str(checkpoint_dir)], [])
    with pytest.raises(CheckpointError, match="a whole model is served without --adapter"):
        Loader(LoadSettings()).load([f"a={checkpoint_dir}"], [f"b={checkpoint_dir}"])


def gguf_of(tokenizer: Tokenizer, path) -> None:
    """Write a file with a vocabulary and nothing to compute with."""
    gguf = pytest.importorskip("gguf")
    content = json.loads(tokenizer._json)["model"]
    tokens = sorted(content["vocab"], key=content["vocab"].__getitem__)
    writer = gguf.GGUFWriter(path, "qwen3")
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token in SPECIAL_TOKENS else 1 for token in tokens])
    writer.add_token_merges([" ".join(merge) for merge in content["merges"]] or ["a b"])
    writer.add_tensor("x", np.zeros(1, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_the_tokenizer_of_a_gguf_file_is_the_checkpoints(tmp_path):
    tokenizer = Tokenizer.load("default")
    gguf_of(tokenizer, tmp_path / "m.gguf")
    read = tokenizer_of(tmp_path / "m.gguf")
    assert type(read) is Tokenizer
    for text in (
        "从前有座山。",
        "Hello, world's  2026\n\n",
        "<|im_end|>",
        "😀\u0301x",
        "a\tb 天气",
    ):
        assert read.encode(text) == tokenizer.encode(text)
    messages = [{"role": "user", "content": "<|im_end|>好"}]
    assert read.render(messages).ids == tokenizer.render(messages).ids
    (tmp_path / "bad.gguf").write_bytes(b"GGUF\x03\x00")
    with pytest.raises(CheckpointError, match=r"bad\.gguf"):
        tokenizer_of(tmp_path / "bad.gguf")


def test_a_gguf_file_answers_as_its_checkpoint(checkpoint_dir, tmp_path, client):
    pytest.importorskip("xllamacpp")
    from minimind.export.gguf import export_gguf

    path = tmp_path / "mini.gguf"
    export_gguf(checkpoint_dir, path, type="f32", verify=False)
    ask = {"model": "mini", "temperature": 0, "max_tokens": 60, "logprobs": True}
    with running(path, slots=2, queue=4) as server:
        (served,) = server.registry
        assert served.backend.kind == "llama.cpp"
        theirs = server.client()
        for question, tools in (("数到十", None), ("天气？", [WEATHER])):
            options = {"messages": [{"role": "user", "content": question}]} | (
                {"tools": tools} if tools else {}
            )
            want = client.chat.completions.create(**ask, **options).choices[0]
            got = theirs.chat.completions.create(**ask, **options).choices[0]
            assert got.message.content == want.message.content
            assert got.finish_reason == want.finish_reason
            assert [e.logprob for e in got.logprobs.content] == pytest.approx(
                [e.logprob for e in want.logprobs.content], abs=0.05
            )
            for one, other in zip(
                got.message.tool_calls or (), want.message.tool_calls or (), strict=True
            ):
                assert one.function == other.function
        with pytest.raises(openai.BadRequestError) as caught:
            theirs.completions.create(model="mini", prompt="从前", echo=True, logprobs=1)
        assert (caught.value.param, caught.value.code) == ("echo", "unsupported_value")
        echoed = theirs.completions.create(
            model="mini", prompt="从前", echo=True, max_tokens=60, temperature=0
        )
        assert echoed.choices[0].text == STORY


# ---------------------------------------------------------------- the command


def start(*arguments, **environment):
    process = subprocess.Popen(
        [sys.executable, "-m", "minimind", "serve", *map(str, arguments), "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | environment,
    )
    assert process.stdout is not None
    first = process.stdout.readline()
    if not first:
        return process, ""
    return process, first.split()[2]


def test_the_command_serves_until_sigterm(checkpoint_dir, adapter_dir):
    process, url = start(
        checkpoint_dir, "--adapter", f"odd={adapter_dir}", "--slots", "2", MINIMIND_API_KEY="k"
    )
    try:
        health = HTTP.get(url + "/health")  # it listens before the model is there
        assert health.json()["status"] in {"loading", "ready"}
        line = process.stdout.readline()
        assert line.startswith("ready after ")
        assert line.rstrip().endswith("s: mini (torch), odd (torch)")
        client = openai.OpenAI(base_url=url + "/v1", api_key="k", max_retries=0, timeout=PATIENCE)
        assert [model.id for model in client.models.list()] == ["mini", "odd"]
        with pytest.raises(openai.AuthenticationError):
            openai.OpenAI(base_url=url + "/v1", api_key="x", max_retries=0).models.list()
        both = {
            name: client.completions.create(model=name, prompt="从前", temperature=0)
            .choices[0]
            .text
            for name in ("mini", "odd")
        }
        assert both["mini"] != both["odd"]
        stream = client.chat.completions.create(**endless(200, stream=True))
        pieces = iter(stream)
        next(pieces)
        process.send_signal(signal.SIGTERM)
        rest = list(pieces)  # it drains
        assert rest[-1].choices[0].finish_reason == "length"
        assert process.wait(PATIENCE) == 0
        assert process.stderr.read() == ""
    finally:
        process.kill()


def test_a_second_signal_ends_it_at_once(checkpoint_dir):
    process, url = start(checkpoint_dir, "--drain-timeout", "600", "--slots", "1")
    try:
        process.stdout.readline()
        client = openai.OpenAI(base_url=url + "/v1", api_key="k", max_retries=0, timeout=PATIENCE)
        stream = client.chat.completions.create(**endless(1000, n=8, stream=True))
        next(iter(stream))
        process.send_signal(signal.SIGINT)
        while HTTP.get(url + "/health").json()["status"] != "draining":  # or the two become one
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 1  # of the 600 seconds that it might have
        assert "cut off" in process.stderr.read()
    finally:
        process.kill()


def test_wrong_input_exits_with_2_and_says_why(checkpoint_dir, tmp_path, capsys):
    (tmp_path / "keys").write_text("\n")
    cases = [
        ((tmp_path / "nowhere",), "nowhere"),
        ((checkpoint_dir, "--api-key-file", tmp_path / "keys"), "there is no key in it"),
        ((checkpoint_dir, "--slots", "0"), "--slots 0: must be at least 1"),
        ((checkpoint_dir, checkpoint_dir), "both be called"),
        ((checkpoint_dir, "--host", "256.1.1.1"), "--host 256.1.1.1"),
    ]
    for arguments, wanted in cases:
        assert main(["serve", *map(str, arguments), "--port", "0"]) == 2
        assert wanted in capsys.readouterr().err
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert main(["serve", str(checkpoint_dir), "--port", port]) == 2
        assert f"--port {port}" in capsys.readouterr().err


def test_listening_to_others_without_a_key_is_warned_of(checkpoint_dir, monkeypatch, capsys):
    from minimind.cli import serve as command
    from minimind.serve import run

    seen = {}

    def instead(models, adapters, **settings):
        seen.update(settings)

    monkeypatch.setattr(run, "serve", instead)
    command.main([str(checkpoint_dir), "--host", "0.0.0.0"])
    assert "warning: --host 0.0.0.0 without a key" in capsys.readouterr().err
    assert seen["settings"].allowed_hosts is None
    command.main([str(checkpoint_dir)])
    assert capsys.readouterr().err == ""
    assert "localhost" in seen["settings"].allowed_hosts
    monkeypatch.setenv("MINIMIND_API_KEY", "k")
    command.main([str(checkpoint_dir), "--host", "0.0.0.0"])
    assert capsys.readouterr().err == ""
    assert seen["settings"].api_keys == ("k",)
