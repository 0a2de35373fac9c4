"""`minimind eval RUN --kit NAME`: one page on what a domain kit did to its base."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from minimind.errors import UserError

if TYPE_CHECKING:
    from minimind.cli.eval import Args
    from minimind.kits.measure import KitResult


def evaluate_kit(args: Args) -> int:
    """Measure, print, and write the page.

    Raises:
        UserError: flags that say nothing here, or runs that don't belong together.
    """
    from minimind.cli.eval import named, pick_device
    from minimind.cli.eval_table import progress_bars
    from minimind.eval.subject import Options
    from minimind.kits.measure import Asking, kit_of, measure
    from minimind.kits.page import kit_blocks, write_page
    from minimind.report.blocks import Figure, Folded, print_blocks

    assert args.kit is not None
    for flag, given in (("tasks", args.tasks), ("shots", args.shots), ("chat", args.chat)):
        if given:
            raise UserError(f"--{flag} with --kit: the kit says what is asked; leave it out")
    kit = kit_of(args.kit)
    runs = dict(map(named, args.checkpoints))
    if "base" in runs:
        raise UserError("base=...: the base is added by itself; name the runs of the kit only")
    asking = Asking(
        rows=args.rows, exams=args.data, limit=args.limit, seed=args.seed,
        options=Options(precision=args.precision, batch_tokens=args.batch_tokens),
        device=pick_device(args.device), contamination=args.contamination,
        part="development" if args.development else "test",
    )  # fmt: skip
    notes = Console(stderr=True, highlight=False)
    with progress_bars(notes) if notes.is_terminal else nullcontext() as bars:

        def on_task(model: str, task: str, items: int) -> Any:
            if bars is None:
                return lambda count: None
            shown = bars
            bar = shown.add_task(f"{model}: {task}", total=items)
            return lambda count: shown.advance(bar, count)

        result = measure(kit, runs, asking, on_task=on_task)
    out = args.out or _folder(result)
    paths = write_page(result, out)
    if args.json:
        print(json.dumps(json.loads(paths[-1].read_text(encoding="utf-8")), ensure_ascii=False))
    else:
        blocks = (b for b in kit_blocks(result, "en") if not isinstance(b, Folded | Figure))
        print_blocks(Console(highlight=False), blocks)
    notes.print(f"written: {', '.join(map(str, paths))}", style="dim")
    return 0


def _folder(result: KitResult) -> Path:
    """Return RUN of the first run, or the checkpoint's own folder where it is no run's."""
    directory = result.tuned[0].directory
    return directory.parent.parent if directory.parent.name == "checkpoints" else directory
