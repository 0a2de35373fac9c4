"""The composition root: a `RunConfig` becomes a tokenizer, a model, an objective, a trainer.

    RUN/run.toml          the resolved configuration
    RUN/checkpoints/      step-000200/ ..., best.json
    RUN/metrics.jsonl     a line a logged step      RUN/samples.txt    what the model said
    RUN/ledger.json       which data, which licence RUN/rejects.jsonl  rows that could not be used
    RUN/clock.json        of `train.minutes`: the seconds that its processes have used

No stage has code here: a stage is a preset.
"""

from __future__ import annotations

import dataclasses
import math
import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console

from minimind import checkpoint
from minimind.checkpoint.files import remove_leftovers, write_atomically
from minimind.config import RunConfig, TrainConfig
from minimind.data import Loader
from minimind.data.files import data_files
from minimind.data.image_loader import ImageLoader
from minimind.errors import ConfigError, DataError
from minimind.inference.api import generate
from minimind.inference.sampling import SamplingParams
from minimind.model import CausalLM
from minimind.model.accounting import training_flops_per_token
from minimind.model.compiler import compile_refusal
from minimind.settings import dump_run_config
from minimind.tokenizer import Tokenizer
from minimind.train import hooks
from minimind.train.device import cpp_compiler, peak_flops, pick_device, pick_precision
from minimind.train.distributed import World, join
from minimind.train.failures import explained
from minimind.train.metrics import MetricsLog
from minimind.train.on_track import on_track
from minimind.train.optim import build_optimizer
from minimind.train.pace import Clock, Pace, check_pace, planned_before, with_steps
from minimind.train.provenance import RunLedger
from minimind.train.resume import check_new, check_same_run, recall_best, with_shape
from minimind.train.rng import seed_all
from minimind.train.schedule import build_schedule
from minimind.train.start import (
    build_loader,
    build_objective,
    build_validation,
    model_and_tokenizer,
    origin_record,
    pin_origins,
)
from minimind.train.trackers import make_tracker
from minimind.train.trainer import StepReport, Trainer


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """What a run left.

    Attributes:
        directory: RUN.
        last: report of the last step done in this process; None if there was nothing left to do.
        stopped_by: number of the signal that ended it, or None.
    """

    directory: Path
    last: StepReport | None
    stopped_by: int | None = None


def run(config: RunConfig, *, resume: bool = False, console: Console | None = None) -> RunResult:
    """Train as `config` says and leave checkpoints.

    Args:
        config: from `load_run_config`.
        resume: continue the run in `out`/`name` from its newest whole checkpoint, exactly; without
            one, start from the beginning.
        console: where progress is shown; None: nowhere.

    Raises:
        UserError: settings, data, tokenizer or checkpoint are wrong; nothing was trained.
        TrainingDivergedError: the loss was not finite for too long.
        NotEnoughMemoryError: says which setting to lower, and by how much.
        LostRankError: another process of the run is gone.
    """
    world = join(config.train)
    shown = console if console is not None and world.is_main else Console(quiet=True)
    with explained(config, world):
        result = _run(config, resume=resume, console=shown, world=world)
        world.leave()
    return result


def _run(config: RunConfig, *, resume: bool, console: Console, world: World) -> RunResult:
    started = time.monotonic()
    check_pace(config, processes=world.size)
    directory = Path(config.out) / config.name
    stored = directory / "run.toml"
    if not resume:
        check_new(directory)
    config = pin_origins(config, stored if resume and stored.exists() else None)
    from_step = _newest(directory) if resume else None
    _prepare_process(config)
    device = pick_device(config.train)
    pick_precision(config.train, device)  # what can't be is said before anything is read

    model, tokenizer = model_and_tokenizer(config, resumed=from_step)
    config = with_shape(config, model.config) if config.init.checkpoint else config
    if resume and stored.exists():
        check_same_run(config, stored)
        config = planned_before(config, stored)
    _check_length(config)
    model.to(device).set_attention(config.train.attention)
    objective = build_objective(config, tokenizer, device=device)
    if world.is_main:
        data_files(config.data, "train")  # builds what the catalogue names, once
    world.barrier()
    files = [path for path, _ in data_files(config.data, "train")]
    rejects = directory / "rejects.jsonl" if world.is_main else None
    if rejects is not None and from_step is None:
        rejects.unlink(missing_ok=True)  # of a start that failed: other rows, perhaps
    loader = build_loader(config, tokenizer, model, world=world, rejects=rejects)
    steps = count_steps(config, loader)
    train = _compilable(config.train, device, console=console)
    whole = world.spread(model, train)
    optimizer = build_optimizer(model, config.optim, muon=world.muon)
    ledger = RunLedger(
        directory / "ledger.json", files=files, origin=origin_record(config, tokenizer)
    )
    if from_step is not None:
        ledger.check_unchanged()
    trainer = Trainer(
        model=model,
        objective=objective,
        optimizer=optimizer,
        schedule=build_schedule(config.optim, steps=steps),
        config=train,
        steps=steps,
        loader=loader,
        clip_grad_norm=config.optim.clip_grad_norm,
        world=world,
    )
    if from_step is not None:
        state = checkpoint.load_trainer_state(from_step)
        world.read_optimizer(from_step, state, optimizer)
        trainer.load_state_dict(state)
        trainer.last_checkpoint = from_step
    if not world.is_main:
        with explained(config, world):
            trainer.fit()
        return RunResult(directory=directory, last=None, stopped_by=trainer.stopped_by)

    directory.mkdir(parents=True, exist_ok=True)
    for folder in (directory, directory / "checkpoints"):
        remove_leftovers(folder)
    write_atomically(stored, dump_run_config(config))
    ledger.record(used=loader.counts)
    metrics = MetricsLog(
        directory / "metrics.jsonl",
        tracker=make_tracker(
            config.log.tracker,
            name=config.name,
            directory=directory,
            settings=dataclasses.asdict(config),
        ),
    )
    metrics.cut_after(trainer.step)
    if from_step is not None and config.save.keep_best:
        recall_best(directory, step=trainer.step)
    _cut_samples(directory / "samples.txt", trainer.step)
    trainer.hooks = _hooks(
        config, whole if trainer.average is None else trainer.average.model, tokenizer, directory,
        metrics=metrics, ledger=ledger, console=console,
    )  # fmt: skip
    if config.train.minutes is not None:
        trainer.hooks.insert(0, Pace(
            config.train.minutes, optim=config.optim, console=console,
            clock=Clock(directory / "clock.json", started=started, resumed=resume),
            note=lambda n: write_atomically(stored, dump_run_config(with_steps(config, n))),
        ))  # fmt: skip
    try:
        with explained(config, world):
            last = trainer.fit()
    finally:
        metrics.finish()
    return RunResult(directory=directory, last=last, stopped_by=trainer.stopped_by)


def _newest(directory: Path) -> Path | None:
    """Return the newest whole checkpoint of a run, or None if none was saved yet."""
    if not checkpoint.list_checkpoints(directory):
        return None
    return checkpoint.resolve(directory, trainer_state=True)


def _prepare_process(config: RunConfig) -> None:
    seed_all(config.seed)
    if config.train.threads is not None:
        torch.set_num_threads(config.train.threads)
    if config.train.deterministic:  # without it torch refuses cuBLAS's products; read at the first
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    if torch.are_deterministic_algorithms_enabled() != config.train.deterministic:
        torch.use_deterministic_algorithms(config.train.deterministic)  # imports inductor: 1 s


def _check_length(config: RunConfig) -> None:
    scaling, context = config.model.rope_scaling, config.model.max_position_embeddings
    if scaling is not None:  # dynamic keeps the trained length in max_position_embeddings
        context = max(context, round(scaling.original_max_position_embeddings * scaling.factor))
    if config.data.sequence_length > context:
        raise ConfigError(
            f"data.sequence_length = {config.data.sequence_length} is longer than the model's "
            f"context of {context}: set --data.sequence-length {context}, or stretch the context "
            "with --init.rope-scaling.rope-type yarn --init.rope-scaling.factor 4"
        )


def _compilable(train: TrainConfig, device: torch.device, *, console: Console) -> TrainConfig:
    """Switch `torch.compile` off where the compiler that it needs is missing."""
    if not train.compile or device.type == "mps":
        return train
    compiler, names = cpp_compiler()
    reason = None if compiler else f"no C++ compiler here ({', '.join(names)})"
    if reason is None and device.type == "cuda":
        reason = compile_refusal(device)
    if reason is None:
        return train
    console.print(f"train.compile is off: {reason}", markup=False)
    return dataclasses.replace(train, compile=False)


def count_steps(config: RunConfig, loader: Loader | ImageLoader) -> int:
    """Return the optimizer steps of a run: `steps`, or else `tokens`, or else `epochs`.

    A run of so many minutes begins as one of one epoch, if nothing else is said.

    Raises:
        ConfigError: none of the four is set.
        DataError: there is not one row.
    """
    train = config.train
    rows_per_pair = 2 if config.data.kind == "preference" else 1
    if train.steps is not None:
        steps = train.steps
    elif train.tokens is not None:
        slots = train.batch_rows * rows_per_pair * config.data.sequence_length
        steps = math.ceil(train.tokens / slots)
    elif train.epochs is not None or train.minutes is not None:
        epochs = 1 if train.epochs is None else train.epochs
        steps = math.ceil(epochs * loader.rows_per_epoch() / train.batch_rows)
    else:
        raise ConfigError(
            "how long? Set --train.steps, --train.tokens, --train.epochs or --train.minutes"
        )
    if steps < 1:
        raise DataError(
            f"there is nothing to train on: {', '.join(config.data.train)} gives "
            f"{loader.rows_per_epoch()} rows and {steps} steps"
        )
    return steps


def _hooks(
    config: RunConfig,
    model: CausalLM,
    tokenizer: Tokenizer,
    directory: Path,
    *,
    metrics: MetricsLog,
    ledger: RunLedger,
    console: Console,
) -> list[Callable[[Trainer, StepReport], None]]:
    validation = _validation(config, tokenizer, model, metrics=metrics, console=console)
    tracked = on_track(config.log.band, run=directory, every=config.log.every, console=console)

    def save(trainer: Trainer) -> Path:
        loader = trainer.loader
        assert isinstance(loader, Loader | ImageLoader)
        ledger.record(used=loader.counts)
        state = trainer.state_dict()
        return checkpoint.save(
            checkpoint.checkpoint_path(directory, trainer.step),
            model=trainer.whole_model(),
            tokenizer=tokenizer,
            run=config if config.train.minutes is None else with_steps(config, trainer.steps),
            trainer_state=state,
            also=trainer.world.optimizer_writer(state),
            base=config.init.checkpoint if config.lora is not None else None,
        )

    return [
        hooks.Log(
            metrics,
            every=config.log.every,
            console=console,
            flops_per_token=training_flops_per_token(
                model.config, sequence_length=config.data.sequence_length
            ),
            peak_flops=peak_flops(pick_device(config.train)),
            label=config.name,
        ),
        *([validation] if validation else []),
        hooks.Sample(
            _sampler(config, model, tokenizer),
            prompts=config.log.prompts,
            every=config.log.sample_every,
            path=directory / "samples.txt",
        ),
        *([tracked] if tracked else []),
        hooks.Save(
            save,
            run=directory,
            config=config.save,
            validation=validation,
        ),
    ]


def _validation(
    config: RunConfig,
    tokenizer: Tokenizer,
    model: CausalLM,
    *,
    metrics: MetricsLog,
    console: Console,
) -> hooks.Validate | None:
    """Return the hook that measures held-out rows, or None where the data leaves none."""
    held_out = build_validation(config, tokenizer, model)
    if not (batches := held_out.pop("", None)):
        console.print(
            "no validation: no document fell into the held-out share "
            f"(data.validation_share = {config.data.validation_share}); name held-out files with "
            "--data.validation, or raise the share",
            markup=False,
        )
        return None
    in_nats = config.objective.kind == "next-token"
    return hooks.Validate(
        batches,
        every=config.log.validate_every,
        metrics=metrics,
        console=console,
        byte_lengths=hooks.token_byte_lengths(tokenizer) if in_nats else None,
        also=held_out,
    )


def _sampler(config: RunConfig, model: CausalLM, tokenizer: Tokenizer) -> Callable[[str], str]:
    """Return prompt -> what the model says: it continues a text, or answers a user."""
    params = SamplingParams(seed=config.seed, max_new_tokens=64)

    def say(prompt: str) -> str:
        asked = prompt if config.data.kind == "text" else [{"role": "user", "content": prompt}]
        return generate(model, tokenizer, asked, params=params)

    return say


def _cut_samples(path: Path, step: int) -> None:
    """Drop what was sampled past `step`, before a resume."""
    if not path.exists():
        return
    text = path.read_text(encoding="utf-8")
    parts = re.split(r"^(?=## step \d+$)", text, flags=re.MULTILINE)
    kept = [part for part in parts if not part or int(part.split(maxsplit=3)[2]) <= step]
    write_atomically(path, "".join(kept))
