"""Models without a closed form of their Shapley values: these are enumerated for few features, else sampled.

Absent features have the values of background rows, which are kept with the model. For each of them one order of
the features is drawn when the model is trained. From the background row to the row that is explained, features
change in that order and, as an antithetic draw, in its reverse; what the margin changes by is their contribution.
Whatever is drawn, contributions and bias add up to the margin.

Sources: Castro, Gomez and Tejada, "Polynomial calculation of the Shapley value based on sampling", Computers and
Operations Research 36 (2009); Mitchell, Cooper, Frank and Holmes, "Sampling permutations for Shapley value
estimation", Journal of Machine Learning Research 23 (2022), for antithetic permutations.
"""

from __future__ import annotations

import functools
import math
from abc import abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from treadle.engine.models.base import Model
from treadle.errors import DataError
from treadle.kernels.hashing import mix64

MOST_EVALUATIONS = 8192
"""Margins that are computed to explain one row."""
MOST_BACKGROUND = 100
FEWEST_BACKGROUND = 8
FEWEST_ORDERS = 4
MEASURED_ROWS = 20
"""Training rows on which the standard error is measured."""
CELLS = 2**20
"""Cells of the rows that are made at a time."""


@dataclass(frozen=True, eq=False)
class Background:
    """What contributions are measured from, and how they are sampled."""

    rows: np.ndarray
    """float32 (rows, features)."""
    orders: np.ndarray
    """int32 (rows, features): one order of the features a row; (0, features) when all coalitions are enumerated."""
    error: float = 0.0
    """Mean standard error of a contribution, over features, outputs and some training rows, in the margin's unit."""


def draw_background(matrix: np.ndarray, evaluations: int, seed: int) -> Background:
    """Rows of a training matrix (rows, features) by a hash of their places, and orders by a generator of this seed.

    `evaluations` is about how many margins explaining a row may take; it decides how many rows are drawn. All
    coalitions are enumerated when that leaves FEWEST_BACKGROUND rows at least.
    """
    features = matrix.shape[1]
    place = np.argsort(mix64(np.arange(len(matrix), dtype=np.uint64), seed), kind="stable")
    exact = FEWEST_BACKGROUND << features <= evaluations
    wanted = evaluations >> features if exact else max(evaluations // (2 * (features - 1)), FEWEST_ORDERS)
    rows = matrix[np.sort(place[: min(wanted, MOST_BACKGROUND)])].astype(np.float32)
    generator = np.random.default_rng(seed)
    orders = np.empty((0, features)) if exact else [generator.permutation(features) for _ in rows]
    return Background(rows, np.asarray(orders, dtype=np.int32))


class SampledModel(Model):
    """A model of which only margins are known. Rows with nulls are refused."""

    background: Background

    @abstractmethod
    def _raw(self, matrix: np.ndarray) -> np.ndarray:
        """float64 (rows, outputs) of at least one float32 row without nulls; by row, whatever rows are beside it."""

    @property
    def method(self) -> str:
        rows = len(self.background.rows)
        if not len(self.background.orders):
            return f"Shapley values, exact over all coalitions, absent features from {rows} training rows"
        return (
            f"Shapley values, sampled: {rows} permutations and their reverses, each from a training row; "
            f"mean standard error {self.background.error:.2g} of the margin"
        )

    def measured(self, matrix: np.ndarray, seed: int) -> None:
        """Measures the standard error on some rows of the training matrix."""
        if not len(self.background.orders):
            return
        place = np.argsort(mix64(np.arange(len(matrix), dtype=np.uint64), seed + 1), kind="stable")
        rows = matrix[place[:MEASURED_ROWS]].astype(np.float32)
        error = float(
            np.mean([self._sampled(row, margin)[1] for row, margin in zip(rows, self._raw(rows), strict=True)])
        )
        self.background = replace(self.background, error=error)

    def _margin(self, matrix: np.ndarray) -> np.ndarray:
        nulls = int(np.isnan(matrix).any(axis=1).sum())
        if nulls:
            raise DataError(
                f"{nulls} rows have nulls, which a {self.format} model cannot predict from; fill them in the input, "
                "or train with an impute operation on the columns."
            )
        margin = self._raw(matrix)
        return margin if self.task == "multiclass" else margin[:, 0]

    def _contributions(self, matrix: np.ndarray) -> np.ndarray:
        margin = np.reshape(self._margin(matrix), (len(matrix), self.outputs))
        out = np.empty((len(matrix), self.outputs, self.features + 1))
        out[:, :, -1] = self._base.mean(axis=0)
        for i, row in enumerate(matrix):
            # Each by itself, so that a row's do not depend on the rows beside it.
            out[i, :, :-1] = self._sampled(row, margin[i])[0] if len(self.background.orders) else self._enumerated(row)
        return out if self.task == "multiclass" else out[:, 0]

    @functools.cached_property
    def _base(self) -> np.ndarray:
        """(background rows, outputs): their margins."""
        return self._raw(self.background.rows)

    def _mixed(self, row: np.ndarray, present: np.ndarray) -> np.ndarray:
        """Margins (background rows, masks, outputs) of the row where `present` says so, elsewhere of the background.

        `present` is bool (background rows, masks, features), where the first axis may be 1.
        """
        background = self.background.rows
        step = max(1, CELLS // (present.shape[1] * self.features))
        parts = []
        for start in range(0, len(background), step):
            rows = background[start : start + step, None, :]
            mask = present if len(present) == 1 else present[start : start + step]
            mixed = np.where(mask, row, rows)
            parts.append(self._raw(mixed.reshape(-1, self.features)).reshape(*mixed.shape[:2], self.outputs))
        return np.concatenate(parts)

    @functools.cached_property
    def _walks(self) -> np.ndarray:
        """bool (background rows, 2 (features - 1), features): what is present on the way, forward and in reverse."""
        rank = np.argsort(self.background.orders, axis=1)[:, None, :]
        steps = np.arange(1, self.features)[:, None]
        return np.concatenate([rank < steps, rank >= self.features - steps], axis=1)

    def _sampled(self, row: np.ndarray, margin: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Contributions to the margin (outputs,), and their standard errors: (outputs, features) both."""
        orders, count, n = self.background.orders, len(self.background.orders), self.features
        walked = np.empty((count, 2, n + 1, self.outputs))
        walked[:, :, 0] = self._base[:, None]
        walked[:, :, 1:-1] = self._mixed(row, self._walks).reshape(count, 2, n - 1, self.outputs)
        walked[:, :, -1] = margin
        changes = np.diff(walked, axis=2)
        forward = np.empty((count, n, self.outputs))
        reverse = np.empty_like(forward)
        np.put_along_axis(forward, orders[:, :, None], changes[:, 0], axis=1)
        np.put_along_axis(reverse, orders[:, ::-1, None], changes[:, 1], axis=1)
        drawn = (forward + reverse) / 2
        error = drawn.std(axis=0, ddof=1) / math.sqrt(count) if count > 1 else np.zeros(drawn.shape[1:])
        return drawn.mean(axis=0).T, error.T

    @functools.cached_property
    def _coalitions(self) -> tuple[np.ndarray, np.ndarray]:
        """All coalitions, bool (2**features, features), by binary number; Shapley's weights by size without one."""
        n = self.features
        masks = (np.arange(1 << n)[:, None] >> np.arange(n) & 1).astype(bool)
        return masks, np.array([1.0 / (n * math.comb(n - 1, size)) for size in range(n)])

    def _enumerated(self, row: np.ndarray) -> np.ndarray:
        """Contributions (outputs, features) by the definition of Shapley values."""
        masks, weights = self._coalitions
        values = self._mixed(row, masks[None]).mean(axis=0)
        sizes = masks.sum(axis=1)
        out = np.empty((self.outputs, self.features))
        for feature in range(self.features):
            without = np.flatnonzero(~masks[:, feature])
            gain = values[without | 1 << feature] - values[without]
            out[:, feature] = (weights[sizes[without], None] * gain).sum(axis=0)
        return out


def row_ranges(rows: int, block: int) -> Iterator[slice]:
    """Consecutive ranges of at most `block` rows."""
    for start in range(0, rows, block):
        yield slice(start, min(start + block, rows))


def in_threads(work: Callable[[np.ndarray], Any], matrix: np.ndarray, outputs: int, block: int) -> np.ndarray:
    """`work` of parts of at most `block` rows, float64 (rows, outputs), on the threads of the task."""
    from treadle.engine.models.boosted import use_task_threads
    from treadle.kernels.parallel import over_rows

    use_task_threads()
    out = np.empty((len(matrix), outputs))

    def part(low: int, high: int) -> None:
        for rows in row_ranges(high - low, block):
            out[low:high][rows] = work(matrix[low:high][rows])

    over_rows(part, len(matrix), block)
    return out
