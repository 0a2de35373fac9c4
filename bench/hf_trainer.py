"""Steps of Hugging Face's `Trainer`, one by one: what `bench/train.py` measures beside ours.

Needs transformers and accelerate (the extra `reference`).
"""

from __future__ import annotations

import tempfile
import threading
import weakref
from collections.abc import Callable
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


def trainer_step(
    model: Any, ids_BT: Tensor, *, device: str, bf16: bool, compiled: bool
) -> Callable[[], None]:
    """Return what lets a `Trainer` of `model` do one step on these rows.

    `Trainer.train` runs in a thread of its own and waits before each step until it is asked for.
    Within a burst everything that it does between two steps is measured, its loader as well; what
    it does ahead of the first is not. It ends when the returned function is forgotten.
    """
    from transformers import PrinterCallback, Trainer, TrainerCallback

    asked, done, over = threading.Semaphore(0), threading.Semaphore(0), threading.Event()
    errors: list[BaseException] = []

    class Turnstile(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **_others: Any) -> None:
            asked.acquire()
            if over.is_set():
                raise SystemExit

        def on_step_end(self, args: Any, state: Any, control: Any, **_others: Any) -> None:
            done.release()

    def run() -> None:
        with tempfile.TemporaryDirectory() as folder:
            settings = arguments(
                folder, rows=len(ids_BT), device=device, bf16=bf16, compiled=compiled
            )
            trainer = Trainer(
                model=model, args=settings, train_dataset=Rows(ids_BT), callbacks=[Turnstile()]
            )
            trainer.remove_callback(PrinterCallback)
            trainer.train()

    def guarded() -> None:
        try:
            run()
        except SystemExit:
            pass
        # It is raised where the step was asked for.
        except BaseException as error:
            errors.append(error)
            done.release()

    thread = threading.Thread(target=guarded, daemon=True)
    thread.start()

    def step() -> None:
        asked.release()
        done.acquire()
        if errors:
            raise errors[0]

    def stop() -> None:
        over.set()
        asked.release()
        thread.join()

    weakref.finalize(step, stop)
    return step
