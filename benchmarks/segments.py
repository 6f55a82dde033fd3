"""What segments of boosting cost: `python -m treadle.benchmarks.segments` prints it as JSON.

Two workers of one thread train 200 rounds of depth 6 on 1e5 rows of 30 features, in one piece, in segments, and in
segments before the last of which a worker has lost what it had. CPU seconds are those of the workers and of this
process, medians of the turns, in which the three take turns. Starting the workers and dealing out rows is not in them.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil

from treadle.benchmarks.machine import described
from treadle.engine.backend import Backend
from treadle.engine.boosting import submit_segment
from treadle.engine.checkpoints import Checkpoint, save_checkpoint
from treadle.engine.context import Context
from treadle.engine.events import Events
from treadle.engine.job import Data, Job
from treadle.engine.models.boosted import native_params
from treadle.engine.segments import SEGMENT, Recipe
from treadle.engine.shards import Shard
from treadle.engine.store import Store

if TYPE_CHECKING:
    from distributed import Future

ROWS, FEATURES, ROUNDS, DEPTH, TURNS = 100_000, 30, 200, 6, 5


def parts() -> list[Shard]:
    """Half of the rows each."""
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(ROWS, FEATURES)).astype(np.float32)
    score = matrix[:, :5].sum(axis=1) + matrix[:, 5] * matrix[:, 6] + rng.normal(size=ROWS)
    target = (score > 0).astype(np.float64)
    return [Shard((matrix[i::2], target[i::2]), (matrix[:0], target[:0])) for i in (0, 1)]


def dealt(context: Context, shards: Sequence[Shard]) -> list[Future]:
    """On a worker each, without what XGBoost makes of them."""
    from distributed import wait

    futures = [
        context.client.submit(Shard, shard.train, shard.held, workers=[worker], pure=False)
        for shard, worker in zip(shards, context.workers, strict=True)
    ]
    wait(futures)
    return futures


def cpu_seconds() -> float:
    """Of this process and all below it, so far."""
    own = psutil.Process()
    return sum(sum(process.cpu_times()[:2]) for process in (own, *own.children(recursive=True)))


def train(context: Context, shards: Sequence[Shard], segment: int, lost: int | None) -> tuple[bytes, float, float]:
    """A booster, and the CPU and wall seconds of it; before segment `lost` the second worker has only its rows."""
    params = {**native_params({"max_depth": DEPTH}, "binary", 2, 0)[1], "device": "cpu"}
    recipe = Recipe(params, ROUNDS, segment=segment)
    on, anew = dealt(context, shards), dealt(context, shards)
    state, raw = Checkpoint(rounds=0, losses=(), trained_on=()), None
    cpu, wall = cpu_seconds(), time.perf_counter()
    while not recipe.is_over(state.rounds, ()):
        if lost == state.rounds // segment:
            on[1] = anew[1]
        # All are kept until the end: a task that nobody waits for is cancelled, and the others with it.
        first, *others = submit_segment(context, context.workers, on, recipe, state, raw)
        (raw, _), _ = first.result(), [other.result() for other in others]
        state = Checkpoint(rounds=state.rounds + segment, losses=(), trained_on=())
        if not recipe.is_over(state.rounds, ()):
            save_checkpoint(context.store, "segments", state, raw)
    assert raw is not None
    return raw, cpu_seconds() - cpu, time.perf_counter() - wall


def run() -> dict[str, Any]:
    """The figures, with the machine that they are of."""
    from distributed import Client, LocalCluster

    ways = {"one piece": (ROUNDS, None), "segments": (SEGMENT, None), "segments, a worker lost": (SEGMENT, 3)}
    seconds: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
    boosters = set()
    with (
        tempfile.TemporaryDirectory() as folder,
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None, local_directory=folder) as cluster,
        Client(cluster) as client,
    ):
        store = Store(folder)
        job = Job(name="segments", data=Data(path="none"))
        context = Context(job, store, Backend(), client, Events(store, "run"), "run", stage="train")
        shards = parts()
        for turn in range(TURNS + 1):
            for way, (segment, lost) in ways.items():
                raw, cpu, wall = train(context, shards, segment, lost)
                boosters.add(raw)
                if turn:  # the first one warms up
                    seconds[way].append((cpu, wall))
        context.events.close()
    if len(boosters) != 1:
        sys.exit("the boosters differ")
    medians = {
        way: [statistics.median(column) for column in zip(*found, strict=True)] for way, found in seconds.items()
    }
    base = medians["one piece"]
    return {
        "machine": described(["xgboost", "distributed"]),
        "bytes": len(boosters.pop()),
        "ways": {
            way: {"cpu_seconds": cpu, "wall_seconds": wall, "cpu_ratio": cpu / base[0], "wall_ratio": wall / base[1]}
            for way, (cpu, wall) in medians.items()
        },
    }


if __name__ == "__main__":
    print(json.dumps(run(), indent=1, default=str))
