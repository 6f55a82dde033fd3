"""Shapley values of models without a closed form, against the definition by coalitions, within the stated error."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from treadle.engine.artifacts import SplitRule
from treadle.engine.fitting import fit_estimator
from treadle.engine.job import Model as ModelConfig
from treadle.engine.models import sampled
from treadle.engine.models.base import load_model, save_model
from treadle.engine.models.sampled import CELLS, SampledModel, draw_background
from treadle.engine.store import Store
from treadle.errors import StorageError

ROWS = 150
NAMES = ["mlp", "k_neighbours"]
PARAMS: dict[str, dict[str, Any]] = {
    "mlp": {"hidden_layer_sizes": [8], "max_iter": 40, "learning_rate_init": 0.05},
    "k_neighbours": {"weights": "distance"},
}


def matrix(features: int) -> NDArray[np.float32]:
    return np.random.default_rng(features).normal(size=(ROWS, features)).astype(np.float32)


def trained(name: str, task: Any, features: int, seed: int = 4) -> SampledModel:
    rows = matrix(features)
    signal = rows[:, 0] * rows[:, 1] + rows[:, 2]
    target = {"binary": signal > 0, "multiclass": np.digitize(signal, [-0.5, 0.5]), "regression": 10 * signal}[task]
    classes = {"binary": (0, 1), "multiclass": (0, 1, 2), "regression": ()}[task]
    rule = SplitRule.model_construct(task=task, classes=classes)
    config = ModelConfig(name=name, params=PARAMS[name])
    model, _, _ = fit_estimator([(rows, np.asarray(target, dtype=np.float64))], config, rule, seed)
    assert isinstance(model, SampledModel)
    return model


def by_definition(model: SampledModel, row: NDArray[np.float32]) -> NDArray[np.float64]:
    """(outputs, features), with absent features from the model's background, averaged."""
    n, background = model.features, model.background.rows
    values = {}
    for size in range(n + 1):
        for present in itertools.combinations(range(n), size):
            mixed = background.copy()
            mixed[:, present] = row[list(present)]
            values[present] = np.reshape(model.margin(mixed), (len(mixed), -1)).mean(axis=0)
    phi = np.zeros((model.outputs, n))
    for present, value in values.items():
        for feature in set(range(n)) - set(present):
            weight = 1 / (n * math.comb(n - 1, len(present)))
            phi[:, feature] += weight * (values[tuple(sorted((*present, feature)))] - value)
    return phi


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_few_features_are_enumerated(name: str, task: Any) -> None:
    model, row = trained(name, task, 5), matrix(6)[7, :5]
    found = np.reshape(model.contributions(row[None]), (model.outputs, 6))
    np.testing.assert_allclose(found[:, :-1], by_definition(model, row), atol=1e-10)
    base = np.reshape(model.margin(model.background.rows), (-1, model.outputs)).mean(axis=0)
    np.testing.assert_allclose(found[:, -1], base, atol=1e-12)
    assert model.method == "Shapley values, exact over all coalitions, absent features from 100 training rows"


@pytest.mark.parametrize("name", NAMES)
def test_many_features_are_sampled_with_the_error_that_is_stated(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampled, "MOST_BACKGROUND", 12)  # the definition takes 2048 coalitions of each
    model, rows = trained(name, "binary", 11), matrix(12)[:2, :11]
    found = model.contributions(rows)[:, :-1]
    expected = np.stack([by_definition(model, row)[0] for row in rows])
    root_mean_square = float(np.sqrt(np.mean((found - expected) ** 2)))
    assert 0.5 < root_mean_square / model.error < 2.0
    assert f"mean standard error {model.error:.2g}, in the unit" in model.method
    assert "absent features from 12 training rows, sampled with 408 permutations and their reverses" in model.method


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_samples_add_up_and_depend_on_nothing_but_the_row(name: str, task: Any, tmp_path: Path) -> None:
    model, rows = trained(name, task, 14), matrix(15)[:5, :14]
    found = model.contributions(rows)
    margin = model.margin(rows)
    np.testing.assert_allclose(found.sum(axis=-1), margin, atol=1e-12 * max(1.0, float(np.abs(margin).max())))
    np.testing.assert_array_equal(model.contributions(rows[::-1])[::-1], found)
    np.testing.assert_array_equal(model.contributions(rows[2:3]), found[2:3])
    save_model(model, Store(str(tmp_path)), "m")
    again = load_model(Store(str(tmp_path)), "m")
    np.testing.assert_array_equal(again.contributions(rows), found)
    assert again.method == model.method
    assert trained(name, task, 14).method == model.method


def test_saved_models_are_json_and_arrow(tmp_path: Path) -> None:
    for name in NAMES:
        save_model(trained(name, "binary", 5), Store(str(tmp_path)), name)
        assert {path.name for path in (tmp_path / name).iterdir()} == {"model.json", "model.arrow"}
        assert (tmp_path / name / "model.arrow").read_bytes().startswith(b"ARROW1")
        path = tmp_path / name / "model.arrow"
        path.write_bytes(path.read_bytes()[:-1])
        with pytest.raises(StorageError, match=rf"{name}/model.arrow is no readable model: it is damaged"):
            load_model(Store(str(tmp_path)), name)
        assert len(json.dumps(json.loads((tmp_path / name / "model.json").read_text()))) < 600


@pytest.mark.parametrize("features", [1, 2, 10, 11, 100, 4000])
@pytest.mark.parametrize("evaluations", [256, 8192])
def test_what_explaining_a_row_takes_is_bounded(features: int, evaluations: int) -> None:
    rows = np.zeros((300, features), dtype=np.float32)
    background = draw_background(rows, evaluations, 3)
    count, each = background.orders.shape[:2]
    if not count:
        assert features <= 10
        assert 8 <= len(background.rows) <= min(100, evaluations >> features)
        return
    assert len(background.rows) == count >= 4
    assert each >= 2
    assert (np.sort(background.orders, axis=2) == np.arange(features)).all()
    assert 2 * (features - 1) * count * each <= max(evaluations, 2 * 2 * 4 * features)


def test_what_is_drawn_depends_on_the_seed() -> None:
    rows = matrix(12)
    one, same, other = (draw_background(rows, 8192, seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(one.rows, same.rows)
    np.testing.assert_array_equal(one.orders, same.orders)
    assert not np.array_equal(one.rows, other.rows)
    assert not np.array_equal(one.orders, other.orders)


def test_fewer_training_rows_than_a_background_are_all_taken() -> None:
    rows = np.arange(36, dtype=np.float32).reshape(3, 12)
    np.testing.assert_array_equal(draw_background(rows, 8192, 3).rows, rows)


class Sum(SampledModel):
    """margin = the sum of the values: each one's contribution is known, whatever is drawn."""

    format = "sum"
    save = load = None  # type: ignore[assignment]
    task, link, outputs = "regression", "identity", 1

    def __init__(self, rows: NDArray[np.float32]) -> None:
        self.features, self.most = rows.shape[1], 0
        self.background = draw_background(rows, 256, 1)

    def _raw(self, matrix: NDArray[np.float32]) -> NDArray[np.float64]:
        self.most = max(self.most, matrix.size)
        return matrix.astype(np.float64).sum(axis=1, keepdims=True)


def test_many_features_are_walked_in_parts() -> None:
    rows = np.random.default_rng(0).integers(0, 9, (40, 700)).astype(np.float32)
    model = Sum(rows)
    found = model.contributions(rows[:2])
    np.testing.assert_allclose(found[:, :-1], rows[:2] - model.background.rows.mean(axis=0), atol=1e-9)
    assert CELLS / 2 < model.most <= CELLS
