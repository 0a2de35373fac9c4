"""Steps of Hugging Face's `Trainer`, one by one: what `bench/train.py` measures beside ours.

Needs transformers and accelerate (the extra `reference`).
"""

from __future__ import annotations

import tempfile
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor
from torch.utils.data import Dataset

MOST_STEPS = 10_000


class Rows(Dataset):
    """The same packed rows again and again.

    Args:
        ids_BT: token ids.
    """

    def __init__(self, ids_BT: Tensor) -> None:
        self._ids_BT = ids_BT

    def __len__(self) -> int:
        return MOST_STEPS * len(self._ids_BT)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        row_T = self._ids_BT[index % len(self._ids_BT)]
        return {"input_ids": row_T, "labels": row_T}


def arguments(folder: str, *, rows: int, device: str, bf16: bool, compiled: bool) -> Any:
    """Return TrainingArguments for the AdamW of the other loops, without logs, saves and bars."""
    from transformers import TrainingArguments

    made = TrainingArguments(
        output_dir=folder, per_device_train_batch_size=rows, max_steps=MOST_STEPS,
        learning_rate=1e-3, lr_scheduler_type="constant", optim="adamw_torch_fused",
        adam_beta1=0.9, adam_beta2=0.95, weight_decay=0.1, max_grad_norm=1.0, bf16=bf16,
        torch_compile=compiled, use_cpu=device == "cpu", save_strategy="no",
        logging_strategy="no", report_to="none", disable_tqdm=True,
    )  # fmt: skip
    if made.n_gpu > 1:  # else it takes all of them, by DataParallel
        made._n_gpu = 1
    return made


@dataclass(kw_only=True)
class Gate:
    """Where the Trainer's thread waits, and whoever asked for a step does.

    Attributes:
        asked: a step is wanted.
        done: it is over, or an error is.
        over: no more steps.
        errors: what the thread ended with.
    """

    asked: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    done: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    over: threading.Event = field(default_factory=threading.Event)
    errors: list[BaseException] = field(default_factory=list)


def train(gate: Gate, model: Any, ids_BT: Tensor, settings: dict[str, Any]) -> None:
    """Train step by step, as the gate lets through: the body of a thread."""
    from transformers import PrinterCallback, Trainer, TrainerCallback

    class Turnstile(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **_others: Any) -> None:
            gate.asked.acquire()
            if gate.over.is_set():
                raise SystemExit

        def on_step_end(self, args: Any, state: Any, control: Any, **_others: Any) -> None:
            gate.done.release()

    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            model=model, args=arguments(folder, rows=len(ids_BT), **settings),
            train_dataset=Rows(ids_BT), callbacks=[Turnstile()],
        )  # fmt: skip
        trainer.remove_callback(PrinterCallback)
        trainer.train()


def guarded(gate: Gate, *training: Any) -> None:
    """Train; an error is kept, to be raised where a step was asked for."""
    try:
        train(gate, *training)
    except SystemExit:
        pass
    except BaseException as error:
        gate.errors.append(error)
        gate.done.release()


def trainer_step(
    model: Any, ids_BT: Tensor, *, device: str, bf16: bool, compiled: bool
) -> Callable[[], None]:
    """Return what lets a `Trainer` of `model` do one step on these rows.

    `Trainer.train` runs in a thread of its own and waits before each step until it is asked for.
    Within a burst everything that it does between two steps is measured, its loader as well; what
    it does ahead of the first is not. It ends when the returned function is forgotten.
    """
    gate = Gate()
    settings = {"device": device, "bf16": bf16, "compiled": compiled}
    # Everything of transformers is in the thread: an error that one of its imports keeps would
    # keep this frame, and the step with it.
    thread = threading.Thread(
        target=guarded, args=(gate, model, ids_BT, settings), name="trainer", daemon=True
    )
    thread.start()

    def step() -> None:
        gate.asked.release()
        gate.done.acquire()
        if gate.errors:
            raise gate.errors[0]

    def stop() -> None:
        gate.over.set()
        gate.asked.release()
        thread.join()

    weakref.finalize(step, stop)
    return step
