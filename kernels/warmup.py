"""Compiling what makes features, predicts and explains ahead of time; Numba keeps the machine code on disk."""

from __future__ import annotations

import itertools
import os
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

from treadle.kernels.dates import PARTS, date_parts
from treadle.kernels.forest import Forest, Tree, build_forest
from treadle.kernels.gaussian import contributions, margins
from treadle.kernels.logistic import curve
from treadle.kernels.matrix import Numbers, Ones, fill
from treadle.kernels.neighbours import nearest
from treadle.kernels.network import affine
from treadle.kernels.predict import predict_margin
from treadle.kernels.scatter import scatter
from treadle.kernels.sketch import merge_all, sketch_floats, sketch_keys
from treadle.kernels.summary import Summariser
from treadle.kernels.texts import Texts, count_tokens, find, hash_tokens, known
from treadle.kernels.treeshap import TreeExplainer
from treadle.kernels.triangle import triangle


def warm_up() -> float:
    """Compiles the kernels for rows of all kinds, by running them on small forests; seconds that took."""
    started = time.perf_counter()
    _make_features()
    affine(np.zeros((1, 2)), np.zeros((2, 1)), np.zeros(1))
    nearest(np.zeros((1, 2)), np.zeros((1, 2), dtype=np.float32), 1, 2.0)
    _sum_up()
    for features, thresholds in itertools.product((2, 12, 20), (4, 300)):
        forest = _chain(features, thresholds)
        for dtype in (np.float32, np.float64):
            rows = np.zeros((64, features), dtype=dtype)
            predict_margin(forest, rows)
            predict_margin(forest, pa.table([*rows.T], names=[str(feature) for feature in range(features)]))
            for method in ("auto", "quadrature"):
                explainer = TreeExplainer(forest, method=method)
                # A few rows are explained by other kernels than many.
                explainer.shap_values(rows[:1])
                explainer.shap_values(rows)
    return time.perf_counter() - started


def _make_features() -> None:
    """Runs what fits and applies feature operations, on a few rows; sketches of more values than they hold, too."""
    summariser = Summariser(20_000)
    distinct = np.random.default_rng(1).normal(size=20_000)
    sketches = [summariser.of(values, True, True).sketch for values in (distinct, np.zeros(9))]
    merge_all([sketch for sketch in sketches if sketch is not None])
    merge_all([sketch_keys(distinct.view(np.uint64), 100), sketch_floats(distinct, 100)])
    date_parts(np.zeros(1, dtype="datetime64[us]"), PARTS)
    texts = Texts(np.array([0, 3]), np.frombuffer(b"a b", dtype=np.uint8), np.empty(0, dtype=bool))
    find(known(texts), texts)
    count_tokens(texts)
    hash_tokens(texts, 2)
    codes = np.zeros(1, dtype=np.int32)
    for order in ("C", "F"):
        fill([Numbers(0, np.zeros(1)), Ones(1, 1, codes, 0)], np.empty((1, 2), dtype=np.float32, order=order))


def _sum_up() -> None:
    """Runs what models are solved from, and Gaussian classes, on a few rows."""
    rows, codes, index = np.zeros((4, 2), dtype=np.float32), np.array([0.0, 1.0, 0.0, 1.0]), np.arange(4)
    ones = np.ones(2)
    scatter(rows, codes, 2, "each", index)
    triangle(rows, codes[:, None], index)
    curve(rows, codes, index, None, ones, 0 * ones, ones, np.zeros((1, 3)))
    for factor in (np.ones((2, 2)), np.ones((2, 2, 2))):
        margins(rows, np.zeros((2, 2)), factor, ones)
        contributions(rows, np.zeros((2, 2)), factor, ones, np.zeros((2, 2)))


def kept_code() -> tuple[Path, int]:
    """The folder in which Numba keeps the machine code of the kernels, and how many functions it has there."""
    given = os.environ.get("NUMBA_CACHE_DIR")
    folder = Path(given) if given else Path(__file__).parent / "__pycache__"
    return folder, sum(1 for _ in folder.rglob("*.nbi")) if folder.is_dir() else 0


def _chain(features: int, thresholds: int) -> Forest:
    """Stumps on all features, with as many thresholds each; more than 255 take bins of 16 bits."""
    trees = [
        Tree(
            feature=np.array([f, -1, -1]),
            threshold=np.array([float(t), 0.0, 0.0]),
            left=np.array([1, 0, 0]),
            right=np.array([2, 0, 0]),
            missing_right=np.array([t % 2 == 0, False, False]),
            cover=np.array([2.0, 1.0, 1.0]),
            value=np.array([0.0, -1.0, 1.0]),
        )
        for f in range(features)
        for t in range(thresholds)
    ]
    return build_forest(trees, source="treadle warmup", n_features=features)
