"""Settings: what is written is meant; everything else is an error that says where and what."""

from dataclasses import fields, is_dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minimind.config import (
    DataConfig,
    InitConfig,
    LoraConfig,
    ModelConfig,
    OptimConfig,
    RopeScaling,
    RunConfig,
)
from minimind.errors import ConfigError
from minimind.settings import (
    dump_run_config,
    load_model_config,
    load_run_config,
    preset_names,
)

SHAPES = ("nano", "26m", "64m", "64m-wide", "104m", "moe", "moe-198m")
STAGES = ("pretrain", "sft", "dpo", "lora", "distill", "vision", "vision-chat")
OVERLAYS = {"medical": "lora", "law": "sft", "speedrun": "pretrain"}
"""Laid over a stage: what they don't say is the stage's."""


@pytest.fixture
def toml(tmp_path):
    def write(text: str) -> str:
        path = tmp_path / "mine.toml"
        path.write_text(text, encoding="utf-8")
        return str(path)

    return write


def test_presets_are_these_and_each_says_what_it_is():
    about = preset_names()
    assert sorted(about) == sorted((*SHAPES, *STAGES, *OVERLAYS))
    for name, line in about.items():
        assert line.startswith(f"{name}: ")
        assert len(line) > 40


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_wins_over_a_shape_in_whatever_order(stage, shape):
    both = load_run_config([stage, shape])
    assert both == load_run_config([shape, stage])
    assert both.model == load_model_config(shape)
    alone = load_run_config([stage])
    if stage != "pretrain":  # its rates and its batch are those of the shape
        ours = both.optim
        if ours.kind == "adamw":  # which reads nothing of Muon, so the shape's may stand there
            muon = {"muon_lr": alone.optim.muon_lr, "muon_momentum": alone.optim.muon_momentum}
            ours = replace(ours, **muon)
        assert ours == alone.optim
        assert both.train == alone.train
    assert both.objective == alone.objective


@pytest.mark.parametrize("name", OVERLAYS)
def test_an_overlay_leaves_the_rates_to_its_stage(name):
    stage = load_run_config([OVERLAYS[name], "nano"])
    both = load_run_config([OVERLAYS[name], name, "nano"])
    assert (both.optim, both.objective, both.lora) == (stage.optim, stage.objective, stage.lora)
    assert both != stage


def test_files_lie_over_presets_and_flags_over_files(toml):
    path = toml('name = "mine"\n[optim]\nlr = 1e-4\nweight_decay = 0\n')
    config = load_run_config([path, "nano"], ["--optim.weight-decay", "0.5", "--seed", "7"])
    assert (config.name, config.optim.lr, config.optim.weight_decay) == ("mine", 1e-4, 0.5)
    assert config.optim.muon_lr == load_run_config(["nano"]).optim.muon_lr
    assert config.seed == 7


def test_optional_tables_come_from_toml_and_from_flags(toml):
    path = toml(
        "[lora]\nrank = 4\n[init.rope_scaling]\nrope_type = 'yarn'\nfactor = 4\n"
        "[model]\nnum_hidden_layers = 2\nsliding_window = 8\n"
        "layer_types = ['full_attention', 'sliding_attention']\n"
    )
    config = load_run_config([path])
    assert config.lora == LoraConfig(rank=4)
    assert config.init.rope_scaling == RopeScaling(rope_type="yarn", factor=4.0)
    assert config.model.layer_types == ("full_attention", "sliding_attention")

    assert load_run_config([path], ["--lora.alpha", "3"]).lora == LoraConfig(rank=4, alpha=3.0)
    assert load_run_config([], ["--lora.rank", "2"]).lora == LoraConfig(rank=2)
    assert load_run_config([], ["--seed", "1"]).lora is None
    flags = ["--model.rope-scaling.rope-type", "linear", "--model.rope_scaling.factor=2"]
    stretched = load_run_config([], flags).model.rope_scaling
    assert stretched == RopeScaling(rope_type="linear", factor=2.0)


def test_lists_as_flags():
    flags = ["--data.train", "a.jsonl", "b.jsonl", "--optim.betas", "0.8", "0.9"]
    config = load_run_config([], [*flags, "--train.no-compile", "--data.weights", "1", "2"])
    assert config.data.train == ("a.jsonl", "b.jsonl")
    assert config.data.weights == (1.0, 2.0)
    assert config.optim.betas == (0.8, 0.9)
    assert not config.train.compile


WRONG_FILES = {
    "lr = 1": r":1: unknown key 'lr' = 1\. Did you mean 'optim\.lr'\?",
    "[optim]\n\n# x\nlrr = 2": r":4: unknown key 'optim\.lrr' = 2\. Did you mean 'optim\.lr'\?",
    "[optm]\nlr = 1": r":1: unknown key 'optm' = .* Did you mean 'optim'\?",
    "[train]\nzzzzzzzz = 1": r":2: unknown key 'train\.zzzzzzzz' = 1\. Keys of \[train\]: steps",
    "[train]\nwarmup_share = 1": r":2: .* Did you mean 'optim\.warmup_share'\?",
    '[optim]\nlr = "3e-3"': r':2: optim\.lr = "3e-3": expected a number \(no quotes\)',
    "[optim]\nlr = true": r":2: optim\.lr = true: expected a number",
    "[optim]\nbetas = [0.9]": r":2: optim\.betas = \[0\.9\]: expected a list of 2, each a number",
    "[train]\nsteps = 10.0": r":2: train\.steps = 10\.0: expected a whole number",
    "[train]\ncompile = 1": r":2: train\.compile = 1: expected true or false",
    "[data]\ntrain = 'a'": r':2: data\.train = "a": expected a list, each a string in quotes',
    "[data]\nkind = 'chats'": r':2: .*expected one of "text", "chat", "preference"',
    "[lora]\nrank = 1.5": r":2: lora\.rank = 1\.5: expected a whole number",
    "optim = 3": r":1: optim = 3: expected a table with kind, lr",
    "name = 3": r":1: name = 3: expected a string in quotes",
    "[model]\nhead_dim = 7": r": model\.head_dim = 7: rotary positions need an even one",
    "[model.rope_scaling]\nfactor = 2": r"also needs model\.rope_scaling\.rope_type",
    "[optim": r" is not valid TOML: .*line 1|end of document",
    "optim.lrr = 1": r":1: unknown key 'optim\.lrr'",
}


@pytest.mark.parametrize("text", WRONG_FILES)
def test_a_wrong_file_is_named_with_line_key_value_and_what_was_expected(text, toml):
    path = toml(text)
    with pytest.raises(ConfigError, match=WRONG_FILES[text]) as raised:
        load_run_config(["nano", path])
    assert path in str(raised.value)


def test_unknown_preset_and_unreadable_files(tmp_path):
    with pytest.raises(ConfigError, match=r"'nanoo'\. Did you mean 'nano'\?"):
        load_run_config(["nanoo"])
    with pytest.raises(ConfigError, match=r"no preset and no file .*mine\.toml"):
        load_run_config([str(tmp_path / "mine.toml")])
    with pytest.raises(ConfigError, match="can't be read"):
        load_run_config([str(tmp_path)])
    (tmp_path / "gbk.toml").write_bytes('name = "名"'.encode("gbk"))
    with pytest.raises(ConfigError, match="not UTF-8"):
        load_run_config([str(tmp_path / "gbk.toml")])


WRONG_FLAGS = {
    ("--optim.lrr", "3"): r"unknown flag '--optim\.lrr'\. Did you mean '--optim\.lr'\?",
    ("--lr", "3"): r"unknown flag '--lr'\. Did you mean '--optim\.lr'\?",
    ("--optim.lr", "x"): r"--optim\.lr: could not convert string to float: 'x'",
    ("--optim.lr",): r"Missing value for argument '--optim\.lr'",
    ("--data.kind", "foo"): r"'foo' for argument '--data\.kind'.*'text', 'chat', 'preference'",
    ("--train.steps", "1.5"): r"--train\.steps.*1\.5",
    ("--model.num-attention-heads", "3"): "must divide",
    ("--init.rope-scaling.factor", "2"): r"also needs init\.rope_scaling\.rope_type",
}


@pytest.mark.parametrize("flags", WRONG_FLAGS)
def test_a_wrong_flag_is_named(flags):
    with pytest.raises(ConfigError, match=WRONG_FLAGS[flags]) as raised:
        load_run_config([], list(flags))
    assert "│" not in str(raised.value)


@pytest.mark.parametrize("name", SHAPES + STAGES)
def test_what_is_dumped_reads_back_equal(name, toml):
    config = load_run_config([name])
    assert load_run_config([toml(dump_run_config(config))]) == config


texts = st.text(st.characters(exclude_categories=["Cs"]))
numbers = st.floats(allow_nan=False)
rates = st.floats(min_value=0, allow_nan=False)
shares = st.floats(min_value=0, max_value=1, exclude_max=True)


@given(
    st.builds(
        RunConfig,
        name=texts,
        seed=st.integers(-(2**63), 2**63 - 1),
        data=st.builds(
            DataConfig,
            train=st.lists(texts, max_size=3).map(tuple),
            weights=st.none() | st.lists(numbers, max_size=3).map(tuple),
            document_mask=st.booleans(),
        ),
        init=st.builds(InitConfig, checkpoint=st.none() | texts),
        optim=st.builds(OptimConfig, lr=rates, betas=st.tuples(shares, shares)),
        lora=st.none() | st.builds(LoraConfig, alpha=numbers),
    )
)
def test_any_configuration_reads_back_equal(tmp_path_factory, config):
    path = tmp_path_factory.mktemp("toml") / "run.toml"
    path.write_text(dump_run_config(config), encoding="utf-8")
    assert load_run_config([str(path)]) == config


def test_none_is_the_default_of_every_field_that_allows_it():
    """`dump_run_config` leaves None out, so reading it back must give None."""

    def check(value):
        for field in fields(value):
            hint = str(field.type)
            if "None" in hint:
                assert field.default is None, field.name
            if is_dataclass(item := getattr(value, field.name)):
                check(item)

    check(RunConfig(lora=LoraConfig(), model=ModelConfig()))
