"""Boosting in segments against XGBoost in one piece, on one worker's rows."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import xgboost
from distributed import Client
from hypothesis import given, settings
from hypothesis import strategies as st
from xgboost.collective import CommunicatorContext

from treadle.engine.backend import Backend
from treadle.engine.blocks import Block
from treadle.engine.boosting import first_rounds, start_tracker, submit_segment
from treadle.engine.checkpoints import (
    INDEX,
    Checkpoint,
    folder_of,
    forget_checkpoints,
    load_checkpoint,
    save_checkpoint,
)
from treadle.engine.context import Context
from treadle.engine.events import Events
from treadle.engine.job import Data, Job
from treadle.engine.job import Model as ModelConfig
from treadle.engine.models.boosted import LOSSES, drops_trees, native_params, threads_limited
from treadle.engine.models.catalogue import CATALOGUE
from treadle.engine.segments import Recipe, best_of, boost
from treadle.engine.shards import Shard, cuts_of, parts_of
from treadle.engine.store import Store

ROUNDS = 24
RNG = np.random.default_rng(5)
MATRIX = RNG.normal(size=(900, 6)).astype(np.float32)
MATRIX[RNG.random(MATRIX.shape) < 0.05] = np.nan
SCORE = np.nan_to_num(MATRIX)[:, :3].sum(axis=1) + RNG.normal(size=len(MATRIX))
TARGETS: Mapping[str, np.ndarray] = {
    "binary": (SCORE > 0).astype(np.float64),
    "multiclass": np.digitize(SCORE, [-1.0, 1.0]).astype(np.float64),
    "regression": SCORE.astype(np.float64),
}
VARIANTS: Mapping[str, dict[str, Any]] = {
    "plain": {},
    "rows": {"subsample": 0.6},
    "features": {"colsample_bytree": 0.5, "colsample_bynode": 0.7},
    "dropout": {"booster": "dart", "rate_drop": 0.3, "skip_drop": 0.2, "subsample": 0.8},
    "forests": {"num_parallel_tree": 3, "subsample": 0.5},
    "leaves": {"grow_policy": "lossguide", "max_leaves": 8},
    "constraints": {"monotone_constraints": "(1,0,0,0,0,0)", "max_bin": 32},
}


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Threads of XGBoost wait for each other by turning, which on a busy machine takes minutes."""
    with threads_limited(1), xgboost.config_context(nthread=1):
        yield


def params_of(task: Any, seed: int = 3, **params: Any) -> dict[str, Any]:
    classes = 3 if task == "multiclass" else 2
    return {**native_params({"max_depth": 4, **params}, task, classes, seed)[1], "device": "cpu", "nthread": 1}


def shard_of(task: str, held: int = 0) -> Shard:
    """All rows, of which the first are held back."""
    target = TARGETS[task]
    return Shard((MATRIX[held:], target[held:]), (MATRIX[:held], target[:held]))


def in_segments(
    shard: Shard, recipe: Recipe, lengths: Sequence[int], lost: Sequence[bool], start: bytes | None = None
) -> tuple[bytes, list[float]]:
    """The booster after segments of such lengths, over and over; where the worker is lost, its segment is repeated."""
    raw, done, number = start, 0, 0
    losses: list[float] = []
    while not recipe.is_over(done, losses):
        segment = Recipe(recipe.params, recipe.rounds, recipe.before, recipe.patience, lengths[number % len(lengths)])
        if lost[number % len(lost)]:
            boost(shard, segment, done, losses, raw)
            shard = Shard(shard.train, shard.held)
        raw, found = boost(shard, segment, done, losses, raw)
        done = len(found) if recipe.patience else min(done + segment.segment, recipe.rounds)
        losses, number = found, number + 1
    assert raw is not None
    return raw, losses


def trees(raw: bytes) -> list[str]:
    return xgboost.Booster(model_file=bytearray(raw)).get_dump(with_stats=True, dump_format="json")


@settings(max_examples=15)
@given(
    st.sampled_from(sorted(VARIANTS)),
    st.sampled_from(sorted(TARGETS)),
    st.lists(st.integers(1, ROUNDS), min_size=1, max_size=4),
    st.lists(st.booleans(), min_size=1, max_size=4),
)
def test_segments_make_the_booster_of_one_piece_to_the_byte_whatever_is_lost(
    variant: str, task: str, lengths: list[int], lost: list[bool]
) -> None:
    if variant == "constraints" and task == "multiclass":
        variant = "plain"
    params = params_of(task, **VARIANTS[variant])
    data = xgboost.QuantileDMatrix(MATRIX, TARGETS[task], max_bin=params.get("max_bin"))
    with xgboost.config_context(verbosity=0):
        whole = xgboost.train(params, data, ROUNDS)
        raw, _ = in_segments(shard_of(task), Recipe(params, ROUNDS), lengths, lost)
    assert raw == bytes(whole.save_raw("ubj"))


def test_rounds_draw_other_rows_in_every_segment() -> None:
    """Trees that learn nothing differ only by the rows that they were given."""
    params = {**params_of("regression", subsample=0.3), "eta": 0.0}
    raw, _ = in_segments(shard_of("regression"), Recipe(params, 6), [2], [False])
    covers = [json.loads(tree)["children"][0]["cover"] for tree in trees(raw)]
    assert len(set(covers)) == 6


@pytest.mark.parametrize("patience", [1, 5])
@pytest.mark.parametrize("task", sorted(TARGETS))
def test_early_stopping_is_that_of_xgboost(task: Any, patience: int) -> None:
    """The loss after every round, the round that it stops in, and the best one."""
    shard = shard_of(task, held=250)
    params = {**params_of(task, learning_rate=0.4), "eval_metric": LOSSES[task]}
    train = xgboost.QuantileDMatrix(*shard.train)
    held = xgboost.DMatrix(*shard.held)
    told: dict[str, dict[str, list[float]]] = {}
    expected = xgboost.train(
        params,
        train,
        200,
        evals=[(held, "held")],
        early_stopping_rounds=patience,
        evals_result=told,
        verbose_eval=False,
    )
    raw, losses = in_segments(shard, Recipe(params, 200, patience=patience), [7], [False, True])
    assert losses == told["held"][LOSSES[task]]
    assert len(losses) < 200
    assert best_of(losses) == expected.best_iteration + 1
    kept = trees(first_rounds(raw, best_of(losses)))
    assert kept == expected[: expected.best_iteration + 1].get_dump(with_stats=True, dump_format="json")


def test_what_stops_is_what_xgboost_measures_when_it_is_not_told() -> None:
    for task, loss in LOSSES.items():
        held = xgboost.DMatrix(MATRIX, TARGETS[task])
        booster = xgboost.train(params_of(task), held, 1)
        assert f"x-{loss}:" in booster.eval(held, "x")


@given(st.lists(st.one_of(st.floats(0, 5), st.sampled_from([1.0, float("nan"), float("inf")])), min_size=1))
def test_the_best_round_is_the_first_of_the_least_loss(losses: list[float]) -> None:
    best = 1
    for number, loss in enumerate(losses, start=1):
        if loss < losses[best - 1] or (np.isnan(losses[best - 1]) and not np.isnan(loss)):
            best = number
    assert best_of(losses) == best


@pytest.mark.parametrize("lengths", [[9], [2, 4]])
@pytest.mark.parametrize("task", sorted(TARGETS))
def test_continued_training_is_that_of_xgboost(task: Any, lengths: list[int]) -> None:
    """Of other rows, between whose bins the thresholds of the earlier model lie."""
    half = len(MATRIX) // 2
    params = params_of(task)
    first = xgboost.train(params, xgboost.DMatrix(MATRIX[:half], TARGETS[task][:half]), 8)
    rows = MATRIX[half:], TARGETS[task][half:]
    expected = xgboost.train(params, xgboost.DMatrix(*rows), 9, xgb_model=first)
    start = bytes(first.save_raw("ubj"))
    shard = Shard(rows, (rows[0][:0], rows[1][:0]))
    raw, _ = in_segments(shard, Recipe(params, 9, before=8), lengths, [False, True], start)
    assert trees(raw) == expected.get_dump(with_stats=True, dump_format="json")
    assert trees(raw)[: len(trees(start))] == trees(start)
    found = xgboost.Booster(model_file=bytearray(raw)).predict(xgboost.DMatrix(rows[0]), output_margin=True)
    np.testing.assert_array_equal(found, expected.predict(xgboost.DMatrix(rows[0]), output_margin=True))


@pytest.fixture(scope="module")
def context(scheduler: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Context]:
    store = Store(str(tmp_path_factory.mktemp("segments")))
    events = Events(store, "run")
    with Client(scheduler) as client:
        yield Context(Job(name="segments", data=Data(path="none")), store, Backend(), client, events, "run", stage="x")
    events.close()


class Halves:
    """The rows, half of them on each of two workers."""

    def __init__(self, context: Context, task: str, held: int) -> None:
        self.context = context
        target = TARGETS[task]
        self.parts = [
            Shard(
                (MATRIX[place::2][held:], target[place::2][held:]), (MATRIX[place::2][:held], target[place::2][:held])
            )
            for place in (0, 1)
        ]
        self.lose()

    def lose(self) -> None:
        """The shards are as new, without what XGBoost has made of them."""
        self.on = [
            self.context.client.submit(Shard, shard.train, shard.held, workers=[worker], pure=False)
            for shard, worker in zip(self.parts, self.context.workers, strict=True)
        ]

    def train(self, recipe: Recipe, start: bytes | None, lost: Sequence[int]) -> tuple[bytes, list[float]]:
        """All segments; before those of such numbers the shard of the second worker alone is as new."""
        state, raw, number = Checkpoint(rounds=0, losses=(), trained_on=()), start, 0
        while not recipe.is_over(state.rounds, state.losses):
            if number in lost:
                kept = self.on[0]
                self.lose()
                self.on[0] = kept
            futures = submit_segment(self.context, self.context.workers, self.on, recipe, state, raw)
            raw, losses = futures[0].result(timeout=60)
            assert futures[1].result(timeout=60) is None
            done = len(losses) if recipe.patience else min(state.rounds + recipe.segment, recipe.rounds)
            state, number = Checkpoint(rounds=done, losses=tuple(losses), trained_on=()), number + 1
        assert raw is not None
        return raw, list(state.losses)

    def plainly(self, recipe: Recipe, start: bytes | None) -> tuple[bytes, list[float]]:
        """As `xgboost.train` does it on two workers."""
        workers = self.context.workers
        tracker = self.context.client.submit(start_tracker, 2, pure=False, workers=[workers[0]]).result(timeout=60)
        futures = [
            self.context.client.submit(plain, shard, rank, tracker, recipe, start, workers=[worker], pure=False)
            for rank, (shard, worker) in enumerate(zip(self.parts, workers, strict=True))
        ]
        found: tuple[bytes, list[float]] = futures[0].result(timeout=60)
        return found


def plain(
    shard: Shard, rank: int, tracker: Mapping[str, str | int], recipe: Recipe, start: bytes | None
) -> tuple[bytes, list[float]]:
    """On a worker: `xgboost.train` on the rows of all."""
    told: dict[str, dict[str, list[float]]] = {}
    with CommunicatorContext(**tracker, dmlc_task_id=str(rank)), xgboost.config_context(verbosity=0, nthread=1):
        train = xgboost.DMatrix(*shard.train) if start else xgboost.QuantileDMatrix(*shard.train)
        held = xgboost.DMatrix(*shard.held)
        booster = xgboost.train(
            dict(recipe.params),
            train,
            recipe.rounds,
            evals=[(held, "held")] if recipe.patience else [],
            early_stopping_rounds=recipe.patience,
            evals_result=told,
            xgb_model=bytearray(start) if start else None,
            verbose_eval=False,
        )
    return bytes(booster.save_raw("ubj")), told.get("held", {}).get(LOSSES["binary"], [])


@pytest.mark.parametrize("lost", [(), (1, 2)], ids=["undisturbed", "lost"])
@pytest.mark.parametrize("variant", ["rows", "dropout", "stopping", "continued"])
def test_two_workers_make_what_xgboost_makes_on_two(context: Context, variant: str, lost: tuple[int, ...]) -> None:
    stops = variant == "stopping"
    params = params_of("binary", **VARIANTS.get(variant, {"subsample": 0.7}), learning_rate=0.5)
    start = None
    if variant == "continued":
        start = bytes(xgboost.train(params, xgboost.DMatrix(MATRIX[::3], TARGETS["binary"][::3]), 6).save_raw("ubj"))
    halves = Halves(context, "binary", held=60 if stops else 0)
    if stops:
        recipe = Recipe({**params, "eval_metric": "logloss"}, 200, patience=6, segment=5)
    else:
        recipe = Recipe(params, ROUNDS, before=6 if start else 0, segment=7)
    raw, losses = halves.train(recipe, start, lost)
    expected, told = halves.plainly(recipe, start)
    assert trees(raw) == trees(expected)
    assert losses == told
    assert bool(losses) == stops
    assert len(losses) < 200


def test_a_worker_without_rows_that_are_held_back(context: Context) -> None:
    halves = Halves(context, "binary", held=0)
    first = halves.parts[0]
    halves.parts[0] = Shard(first.train, (MATRIX[:5], TARGETS["binary"][:5]))
    halves.lose()
    recipe = Recipe({**params_of("binary"), "eval_metric": "logloss"}, 9, patience=9, segment=4)
    _, losses = halves.train(recipe, None, ())
    assert len(losses) == 9
    assert losses == halves.plainly(recipe, None)[1]


@given(st.lists(st.integers(0, 9), min_size=1, max_size=6), st.integers(1, 5))
def test_shares_are_equal_and_together_all_rows_in_order(sizes: list[int], shares: int) -> None:
    rows = [(number, row) for number, size in enumerate(sizes) for row in range(size)]
    dealt = [
        [(number, row) for number, low, high in cuts_of(sizes, share, shares) for row in range(low, high)]
        for share in range(shares)
    ]
    assert [row for share in dealt for row in share] == rows
    assert max(map(len, dealt)) - min(map(len, dealt)) <= 1


@given(st.floats(0.05, 0.95), st.integers(0, 100), st.integers(1, 4))
def test_the_rows_held_back_follow_from_their_ids(share: float, seed: int, parts: int) -> None:
    """However the rows lie in partitions; test rows are neither held back nor trained on."""
    ids = np.arange(len(MATRIX)) * 7
    test = ids % 3 == 0

    def held(of: np.ndarray) -> tuple[list[float], list[float]]:
        block = Block(pa.array(ids[of]), test[of], SCORE[of], MATRIX[of], {})
        (_, kept), (_, back) = parts_of(block, share, seed)
        return kept.tolist(), back.tolist()

    kept, back = held(np.arange(len(ids)))
    assert sorted(kept + back) == sorted(SCORE[~test].tolist())
    assert 0.3 * share < len(back) / (~test).sum() < share + 0.3 * (1 - share) + 0.05
    order = np.random.default_rng(seed).permutation(len(ids))
    found = [held(part) for part in np.array_split(order, parts)]
    assert sorted(value for _, part in found for value in part) == sorted(back)


def test_a_shard_leaves_behind_what_xgboost_made_of_it() -> None:
    shard = shard_of("binary", held=100)
    boost(shard, Recipe({**params_of("binary"), "eval_metric": "logloss"}, 2, patience=1), 0, [], None)
    assert shard.made
    assert shard.live
    moved = shard.__getstate__()
    assert (moved["made"], moved["live"], moved["train"]) == ({}, None, shard.train)
    assert shard.__sizeof__() == MATRIX.nbytes + TARGETS["binary"].nbytes


def test_a_checkpoint_takes_the_place_of_the_one_before_and_counts_only_when_whole(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    assert load_checkpoint(store, "f") is None
    for rounds in (5, 10):
        save_checkpoint(store, "f", Checkpoint(rounds=rounds, losses=(0.5,) * rounds, trained_on=("a",)), b"x" * rounds)
        found = load_checkpoint(store, "f")
        assert found is not None
        assert (found[0].rounds, len(found[0].losses), found[1]) == (rounds, rounds, b"x" * rounds)
        assert store.list(folder_of("f")) == [INDEX, f"rounds-{rounds}.ubj"]
    booster, index = (tmp_path / folder_of("f") / name for name in ("rounds-10.ubj", INDEX))
    whole = index.read_text()
    damages: tuple[tuple[Path, bytes], ...] = ((booster, b"y" * 10), (index, b"{"), (index, b"{}"))
    for file, damage in damages:
        booster.write_bytes(b"x" * 10)
        index.write_text(whole)
        assert load_checkpoint(store, "f") is not None
        file.write_bytes(damage)
        assert load_checkpoint(store, "f") is None
    booster.unlink()
    index.write_text(whole)
    assert load_checkpoint(store, "f") is None
    forget_checkpoints(store, "f")
    forget_checkpoints(store, "f")
    assert not (tmp_path / folder_of("f")).exists()


def test_which_params_drop_trees() -> None:
    """As XGBoost has it: boosters that remember weights of trees."""
    data = xgboost.DMatrix(MATRIX, SCORE)
    none: list[dict[str, Any]] = [{}, {"rate_drop": 0.0}, {"sample_type": "weighted"}, {"booster": "dart"}]
    for params in (*none, {"rate_drop": 0.2}, {"one_drop": True}, {"skip_drop": 0.5, "booster": "dart"}):
        with xgboost.config_context(verbosity=0):
            raw = xgboost.train({**params_of("regression"), **params}, data, 3).save_raw("json")
        model = json.loads(bytes(raw))["learner"]["gradient_booster"]["model"]
        assert drops_trees(params) == bool(model.get("weight_drop")), params


def test_only_xgboost_is_trained_in_segments() -> None:
    """The keys of a model that mean something to it alone."""
    for name in CATALOGUE:
        for key, value in (("early_stopping", {}), ("continue_from", "fraud:1")):
            if name == "xgboost":
                assert getattr(ModelConfig(name=name, **{key: value}), key) is not None  # type: ignore[arg-type]
            else:
                with pytest.raises(ValueError, match=f"{key} is for xgboost only, and the model is {name}; leave"):
                    ModelConfig(name=name, **{key: value})  # type: ignore[arg-type]
