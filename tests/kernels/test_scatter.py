"""Sums over rows that models are solved from: against NumPy on all rows at once, for every division of the rows."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from treadle.kernels import logistic, scatter, triangle
from treadle.kernels.tiles import ROWS

SIZES = st.sampled_from([1, 2, 5, 40, ROWS, ROWS + 1, 3 * ROWS + 7])


def some_rows(seed: int, rows: int, features: int, classes: int) -> tuple[Any, Any, Any, Any]:
    """A matrix with a constant column and one far from 0, codes, the rows that count, weights with zeros."""
    rng = np.random.default_rng(seed)
    matrix = rng.normal(size=(rows, features)).astype(np.float32)
    matrix[:, 0] = 0.1
    matrix[:, -1] += 1000
    index = np.flatnonzero(rng.random(rows) < 0.8)
    return matrix, rng.integers(0, classes, rows).astype(np.float64), index, rng.integers(0, 4, rows).astype(float)


def divided(index: Any, cuts: list[int]) -> list[Any]:
    return np.split(index, sorted(min(cut, len(index)) for cut in cuts))


cuts = st.lists(st.integers(0, 3 * ROWS), max_size=4)


@given(st.integers(0, 99), SIZES, st.integers(1, 9), st.integers(1, 4), st.booleans(), cuts)
@settings(max_examples=40)
def test_moments_by_class_of_any_division_are_those_of_all_rows(
    seed: int, rows: int, features: int, classes: int, weighted: bool, cuts: list[int]
) -> None:
    matrix, codes, index, weight = some_rows(seed, rows, features, classes)
    extra = codes[:, None] * 2.0 + 1e-9  # a target has more digits than float32
    heavy = weight if weighted else None
    wide = np.concatenate([matrix, extra], axis=1, dtype=np.float64)
    counts = np.ones(rows) if heavy is None else heavy
    for kind in scatter.KINDS:
        parts = [scatter.scatter(matrix, codes, classes, kind, part, heavy, extra) for part in divided(index, cuts)]
        found = scatter.merge_all(parts)
        assert found.scatter.shape == scatter.shape_of(kind, classes, features + 1)
        products = []
        for c in range(classes):
            own = index[codes[index] == c]
            mass = counts[own].sum()
            assert found.weight[c] == mass
            mean = counts[own] @ wide[own] / mass if mass else np.zeros(features + 1)
            np.testing.assert_allclose(found.mean[c], mean, rtol=1e-12, atol=1e-12)
            apart = wide[own] - mean
            products.append((apart * counts[own, None]).T @ apart)
            np.testing.assert_allclose(found.squares[c], np.diag(products[c]), rtol=1e-9, atol=1e-9)
            assert found.squares[c, 0] == 0.0
        if kind == "each":
            np.testing.assert_allclose(found.scatter, products, rtol=1e-9, atol=1e-7)
        if kind != "squares":
            np.testing.assert_allclose(found.within, np.sum(products, axis=0), rtol=1e-9, atol=1e-7)
            np.testing.assert_array_equal(found.scatter, np.swapaxes(found.scatter, 1, 2))
        if counts[index].sum():
            center = counts[index] @ wide[index] / counts[index].sum()
            np.testing.assert_allclose(found.center, center, rtol=1e-12, atol=1e-12)
            total = ((wide[index] - center) * counts[index, None]).T @ (wide[index] - center)
            np.testing.assert_allclose(found.total_squares(), np.diag(total), rtol=1e-9, atol=1e-7)
            if kind != "squares":
                np.testing.assert_allclose(found.total(), total, rtol=1e-9, atol=1e-6)


@given(st.integers(0, 99), SIZES, st.integers(1, 9), st.booleans(), st.booleans(), cuts)
@settings(max_examples=40)
def test_the_triangle_of_any_division_has_the_sums_of_products_of_all_rows(
    seed: int, rows: int, features: int, weighted: bool, centred: bool, cuts: list[int]
) -> None:
    matrix, codes, index, weight = some_rows(seed, rows, features, 3)
    heavy = weight if weighted else None
    parts = [triangle.triangle(matrix, codes[:, None], part, heavy, centred) for part in divided(index, cuts)]
    found = triangle.merge_all(parts)
    assert (np.tril(found.factor, -1) == 0).all()
    wide = np.c_[matrix, codes].astype(np.float64)[index]
    counts = np.ones(len(index)) if heavy is None else heavy[index]
    assert math.isclose(found.weight, counts.sum())
    if counts.sum():
        mean = counts @ wide / counts.sum() if centred else np.zeros(features + 1)
        np.testing.assert_allclose(found.mean, mean, rtol=1e-12, atol=1e-12)
        apart = wide - mean
        expected = (apart * counts[:, None]).T @ apart
        scale = np.sqrt(np.diag(expected)) + 1e-6
        difference = (found.factor.T @ found.factor - expected) / scale[:, None] / scale
        np.testing.assert_allclose(difference, 0.0, atol=1e-11)


@pytest.mark.parametrize("parts", [1, 4])
def test_the_triangle_knows_what_the_sums_of_products_have_lost(parts: int) -> None:
    """A column is the sum of two others but for what float32 rounds off: 1e-8 of it, 1e-16 in squares."""
    rng = np.random.default_rng(5)
    matrix = rng.normal(size=(1000, 3)).astype(np.float32)
    matrix[:, 2] = matrix[:, 0] + matrix[:, 1]
    index = np.arange(1000)
    found = triangle.merge_all(
        [triangle.triangle(matrix, np.empty((1000, 0)), part) for part in np.array_split(index, parts)]
    )
    apart = matrix - matrix.mean(axis=0, dtype=np.float64)
    expected = np.linalg.svd(apart, compute_uv=False)
    assert expected[-1] / expected[0] < 3e-8
    np.testing.assert_allclose(np.linalg.svd(found.factor, compute_uv=False), expected, rtol=1e-7)


def plain_curve(matrix: Any, codes: Any, mass: Any, point: Any) -> tuple[float, Any, Any]:
    """Loss, gradient and Hessian from their definitions; two classes as a softmax of which the first margin is 0."""
    x = np.c_[matrix, np.ones(len(matrix))]
    margins = x @ point.T
    margins = np.c_[np.zeros(len(x)), margins] if len(point) == 1 else margins
    chance = np.exp(margins - margins.max(axis=1, keepdims=True))
    chance /= chance.sum(axis=1, keepdims=True)
    own = np.eye(chance.shape[1])[codes.astype(int)]
    loss = -(mass * np.log((chance * own).sum(axis=1))).sum()
    gradient = ((chance - own) * mass[:, None]).T @ x
    bend = np.einsum("ra,ab->rab", chance, np.eye(chance.shape[1])) - chance[:, :, None] * chance[:, None, :]
    hessian = np.einsum("r,rab,ri,rj->abij", mass, bend, x, x)
    return (loss, gradient[1:], hessian[1:, 1:]) if len(point) == 1 else (loss, gradient, hessian)


@given(st.integers(0, 99), SIZES, st.integers(1, 6), st.integers(2, 4), st.booleans(), cuts)
@settings(max_examples=30)
def test_the_curve_of_any_division_is_that_of_the_definition(
    seed: int, rows: int, features: int, classes: int, weighted: bool, cuts: list[int]
) -> None:
    matrix, codes, index, weight = some_rows(seed, rows, features, classes)
    rng = np.random.default_rng(seed)
    point = rng.normal(size=(1 if classes == 2 else classes, features + 1))
    shift, scale, factors = matrix.mean(axis=0, dtype=np.float64), np.full(features, 0.5), rng.random(classes)
    heavy = weight if weighted else None
    found = logistic.merge_all(
        [logistic.curve(matrix, codes, part, heavy, factors, shift, scale, point) for part in divided(index, cuts)]
    )
    mass = factors[codes[index].astype(int)] * (1.0 if heavy is None else heavy[index])
    moved = (matrix[index].astype(np.float64) - shift) * scale
    loss, gradient, hessian = plain_curve(moved, codes[index], mass * np.ones(len(index)), point)
    assert math.isclose(found.loss, loss, rel_tol=1e-10, abs_tol=1e-10)
    np.testing.assert_allclose(found.gradient, gradient, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(found.hessian, hessian, rtol=1e-9, atol=1e-9)


def test_margins_of_any_size_have_a_loss() -> None:
    matrix = np.array([[1e4], [-1e4]], dtype=np.float32)
    for point in (np.array([[1.0, 0.0]]), np.array([[-1.0, 0.0], [1.0, 0.0], [0.0, 0.0]])):
        args = (np.arange(2), None, np.ones(3), np.zeros(1), np.ones(1))
        right = logistic.curve(matrix, np.array([1.0, 0.0]), *args, point)
        wrong = logistic.curve(matrix, np.array([0.0, 1.0]), *args, point)
        assert right.loss == 0.0
        assert math.isclose(wrong.loss, 2e4 * (1 if len(point) == 1 else 2))
        assert np.isfinite(wrong.gradient).all()
