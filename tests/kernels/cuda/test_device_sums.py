"""Sums over rows on a device against those of the host, which have the references; as `test_device.py`.

There are few rows, in blocks of a few threads and parts of a few rows, so that there are several of everything.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from numba import config
from numpy.typing import NDArray

from tests.kernels.cuda.test_device import device, why_not
from treadle.errors import RequestError
from treadle.kernels import logistic, scatter
from treadle.kernels.logistic import Curve
from treadle.kernels.scatter import KINDS, Scatter

CLOSE = 1e-12
"""Of what rounding is measured by: the size of a column, and of its deviations."""

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(bool(why_not()), reason=why_not())]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Launches of a few threads, and few rows and products at a time. What is compiled stays the same."""
    from treadle.kernels.cuda import arrays, tiles
    from treadle.kernels.cuda import logistic as device_logistic

    monkeypatch.setattr(arrays, "THREADS", 8)
    monkeypatch.setattr(arrays, "FEWEST_THREADS", 2)
    monkeypatch.setattr(arrays, "WANTED_BLOCKS", 2)
    monkeypatch.setattr(arrays, "MOST_BLOCKS", 2)
    monkeypatch.setattr(tiles, "SIDES", (1, 2))
    monkeypatch.setattr(tiles, "NARROW_COLUMNS", 5)
    monkeypatch.setattr(tiles, "COLUMN_BLOCK", (4, 2))
    monkeypatch.setattr(tiles, "PART_ROWS", 37)
    monkeypatch.setattr(tiles, "PARTIAL_BYTES", 8 * 600)
    monkeypatch.setattr(device_logistic, "CHANCE_THREADS", 4)


def some_rows(seed: int, rows: int, features: int, classes: int) -> tuple[Any, Any, Any, Any]:
    """A matrix with a constant column and one far from 0, codes, the rows that count, weights with zeros."""
    rng = np.random.default_rng(seed)
    matrix = rng.normal(size=(rows, features)).astype(np.float32)
    matrix[:, 0] = 0.1
    matrix[:, -1] += 1000
    index = np.flatnonzero(rng.random(rows) < 0.8)
    return matrix, rng.integers(0, classes, rows).astype(np.float64), index, rng.integers(0, 4, rows).astype(float)


def assert_close(found: Any, expected: Any, size: Any) -> None:
    """Within `CLOSE` of a size for each number, or of 1e-300 where that is 0."""
    assert found.shape == expected.shape
    assert (np.abs(found - expected) <= CLOSE * size + 1e-300).all()


def assert_same_scatter(found: Scatter, expected: Scatter) -> None:
    np.testing.assert_array_equal(found.weight, expected.weight)
    spread = np.sqrt(expected.squares)
    assert_close(found.mean, expected.mean, np.abs(expected.mean) + spread)
    assert_close(found.squares, expected.squares, expected.squares)
    if expected.kind == "within":
        spread = np.sqrt(expected.squares.sum(axis=0, keepdims=True))
    if expected.kind == "squares":
        assert found.scatter.shape == expected.scatter.shape
    else:
        assert_close(found.scatter, expected.scatter, spread[:, :, None] * spread[:, None, :])
        np.testing.assert_array_equal(found.scatter, np.swapaxes(found.scatter, 1, 2))


def assert_same_curve(found: Curve, expected: Curve, least: float = 1.0) -> None:
    """Terms of a gradient are of both signs: what rounding is measured by is its largest number, `least` at least."""
    assert math.isclose(found.loss, expected.loss, rel_tol=CLOSE)
    assert_close(found.gradient, expected.gradient, max(np.abs(expected.gradient).max(), least))
    assert_close(found.hessian, expected.hessian, max(np.abs(expected.hessian).max(initial=0.0), least))


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("rows", "features", "classes", "weighted", "more"),
    [
        (150, 10, 3, True, True),  # two parts of a class, two tiles of 8 columns, fewer parts at a time than there are
        (150, 4, 1, False, False),  # a single tile of 4
        (90, 5, 2, True, False),
        (3, 9, 4, False, True),  # fewer rows than a tile, and than classes
        (1, 1, 1, True, False),
    ],
)
def test_moments_by_class_are_the_hosts(
    kind: Any, rows: int, features: int, classes: int, weighted: bool, more: bool
) -> None:
    matrix, codes, index, weight = some_rows(3, rows, features, classes)
    weight = weight + 1.0 if rows == 1 else weight
    index = np.arange(rows) if rows < 4 else index
    extra = codes[:, None] * 2.0 + 1e-9 if more else None
    args = codes, classes, kind, index, weight if weighted else None, extra
    found = scatter.scatter(device(matrix), *args)
    assert_same_scatter(found, scatter.scatter(matrix, *args))
    assert not found.squares[:, 0].any(), "a constant has deviations"


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    ("rows", "features", "outputs", "weighted"),
    [(120, 7, 1, True), (60, 3, 3, False), (45, 4, 3, True), (2, 34, 1, False), (1, 1, 2, True)],
)
def test_the_curve_is_the_hosts(rows: int, features: int, outputs: int, weighted: bool) -> None:
    classes = max(2, outputs)
    matrix, codes, index, weight = some_rows(4, rows, features, classes)
    index = np.arange(rows) if rows < 3 else index
    rng = np.random.default_rng(rows)
    shift, scale = matrix.mean(axis=0, dtype=np.float64), rng.random(features)
    point = rng.normal(size=(outputs, features + 1))
    args = codes, index, weight + 1.0 if weighted else None, rng.random(classes) + 0.1, shift, scale, point
    for hessian in (True, False):
        found = logistic.curve(device(matrix), *args, hessian)
        assert_same_curve(found, logistic.curve(matrix, *args, hessian))


@pytest.mark.parametrize("classes", [1, 3])
def test_no_rows(classes: int) -> None:
    matrix, codes, _, weight = some_rows(5, 6, 3, classes)
    none = np.empty(0, np.int64)
    for kind in KINDS:
        for of in (matrix, matrix[:0]):
            args = codes[: len(of)], classes, kind, none, weight[: len(of)]
            found, expected = scatter.scatter(device(of), *args), scatter.scatter(of, *args)
            for name in ("weight", "mean", "squares", "scatter"):
                np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    point = np.ones((classes, 4))
    args = codes, none, None, np.ones(max(2, classes)), np.zeros(3), np.ones(3), point
    for hessian in (True, False):
        ours, theirs = logistic.curve(device(matrix), *args, hessian), logistic.curve(matrix, *args, hessian)
        assert ours.loss == theirs.loss == 0.0
        np.testing.assert_array_equal(ours.gradient, theirs.gradient)
        np.testing.assert_array_equal(ours.hessian, theirs.hessian)


@pytest.mark.usefixtures("small")
def test_large_values_cost_no_digits() -> None:
    """Values of 1e7 that differ by some units: their sum of squares is 1e16, and float64 has 16 digits."""
    rng = np.random.default_rng(6)
    matrix = (1e7 + rng.integers(0, 9, (70, 3))).astype(np.float32)
    codes, index = rng.integers(0, 2, 70).astype(float), np.arange(70)
    found = scatter.scatter(device(matrix), codes, 2, "each", index)
    for c in range(2):
        own = matrix[codes == c].astype(np.int64) - 10**7
        # Exact, in whole numbers: n times the scatter.
        expected = (len(own) * own.T @ own - np.outer(own.sum(axis=0), own.sum(axis=0))) / len(own)
        np.testing.assert_allclose(found.scatter[c], expected, rtol=0, atol=1e-12 * expected.max())
        np.testing.assert_allclose(found.mean[c], 1e7 + own.mean(axis=0), rtol=1e-15)


@pytest.mark.usefixtures("small")
def test_a_class_that_counts_nothing_has_no_moments() -> None:
    matrix, codes, index, weight = some_rows(7, 40, 3, 3)
    weight[codes == 1] = 0.0
    matrix[codes == 1, 1] = np.finfo(np.float32).max
    for kind in KINDS:
        found = scatter.scatter(device(matrix), codes, 3, kind, index, weight)
        assert found.weight[1] == 0.0
        assert not found.mean[1].any()
        assert not found.squares[1].any()
        assert_same_scatter(found, scatter.scatter(matrix, codes, 3, kind, index, weight))


@pytest.mark.usefixtures("small")
@pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")
def test_infinite_values_are_seen_in_the_means() -> None:
    matrix, codes, index, _ = some_rows(8, 40, 3, 2)
    for row in index[[0, 5]]:
        wrong = matrix.copy()
        wrong[row, 1] = np.inf
        found = scatter.scatter(device(wrong), codes, 2, "squares", index).mean
        expected = scatter.scatter(wrong, codes, 2, "squares", index).mean
        np.testing.assert_array_equal(np.isfinite(found), np.isfinite(expected))
        assert not np.isfinite(found[int(codes[row]), 1])


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("outputs", [1, 3])
def test_margins_of_any_size_have_a_loss(outputs: int) -> None:
    matrix = np.array([[1e4], [-1e4]], dtype=np.float32)
    point = np.array([[1.0, 0.0]]) if outputs == 1 else np.array([[-1.0, 0.0], [1.0, 0.0], [0.0, 0.0]])
    for codes in (np.array([1.0, 0.0]), np.array([0.0, 1.0])):
        args = codes, np.arange(2), None, np.ones(3), np.zeros(1), np.ones(1), point
        found = logistic.curve(device(matrix), *args)
        assert_same_curve(found, logistic.curve(matrix, *args))


@pytest.mark.usefixtures("small")
def test_neither_the_grid_nor_where_the_rows_lie_changes_a_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does on which side the other arrays are."""
    from treadle.kernels.cuda import arrays

    matrix, codes, index, weight = some_rows(9, 60, 5, 2)
    given = matrix, codes, index, weight, codes[:, None] + 1e-9
    shift, scale, point = np.zeros(5), np.full(5, 0.01), np.full((1, 6), 0.1)

    def sums(matrix: Any, codes: Any, index: Any, weight: Any, extra: Any) -> list[NDArray[np.float64]]:
        moments = scatter.scatter(matrix, codes, 2, "each", index, weight, extra)
        bent = logistic.curve(matrix, codes, index, weight, np.ones(2), shift, scale, point)
        loss = np.array(bent.loss)
        return [moments.weight, moments.mean, moments.squares, moments.scatter, loss, bent.gradient, bent.hessian]

    expected = sums(device(matrix), *given[1:])
    apart = sums(device(np.asfortranarray(matrix)), *map(device, given[1:]))
    monkeypatch.setattr(arrays, "MOST_BLOCKS", 3)
    monkeypatch.setattr(arrays, "THREADS", 4)
    for found in (apart, sums(device(np.repeat(matrix, 2, axis=0))[::2], *given[1:])):
        for ours, theirs in zip(found, expected, strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_as_they_are_launched() -> None:
    """With the real sizes of blocks and parts: many rows on a device, few in the simulator, which has 256 threads."""
    rows, features = (70, 6) if config.ENABLE_CUDASIM else (100_000, 150)
    matrix, codes, index, weight = some_rows(10, rows, features, 3)
    args = codes, 3, "each", index, weight
    assert_same_scatter(scatter.scatter(device(matrix), *args), scatter.scatter(matrix, *args))
    rng = np.random.default_rng(11)
    shift, scale = matrix.mean(axis=0, dtype=np.float64), np.full(features, 0.1)
    for outputs in (1,) if config.ENABLE_CUDASIM else (1, 3):
        point = rng.normal(size=(outputs, features + 1)) / features
        curve_args = np.minimum(codes, max(1, outputs - 1)), index, weight, np.ones(3), shift, scale, point
        assert_same_curve(logistic.curve(device(matrix), *curve_args), logistic.curve(matrix, *curve_args), rows)


def test_refusals() -> None:
    index, codes = np.arange(4), np.zeros(4)
    for wrong, why in (
        (np.zeros((4, 2)), r"float64 of shape \(4, 2\)"),
        (np.zeros(4, np.float32), r"float32 of shape \(4,\)"),
    ):
        with pytest.raises(RequestError, match=f"made of a float32 array .rows, features., and this is {why}"):
            scatter.scatter(device(wrong), codes, 1, "squares", index)
        with pytest.raises(RequestError, match=why):
            logistic.curve(device(wrong), codes, index, None, np.ones(2), np.zeros(2), np.ones(2), np.zeros((1, 3)))
