"""Made data, and the models that benchmarks train on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from treadle.benchmarks.sides import installed
from treadle.errors import RequestError, did_you_mean

TRAIN_ROWS = {"xgboost": 20_000, "sklearn": 7_000}


@dataclass(frozen=True)
class Case:
    """A model to train on made data: `depth` None is unlimited; trees are counted for each class."""

    name: str
    library: str
    """"xgboost" or "sklearn", as their packages are imported."""
    trees: int
    depth: int | None
    features: int
    missing: float = 0.0
    """Share of values that are missing."""
    classes: int = 1
    """1 for a regression."""
    interactions: bool = False
    """Whether interaction values are measured too."""


CASES = (
    Case("tiny, depth 3, 8 features", "xgboost", 10, 3, 8, interactions=True),
    Case("depth 6, 8 features", "xgboost", 500, 6, 8, interactions=True),
    Case("depth 6, 14 features", "xgboost", 500, 6, 14, interactions=True),
    Case("depth 6, 100 features", "xgboost", 500, 6, 100),
    Case("depth 6, 14 features, 20 % missing", "xgboost", 500, 6, 14, missing=0.2),
    Case("depth 6, 14 features, 7 classes", "xgboost", 70, 6, 14, classes=7),
    Case("depth 8, 14 features", "xgboost", 300, 8, 14),
    Case("depth 10, 20 features", "xgboost", 200, 10, 20),
    Case("depth 12, 50 features", "xgboost", 200, 12, 50),
    Case("random forest, depth 16, 8 features", "sklearn", 100, 16, 8),
    Case("random forest, any depth, 20 features", "sklearn", 100, None, 20),
)


@dataclass(frozen=True)
class Trained:
    """A case's models of one shape on the same data, by library: its own, and LightGBM's of an XGBoost case."""

    case: Case
    models: dict[str, Any]


def chosen(texts: Sequence[str]) -> tuple[Case, ...]:
    """The cases whose name contains one of the texts; all of them when there are none.

    Raises
    ------
    RequestError
        No name contains a text.
    """
    for text in texts:
        if not any(text in case.name for case in CASES):
            parts = {part for case in CASES for part in (case.name, *case.name.split(", "))}
            names = "; ".join(case.name for case in CASES)
            raise RequestError(f"--model: no name contains '{text}'. Models: [{names}].{did_you_mean(text, parts)}")
    return tuple(case for case in CASES if not texts or any(text in case.name for text in texts))


def made_data(case: Case, rows: int, seed: int) -> tuple[NDArray[np.float32], NDArray[Any]]:
    """Correlated effects of a few features, some of them in pairs."""
    weights = np.random.default_rng(0).normal(size=case.features)
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, case.features)).astype(np.float32)
    y: NDArray[Any] = (
        x @ weights + 2 * np.sin(3 * x[:, 0]) * x[:, 1] + 1.5 * x[:, 2] * x[:, 3] + rng.normal(size=rows) / 2
    )
    if case.classes > 1:
        y = np.digitize(y, np.quantile(y, np.linspace(0, 1, case.classes + 1)[1:-1]))
    x[rng.random(x.shape) < case.missing] = np.nan
    return x, y


def trained(case: Case, threads: int = 1, peers: bool = True) -> Trained:
    """The case's models; LightGBM's only where it is installed, and for peers.

    One thread by default: on a shared machine OpenMP's threads wait for each other, and train for minutes. 0
    takes all cores.
    """
    x, y = made_data(case, TRAIN_ROWS[case.library], seed=1)
    if case.library == "sklearn":
        from sklearn.ensemble import RandomForestRegressor

        forest = RandomForestRegressor(case.trees, max_depth=case.depth, max_features=0.5, random_state=0, n_jobs=-1)
        return Trained(case, {"sklearn": forest.fit(x, y).set_params(n_jobs=1)})
    import xgboost

    params: dict[str, Any] = {"max_depth": case.depth, "eta": 0.1, "seed": 1, "nthread": threads}
    if case.classes > 1:
        params |= {"objective": "multi:softprob", "num_class": case.classes}
    models: dict[str, Any] = {"xgboost": xgboost.train(params, xgboost.DMatrix(x, y, nthread=1), case.trees)}
    if peers and installed("lightgbm"):
        models["lightgbm"] = _lightgbm(case, x, y)
    return Trained(case, models)


def _lightgbm(case: Case, x: NDArray[Any], y: NDArray[Any]) -> Any:
    """XGBoost's shape in LightGBM: as deep, as many leaves as that allows, as small ones."""
    import lightgbm

    assert case.depth is not None
    params: dict[str, Any] = {
        "objective": "multiclass" if case.classes > 1 else "regression",
        "num_class": case.classes,
        "max_depth": case.depth,
        "num_leaves": 2**case.depth,
        "min_data_in_leaf": 1,
        "min_sum_hessian_in_leaf": 1,
        "learning_rate": 0.1,
        "seed": 1,
        "num_threads": 1,
        "verbose": -1,
    }
    return lightgbm.train(params, lightgbm.Dataset(x, y), case.trees)
