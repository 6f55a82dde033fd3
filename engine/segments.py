"""Boosting in segments: a few rounds on a worker, on all shards together, from a booster to the next.

Trees depend on the rows, the rounds before and the number of the round, by which XGBoost seeds what it draws. So
segments make the same booster as training in one piece, and one that is trained again makes it once more.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from treadle.engine.blocks import Part
from treadle.engine.models.boosted import quiet, refuse_other_device, task_threads
from treadle.engine.shards import Shard

if TYPE_CHECKING:
    import xgboost

SEGMENT = 50
"""Rounds of a segment. A lost worker costs so many at most; docs/how-it-works.md has what segments cost."""
ROUNDS_BETWEEN_LOOKS = 8
TRAIN, HELD = "train", "held"
"""Rows to train on, and rows that are held back."""
Tracker = Mapping[str, str | int]
"""What a task needs to find the tracker."""


@dataclass(frozen=True)
class Recipe:
    """What is trained: the same for all segments."""

    params: Mapping[str, Any]
    """As `native_params` has them, with the device and, where rows are held back, `eval_metric`."""
    rounds: int
    """At most, without those of an earlier model."""
    before: int = 0
    """Rounds of the earlier model that training begins with."""
    patience: int | None = None
    """Rounds without a smaller loss on the rows that are held back, after which training stops."""
    segment: int = SEGMENT

    def is_over(self, done: int, losses: Sequence[float]) -> bool:
        """Whether nothing is left to do after so many rounds with such losses."""
        if done >= self.rounds:
            return True
        return self.patience is not None and bool(losses) and len(losses) - best_of(losses) >= self.patience


def best_of(losses: Sequence[float]) -> int:
    """How many rounds there were when the loss was least, for the first time; as XGBoost's early stopping, 1 or more.

    A loss that is no number is larger than any other.
    """
    return int(np.argmin(np.nan_to_num(np.asarray(losses, dtype=np.float64), nan=np.inf))) + 1


def train_segment(
    shard: Shard,
    rank: int,
    tracker: Tracker,
    recipe: Recipe,
    done: int,
    losses: Sequence[float],
    start: bytes | None,
) -> tuple[bytes, list[float]] | None:
    """On a worker: the booster (UBJSON) and its losses after one more segment; nothing from tasks but the first.

    Parameters
    ----------
    done : rounds so far, without an earlier model's.
    start : the booster of then; None at the beginning.
    """
    from xgboost.collective import CommunicatorContext

    together = CommunicatorContext(**tracker, dmlc_task_id=f"{rank:06d}") if tracker else contextlib.nullcontext()
    with together, quiet():
        raw, found = boost(shard, recipe, done, losses, start, stop_when_cancelled())
    return (raw, found) if rank == 0 else None


def boost(
    shard: Shard,
    recipe: Recipe,
    done: int,
    losses: Sequence[float],
    start: bytes | None,
    look: Callable[[], None] = lambda: None,
) -> tuple[bytes, list[float]]:
    """As `train_segment`; `look` is called every few rounds, and ends the training by raising."""
    booster, train, held = _begun(shard, recipe, done, start)
    found = list(losses)
    first = done
    while done < first + recipe.segment and not recipe.is_over(done, found):
        booster.update(train, iteration=recipe.before + done)
        done += 1
        if held is not None:
            found.append(loss_of(booster, held))
        if (done - first) % ROUNDS_BETWEEN_LOOKS == 1:
            look()
    refuse_other_device(booster, recipe.params)
    # A GPU sums a row's trees in another order when it begins than when it goes on: there, every segment begins.
    if recipe.params.get("device", "cpu") == "cpu":
        shard.live = done, booster
    return bytes(booster.save_raw("ubj")), found


def _begun(
    shard: Shard, recipe: Recipe, done: int, start: bytes | None
) -> tuple[xgboost.Booster, xgboost.DMatrix, xgboost.DMatrix | None]:
    """The booster that the segment begins with, the rows to train on, and those that are held back, if any are.

    What is here from the last segment is taken, where it is so for all tasks: XGBoost makes it by exchanges, in
    which all must take part.
    """
    import xgboost
    from xgboost.collective import Op, allreduce

    live, shard.live = shard.live, None
    here = [bool(shard.made), live is not None and live[0] == done]
    has_data, has_booster = allreduce(np.array(here, dtype=np.int32), Op.MIN)
    if not has_data:
        shard.made.clear()
        # All of it or nothing: a task that was broken off in between leaves nothing that passes for whole.
        shard.made = _data_of(shard, recipe)
    if live is not None and has_data and has_booster:
        booster = live[1]
    else:
        params = {**recipe.params, "nthread": task_threads()}
        model = None if start is None else bytearray(start)
        booster = xgboost.Booster(params, list(shard.made.values()), model_file=model)
    return booster, shard.made[TRAIN], shard.made.get(HELD)


def _data_of(shard: Shard, recipe: Recipe) -> dict[str, xgboost.DMatrix]:
    import xgboost

    threads = task_threads()
    made: dict[str, xgboost.DMatrix] = {}
    if recipe.before:
        # The thresholds of an earlier model lie anywhere between these rows' bins: it needs the values.
        made[TRAIN] = xgboost.DMatrix(**_named(shard.train), nthread=threads)
    else:
        bins = recipe.params.get("max_bin")
        made[TRAIN] = xgboost.QuantileDMatrix(**_named(shard.train), max_bin=bins, nthread=threads)
    if recipe.patience is not None:
        made[HELD] = xgboost.DMatrix(**_named(shard.held), nthread=threads)
    return made


def _named(part: Part) -> dict[str, np.ndarray]:
    """As XGBoost's data take them; without weights when there are none."""
    return dict(zip(("data", "label", "weight"), part, strict=False))


def loss_of(booster: xgboost.Booster, held: xgboost.DMatrix) -> float:
    """The loss on the rows that all tasks hold back."""
    told = booster.eval_set([(held, HELD)])
    return float(told.rsplit(":", 1)[1])


def stop_when_cancelled() -> Callable[[], None]:
    """On a worker: raises when the task was cancelled, in the same round for all tasks of the training.

    Dask does not stop a task that runs; on a cluster that outlives the run, this one would go on for nobody.
    """
    from distributed import get_worker
    from xgboost.collective import Op, allreduce

    worker = get_worker()
    key = worker.get_current_task()

    def look() -> None:
        task = worker.state.tasks.get(key)
        cancelled = task is None or task.state == "cancelled"
        if allreduce(np.array([cancelled], dtype=np.int32), Op.MAX)[0]:
            raise RuntimeError("the training was cancelled")

    return look
