"""The nearest training rows of a row, by comparing it with all of them."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

BLOCK = 256
"""Training rows that are compared at a time: with 100 features a block takes 200 kB, and stays in a core's cache."""
SQUARE, ABSOLUTE, LARGEST, POWER = range(4)
"""How the differences of the features make a distance: sqrt(sum d^2), sum |d|, max |d|, (sum |d|^p)^(1/p)."""


def nearest(
    rows: NDArray[Any], training: NDArray[Any], neighbours: int, p: float
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Distances and places of the `neighbours` training rows that are nearest to each of `rows`, the nearest first.

    Of equally near ones the first in `training` counts as nearer. A distance is a sum of float64 over the features in
    their order, so that a row's neighbours depend on nothing but the row: matrix products, by which libraries get
    Euclidean distances faster, round by how many rows there are.

    Parameters
    ----------
    rows, training
        Host, float32 or float64, finite, (rows, features) and (training rows, features).
    neighbours
        At most as many as there are training rows.
    p
        The exponent of the Minkowski distance, at least 1; infinite for the largest difference (Chebyshev).

    Returns
    -------
    distances, places
        Host, float64 and int64, (rows, neighbours).
    """
    kind = {1.0: ABSOLUTE, 2.0: SQUARE, np.inf: LARGEST}.get(p, POWER)
    distances = np.full((len(rows), neighbours), np.inf)
    places = np.empty((len(rows), neighbours), dtype=np.int64)
    places[:] = np.arange(neighbours)
    _search(np.ascontiguousarray(rows, dtype=np.float64), training, kind, p, distances, places)
    if kind == SQUARE:
        np.sqrt(distances, out=distances)
    elif kind == POWER:
        np.power(distances, 1.0 / p, out=distances)
    return distances, places


@numba.njit(cache=True, nogil=True)
def _search(
    rows: NDArray[np.float64],
    training: NDArray[Any],
    kind: int,
    p: float,
    distances: NDArray[np.float64],
    places: NDArray[np.int64],
) -> None:
    count, features = training.shape
    block = np.empty((features, BLOCK))
    sums = np.empty(BLOCK)
    for start in range(0, count, BLOCK):
        size = min(BLOCK, count - start)
        for j in range(size):
            for feature in range(features):
                block[feature, j] = training[start + j, feature]
        for i in range(rows.shape[0]):
            sums[:] = 0.0
            _compare(rows[i], block, kind, p, sums)
            _keep(sums[:size], start, distances[i], places[i])


@numba.njit(cache=True, nogil=True)
def _compare(
    row: NDArray[np.float64], block: NDArray[np.float64], kind: int, p: float, sums: NDArray[np.float64]
) -> None:
    """Adds the features' differences from `row` up in `sums`, one for each of the block's training rows."""
    features = row.size
    if kind == SQUARE:
        # Four features at a time, so that the sums are read and written a fourth as often.
        whole = features - features % 4
        for feature in range(0, whole, 4):
            a, b, c, d = row[feature], row[feature + 1], row[feature + 2], row[feature + 3]
            for j in range(BLOCK):
                w, x = block[feature, j] - a, block[feature + 1, j] - b
                y, z = block[feature + 2, j] - c, block[feature + 3, j] - d
                sums[j] = sums[j] + w * w + x * x + y * y + z * z
        for feature in range(whole, features):
            for j in range(BLOCK):
                difference = block[feature, j] - row[feature]
                sums[j] += difference * difference
        return
    for feature in range(features):
        value = row[feature]
        if kind == ABSOLUTE:
            for j in range(BLOCK):
                sums[j] += abs(block[feature, j] - value)
        elif kind == LARGEST:
            for j in range(BLOCK):
                sums[j] = max(sums[j], abs(block[feature, j] - value))
        else:
            for j in range(BLOCK):
                sums[j] += abs(block[feature, j] - value) ** p


@numba.njit(cache=True, nogil=True)
def _keep(sums: NDArray[np.float64], start: int, distances: NDArray[np.float64], places: NDArray[np.int64]) -> None:
    """Puts training rows that are nearer than the farthest of those kept into their places in the order."""
    last = distances.size - 1
    for j in range(sums.size):
        if sums[j] >= distances[last]:
            continue
        at = last
        while at > 0 and distances[at - 1] > sums[j]:
            distances[at] = distances[at - 1]
            places[at] = places[at - 1]
            at -= 1
        distances[at] = sums[j]
        places[at] = start + j
