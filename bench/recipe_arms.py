"""The arms of `bench/recipe.py`: what each of them changes in a preset."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from minimind.config import DataConfig, MoEConfig, OptimConfig, RunConfig

Compare = Literal[
    "recipe", "width", "tokenizer", "rows", "search", "epochs", "mix", "float8", "moe", "balance"
]
ARMS: dict[str, tuple[str, ...]] = {
    "recipe": ("muon-packed-bf16", "adamw-padded-fp32", "adamw-packed-bf16"),
    "width": ("64m-shaped", "64m-wide-shaped"),
    "tokenizer": ("jieba-guided", "plain-bpe"),
    "rows": ("8x512-slow", "8x256-slow", "16x256-slow", "16x256-fast", "32x256-fast"),
    "search": (
        "default",
        "rates-x0.5",
        "rates-x2",
        "adamw-x2",
        "muon-x2",
        "muon-x0.5",
        "muon-x0.25",
        "momentum-0.3",
        "momentum-0.5",
        "momentum-0.7",
        "momentum-0.8",
        "momentum-0.85",
        "momentum-0.9",
        "momentum-0.95",
        "decay-0",
        "decay-0.3",
        "warm-down-0.2",
        "warm-down-0.7",
        "zero-projections",
        "constant-rate",
        "rows-half",
        "rows-double",
        "rows-half-then-whole",
        "length-half",
        "length-double",
        "length-half-then-whole",
    ),
    "epochs": ("epochs-1", "epochs-2", "epochs-4", "epochs-8"),
    "mix": ("default", "shares-sqrt", "shares-equal"),
    "float8": ("default", "fp8-emulated"),
    "moe": ("moe", "dense-26m", "dense-64m"),
    "balance": ("moe", "moe-bias", "moe-none", "moe-weak", "moe-strong", "moe-top1"),
}

# What an arm of `search` changes in the preset, by table.
SEARCH: dict[str, dict[str, dict[str, Any]]] = {
    "momentum-0.3": {"optim": {"muon_momentum": 0.3}},
    "momentum-0.5": {"optim": {"muon_momentum": 0.5}},
    "momentum-0.7": {"optim": {"muon_momentum": 0.7}},
    "momentum-0.8": {"optim": {"muon_momentum": 0.8}},
    "momentum-0.85": {"optim": {"muon_momentum": 0.85}},
    "momentum-0.9": {"optim": {"muon_momentum": 0.9}},
    "momentum-0.95": {"optim": {"muon_momentum": 0.95}},
    "decay-0": {"optim": {"weight_decay": 0.0}},
    "decay-0.3": {"optim": {"weight_decay": 0.3}},
    "warm-down-0.2": {"optim": {"decay_share": 0.2}},
    "warm-down-0.7": {"optim": {"decay_share": 0.7}},
    "zero-projections": {"init": {"zero_projections": True}},
    "constant-rate": {"optim": {"schedule": "constant"}},
}

# Rates of packed AdamW, by arm: its own tuning, run when it is asked for by name.
ADAMW: dict[str, float] = {
    f"adamw-packed-bf16-{rate}": float(rate) for rate in ("1.5e-3", "3e-3", "6e-3", "1.2e-2")
}

# Factors of AdamW's rate and of Muon's.
RATES: dict[str, tuple[float, float]] = {
    "rates-x0.5": (0.5, 0.5),
    "rates-x2": (2, 2),
    "rates-x4": (4, 4),
    "adamw-x2": (2, 1),
    "muon-x2": (1, 2),
    "muon-x0.5": (1, 0.5),
    "muon-x0.25": (1, 0.25),
}

# Factors of the rows of a step and of the tokens of a row: `length` keeps the tokens of a step.
SCALED: dict[str, tuple[float, float]] = {
    "rows-half": (0.5, 1),
    "rows-double": (2, 1),
    "length-half": (2, 0.5),
    "length-double": (0.5, 2),
}

# Arms that begin as one arm and read on as another after a share of the budget. The second reads
# the files in another order (another seed), so it doesn't begin with the same text again.
STAGED: dict[str, tuple[str, float, str]] = {
    "rows-half-then-whole": ("rows-half", 0.4, "default"),
    "length-half-then-whole": ("length-half", 0.5, "default"),
}

# Rows of a step, tokens of a row, AdamW's rate, Muon's rate. "slow" are the rates of `pretrain`,
# "fast" those of `nano`.
ROWS: dict[str, tuple[int, int, float, float]] = {
    "8x512-slow": (8, 512, 4e-3, 0.02),
    "8x256-slow": (8, 256, 4e-3, 0.02),
    "16x256-slow": (16, 256, 4e-3, 0.02),
    "16x256-fast": (16, 256, 6e-3, 0.03),
    "32x256-fast": (32, 256, 6e-3, 0.03),
}

# A quarter of the presets' width with the same head size, depth, and ratios of feed-forward and
# kv heads: 64m is 512 wide with 8 x that in its feed-forward, 64m-wide is 768 wide with 3 x.
SMALL_SHAPES: dict[str, dict[str, int]] = {
    "64m-shaped": {
        "hidden_size": 128, "intermediate_size": 1024, "num_hidden_layers": 8,
        "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 64,
    },
    "64m-wide-shaped": {
        "hidden_size": 192, "intermediate_size": 576, "num_hidden_layers": 8,
        "num_attention_heads": 3, "num_key_value_heads": 1, "head_dim": 64,
    },
}  # fmt: skip

# A quarter of the width and half the layers of the presets moe, 26m and 64m. `moe` has the weights
# of dense-64m and, for a token, the products of dense-26m (with 64m's attention and 2 experts of
# 128 against 26m's narrower kv and 304).
_NARROW: dict[str, Any] = {
    "hidden_size": 128, "num_hidden_layers": 4, "num_attention_heads": 2, "head_dim": 64,
}  # fmt: skip


def _experts(**changes: Any) -> dict[str, Any]:
    moe = replace(MoEConfig(num_experts=8, moe_intermediate_size=128), **changes)
    return _NARROW | {"num_key_value_heads": 2, "moe": moe}


EXPERT_SHAPES: dict[str, dict[str, Any]] = {
    "moe": _experts(),
    "moe-bias": _experts(router_balance="bias"),
    "moe-none": _experts(router_balance="none"),
    "moe-weak": _experts(router_aux_loss_coef=0.01),
    "moe-strong": _experts(router_aux_loss_coef=0.2),
    "moe-top1": _experts(num_experts=4, num_experts_per_tok=1, moe_intermediate_size=256),
    "dense-26m": _NARROW | {"num_key_value_heads": 1, "intermediate_size": 304},
    "dense-64m": _NARROW | {"num_key_value_heads": 2, "intermediate_size": 1024},
}


def check_arms(compare: Compare, arms: Sequence[str], data: Path) -> tuple[str, ...]:
    """Return the arms to train: those named, or all of the comparison."""
    known = ARMS[compare] + (tuple(ADAMW) if compare == "recipe" else ())
    if compare == "mix":
        known += tuple(f"without-{file.name.split('.')[0]}" for file in text_files(data))
    for arm in arms:
        parts = arm.split("+") if compare == "search" else [arm]
        if unknown := [part for part in parts if part not in known and part not in RATES]:
            raise SystemExit(f"--arms {unknown[0]}: of {compare} there are {', '.join(known)}")
    return tuple(arms) or (ARMS[compare] if compare == "recipe" else known)


def text_files(data: Path) -> list[Path]:
    """Return the pretraining files of a folder, in a fixed order."""
    return sorted(data.glob("*.jsonl*"))


@dataclass(frozen=True, kw_only=True)
class Base:
    """What all arms of a comparison have in common.

    Attributes:
        preset: whose model and settings an arm changes.
        data: folder of pretraining JSONL files.
        rows: rows of a step; None: the preset's.
    """

    preset: str
    data: Path
    vocab_size: int
    rows: int | None = None

    def run(self, seed: int) -> RunConfig:
        """Return the run that no arm has changed yet."""
        from minimind.settings import load_run_config

        run = load_run_config(["pretrain", self.preset])
        return replace(
            run,
            seed=seed,
            data=replace(run.data, train=tuple(map(str, text_files(self.data)))),
            model=replace(run.model, vocab_size=self.vocab_size),
        )


def arm_config(name: str, base: Base, *, seed: int) -> RunConfig:
    """Return the run of one arm; what isn't said here is the preset's."""
    run = base.run(seed)
    if name == "adamw-padded-fp32":  # jingyaogong/minimind: AdamW 5e-4, cosine, no warm-up
        optim = OptimConfig(
            kind="adamw", lr=5e-4, betas=(0.9, 0.999), weight_decay=0.01, schedule="cosine",
            warmup_share=0.0, final_lr_share=0.1,
        )  # fmt: skip
        padded = replace(run.data, pack=False)
        fp32 = replace(run.train, precision="fp32", compile=False)
        return replace(run, optim=optim, data=padded, train=fp32)
    if name == "adamw-packed-bf16" or name in ADAMW:
        rate = ADAMW.get(name, ADAMW["adamw-packed-bf16-3e-3"])
        return replace(run, optim=replace(run.optim, kind="adamw", lr=rate))
    if name in ROWS:
        count, length, lr, muon_lr = ROWS[name]
        rates = replace(run.optim, lr=lr, muon_lr=muon_lr)
        return _with_rows(replace(run, optim=rates), count, length=length)
    if name in EXPERT_SHAPES:
        return _with_rows(replace(run, model=replace(run.model, **EXPERT_SHAPES[name])), 4)
    if name in SMALL_SHAPES:
        return replace(run, model=replace(run.model, **SMALL_SHAPES[name]))
    if base.rows is not None:
        run = _with_rows(run, base.rows)
    for part in name.split("+"):
        run = _changed(run, part)
    return run


def _changed(run: RunConfig, name: str) -> RunConfig:
    """Return the run with one setting changed."""
    if name in STAGED:
        return _changed(run, STAGED[name][0])
    if name in SCALED:
        of_rows, of_length = SCALED[name]
        length = round(run.data.sequence_length * of_length)
        return _with_rows(run, round(run.train.batch_rows * of_rows), length=length)
    if name in RATES:
        adamw, muon = RATES[name]
        rates = {"lr": run.optim.lr * adamw, "muon_lr": run.optim.muon_lr * muon}
        return replace(run, optim=replace(run.optim, **rates))
    changes = SEARCH.get(name, {})
    run = replace(run, **{
        table: replace(getattr(run, table), **change) for table, change in changes.items()
    })  # fmt: skip
    return replace(run, data=_mixed(run.data, name))


def _mixed(data: DataConfig, name: str) -> DataConfig:
    """Return the sources with other shares of the bytes that are read."""
    if name == "shares-sqrt":
        return replace(data, temperature=2.0)
    if name == "shares-equal":
        return replace(data, weights=(1.0,) * len(data.train))
    if name.startswith("without-"):
        left_out = name.removeprefix("without-")
        kept = tuple(file for file in data.train if Path(file).name.split(".")[0] != left_out)
        return replace(data, train=kept)
    return data


def _with_rows(run: RunConfig, rows: int, *, length: int | None = None) -> RunConfig:
    """Return the run with steps of other rows, one micro-batch each."""
    length = length or run.data.sequence_length
    return replace(
        run,
        data=replace(run.data, sequence_length=length),
        train=replace(run.train, batch_rows=rows, micro_batch_rows=rows),
    )
