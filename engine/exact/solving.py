"""Linear algebra of the exact models: solutions of minimum norm, whatever the scale of a column."""

from __future__ import annotations

import numpy as np

EPS = float(np.finfo(np.float64).eps)
SURE_PIVOT = 1e-11
"""Smallest squared pivot of a matrix of correlations with which Cholesky's solution has the digits it should."""


def scales_of(diagonal: np.ndarray) -> np.ndarray:
    """Roots, with 1 for what is 0."""
    return np.sqrt(np.where(diagonal > 0, diagonal, 1.0))


def solve_semidefinite(matrix: np.ndarray, right: np.ndarray) -> np.ndarray:
    """x of the least norm for which matrix @ x is nearest to `right`.

    Parameters
    ----------
    matrix : (d, d), symmetric and positive semidefinite; rows are scaled to a diagonal of 1 first, so that
        columns of very different sizes cost no digits, and directions of less than some d * 1e-15 are taken for none
    right : (d,) or (d, any)
    """
    scale = scales_of(np.diag(matrix))
    scaled = matrix / scale[:, None] / scale
    by = (right.T / scale).T
    lower = _surely_factored(scaled)
    if lower is not None:
        found: np.ndarray = np.linalg.solve(lower.T, np.linalg.solve(lower, by))
        return (found.T / scale).T
    values, vectors = np.linalg.eigh(scaled)
    kept = values > 8 * len(values) * EPS * np.max(values, initial=0.0)
    axes = vectors[:, kept]
    solution = axes @ ((axes.T @ by).T / values[kept]).T
    return _least_norm((solution.T / scale).T, vectors[:, ~kept] / scale[:, None])


def _surely_factored(correlations: np.ndarray) -> np.ndarray | None:
    """Cholesky's factor, or None where the columns are so nearly collinear that it says nothing sure."""
    try:
        lower = np.linalg.cholesky(correlations)
    except np.linalg.LinAlgError:
        return None
    return lower if np.min(np.diag(lower) ** 2, initial=1.0) > SURE_PIVOT else None


def solve_triangle(factor: np.ndarray, right: np.ndarray, tol: float) -> tuple[np.ndarray, int]:
    """x (d,) of the least norm for which factor @ x is nearest to `right` (d,), and how many directions are lost.

    As in scikit-learn's least squares, a direction counts as none when its singular value is less than `tol` of the
    largest. Lost are those of them that count when all columns are scaled to the same size.
    """
    solution, _, rank, _ = np.linalg.lstsq(factor, right, rcond=tol)
    alike = np.linalg.matrix_rank(factor / scales_of((factor * factor).sum(axis=0)), rtol=tol)
    return solution, max(int(alike) - int(rank), 0)


def _least_norm(solution: np.ndarray, null: np.ndarray) -> np.ndarray:
    """A solution less its part in the space of what makes no difference, (d, any)."""
    axes, _ = np.linalg.qr(null)
    found: np.ndarray = solution - axes @ (axes.T @ solution)
    return found
