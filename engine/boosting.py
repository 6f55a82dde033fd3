"""XGBoost over the workers of a cluster, one task a worker, from shards of the training rows.

This does with XGBoost's public parts what `xgboost.dask.train` does, but for three things. The tracker, by which
the tasks find each other, is on a worker: XGBoost aborts the process that it is in when a worker is lost at the
wrong moment, and xgboost.dask has it in the scheduler's, which is the driver's on a local cluster. The tasks are
known here, so that one that waits in vain for a lost worker can be ended. And training goes by segments
(`treadle.engine.segments`), each from the booster that the last one made, which is kept as a checkpoint.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

from treadle.engine.artifacts import SplitRule
from treadle.engine.checkpoints import Checkpoint, load_checkpoint, save_checkpoint
from treadle.engine.context import Context
from treadle.engine.continuing import Earlier, earlier_for
from treadle.engine.job import Model as ModelConfig
from treadle.engine.models.base import Model
from treadle.engine.models.boosted import LOSSES, native_params, quiet
from treadle.engine.models.booster import model_of_booster
from treadle.engine.recovery import RESULT_SECONDS, persistently, wait_together
from treadle.engine.segments import Recipe, Tracker, best_of, train_segment
from treadle.engine.shards import Shards
from treadle.engine.training_rows import TrainingRows
from treadle.engine.weights import check_mass
from treadle.errors import DataError

if TYPE_CHECKING:
    from distributed import Future


def train_boosted(training: TrainingRows, config: ModelConfig, notes: list[str]) -> tuple[Model, int]:
    """Trains on all workers, from the last checkpoint if there is one; the model, and how many rows it learned from.

    When a worker is lost, its segment is trained again, so that the outcome is the same.

    Raises
    ------
    DataError
        The rows are too few to hold some of them back, or count nothing; an earlier model is of other features or
        classes.
    WorkerLost
        Workers were lost in every attempt.
    """
    context, rule, features = training.context, training.rule, training.features
    earlier = earlier_for(context.store, config, rule, features) if features is not None else None
    recipe = _recipe(context, rule, config, earlier)
    stopping = config.early_stopping
    share = stopping.share if stopping else 0.0
    shards = Shards(context, training.blocks, share, context.job.seed)
    rows, held = shards.rows
    if stopping and not (rows and held):
        raise DataError(
            f"early_stopping of {config.title}: of {rows + held} training rows, the share {share:g} holds back {held} "
            f"and leaves {rows} to train on; {'lower' if held else 'raise'} it, or leave early_stopping out"
        )
    if context.job.data.weight is not None:
        mass, held_mass = shards.mass
        check_mass(mass)
        if stopping:
            check_mass(held_mass, f"{held} training rows that early_stopping of {config.title} holds back")
    checkpoint, raw = _trained(context, training.key, config, recipe, shards, earlier, notes)
    if earlier is not None and features is not None:
        notes.append(f"{config.title}: {earlier.described(features)}")
    if len(checkpoint.trained_on) > 1:
        notes.append(
            f"{config.title}: trained on {', then on '.join(checkpoint.trained_on)}: on either alone, the last digits "
            "of its histograms may be others"
        )
    if recipe.patience is not None:
        kept = best_of(checkpoint.losses)
        loss = f"{recipe.params['eval_metric']} {checkpoint.losses[kept - 1]:.6g} on {held} rows held back"
        notes.append(f"{config.title}: kept {kept} of {checkpoint.rounds} rounds, by the least loss: {loss}")
        raw = first_rounds(raw, recipe.before + kept)
    model, said = model_of_booster(rule.task, raw)
    notes += [f"{config.title}: {text}" for text in said]
    return model, rows


def _recipe(context: Context, rule: SplitRule, config: ModelConfig, earlier: Earlier | None) -> Recipe:
    rounds, params = native_params(config.params, rule.task, len(rule.classes), context.job.seed)
    params["device"] = context.backend.name
    if config.early_stopping is None:
        return Recipe(params, rounds, earlier.rounds if earlier else 0)
    params["eval_metric"] = LOSSES[rule.task]
    return Recipe(params, rounds, earlier.rounds if earlier else 0, config.early_stopping.rounds)


def _trained(
    context: Context,
    key: str,
    config: ModelConfig,
    recipe: Recipe,
    shards: Shards,
    earlier: Earlier | None,
    notes: list[str],
) -> tuple[Checkpoint, bytes]:
    """The booster after the last segment."""
    found = load_checkpoint(context.store, key)
    state, raw = found or (Checkpoint(rounds=0, losses=(), trained_on=()), earlier.raw if earlier else None)
    if found:
        note = f"{config.title}: goes on from round {state.rounds}, where an earlier run was broken off"
        context.events.emit(context.stage, "progress", done=state.rounds, total=recipe.rounds, note=note)

    def submit(workers: list[str]) -> list[Future]:
        futures = submit_segment(context, workers, shards.on(workers), recipe, state, raw)
        used.append(f"{len(futures)} {'worker' if len(futures) == 1 else 'workers'} ({context.backend.name})")
        return futures

    def again(attempt: int) -> None:
        reason = f"{config.title}: a worker was lost during training, attempt {attempt}"
        context.events.emit(context.stage, "progress", done=state.rounds, total=recipe.rounds, note=reason)
        start = f"round {state.rounds}" if state.rounds else "the start"
        notes.append(f"{reason}; trained again from {start}")

    used: list[str] = []
    while not recipe.is_over(state.rounds, state.losses):
        raw, losses = persistently(context, submit, again)
        last = min(state.rounds + recipe.segment, recipe.rounds)
        rounds = last if recipe.patience is None else len(losses)
        before = state.trained_on
        trained_on = before if before and before[-1] == used[-1] else (*before, used[-1])
        state = Checkpoint(rounds=rounds, losses=tuple(losses), trained_on=trained_on)
        # The last booster is written as the model right away.
        if not recipe.is_over(state.rounds, state.losses):
            save_checkpoint(context.store, key, state, raw)
        told = f"{state.rounds}/{recipe.rounds} rounds"
        context.events.emit(context.stage, "progress", done=state.rounds, total=recipe.rounds, note=told)
    assert raw is not None
    return state, raw


def submit_segment(
    context: Context,
    workers: Sequence[str],
    shards: Sequence[Future],
    recipe: Recipe,
    state: Checkpoint,
    raw: bytes | None,
) -> list[Future]:
    """One task a shard, each bound to its worker; the result of the first is that of `train_segment`."""
    # Only when all are ready: a task that has no peer yet cannot be ended but with its worker.
    wait_together(context, workers, shards)
    tracker: Tracker = {}
    if len(shards) > 1:
        started = context.client.submit(start_tracker, len(shards), pure=False, workers=[workers[0]])
        wait_together(context, workers, [started])
        tracker = started.result(timeout=RESULT_SECONDS)
    # Once for all: in the arguments it would travel once a task, through the scheduler.
    start = None if raw is None else context.client.scatter(raw, broadcast=True, hash=False)
    return [
        context.client.submit(
            train_segment,
            shard,
            rank,
            tracker,
            recipe,
            state.rounds,
            state.losses,
            start,
            pure=False,
            workers=[worker],
        )
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


def first_rounds(raw: bytes, rounds: int) -> bytes:
    """A booster (UBJSON) of trees without what came after so many rounds."""
    import xgboost

    with quiet():
        return bytes(xgboost.Booster(model_file=bytearray(raw))[:rounds].save_raw("ubj"))
