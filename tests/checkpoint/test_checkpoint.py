"""Checkpoints: Hugging Face reads them, damage is named, and a failed save harms nothing."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from doubles import byte_tokenizer, tiny_config
from minimind import checkpoint
from minimind.config import LoraConfig, RopeScaling, RunConfig
from minimind.errors import CheckpointError, TokenizerError
from minimind.inference.engine import Engine
from minimind.inference.sampling import SamplingParams
from minimind.model import CausalLM, inject_lora, merge_lora

SHAPES = {
    "plain": tiny_config(),
    "untied": tiny_config(tie_word_embeddings=False),
    "every-layer-sliding": tiny_config(sliding_window=5),
    "one-layer-sliding": tiny_config(
        sliding_window=5, layer_types=("sliding_attention", "full_attention")
    ),
    "linear": tiny_config(
        max_position_embeddings=128,
        rope_scaling=RopeScaling(
            rope_type="linear", factor=2.0, original_max_position_embeddings=64
        ),
    ),
    "yarn": tiny_config(
        max_position_embeddings=128,
        rope_theta=50_000.0,
        rope_scaling=RopeScaling(rope_type="yarn", factor=2.0, original_max_position_embeddings=64),
    ),
    "dynamic": tiny_config(
        rope_scaling=RopeScaling(
            rope_type="dynamic", factor=2.0, original_max_position_embeddings=64
        ),
    ),
}
TEXT = "从前有一座山 once"


def fresh_model(**changes):
    torch.manual_seed(0)
    # Larger weights than a real start has: greedy decoding then has clear winners.
    return CausalLM(tiny_config(initializer_range=0.2, **changes)).eval()


@pytest.fixture
def saved(tmp_path):
    model, tokenizer = fresh_model(), byte_tokenizer()
    state = {"step": 3, "tensor": torch.arange(3)}
    directory = checkpoint.save(
        tmp_path / "run/checkpoints/step-000003",
        model=model,
        tokenizer=tokenizer,
        run=RunConfig(model=model.config),
        trainer_state=state,
    )
    return directory


@pytest.mark.parametrize("name", SHAPES)
def test_transformers_loads_it_and_greedy_generates_the_same_ids(name, tmp_path):
    torch.manual_seed(0)
    config, tokenizer = replace(SHAPES[name], initializer_range=0.2), byte_tokenizer()
    model = CausalLM(config).eval()
    checkpoint.save(tmp_path / "c", model=model, tokenizer=tokenizer)

    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "c")
    their_tokenizer = AutoTokenizer.from_pretrained(tmp_path / "c")
    assert theirs.dtype == torch.float32
    ids = their_tokenizer(TEXT, add_special_tokens=False)["input_ids"]
    assert ids == tokenizer.encode(TEXT)
    prompt = torch.tensor([ids])
    with torch.no_grad():
        assert (theirs(prompt).logits - model(prompt).logits).abs().max() < 1e-4
    ours = Engine(model).generate(
        [ids],
        SamplingParams(
            temperature=0,
            repetition_penalty=1.0,
            max_new_tokens=24,
            stop_ids=tuple(tokenizer.stop_ids),
        ),
    )[0]
    generated = theirs.generate(prompt, max_new_tokens=24)[0, len(ids) :].tolist()
    stopped = [i for i, token in enumerate(generated) if token in tokenizer.stop_ids]
    assert ours == generated[: stopped[0] if stopped else None]
    assert len(ours) > 0


@pytest.mark.parametrize("name", SHAPES)
def test_config_json_gives_the_shape_back(name):
    values = checkpoint.hf_config(SHAPES[name], byte_tokenizer())
    again = checkpoint.config_from_hf(json.loads(json.dumps(values)))
    if name == "linear":  # transformers keeps no original length for linear; it follows by division
        assert again.rope_scaling.original_max_position_embeddings == 64
    assert again == SHAPES[name]


def test_a_transformers_4_config_is_read():
    values = checkpoint.hf_config(SHAPES["plain"], byte_tokenizer())
    del values["rope_parameters"], values["layer_types"]
    values |= {"rope_theta": 12_345.0, "rope_scaling": None}
    assert checkpoint.config_from_hf(values) == tiny_config(rope_theta=12_345.0)


@pytest.mark.parametrize(
    ("change", "named"),
    [({"model_type": "mistral"}, "mistral"), ({"mlp_bias": True}, "mlp_bias"),
     ({"hidden_act": "gelu"}, "gelu"), ({"rope_parameters": {"rope_type": "llama3"}}, "llama3")],
)  # fmt: skip
def test_another_architecture_is_refused(change, named):
    values = checkpoint.hf_config(SHAPES["plain"], byte_tokenizer()) | change
    with pytest.raises(CheckpointError, match=named):
        checkpoint.config_from_hf(values)


def test_load_gives_back_what_was_saved(saved):
    model, tokenizer = checkpoint.load(saved)
    expected = fresh_model()
    assert not model.training
    assert tokenizer.fingerprint() == byte_tokenizer().fingerprint()
    for (name, ours), (other, theirs) in zip(
        model.state_dict().items(), expected.state_dict().items(), strict=True
    ):
        assert name == other
        assert torch.equal(ours, theirs)
    assert all(parameter.requires_grad for parameter in model.parameters())
    half, _ = checkpoint.load(saved, dtype=torch.bfloat16)
    assert half.output_weight.dtype == torch.bfloat16
    state = checkpoint.load_trainer_state(saved)
    assert state["step"] == 3
    assert torch.equal(state["tensor"], torch.arange(3))


def test_a_run_directory_means_its_newest_and_best_is_another(saved):
    run = saved.parent.parent
    model, tokenizer = checkpoint.load(saved)
    newer = checkpoint.checkpoint_path(run, 12)
    checkpoint.save(newer, model=model, tokenizer=tokenizer)
    assert checkpoint.resolve(run) == newer
    with pytest.raises(CheckpointError, match="no best checkpoint"):
        checkpoint.resolve(f"{run}:best")
    checkpoint.record_best(run, step=3, validation_loss=1.5)
    assert checkpoint.resolve(f"{run}:best") == saved
    assert checkpoint.best_loss(run) == 1.5


def damage(path: Path, how: str) -> None:
    data = path.read_bytes()
    if how == "truncated":
        path.write_bytes(data[: len(data) // 2])
    elif how == "corrupted":
        middle = len(data) // 2
        path.write_bytes(data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :])
    else:
        path.unlink()


@pytest.mark.parametrize("how", ["truncated", "corrupted", "missing"])
@pytest.mark.parametrize("file", ["model.safetensors", "tokenizer.json", "trainer_state.pt"])
def test_damage_is_named_and_the_previous_checkpoint_is_used(saved, file, how):
    run = saved.parent.parent
    model, tokenizer = checkpoint.load(saved)
    newer = checkpoint.checkpoint_path(run, 6)
    checkpoint.save(newer, model=model, tokenizer=tokenizer, trainer_state={"step": 6})
    damage(newer / file, how)
    with pytest.warns(checkpoint.DamagedCheckpointWarning, match=f"{newer}/{file} is {how}"):
        assert checkpoint.resolve(run, trainer_state=True) == saved
    with pytest.raises(CheckpointError, match=f"{file} is {how}"):
        checkpoint.resolve(newer, trainer_state=True)


def test_a_damaged_manifest_and_a_run_of_damaged_ones(saved):
    (saved / "manifest.json").write_text("{")
    with (
        pytest.warns(checkpoint.DamagedCheckpointWarning, match=r"manifest\.json"),
        pytest.raises(CheckpointError, match=r"every checkpoint .* is damaged"),
    ):
        checkpoint.load(saved.parent.parent)


def test_what_is_not_a_checkpoint_says_so(saved, tmp_path):
    with pytest.raises(CheckpointError, match="Did you mean 'run'"):
        checkpoint.load(tmp_path / "runs")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match=r"no config\.json"):
        checkpoint.load(tmp_path / "empty")
    shutil.copytree(saved, tmp_path / "copy")
    (tmp_path / "copy/trainer_state.pt").unlink()
    (tmp_path / "copy/manifest.json").unlink()
    checkpoint.load(tmp_path / "copy")  # a foreign directory has no manifest
    with pytest.raises(CheckpointError, match=r"no trainer_state\.pt"):
        checkpoint.load_trainer_state(tmp_path / "copy")


def test_missing_unexpected_and_misshapen_tensors_are_listed(saved):
    (saved / "manifest.json").unlink()
    values = json.loads((saved / "config.json").read_text())
    (saved / "config.json").write_text(json.dumps(values | {"num_hidden_layers": 3}))
    with pytest.raises(CheckpointError, match=r"missing model\.layers\.2\..*; and 3 more"):
        checkpoint.load(saved)
    (saved / "config.json").write_text(json.dumps(values | {"num_hidden_layers": 1}))
    with pytest.raises(CheckpointError, match=r"unexpected model\.layers\.1\."):
        checkpoint.load(saved)
    (saved / "config.json").write_text(json.dumps(values | {"intermediate_size": 65}))
    with pytest.raises(CheckpointError, match=r"\(64, 32\) instead of \(65, 32\)"):
        checkpoint.load(saved)


def test_a_tokenizer_with_more_tokens_than_the_model_is_refused(tmp_path):
    with pytest.raises(TokenizerError, match=r"272 tokens, the model 200 embeddings"):
        checkpoint.save(
            tmp_path / "c", model=fresh_model(vocab_size=200), tokenizer=byte_tokenizer()
        )
    assert not (tmp_path / "c").exists()


def test_trainer_state_can_not_run_code(saved):
    class Evil:
        def __reduce__(self):
            return (os.mkdir, (str(saved / "owned"),))

    torch.save({"step": Evil()}, saved / "trainer_state.pt")
    (saved / "manifest.json").unlink()
    with pytest.raises(CheckpointError, match="damaged"):
        checkpoint.load_trainer_state(saved)
    assert not (saved / "owned").exists()


def test_leftovers_of_a_killed_save_are_cleaned_and_other_files_are_not(saved):
    leftover = saved.parent / ".step-000009.minimind-tmp-77"
    leftover.mkdir()
    (leftover / "model.safetensors").write_bytes(b"half")
    mine = saved.parent / ".notes"
    mine.write_text("mine")
    model, tokenizer = checkpoint.load(saved.parent.parent)
    checkpoint.save(saved, model=model, tokenizer=tokenizer)  # over the one that is there
    assert sorted(path.name for path in saved.parent.iterdir()) == [".notes", "step-000003"]
    checkpoint.load(saved)


SAVE_AGAIN = """
import resource, signal, sys
from pathlib import Path
sys.path[:0] = {path!r}
from minimind import checkpoint
from minimind.errors import CheckpointError
old = Path({old!r})
model, tokenizer = checkpoint.load(old)
state = {{"filler": __import__("torch").zeros({zeros})}}
if {limit}:
    resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
try:
    target = old.parent / "step-000099"
    checkpoint.save(target, model=model, tokenizer=tokenizer, trainer_state=state)
except CheckpointError as error:
    print(error)
"""


def save_again(old: Path, *, limit: int, zeros: int) -> str:
    script = SAVE_AGAIN.format(
        path=[p for p in sys.path if p], old=str(old), limit=limit, zeros=zeros
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def check_full_disk(saved: Path, message: str) -> None:
    assert "step-000099 could not be saved" in message
    assert "MiB free" in message
    assert "Make room" in message
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]
    checkpoint.load(saved)
    checkpoint.load_trainer_state(saved)


def test_a_file_too_large_for_the_disk_leaves_the_old_checkpoint_and_no_rubbish(saved):
    # The state is larger than this process may write: the same OSError as a full quota.
    check_full_disk(saved, save_again(saved, limit=400_000, zeros=200_000))


def test_a_full_disk_leaves_the_old_checkpoint_and_no_rubbish(saved, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a small disk needs root")
    try:
        there = disk / "run/checkpoints/step-000003"
        shutil.copytree(saved, there)
        message = save_again(there, limit=0, zeros=400_000)
        assert "No space left on device" in message
        check_full_disk(there, message)
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_prune_keeps_the_last_ones_and_the_best(saved):
    run = saved.parent.parent
    model, tokenizer = checkpoint.load(saved)
    for step in (5, 100_000, 2_000_000):
        checkpoint.save(checkpoint.checkpoint_path(run, step), model=model, tokenizer=tokenizer)
    checkpoint.record_best(run, step=3, validation_loss=1.0)
    removed = checkpoint.prune(run, keep_last=2)
    assert [path.name for path in removed] == ["step-000005"]
    assert [checkpoint.step_of(p) for p in checkpoint.list_checkpoints(run)] == [
        3,
        100_000,
        2_000_000,
    ]
    checkpoint.prune(run, keep_last=1, keep_best=False)
    assert [checkpoint.step_of(p) for p in checkpoint.list_checkpoints(run)] == [2_000_000]


# ---------------------------------------------------------------- adapters


def save_adapters(base: Path, where: Path) -> CausalLM:
    model, tokenizer = checkpoint.load(base)
    lora = LoraConfig(rank=4, alpha=8.0, rslora=True, target_modules=("q_proj", "down_proj"))
    inject_lora(model, lora)
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    checkpoint.save(where, model=model, tokenizer=tokenizer, run=RunConfig(lora=lora), base=base)
    return model.eval()


def test_peft_loads_the_adapters_and_so_do_we(saved, tmp_path):
    model = save_adapters(saved, tmp_path / "adapter")
    ids = torch.tensor([byte_tokenizer().encode(TEXT)])
    with torch.no_grad():
        expected = model(ids).logits
        base = checkpoint.load(saved)[0](ids).logits
        again, tokenizer = checkpoint.load(tmp_path / "adapter")
        theirs = PeftModel.from_pretrained(
            AutoModelForCausalLM.from_pretrained(saved), tmp_path / "adapter"
        )
        assert (base - expected).abs().max() > 0.1
        assert torch.equal(again(ids).logits, expected)
        assert (theirs(ids).logits - expected).abs().max() < 1e-4
        merge_lora(again)
        assert (again(ids).logits - expected).abs().max() < 1e-4
    assert tokenizer.encode(TEXT) == ids[0].tolist()
    assert not (tmp_path / "adapter/model.safetensors").exists()


def test_adapters_find_a_base_that_moved_along_and_refuse_another(saved, tmp_path):
    save_adapters(saved, tmp_path / "run/adapter")
    (tmp_path / "run").rename(tmp_path / "elsewhere")
    moved = tmp_path / "elsewhere/adapter"
    checkpoint.load(moved)

    base = tmp_path / "elsewhere/checkpoints/step-000003"
    torch.manual_seed(5)
    checkpoint.save(base, model=CausalLM(tiny_config()), tokenizer=byte_tokenizer())
    with pytest.raises(CheckpointError, match=f"{moved} holds LoRA .* another model than {base}"):
        checkpoint.load(moved)
    shutil.rmtree(base)
    with pytest.raises(CheckpointError, match="which is not there"):
        checkpoint.load(moved)
