"""Layers of a multilayer perceptron. A row's sums run in one order whatever rows are beside it, unlike BLAS's."""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray


@numba.njit(cache=True, nogil=True)
def affine(rows: NDArray[np.float64], weights: NDArray[np.float64], bias: NDArray[np.float64]) -> NDArray[np.float64]:
    """rows . weights + bias: float64 (rows, outputs) of C-ordered (rows, inputs), (inputs, outputs), (outputs,)."""
    out = np.empty((rows.shape[0], weights.shape[1]))
    for i in range(rows.shape[0]):
        for k in range(weights.shape[1]):
            out[i, k] = bias[k]
        for j in range(rows.shape[1]):
            value = rows[i, j]
            for k in range(weights.shape[1]):
                out[i, k] += value * weights[j, k]
    return out
