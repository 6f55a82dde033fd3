"""LightGBM over the workers of a cluster, one task a worker, from shards of the training rows.

It is LightGBM's data-parallel learning: every task has its rows, histograms are summed over all, and all tasks
grow the same trees. `lightgbm.dask` does that, too, but not with what is needed here: its rows are Dask
collections; when a worker is lost it raises, or waits, with no way to end its tasks; its sockets (see
`treadle.engine.lightgbm_network`) are open to everyone; and each feature is binned by the rows of one task only,
so that of rows in the order of time one task's part decides for all. Here the bins are found, as on one worker,
from rows that are drawn evenly from all, in every task the same.

Sums are added in the order of the tasks: the same rows, parameters and number of workers make the same model to
the last bit. Where all rows are drawn, bins are those of training on one worker, and trees differ only by how
sums of gradients round. A lost worker costs the training so far: it begins anew on the same shards.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from treadle.engine.artifacts import SplitRule
from treadle.engine.blocks import Part
from treadle.engine.exact.classes import check_classes, class_factors
from treadle.engine.fitting import make_estimator
from treadle.engine.job import Model as ModelConfig
from treadle.engine.lightgbm_network import connected
from treadle.engine.mesh import Meeting, Mesh, listen, meet
from treadle.engine.models.base import Model, Task
from treadle.engine.models.boosted import LINKS
from treadle.engine.models.catalogue import entry_of
from treadle.engine.models.forest import ForestModel
from treadle.engine.recovery import RESULT_SECONDS, persistently, wait_together
from treadle.engine.shards import Shard, Shards
from treadle.engine.training_place import rows_held
from treadle.engine.training_rows import TrainingRows
from treadle.engine.weights import check_mass
from treadle.errors import DataError, UnsupportedModel

if TYPE_CHECKING:
    from distributed import Future

BINNED_ROWS = 200_000
"""Rows that bins are found from, where `subsample_for_bin` names no other number: LightGBM's own."""
BINNED_SHARE = 0.25
"""Share of the rows that a worker holds which these may be: every worker gets them."""
OBJECTIVES = {"binary": "binary", "multiclass": "multiclass", "regression": "regression"}
NOT_NATIVE = frozenset({"n_estimators", "class_weight", "importance_type", "n_jobs", "random_state", "objective"})
"""Parameters of the scikit-learn interface that the native one has under other names, or not at all."""


def train_lightgbm(training: TrainingRows, config: ModelConfig, notes: list[str]) -> tuple[Model, int]:
    """Trains on all workers; the model, and how many rows it learned from.

    Raises
    ------
    DataError
        The training rows lack a class, or the parameters made a model that no compiled forest represents.
    WorkerLost
        Workers were lost in every attempt.
    """
    context, rule = training.context, training.rule
    shards = Shards(context, training.blocks, 0.0, context.job.seed)
    rows, _ = shards.rows
    held = int(rows_held(len(training.names), context.room) * BINNED_SHARE)
    given: Any = config.params.get("subsample_for_bin", BINNED_ROWS)
    drawn = draw_evenly(rows, max(min(given, held), 1), context.job.seed)

    def submit(workers: list[str]) -> list[Future]:
        futures = submit_training(training, workers, shards.on(workers), rows, drawn, config)
        said = f"{config.title}: in training on {len(futures)} {'worker' if len(futures) == 1 else 'workers'}"
        context.events.emit(context.stage, "progress", done=0, total=1, note=said)
        return futures

    def again(attempt: int) -> None:
        reason = f"{config.title}: a worker was lost during training, attempt {attempt}"
        context.events.emit(context.stage, "progress", done=0, total=1, note=reason)
        notes.append(f"{reason}; trained again from the start")

    text, start = persistently(context, submit, again)
    return model_of(rule.task, text, start), rows


def model_of(task: Task, text: str, start: float) -> ForestModel:
    """The trees in LightGBM's text, added to a value. Raises DataError when no compiled forest represents them."""
    import lightgbm

    try:
        model = ForestModel.of(task, lightgbm.Booster(model_str=text), LINKS[task])
    except UnsupportedModel as error:
        raise DataError(str(error)) from error
    return ForestModel(task, model.link, replace(model.forest, base=model.forest.base + start))


def draw_evenly(rows: int, wanted: int, seed: int) -> np.ndarray:
    """Numbers of about `wanted` of so many rows, ascending, one from each of as many equal stretches; all if fewer."""
    if wanted >= rows:
        return np.arange(rows)
    places = np.arange(wanted) + np.random.default_rng(seed).random(wanted)
    return np.unique((places * (rows / wanted)).astype(np.int64).clip(max=rows - 1))


def submit_training(
    training: TrainingRows,
    workers: Sequence[str],
    shards: Sequence[Future],
    rows: int,
    drawn: np.ndarray,
    config: ModelConfig,
) -> list[Future]:
    """One task a shard, each bound to its worker; the result of the first is that of `train_shard`.

    Parameters
    ----------
    rows : of all shards, which have equal shares of them.
    drawn : numbers of those that bins are found from.
    """
    context, count = training.context, len(shards)
    workers = workers[:count]
    # Only when all are ready: a task that has no peer yet waits for it in vain when that is lost.
    wait_together(context, workers, shards)
    bounds = [rows * share // count for share in range(count + 1)]
    samples = [
        context.client.submit(rows_of, shard, drawn[(drawn >= low) & (drawn < high)] - low, pure=False)
        for shard, low, high in zip(shards, bounds, bounds[1:], strict=False)
    ]
    ports = [context.client.submit(listen, count, workers=[worker], pure=False) for worker in workers]
    wait_together(context, workers, [*samples, *ports])
    meeting = Meeting(secrets.token_bytes(32), tuple(port.result(timeout=RESULT_SECONDS) for port in ports))
    return [
        context.client.submit(
            train_shard,
            shard,
            samples,
            rank,
            meeting,
            config,
            training.rule,
            context.job.seed,
            pure=False,
            workers=[worker],
        )
        for rank, (shard, worker) in enumerate(zip(shards, workers, strict=True))
    ]


def rows_of(shard: Shard, numbers: np.ndarray) -> np.ndarray:
    """On a worker: float32 rows of a shard."""
    return shard.train[0][numbers]


def train_shard(
    shard: Shard,
    samples: Sequence[np.ndarray],
    rank: int,
    meeting: Meeting,
    config: ModelConfig,
    rule: SplitRule,
    seed: int,
) -> tuple[str, float] | None:
    """On a worker, from the first task: trees in LightGBM's own text, and what they are added to; nothing from others.

    Raises
    ------
    ConnectionError
        Another task is gone.
    DataError
        The rows of all tasks together lack a class, or have the weight 0.
    """
    mesh = meet(meeting, rank, stop_when_cancelled())
    try:
        found = train_together(mesh, shard, samples, config, rule, seed)
    finally:
        mesh.close()
    return found if rank == 0 else None


def train_together(
    mesh: Mesh, shard: Shard, samples: Sequence[np.ndarray], config: ModelConfig, rule: SplitRule, seed: int
) -> tuple[str, float]:
    """As `train_shard`, over connections that are there."""
    import lightgbm

    estimator = make_estimator(entry_of(config), config, rule, seed)
    params = native_params(estimator.get_params(), rule, mesh.size)
    matrix, target = shard.train[:2]
    counted = count_rows(mesh, shard.train, rule, config.params.get("class_weight"))
    start = None if counted.start is None else np.full(len(target), counted.start)
    # Before there is a network, over which LightGBM would bin each feature by the rows of one task.
    bins = lightgbm.Dataset(np.concatenate(samples), params=params).construct()
    data = lightgbm.Dataset(
        matrix, target, reference=bins, weight=counted.weights, init_score=start, params=params
    ).construct()
    with connected(mesh) as network:
        try:
            booster = lightgbm.Booster(params, data)
            for _ in range(estimator.n_estimators):
                booster.update()
                network.check()
        except lightgbm.basic.LightGBMError:
            network.check()
            raise
        return booster.model_to_string(), counted.start or 0.0


def native_params(params: Mapping[str, Any], rule: SplitRule, tasks: int) -> dict[str, Any]:
    """The parameters of a scikit-learn estimator as LightGBM's own, for so many tasks."""
    found = {name: value for name, value in params.items() if name not in NOT_NATIVE and value is not None}
    found |= {"seed": params["random_state"], "objective": OBJECTIVES[rule.task], "num_threads": params["n_jobs"] or 0}
    if rule.task == "multiclass":
        found["num_class"] = len(rule.classes)
    # Of all tasks it knows the rows in a leaf only about, by their hessians, and breaks off at one with none.
    found["min_child_samples"] = max(1, params["min_child_samples"])
    # Else features are left out by what they are in the rows that bins are found from.
    return found | {"tree_learner": "data", "num_machines": tasks, "feature_pre_filter": False}


@dataclass(frozen=True)
class Counted:
    """What a task's rows count."""

    weights: np.ndarray | None
    """float64 (rows,), or None where each counts 1."""
    start: float | None
    """Where rows have weights and the target is numbers, the mean of all tasks' rows, which trees are added to.

    LightGBM takes the mean of the tasks' means, which there is none of where a task's rows all have the weight 0.
    """


def count_rows(mesh: Mesh, part: Part, rule: SplitRule, given: Any) -> Counted:
    """Weights of a task's rows, and of their classes, as on one worker; `balanced` counts the rows of all tasks.

    Raises
    ------
    DataError
        The rows of all tasks together lack a class, or have the weight 0.
    """
    target, weights = part[1], part[2] if len(part) > 2 else None
    numbers = rule.task == "regression"
    codes = np.zeros(len(target), dtype=np.int64) if numbers else target.astype(np.int64)
    sized = np.ones(len(target)) if weights is None else weights
    size = 1 if numbers else len(rule.classes)
    own = [np.bincount(codes, by, minlength=size) for by in (np.ones(len(target)), sized, sized * target)]
    blocks = mesh.gather(np.stack(own).tobytes())
    counts, masses, sums = np.sum([np.frombuffer(block).reshape(3, size) for block in blocks], axis=0)
    if weights is not None:
        check_mass(masses.sum())
    if numbers:
        return Counted(weights, None if weights is None else float(sums[0] / masses[0]))
    check_classes(masses, rule.classes)
    if given is not None:
        weights = sized * class_factors(given, rule.classes, counts)[codes]
    return Counted(weights, None)


def stop_when_cancelled() -> Callable[[], None]:
    """On a worker: raises when the task was cancelled, which Dask does not stop while it runs."""
    from distributed import get_worker

    worker = get_worker()
    key = worker.get_current_task()

    def look() -> None:
        task = worker.state.tasks.get(key)
        if task is None or task.state == "cancelled":
            raise RuntimeError("the training was cancelled")

    return look
