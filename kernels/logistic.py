"""Loss, gradient and Hessian of logistic regression over rows: what a Newton step needs of a part of the data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from treadle.kernels.cuda import on_device
from treadle.kernels.tiles import FAST, ROWS, add_products, fill, given, padded, symmetric


@dataclass(frozen=True, eq=False)
class Curve:
    """Sums over rows at some coefficients; `gradient` (outputs, m) and `hessian` (outputs, outputs, m, m), or empty.

    m are the features, and one more that is 1, for the intercept. With two classes there is one output.
    """

    loss: float
    gradient: NDArray[np.float64]
    hessian: NDArray[np.float64]


def curve(
    matrix: NDArray[np.float32],
    codes: NDArray[Any],
    index: NDArray[np.int64],
    weight: NDArray[np.float64] | None,
    factors: NDArray[np.float64],
    shift: NDArray[np.float64],
    scale: NDArray[np.float64],
    coefficients: NDArray[np.float64],
    hessian: bool = True,
) -> Curve:
    """Of some rows of a matrix without nulls, features as (value - shift) * scale.

    The loss of a row is -log of the probability of its class: by the logistic function with one output, by
    softmax with several.

    Parameters
    ----------
    matrix : float32 (rows, features), C order; of one on a GPU sums are made there (`treadle.kernels.cuda.logistic`)
    codes : (rows,) the class of a row
    index : the rows to take
    weight : (rows,); 1 when None
    factors : (classes,) what weights are multiplied by
    coefficients : (1 or classes, features + 1), the intercept last
    """
    if on_device(matrix):
        from treadle.kernels.cuda.logistic import curve as curve_on_device

        return curve_on_device(matrix, codes, index, weight, factors, shift, scale, coefficients, hessian)
    q, m = coefficients.shape
    p = padded(m)
    wide = np.zeros((q, p))
    wide[:, :m] = coefficients
    gradient = np.zeros((q, p))
    products = np.zeros((q * (q + 1) // 2 if hessian else 0, p, p))
    none = given(None, (len(matrix), 0))
    rows = given(matrix), none, given(codes), given(index), given(weight)
    loss = _gather(*rows, given(factors), given(shift), given(scale), wide, gradient, products)
    whole = np.empty((q if hessian else 0, q, m, m))
    if hessian:
        pairs = symmetric(products, m)
        a, b = np.tril_indices(q)
        whole[a, b] = whole[b, a] = pairs
    return Curve(loss, gradient[:, :m], whole)


@numba.njit(nogil=True, cache=True, fastmath=FAST)
def _gather(matrix, none, codes, order, weight, factors, shift, scale, wide, gradient, products):  # type: ignore[no-untyped-def]
    q, p = wide.shape
    d = matrix.shape[1]
    tile, heavy = np.zeros((p, ROWS)), np.zeros((p, ROWS))
    chance, mass = np.zeros((q, ROWS)), np.zeros(ROWS)
    bend = np.zeros(ROWS)
    total = 0.0
    for start in range(0, len(order), ROWS):
        stop = min(start + ROWS, len(order))
        rows = stop - start
        fill(matrix, none, order, start, stop, shift, scale, tile)
        tile[d, :rows] = 1.0
        for k in range(rows):
            row = order[start + k]
            mass[k] = factors[int(codes[row])] * (weight[row] if len(weight) else 1.0)
        for a in range(q):
            chance[a] = 0.0
            for j in range(d + 1):
                for k in range(rows):
                    chance[a, k] += wide[a, j] * tile[j, k]
        # From margins to probabilities, and the loss.
        for k in range(rows):
            code = int(codes[order[start + k]])
            if q == 1:
                margin = chance[0, k]
                small = np.exp(-abs(margin))
                loss = np.log1p(small) + max(margin, 0.0) - (margin if code == 1 else 0.0)
                chance[0, k] = (1.0 if margin >= 0.0 else small) / (1.0 + small)
            else:
                top = chance[0, k]
                for a in range(1, q):
                    top = max(top, chance[a, k])
                own = chance[code, k]
                whole = 0.0
                for a in range(q):
                    chance[a, k] = np.exp(chance[a, k] - top)
                    whole += chance[a, k]
                for a in range(q):
                    chance[a, k] /= whole
                loss = np.log(whole) + top - own
            total += mass[k] * loss
        for a in range(q):
            for b in range(a + 1 if len(products) else 0):
                for k in range(rows):
                    bend[k] = mass[k] * chance[a, k] * ((1.0 if a == b else 0.0) - chance[b, k])
                for j in range(d + 1):
                    for k in range(rows):
                        heavy[j, k] = bend[k] * tile[j, k]
                add_products(heavy, tile, rows, products[a * (a + 1) // 2 + b])
        for a in range(q):
            for k in range(rows):
                is_own = int(codes[order[start + k]]) == (1 if q == 1 else a)
                bend[k] = mass[k] * (chance[a, k] - (1.0 if is_own else 0.0))
            for j in range(d + 1):
                slope = 0.0
                for k in range(rows):
                    slope += bend[k] * tile[j, k]
                gradient[a, j] += slope
    return total


def merge(a: Curve, b: Curve) -> Curve:
    """Of two disjoint parts together."""
    return Curve(a.loss + b.loss, a.gradient + b.gradient, a.hessian + b.hessian)


def merge_all(parts: Sequence[Curve]) -> Curve:
    """Of several disjoint parts, at least one, in their order."""
    return reduce(merge, parts)
