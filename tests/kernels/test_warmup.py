"""After `warm_up`, forests of other shapes find everything compiled."""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any

import numba
import numpy as np
import pyarrow as pa
import pytest
import xgboost

import treadle.kernels
from treadle.kernels.counting import read_only
from treadle.kernels.forest import compile_forest
from treadle.kernels.gaussian import contributions, margins
from treadle.kernels.logistic import curve
from treadle.kernels.network import affine
from treadle.kernels.predict import predict_margin
from treadle.kernels.scatter import scatter
from treadle.kernels.treeshap import TreeExplainer
from treadle.kernels.triangle import triangle
from treadle.kernels.warmup import warm_up


def compiled() -> dict[str, int]:
    """How many versions of each compiled function there are in this process."""
    found = {}
    for item in pkgutil.iter_modules(treadle.kernels.__path__):
        module = importlib.import_module(f"treadle.kernels.{item.name}")
        for name, value in vars(module).items():
            if isinstance(value, numba.core.registry.CPUDispatcher):
                found[f"{item.name}.{name}"] = len(value.signatures)
    return found


@pytest.mark.parametrize("features", [3, *(pytest.param(many, marks=pytest.mark.slow) for many in (12, 30))])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_nothing_is_left_to_compile(features: int, dtype: Any) -> None:
    rng = np.random.default_rng(features)
    rows = rng.normal(size=(3000, features)).astype(dtype)
    rows[rng.random(rows.shape) < 0.1] = np.nan
    target = np.nan_to_num(rows[:, 0]) + rng.normal(size=3000)
    data = xgboost.DMatrix(rows, target)
    assert warm_up() > 0.0
    before = compiled()
    assert before["quadrature._add_walks"] > 0
    for depth, cuts in ((2, 256), (12, 2048)):
        params = {"max_depth": depth, "max_bin": cuts, "nthread": 1}
        forest = compile_forest(xgboost.train(params, data, 10))
        # Bins of 8 bits, and of 16.
        assert (np.diff(forest.cut_start).max() > 255) == (depth == 12)
        for kind in (rows, np.asfortranarray(rows), pa.table([*rows.T], names=[*map(str, range(features))])):
            predict_margin(forest, kind)
        TreeExplainer(forest).shap_values(rows)
    affine(np.ones((3, features)), np.ones((features, 2)), np.ones(2))
    assert compiled() == before


def test_nothing_is_left_to_compile_of_sums_over_rows() -> None:
    """Neither for arrays of another process, which are read-only, nor for weights."""
    assert warm_up() > 0.0
    before = compiled()
    rows = np.random.default_rng(2).normal(size=(300, 5)).astype(np.float32)
    codes, index, weight = np.arange(300) % 3.0, np.arange(0, 300, 2), np.ones(300)
    for matrix in (rows, read_only(rows)):
        for heavy in (None, weight, read_only(weight)):
            scatter(matrix, codes, 3, "within", index, heavy)
            scatter(matrix, codes, 1, "each", index, heavy, codes[:, None])
            triangle(matrix, read_only(codes)[:, None], index, heavy, centred=False)
            curve(matrix, codes, index, heavy, np.ones(3), np.zeros(5), np.ones(5), np.zeros((3, 6)), hessian=False)
        for factor in (np.ones((3, 5)), np.ones((3, 5, 5))):
            margins(matrix, np.zeros((3, 5)), factor, np.ones(3))
            contributions(matrix, np.zeros((3, 5)), factor, np.ones(5), np.zeros((3, 5)))
    assert before["scatter._gather"] == 1
    assert compiled() == before
