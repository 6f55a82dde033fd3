"""Samples of races, who goes on from a heat, and what budgets leave time for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from treadle.engine.job import Job, Model
from treadle.engine.race import Heat
from treadle.engine.trials.base import Cell, Terms
from treadle.engine.trials.fold_data import nested_order
from treadle.engine.trials.outcome import NOT_BEGUN, Outcome, key_of


@given(st.lists(st.integers(0, 3), min_size=1, max_size=200), st.integers(0, 2**32), st.data())
def test_a_sample_has_the_share_of_every_class_that_all_rows_have(codes: list[int], seed: int, data: Any) -> None:
    keys = np.random.default_rng(seed).permutation(len(codes)).astype(np.uint64)
    target = np.array(codes, dtype=np.float64)
    order = nested_order(keys, target, "multiclass")
    assert sorted(order) == list(range(len(codes)))
    size = data.draw(st.integers(1, len(codes)))
    for code in set(codes):
        of_class, drawn = codes.count(code), int((target[order[:size]] == code).sum())
        assert abs(drawn - size * of_class / len(codes)) < len(set(codes)) + 1
        if size >= len(set(codes)):
            assert drawn > 0


@given(st.integers(1, 100), st.integers(0, 2**32), st.sampled_from(["binary", "regression"]))
def test_a_sample_does_not_depend_on_the_order_of_the_rows(rows: int, seed: int, task: str) -> None:
    rng = np.random.default_rng(seed)
    keys, target = rng.permutation(rows).astype(np.uint64), rng.integers(0, 2, rows).astype(np.float64)
    other = rng.permutation(rows)
    one = keys[nested_order(keys, target, task)]
    same = keys[other][nested_order(keys[other], target[other], task)]
    np.testing.assert_array_equal(one, same)
    if task == "regression":
        np.testing.assert_array_equal(one, np.sort(keys))


MODELS = [Model(name=name) for name in ("lda", "qda", "ridge", "dummy", "mlp")]


def auc(*values: float, seconds: float = 1.0) -> list[Outcome]:
    return [Outcome(metrics={"auc": value, "log_loss": value}, train_seconds=seconds) for value in values]


def test_a_heat_ranks_what_was_measured_on_both_folds() -> None:
    found = [auc(0.7, 0.9), auc(0.9, 0.9), [Outcome(error="broken")] * 2, [*auc(0.99), NOT_BEGUN], auc(0.8, 0.8)]
    heat = Heat(100, MODELS, found)
    assert [config.name for config in heat.ranked("auc")] == ["qda", "lda", "mlp"]
    assert [config.name for config in heat.ranked("log_loss")] == ["lda", "mlp", "qda"]
    assert [config.name for config in heat.not_begun()] == ["dummy"]
    assert heat.seconds() == {"lda": 1.0, "qda": 1.0, "mlp": 1.0}


def test_a_metric_that_is_not_a_number_ranks_nowhere() -> None:
    heat = Heat(100, MODELS[:3], [auc(float("nan"), 1.0), auc(0.5, 0.5), [Outcome(), Outcome()]])
    assert [config.name for config in heat.ranked("auc")] == ["qda"]


def test_an_end_lets_nothing_begin_but_the_quickest() -> None:
    assert Terms(end=0.0).is_over
    assert not Terms(end=float("inf")).is_over
    assert not Terms(end=0.0).lets(Cell(1, 0), 1)
    assert Terms(end=0.0, one_at_least=True).lets(Cell(1, 0), 1)
    assert not Terms(end=0.0, one_at_least=True).lets(Cell(0, 0), 1)
    assert Terms().lets(Cell(0, 0), 1)


def test_a_trial_on_a_sample_is_another_trial() -> None:
    keys = {key_of(MODELS[0], 7, 0.5, rows) for rows in (None, 100, 200)}
    assert len(keys) == 3
    assert key_of(MODELS[0], 7) == key_of(MODELS[0], 7, 0.5, None)


def job(**sections: Any) -> Job:
    base: dict[str, Any] = {"name": "race", "data": {"path": "x.parquet", "target": "y"}, "models": "all"}
    return Job.model_validate({**base, **sections})


@pytest.mark.parametrize(
    ("sections", "wrong"),
    [
        ({"models": [], "race": {}}, "race: there are no models; name some in models"),
        ({"models": [], "budget": "5min"}, "budget: there are no models; name some in models"),
        ({"budget": "5 parsecs"}, "'5 parsecs' is no span of time"),
        ({"race": {"rows": 10}}, "greater than or equal to 100"),
        ({"race": {"keep": 0}}, "greater than or equal to 1"),
    ],
)
def test_what_is_refused(sections: dict[str, Any], wrong: str) -> None:
    with pytest.raises(ValidationError, match=wrong):
        job(**sections)


def test_a_race_or_a_budget_asks_for_folds() -> None:
    models = ["lda", "ridge"]
    assert job(models=models).compared is None
    assert job(models=models, race={}).compared == job(models=models, budget="1min").compared == job().compared
