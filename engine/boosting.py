"""XGBoost over the workers of a cluster, one task a worker, from shards of the training rows.

This does with XGBoost's public parts what `xgboost.dask.train` does, but for two things. The tracker, by which
the tasks find each other, is on a worker: XGBoost aborts the process that it is in when a worker is lost at the
wrong moment, and xgboost.dask has it in the scheduler's, which is the driver's on a local cluster. And the tasks
are known here, so that one that waits in vain for a lost worker can be ended.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from treadle.engine.artifacts import Features, SplitRule
from treadle.engine.blocks import blocks_of
from treadle.engine.context import Context
from treadle.engine.job import Model as ModelConfig
from treadle.engine.models.base import Model
from treadle.engine.models.boosted import native_params, quiet, train_booster
from treadle.engine.models.booster import model_of_booster
from treadle.engine.recovery import RESULT_SECONDS, persistently, wait_together
from treadle.engine.shards import Part, shards_of

if TYPE_CHECKING:
    from distributed import Future
    from xgboost.callback import TrainingCallback

ROUNDS_BETWEEN_LOOKS = 8
Tracker = Mapping[str, str | int]
"""What a task needs to find the tracker."""


def train_boosted(
    context: Context, features: Features, rule: SplitRule, config: ModelConfig, notes: list[str]
) -> Model:
    """Trains on all workers; when one is lost, again from the start, so that the outcome is the same.

    Raises
    ------
    WorkerLost
        Workers were lost in every attempt.
    """
    trees, params = native_params(config.params, rule.task, len(rule.classes), context.job.seed)
    params["device"] = context.backend.name

    def submit(workers: list[str]) -> list[Future]:
        shards = [shard for shard, _ in shards_of(context, blocks_of(context, features, rule), workers)]
        return submit_training(context, workers, shards, params, trees)

    def again(attempt: int) -> None:
        reason = f"{config.title}: a worker was lost during training, attempt {attempt}"
        context.events.emit(context.stage, "progress", done=0, total=1, note=reason)
        notes.append(f"{reason}; trained again from the start")

    raw: bytes = persistently(context, submit, again)
    model, said = model_of_booster(rule.task, raw)
    notes += [f"{config.title}: {text}" for text in said]
    return model


def submit_training(
    context: Context, workers: Sequence[str], shards: Sequence[Future], params: Mapping[str, Any], trees: int
) -> list[Future]:
    """One training task a shard, each bound to its worker; the result of the first is the model (UBJSON)."""
    # Only when all are ready: a task that has no peer yet cannot be ended but with its worker.
    wait_together(context, workers, shards)
    tracker: Tracker = {}
    if len(shards) > 1:
        started = context.client.submit(start_tracker, len(shards), pure=False, workers=[workers[0]])
        wait_together(context, workers, [started])
        tracker = started.result(timeout=RESULT_SECONDS)
    return [
        context.client.submit(train_shard, shard, rank, tracker, params, trees, pure=False, workers=[worker])
        for rank, (shard, worker) in enumerate(zip(shards, workers, strict=False))
    ]


def start_tracker(tasks: int) -> dict[str, str | int]:
    """On a worker: starts a tracker for that many tasks, which ends with the last of them; how to find it."""
    from distributed import get_worker
    from distributed.comm.addressing import get_address_host
    from xgboost.tracker import RabitTracker

    tracker = RabitTracker(n_workers=tasks, host_ip=get_address_host(get_worker().address), sortby="task")
    tracker.start()
    threading.Thread(target=tracker.wait_for, name="treadle-tracker", daemon=True).start()
    return tracker.worker_args()


def train_shard(shard: Part, rank: int, tracker: Tracker, params: Mapping[str, Any], trees: int) -> bytes | None:
    """On a worker: trains on all shards together, with the tasks that have the others."""
    from xgboost.collective import CommunicatorContext

    together = CommunicatorContext(**tracker, dmlc_task_id=f"{rank:06d}") if tracker else contextlib.nullcontext()
    with together, quiet():
        raw = train_booster(*shard, params, trees, [while_wanted()])
    return raw if rank == 0 else None


def while_wanted() -> TrainingCallback:
    """On a worker: ends a training that was cancelled, in the same round for all of its tasks.

    Dask does not stop a task that runs; on a cluster that outlives the run, this one would go on for nobody.
    """
    from distributed import get_worker
    from xgboost.callback import TrainingCallback
    from xgboost.collective import Op, allreduce

    worker = get_worker()
    key = worker.get_current_task()

    class WhileWanted(TrainingCallback):
        def after_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:
            if epoch % ROUNDS_BETWEEN_LOOKS == 0:
                task = worker.state.tasks.get(key)
                cancelled = task is None or task.state == "cancelled"
                if allreduce(np.array([cancelled], dtype=np.int32), Op.MAX)[0]:
                    raise RuntimeError("the training was cancelled")
            return False

    return WhileWanted()
