"""Log densities of normal distributions: margins of rows, and their exact Shapley values.

Of class k with mean m and covariance C, and F with F'F = C^-1, a row's margin is a constant - |F (x - m)|^2 / 2.
With F diagonal the features are independent in a class (naive Bayes).

Shapley values are those of the game in which absent features are taken from the training rows. With u = x - m,
Q = -C^-1 / 2, and e and M the means of u and of uu' over the training rows, it has a term for each feature and
one for each pair, and a pair's worth is shared by its two features in halves (Shapley, "A value for n-person
games", 1953: the value is additive and symmetric). What is left for feature i is

    phi_i = (u_i - e_i) (Qu)_i + u_i (Qe)_i - sum over j of Q_ij M_ij,

and the bias is the constant + the sum of all Q_ij M_ij. It is exact for correlated features, too, since M is
that of the training rows.
"""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

from treadle.kernels.tiles import FAST, given


def margins(
    matrix: NDArray[np.float32],
    mean: NDArray[np.float64],
    factor: NDArray[np.float64],
    constant: NDArray[np.float64],
) -> NDArray[np.float64]:
    """float64 (rows, classes); each row is computed by itself, so that no other changes its last bit.

    Parameters
    ----------
    matrix : float32 (rows, features), C order
    mean : (classes, features)
    factor : (classes, features, features), or (classes, features) where it is diagonal
    constant : (classes,)
    """
    out = np.empty((len(matrix), len(mean)))
    kernel = _margins_of_diagonal if factor.ndim == 2 else _margins
    kernel(given(matrix), given(mean), given(factor), given(constant), out)
    return out


def contributions(
    matrix: NDArray[np.float32],
    mean: NDArray[np.float64],
    factor: NDArray[np.float64],
    center: NDArray[np.float64],
    expected: NDArray[np.float64],
) -> NDArray[np.float64]:
    """phi, float64 (rows, classes, features).

    Parameters
    ----------
    matrix, mean, factor : as for `margins`
    center : (features,) the training rows' means
    expected : (classes, features), the sums over j of Q_ij M_ij
    """
    out = np.empty((len(matrix), *mean.shape))
    kernel = _contributions_of_diagonal if factor.ndim == 2 else _contributions
    kernel(given(matrix), given(mean), given(factor), given(center), out)
    out -= expected
    return out


@numba.njit(nogil=True, cache=True)
def _margins_of_diagonal(matrix, mean, factor, constant, out):  # type: ignore[no-untyped-def]
    for r in range(len(matrix)):
        for c in range(len(mean)):
            square = 0.0
            for j in range(matrix.shape[1]):
                part = factor[c, j] * (matrix[r, j] - mean[c, j])
                square += part * part
            out[r, c] = constant[c] - 0.5 * square


@numba.njit(nogil=True, cache=True, fastmath=FAST)
def _margins(matrix, mean, factor, constant, out):  # type: ignore[no-untyped-def]
    d = matrix.shape[1]
    apart = np.empty(d)
    for r in range(len(matrix)):
        for c in range(len(mean)):
            for j in range(d):
                apart[j] = matrix[r, j] - mean[c, j]
            square = 0.0
            for i in range(d):
                part = 0.0
                for j in range(d):
                    part += factor[c, i, j] * apart[j]
                square += part * part
            out[r, c] = constant[c] - 0.5 * square


@numba.njit(nogil=True, cache=True)
def _contributions_of_diagonal(matrix, mean, factor, center, out):  # type: ignore[no-untyped-def]
    for r in range(len(matrix)):
        for c in range(len(mean)):
            for j in range(matrix.shape[1]):
                # With Q diagonal (u - e) Qu + u Qe is Q u^2.
                part = factor[c, j] * (matrix[r, j] - mean[c, j])
                out[r, c, j] = -0.5 * part * part


@numba.njit(nogil=True, cache=True, fastmath=FAST)
def _contributions(matrix, mean, factor, center, out):  # type: ignore[no-untyped-def]
    d = matrix.shape[1]
    apart, bent = np.empty(d), np.empty(d)
    usual, bent_usual = np.empty((len(mean), d)), np.empty((len(mean), d))
    for c in range(len(mean)):
        for j in range(d):
            usual[c, j] = center[j] - mean[c, j]
        _bend(factor[c], usual[c], bent_usual[c])
    for r in range(len(matrix)):
        for c in range(len(mean)):
            for j in range(d):
                apart[j] = matrix[r, j] - mean[c, j]
            _bend(factor[c], apart, bent)
            for j in range(d):
                out[r, c, j] = (apart[j] - usual[c, j]) * bent[j] + apart[j] * bent_usual[c, j]


@numba.njit(nogil=True, cache=True, fastmath=FAST)
def _bend(factor, vector, out):  # type: ignore[no-untyped-def]
    """Q times a vector, by way of the factor, which rounds less than Q would."""
    d = len(vector)
    out[:] = 0.0
    for i in range(d):
        part = 0.0
        for j in range(d):
            part += factor[i, j] * vector[j]
        for j in range(d):
            out[j] -= 0.5 * part * factor[i, j]
