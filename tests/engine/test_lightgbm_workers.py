"""LightGBM over several tasks: against LightGBM on all rows in one process, and when a task is lost."""

from __future__ import annotations

import contextlib
import contextvars
import itertools
import socket
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from distributed import Client
from hypothesis import given
from hypothesis import strategies as st

from treadle.engine import mesh
from treadle.engine.artifacts import SplitRule
from treadle.engine.backend import Backend
from treadle.engine.blocks import Block
from treadle.engine.context import Context
from treadle.engine.events import Events
from treadle.engine.fitting import fit_estimator
from treadle.engine.job import Data, Job
from treadle.engine.job import Model as ModelConfig
from treadle.engine.lightgbm_training import draw_evenly, model_of, train_lightgbm, train_together
from treadle.engine.mesh import Meeting, Mesh, meet
from treadle.engine.models.base import Task
from treadle.engine.models.boosted import threads_limited
from treadle.engine.models.forest import ForestModel
from treadle.engine.shards import Shard
from treadle.engine.store import Store
from treadle.engine.training import train_model
from treadle.engine.training_place import place_of, places_told, rows_held
from treadle.engine.training_rows import TrainingRows
from treadle.engine.workers import Workers
from treadle.errors import DataError

lightgbm = pytest.importorskip("lightgbm")

ROWS, SEED = 1500, 7
RNG = np.random.default_rng(11)
MATRIX = RNG.normal(size=(ROWS, 6)).astype(np.float32)
MATRIX[RNG.random(MATRIX.shape) < 0.05] = np.nan
MATRIX[:, 4] = RNG.integers(0, 4, ROWS)
# As rows in the order of time have it: no two tasks see the same values.
MATRIX[:, 5] = np.linspace(-3, 3, ROWS)
SCORE = np.nan_to_num(MATRIX)[:, :3].sum(axis=1) + np.sin(3 * MATRIX[:, 5]) + RNG.normal(scale=0.5, size=ROWS)
TARGETS: Mapping[Task, np.ndarray] = {
    "binary": (SCORE > 0.7).astype(np.float64),
    "multiclass": np.digitize(SCORE, [-1.0, 1.0]).astype(np.float64),
    "regression": SCORE.astype(np.float64),
}
CLASSES: Mapping[Task, tuple[str, ...]] = {"binary": ("no", "yes"), "multiclass": ("a", "b", "c"), "regression": ()}
FEW = {"num_leaves": 8, "min_child_samples": 1, "min_child_weight": 5}
"""No leaf is so small that LightGBM's estimate of its rows decides: of several tasks it knows only the hessians."""
SAME: list[tuple[Task, dict[str, Any]]] = [
    ("binary", FEW),
    ("binary", {**FEW, "class_weight": "balanced"}),
    ("binary", {**FEW, "class_weight": {"yes": 3}, "monotone_constraints": [1, 0, 0, 0, 0, 0]}),
    ("multiclass", {**FEW, "max_bin": 30}),
    ("regression", {}),
    ("regression", {"boosting_type": "dart", "drop_rate": 0.5}),
    ("regression", {"colsample_bytree": 0.5}),
]
DRAWN: list[tuple[Task, dict[str, Any]]] = [
    ("binary", {}),
    ("binary", {"subsample": 0.7, "subsample_freq": 1}),
    ("binary", {"min_child_samples": 0}),
    ("multiclass", {"extra_trees": True, "path_smooth": 1.0}),
    ("multiclass", {"boosting_type": "dart", "colsample_bytree": 0.8}),
    ("regression", {"feature_fraction_bynode": 0.7, "max_delta_step": 0.7}),
]
"""Where tasks draw otherwise than one process, or guess the rows of leaves."""


def rule(task: Task) -> SplitRule:
    return SplitRule(
        kind="none", seed=1, column=None, bounds=(), task=task, classes=CLASSES[task],
        train_rows=ROWS, test_rows=0, dropped_rows=0,
    )  # fmt: skip


def model(**params: Any) -> ModelConfig:
    return ModelConfig(name="lightgbm", params={"n_estimators": 12, **params})


def shards(task: Task, tasks: int, weights: np.ndarray | None = None) -> list[Shard]:
    bounds = [ROWS * share // tasks for share in range(tasks + 1)]
    arrays = [MATRIX, TARGETS[task]] if weights is None else [MATRIX, TARGETS[task], weights]
    none = tuple(array[:0] for array in arrays)
    return [Shard(tuple(array[a:b] for array in arrays), none) for a, b in itertools.pairwise(bounds)]


def meshes(tasks: int) -> list[Mesh]:
    """Of tasks that are threads of this process."""
    peers: list[dict[int, socket.socket]] = [{} for _ in range(tasks)]
    for first, second in itertools.combinations(range(tasks), 2):
        peers[first][second], peers[second][first] = socket.socketpair()
    for one in itertools.chain.from_iterable(found.values() for found in peers):
        one.setblocking(False)
    return [Mesh(rank, found, lambda: None) for rank, found in enumerate(peers)]


def on_threads(tasks: list[Mesh], task: Task, config: ModelConfig, samples: list[np.ndarray]) -> list[Any]:
    """What each task returns or raises; LightGBM's network is of a thread."""

    def train(one: Mesh, shard: Shard) -> Any:
        try:
            with threads_limited(1):
                return train_together(one, shard, samples, config, rule(task), SEED)[0]
        except Exception as error:
            return error
        finally:
            one.close()

    with ThreadPoolExecutor(len(tasks)) as pool:
        return list(pool.map(train, tasks, shards(task, len(tasks))))


def alone(task: Task, config: ModelConfig) -> ForestModel:
    with threads_limited(1):
        found, _, _ = fit_estimator([(MATRIX, TARGETS[task])], config, rule(task), SEED)
    assert isinstance(found, ForestModel)
    return found


def trees_of(text: str) -> str:
    """What a model's text says of its trees."""
    return text[text.index("\nTree=0") : text.index("end of trees")]


def loss(task: Task, margin: np.ndarray) -> float:
    """The mean loss that the objective minimises, or its root."""
    target = TARGETS[task]
    if task == "regression":
        return float(np.sqrt(np.mean((margin - target) ** 2)))
    scores = np.column_stack([np.zeros(ROWS), margin]) if task == "binary" else margin
    shifted = scores - scores.max(axis=1, keepdims=True)
    chosen = shifted[np.arange(ROWS), target.astype(int)]
    return float(np.mean(np.log(np.exp(shifted).sum(axis=1)) - chosen))


@pytest.mark.parametrize("tasks", [1, 2, 3])
@pytest.mark.parametrize(("task", "params"), SAME)
def test_trees_are_those_of_one_process(task: Task, params: dict[str, Any], tasks: int) -> None:
    """Bins are found from all rows, so that only sums round differently; gradients are float32."""
    config = model(**params)
    found = on_threads(meshes(tasks), task, config, [MATRIX[:700], MATRIX[700:]])
    margin = lightgbm.Booster(model_str=found[0]).predict(MATRIX, raw_score=True)
    np.testing.assert_allclose(margin, alone(task, config).margin(MATRIX), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("task", "params"), [*SAME, *DRAWN])
def test_all_tasks_make_one_model_that_repeats_and_is_imported(task: Task, params: dict[str, Any]) -> None:
    config = model(**params)
    found = on_threads(meshes(2), task, config, [MATRIX])
    assert on_threads(meshes(2), task, config, [MATRIX]) == found
    assert len({trees_of(text) for text in found}) == 1
    booster = lightgbm.Booster(model_str=found[0])
    assert booster.num_trees() == 12 * (3 if task == "multiclass" else 1)
    margin = booster.predict(MATRIX, raw_score=True)
    np.testing.assert_allclose(ForestModel.of(task, booster).margin(MATRIX), margin, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(("task", "params"), DRAWN)
def test_what_is_drawn_otherwise_is_about_as_good(task: Task, params: dict[str, Any]) -> None:
    """Of 12 trees on 1500 rows, losses differ by a few percent from one seed to the next, too."""
    config = model(**params)
    (text, _) = on_threads(meshes(2), task, config, [MATRIX])
    found = loss(task, lightgbm.Booster(model_str=text).predict(MATRIX, raw_score=True))
    assert found == pytest.approx(loss(task, alone(task, config).margin(MATRIX)), rel=0.08)


@pytest.mark.parametrize(
    ("task", "params"),
    [("binary", {**FEW, "class_weight": "balanced"}), ("multiclass", FEW), ("regression", FEW)],
)
def test_rows_count_by_their_weights(task: Task, params: dict[str, Any]) -> None:
    """As on one worker, also where all rows of a task have the weight 0."""
    config = model(**params)
    weights = np.where(np.arange(ROWS) < ROWS // 2, 0.0, RNG.choice([0.0, 0.5, 3.0], ROWS))
    tasks = meshes(2)
    with ThreadPoolExecutor(2) as pool, threads_limited(1):
        found = [
            pool.submit(contextvars.copy_context().run, train_together, one, shard, [MATRIX], config, rule(task), SEED)
            for one, shard in zip(tasks, shards(task, 2, weights), strict=True)
        ]
    text, start = found[0].result()
    for one in tasks:
        one.close()
    with threads_limited(1):
        expected, _, _ = fit_estimator([(MATRIX, TARGETS[task], weights)], config, rule(task), SEED)
    margin = model_of(task, text, start).margin(MATRIX)
    np.testing.assert_allclose(margin, expected.margin(MATRIX), rtol=1e-5, atol=1e-5)


def test_bins_are_found_from_the_rows_of_all() -> None:
    """The first task has the first half of the times only: its rows alone would put all later ones into one bin."""
    (text, _) = on_threads(meshes(2), "regression", model(), [MATRIX[::4]])
    thresholds = [
        float(line) for tree in lightgbm.Booster(model_str=text).dump_model()["tree_info"] for line in at(tree)
    ]
    assert min(thresholds) < -1
    assert max(thresholds) > 1


def at(node: dict[str, Any]) -> Iterator[float]:
    """Where a tree splits by the last feature."""
    node = node.get("tree_structure", node)
    if node.get("split_feature") == 5:
        yield node["threshold"]
    for side in ("left_child", "right_child"):
        if side in node:
            yield from at(node[side])


class Breaking(Mesh):
    """A task that is lost in one of its exchanges."""

    left = 0

    def exchange(self, outgoing: Any, incoming: Any) -> None:
        self.left -= 1
        if self.left < 0:
            self.close()
            raise KeyboardInterrupt  # what no task raises itself
        super().exchange(outgoing, incoming)


@pytest.mark.parametrize("task", sorted(TARGETS))
def test_a_task_that_is_lost_is_an_error_in_the_other_whenever_it_is(task: Task) -> None:
    """And never the end of the process, or a wait for ever: LightGBM gets zeros until its round is over."""
    config = model(n_estimators=2, num_leaves=5)
    exchanges = 0
    while True:
        first, second = meshes(2)
        breaking = Breaking(1, second._peers, lambda: None)
        breaking.left = exchanges
        with ThreadPoolExecutor(2) as pool:
            lost = pool.submit(alive, first, 0, task, config)
            pool.submit(alive, breaking, 1, task, config).exception(timeout=60)
        if (error := lost.exception(timeout=60)) is None:
            break
        assert isinstance(error, ConnectionError), error
        exchanges += 1
    assert exchanges > 15


def alive(one: Mesh, rank: int, task: Task, config: ModelConfig) -> str:
    try:
        with threads_limited(1):
            return train_together(one, shards(task, 2)[rank], [MATRIX], config, rule(task), SEED)[0]
    finally:
        one.close()


def test_no_task_has_rows_of_a_class() -> None:
    classes = rule("binary").model_copy(update={"task": "multiclass", "classes": ("no", "yes", "maybe")})
    tasks = meshes(2)
    with ThreadPoolExecutor(2) as pool:
        found = [
            pool.submit(train_together, one, shard, [MATRIX], model(), classes, SEED)
            for one, shard in zip(tasks, shards("binary", 2), strict=True)
        ]
    for one, future in zip(tasks, found, strict=True):
        one.close()
        with pytest.raises(DataError, match="no training row is of class 'maybe'"):
            future.result()


@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(0, 9))
def test_rows_are_drawn_evenly(rows: int, wanted: int, seed: int) -> None:
    drawn = draw_evenly(rows, wanted, seed)
    assert drawn.tolist() == sorted(set(drawn.tolist()))
    assert drawn.min() >= 0
    assert drawn.max() < rows
    if wanted >= rows:
        assert len(drawn) == rows
    else:
        # Two stretches may meet in one row.
        assert wanted / 2 <= len(drawn) <= wanted
        assert np.diff([-1, *drawn, rows]).max() <= 2 * rows / wanted + 2


def test_who_does_not_know_the_secret_is_turned_away() -> None:
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    addresses = tuple(("127.0.0.1", listener.getsockname()[1]) for listener in listeners)
    mesh._listeners.update(zip(addresses, listeners, strict=True))
    meeting = Meeting(b"s" * 32, addresses)
    with socket.create_connection(addresses[0]) as stranger, ThreadPoolExecutor(2) as pool:
        stranger.sendall(b"GET / HTTP/1.1\r\n" + b"x" * 40)
        found = [pool.submit(meet, meeting, rank, lambda: None) for rank in range(2)]
        first, second = (future.result(timeout=30) for future in found)
        blocks = [pool.submit(one.gather, text) for one, text in ((first, b"ab"), (second, b"cd"))]
        assert [future.result(timeout=30) for future in blocks] == [[b"ab", b"cd"]] * 2
        with contextlib.suppress(ConnectionResetError):
            assert stranger.recv(1) == b""
    first.close()
    with pytest.raises(ConnectionError, match="task 0 of the training closed its connection"):
        second.gather(b"ef")
    second.close()
    with pytest.raises(ConnectionError, match="the port of this task is gone"):
        meet(meeting, 0, lambda: None)


def test_large_blocks_are_exchanged_by_three() -> None:
    """More than sockets hold, so that all send while they receive."""
    blocks = [bytes([rank]) * 3_000_000 for rank in range(3)]
    tasks = meshes(3)
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(Mesh.gather, tasks, blocks))
    assert found == [blocks] * 3
    for one in tasks:
        one.close()


def test_a_task_that_waits_looks_whether_it_is_cancelled() -> None:
    def look() -> None:
        raise RuntimeError("cancelled")

    first, second = meshes(2)
    with pytest.raises(RuntimeError, match="cancelled"):
        Mesh(0, first._peers, look).gather(b"waits in vain")
    first.close()
    second.close()


@pytest.fixture(scope="module")
def context(scheduler: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Context]:
    store = Store(str(tmp_path_factory.mktemp("lightgbm")))
    events = Events(store, "run")
    with Client(scheduler) as client:
        job = Job(name="lightgbm", data=Data(path="none"), seed=SEED)
        yield Context(job, store, Backend(), client, events, "run", stage="x")
    events.close()


def training_rows(context: Context, task: Task, parts: int) -> TrainingRows:
    """The rows, in blocks, with some test rows between them that are not trained on."""

    def blocks() -> list[Any]:
        futures = []
        for low, high in [(ROWS * part // parts, ROWS * (part + 1) // parts) for part in range(parts)]:
            test = np.repeat([False, True], [high - low, 5])
            rows = np.r_[low:high, low : low + 5]
            block = Block(pa.array(rows), test, TARGETS[task][rows], MATRIX[rows], {})
            futures.append(context.client.scatter(block, hash=False))
        return futures

    return TrainingRows(context, tuple("abcdef"), rule(task), blocks, "key")


@pytest.mark.parametrize("task", sorted(TARGETS))
def test_workers_make_what_threads_make(context: Context, task: Task) -> None:
    """However the rows lie in partitions, and again."""
    config, notes = model(), list[str]()
    (text, _) = on_threads(meshes(2), task, config, [MATRIX])
    expected = ForestModel.of(task, lightgbm.Booster(model_str=text)).margin(MATRIX)
    for parts in (1, 5):
        found, rows = train_lightgbm(training_rows(context, task, parts), config, notes)
        assert rows == ROWS
        np.testing.assert_array_equal(found.margin(MATRIX), expected)
        assert found.link == {"binary": "logistic", "multiclass": "softmax", "regression": "identity"}[task]
    assert notes == []
    # No port is left open.
    assert set(context.client.run(open_ports).values()) == {0}


def open_ports() -> int:
    return len(mesh._listeners)


GIB = 2**30


def test_the_place_follows_from_the_rows_and_the_memory() -> None:
    two = Workers(2, 1, GIB)
    held = rows_held(10, two)
    assert held * 10 * 8 <= GIB / 4 < (held + 1) * 10 * 8
    few, many, alone = (held, held + 1, Workers(1, 1, GIB))
    assert place_of(model(), few, 10, two) == "one worker"
    assert place_of(model(), many, 10, two) == "all workers"
    assert place_of(model(), many, 10, alone) == "sample"
    others = [ModelConfig(name=name) for name in ("xgboost", "ridge", "random_forest", "catboost")]  # type: ignore[arg-type]
    more = f"since {many:,} rows are more than the {held:,} that one holds"
    assert places_told([model(), *others], many, 10, two) == {
        f"over all workers, {more}": ("lightgbm",),
        "over all workers": ("xgboost",),
        "exactly, from sums over all workers' rows": ("ridge",),
        f"on one worker, on a sample, {more}": ("random_forest", "catboost"),
    }
    assert places_told([model(), others[2]], few, 10, two) == {"on one worker": ("lightgbm", "random_forest")}
    assert places_told([model(), others[2]], few, 10, Workers(2, 1, None)) == {
        "on one worker, or over all where that has not the room": ("lightgbm",),
        "on one worker, or on a sample where that has not the room": ("random_forest",),
    }


@pytest.mark.slow
def test_training_goes_where_the_place_says(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    training, notes = training_rows(context, "binary", 3), list[str]()
    one, rows = train_model(training, model(), notes)
    np.testing.assert_array_equal(one.margin(MATRIX), alone("binary", model()).margin(MATRIX))
    monkeypatch.setattr("treadle.engine.training_place.WORKER_SHARE", 0.5 * ROWS * 8 * 6 / context.room.memory)
    monkeypatch.setattr("treadle.engine.lightgbm_training.BINNED_SHARE", 3.0)
    all_of_them, used = train_model(training, model(), notes)
    (text, _) = on_threads(meshes(2), "binary", model(), [MATRIX])
    np.testing.assert_array_equal(
        all_of_them.margin(MATRIX), ForestModel.of("binary", lightgbm.Booster(model_str=text)).margin(MATRIX)
    )
    assert rows == used == ROWS
    assert notes == []
