"""Who runs the passes: processes of this machine, or Ray Data on a cluster."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from minimind.data.cleaning.config import CleanConfig
from minimind.data.cleaning.shards import Shard
from minimind.data.cleaning.stages import run_pass
from minimind.errors import DataError, require

OnShard = Callable[[Shard], None]


def run_all(
    number: int, shards: Sequence[Shard], config: CleanConfig, *, on_shard: OnShard
) -> None:
    """Run one pass over the shards; `on_shard` hears of each that is done.

    Raises:
        DataError: a worker was killed; what was finished stays, the same command goes on.
    """
    if not shards:
        return
    if config.executor == "ray":
        _ray(number, shards, config, on_shard)
        return
    workers = min(config.workers or os.cpu_count() or 1, len(shards))
    if workers == 1:
        for shard in shards:
            run_pass(number, shard, config)
            on_shard(shard)
        return
    _processes(number, shards, config, on_shard, workers)


def _processes(
    number: int, shards: Sequence[Shard], config: CleanConfig, on_shard: OnShard, workers: int
) -> None:
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor, as_completed
    from concurrent.futures.process import BrokenProcessPool

    # Spawned, not forked: the parent may have threads (a progress bar, torch).
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        futures = {pool.submit(run_pass, number, shard, config): shard for shard in shards}
        try:
            for future in as_completed(futures):
                future.result()
                on_shard(futures[future])
        except BrokenProcessPool as error:
            raise DataError(
                "a worker process was killed (out of memory?). Finished shards stay: the same "
                "command goes on; fewer --workers or a smaller input.shard_mb need less memory"
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


def _ray(
    number: int, shards: Sequence[Shard], config: CleanConfig, on_shard: OnShard
) -> None:  # fmt: skip
    ray: Any = require("ray", extra="cluster")
    data: Any = require("ray.data", extra="cluster")
    if not ray.is_initialized():
        # With RAY_ADDRESS this is the cluster; without, a cluster of this machine.
        local = None if os.environ.get("RAY_ADDRESS") else config.workers
        ray.init(num_cpus=local, log_to_driver=False, include_dashboard=False)
    data.DataContext.get_current().enable_progress_bars = False
    rows = [{"place": place} for place in range(len(shards))]
    work = partial(_ray_row, number=number, shards=tuple(shards), config=config)
    # One block a shard, so that each is a task of its own and any machine takes the next.
    dataset = data.from_items(rows, override_num_blocks=len(rows)).map(work)
    for row in dataset.iter_rows():
        on_shard(shards[row["place"]])


def _ray_row(
    row: dict[str, int], *, number: int, shards: tuple[Shard, ...], config: CleanConfig
) -> dict[str, int]:
    run_pass(number, shards[int(row["place"])], config)
    return row
