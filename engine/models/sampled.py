"""Models without a closed form of their Shapley values: these are enumerated for few features, else sampled.

Absent features have the values of background rows, which are kept with the model. For each of them some orders of
the features are drawn when the model is trained. From the background row to the row that is explained, features
change in that order and, as an antithetic draw, in its reverse; what the margin changes by is their contribution.
Whatever is drawn, contributions and bias add up to the margin. How the orders of a background row differ from each
other tells the standard error.

Sources: Castro, Gomez and Tejada, "Polynomial calculation of the Shapley value based on sampling", Computers and
Operations Research 36 (2009); Mitchell, Cooper, Frank and Holmes, "Sampling permutations for Shapley value
estimation", Journal of Machine Learning Research 23 (2022), for antithetic permutations.
"""

from __future__ import annotations

import functools
import math
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from treadle.engine.models.base import Model
from treadle.errors import DataError
from treadle.kernels.hashing import mix64

MOST_EVALUATIONS = 8192
"""Margins that are computed to explain one row."""
MOST_BACKGROUND = 100
FEWEST_BACKGROUND = 4
FEWEST_FOR_ALL = 8
"""Background rows with which all coalitions are enumerated, if not sampled."""
FEWEST_ORDERS = 2
"""Of a background row, so that they can be compared."""
MEASURED_ROWS = 10
"""Training rows on which the standard error is measured."""
CELLS = 2**20
"""Cells of the rows that are made at a time."""


@dataclass(frozen=True, eq=False)
class Background:
    """What contributions are measured from, and how they are sampled."""

    rows: np.ndarray
    """float32 (rows, features)."""
    orders: np.ndarray
    """int32 (rows, orders, features): orders of the features; of no rows when all coalitions are enumerated."""
    probes: np.ndarray
    """float32 (some, features): other training rows, on which the standard error is measured."""

    def arrays(self) -> dict[str, np.ndarray]:
        """By names for `of`."""
        return {"background": self.rows, "orders": self.orders, "probes": self.probes}

    @classmethod
    def of(cls, arrays: Mapping[str, np.ndarray]) -> Background:
        return cls(arrays["background"], arrays["orders"], arrays["probes"])


def draw_background(matrix: np.ndarray, evaluations: int, seed: int) -> Background:
    """Rows of a training matrix (rows, features) by a hash of their places, and orders by a generator of this seed.

    `evaluations` is about how many margins explaining a row may take; it decides how many rows are drawn. All
    coalitions are enumerated when that leaves FEWEST_FOR_ALL rows at least.
    """
    features = matrix.shape[1]
    place = np.argsort(mix64(np.arange(len(matrix), dtype=np.uint64), seed), kind="stable")
    exact = FEWEST_FOR_ALL << features <= evaluations
    walks = 1 if exact else evaluations // (2 * (features - 1))
    wanted = evaluations >> features if exact else max(walks // FEWEST_ORDERS, FEWEST_BACKGROUND)
    wanted = min(wanted, MOST_BACKGROUND, len(matrix))
    # Of few training rows some are both.
    probes = matrix[np.roll(place, -wanted)[:MEASURED_ROWS]].astype(np.float32)
    rows = matrix[np.sort(place[:wanted])].astype(np.float32)
    if exact:
        return Background(rows, np.empty((0, 0, features), dtype=np.int32), probes)
    each = max(walks // len(rows), FEWEST_ORDERS)
    orders = np.tile(np.arange(features, dtype=np.int32), (len(rows), each, 1))
    return Background(rows, np.random.default_rng(seed).permuted(orders, axis=2), probes)


class SampledModel(Model):
    """A model of which only margins are known. Rows with nulls are refused."""

    background: Background

    @abstractmethod
    def _raw(self, matrix: np.ndarray) -> np.ndarray:
        """float64 (rows, outputs) of at least one float32 row without nulls; by row, whatever rows are beside it."""

    @property
    def method(self) -> str:
        of = f"absent features from {len(self.background.rows)} training rows"
        if not len(self.background.orders):
            return f"Shapley values, exact over all coalitions, {of}"
        permutations = self.background.orders.shape[0] * self.background.orders.shape[1]
        return (
            f"Shapley values, {of}, sampled with {permutations} permutations and their reverses; "
            f"mean standard error {self.error:.2g}, in the unit of the margin"
        )

    @functools.cached_property
    def error(self) -> float:
        """Mean standard error of a contribution, over features, outputs and some training rows, in the margin's unit.

        It is measured when it is asked for: models that are only compared need none.
        """
        probes = self.background.probes
        return float(
            np.mean([self._sampled(row, margin)[1] for row, margin in zip(probes, self._raw(probes), strict=True)])
        )

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

    def _mixed(self, row: np.ndarray, count: int, present: Callable[[np.ndarray], Any]) -> np.ndarray:
        """Margins (count, outputs) of rows that are mixed of `row` and of a background row.

        `present` says of some numbers below `count` which background row (numbers,) it is, and which features are
        those of `row`: bool (numbers, features).
        """
        parts = []
        step = max(1, CELLS // self.features)
        for low in range(0, count, step):
            number, mask = present(np.arange(low, min(low + step, count)))
            parts.append(self._raw(np.where(mask, row, self.background.rows[number])))
        return np.concatenate(parts)

    @functools.cached_property
    def _rank(self) -> np.ndarray:
        """int32 (background rows * orders, features): the place of a feature in each order."""
        return np.argsort(self.background.orders, axis=2).astype(np.int32).reshape(-1, self.features)

    def _sampled(self, row: np.ndarray, margin: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Contributions to the margin (outputs,), and their standard errors: (outputs, features) both."""
        orders = self.background.orders
        count, each, n = orders.shape
        rank = self._rank

        def present(number: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            order, step = np.divmod(number, 2 * (n - 1))
            # Forward, then in reverse.
            shown, back = (step % (n - 1) + 1)[:, None], (step >= n - 1)[:, None]
            ranks = rank[order]
            return order // each, np.where(back, ranks >= n - shown, ranks < shown)

        walked = np.empty((count, each, 2, n + 1, self.outputs))
        walked[:, :, :, 0] = self._base[:, None, None]
        walked[:, :, :, 1:-1] = self._mixed(row, 2 * each * count * (n - 1), present).reshape(
            count, each, 2, n - 1, self.outputs
        )
        walked[:, :, :, -1] = margin
        changes = np.diff(walked, axis=3)
        forward = np.empty((count, each, n, self.outputs))
        reverse = np.empty_like(forward)
        np.put_along_axis(forward, orders[..., None], changes[:, :, 0], axis=2)
        np.put_along_axis(reverse, orders[:, :, ::-1, None], changes[:, :, 1], axis=2)
        drawn = (forward + reverse) / 2
        # Background rows are given, so that only what differs among the orders of one is an error.
        error = np.sqrt(drawn.var(axis=1, ddof=1).sum(axis=0) / each) / count
        return drawn.mean(axis=(0, 1)).T, error.T

    @functools.cached_property
    def _coalitions(self) -> tuple[np.ndarray, np.ndarray]:
        """All coalitions, bool (2**features, features), by binary number; Shapley's weights by size without one."""
        n = self.features
        masks = (np.arange(1 << n)[:, None] >> np.arange(n) & 1).astype(bool)
        return masks, np.array([1.0 / (n * math.comb(n - 1, size)) for size in range(n)])

    def _enumerated(self, row: np.ndarray) -> np.ndarray:
        """Contributions (outputs, features) by the definition of Shapley values."""
        masks, weights = self._coalitions
        count = len(self.background.rows)
        mixed = self._mixed(row, count * len(masks), lambda number: (number % count, masks[number // count]))
        values = mixed.reshape(len(masks), count, self.outputs).mean(axis=1)
        sizes = masks.sum(axis=1)
        out = np.empty((self.outputs, self.features))
        for feature in range(self.features):
            without = np.flatnonzero(~masks[:, feature])
            gain = values[without | 1 << feature] - values[without]
            out[:, feature] = (weights[sizes[without], None] * gain).sum(axis=0)
        return out


def in_threads(work: Callable[[np.ndarray], Any], matrix: np.ndarray, outputs: int, block: int) -> np.ndarray:
    """`work` of parts of at most `block` rows, float64 (rows, outputs), on the threads of the task."""
    from treadle.engine.models.boosted import use_task_threads
    from treadle.kernels.parallel import over_rows

    use_task_threads()
    out = np.empty((len(matrix), outputs))

    def part(low: int, high: int) -> None:
        for start in range(low, high, block):
            rows = slice(start, min(start + block, high))
            out[rows] = work(matrix[rows])

    over_rows(part, len(matrix), block)
    return out
