"""What operations of `features` are fitted on: statistics of training rows, column by column, that merge."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from treadle.engine.encoders.base import Level, Statistic
from treadle.engine.encoders.columns import arrow, numbers
from treadle.kernels.moments import merge as merge_moments
from treadle.kernels.sketch import merge_all
from treadle.kernels.summary import Summariser

if TYPE_CHECKING:
    import pyarrow as pa

    from treadle.engine.artifacts import SplitRule
    from treadle.engine.encoders.columns import Column, Training


@dataclass(frozen=True)
class Request:
    """A statistic of a column; the target by level is gathered apart for each of the folds."""

    column: str
    statistic: Statistic
    folds: int = 0


@dataclass(frozen=True, eq=False)
class LevelCounts:
    """How often each value of a column occurs."""

    values: pa.Array
    """Distinct, without null, in any order."""
    counts: NDArray[np.int64]
    nulls: int

    @property
    def rows(self) -> int:
        return int(self.counts.sum()) + self.nulls

    def ordered(self) -> tuple[pa.Array, NDArray[np.int64]]:
        """Values, ascending (text by its code points), and counts."""
        import pyarrow.compute as pc

        order = pc.sort_indices(self.values)
        return self.values.take(order), self.counts[order.to_numpy()]

    def mode(self) -> Level:
        """The most frequent value, of several the smallest."""
        values, counts = self.ordered()
        mode: Level = values[int(counts.argmax())].as_py()
        return mode


@dataclass(frozen=True, eq=False)
class TargetLevels:
    """The target by level of a column and fold; after the last level stands null. Of classes there is a line each."""

    values: pa.Array
    """(levels,) distinct, without null, in any order."""
    counts: NDArray[np.int64]
    """(levels + 1, folds)"""
    sums: NDArray[np.float64]
    """(lines, levels + 1, folds): of the target, or rows of a class."""
    squares: NDArray[np.float64] | None
    """(levels + 1, folds): squared deviations from the mean of level and fold; None for classes."""
    classes: tuple[Level, ...]
    """Those that have a line, where there are more than two."""

    def ordered(self) -> TargetLevels:
        """The same with the values ascending."""
        import pyarrow.compute as pc

        order = pc.sort_indices(self.values).to_numpy()
        at = np.append(order, len(order)).astype(np.int64)
        squares = None if self.squares is None else self.squares[at]
        return TargetLevels(self.values.take(order), self.counts[at], self.sums[:, at], squares, self.classes)

    def deviations(self, line: int, folds: NDArray[np.int64]) -> NDArray[np.float64]:
        """(levels + 1,): the squared deviations of the rows of some folds from the mean of their level."""
        n, sums = self.counts[:, folds], self.sums[line][:, folds]
        count, total = np.maximum(n.sum(axis=1), 1), sums.sum(axis=1)
        if self.squares is None:  # of zeros and ones
            return total - total**2 / count
        means = sums / np.maximum(n, 1)
        return (self.squares[:, folds] + n * (means - (total / count)[:, None]) ** 2).sum(axis=1)


def gather(
    columns: Mapping[str, Column],
    requests: Sequence[Request],
    target: NDArray[np.float64],
    rule: SplitRule,
    training: Training | None,
) -> dict[Request, Any]:
    """The requested statistics of one partition's training rows; each column is passed over once."""
    found: dict[Request, Any] = {}
    summariser = Summariser(len(target))
    wanted = {request.column: [r for r in requests if r.column == request.column] for request in requests}
    for name, own in wanted.items():
        kinds = {request.statistic for request in own}
        if kinds & {"moments", "sketch"}:
            of = summariser.of(numbers(columns[name]), "moments" in kinds, "sketch" in kinds)
            found.update({r: of.moments if r.statistic == "moments" else of.sketch for r in own})
        if "levels" in kinds:
            counted = _level_counts(arrow(columns[name]))
            found.update({request: counted for request in own if request.statistic == "levels"})
        if "targets" in kinds and training is not None:
            codes, values = encoded(arrow(columns[name]))
            for request in own:
                if request.statistic == "targets":
                    found[request] = _targets(codes, values, target, rule, training.folds(request.folds), request.folds)
    return found


def encoded(values: pa.Array) -> tuple[NDArray[np.int64], pa.Array]:
    """A code for every value, -1 for null, and the distinct values that the codes count."""
    found = values.dictionary_encode()
    codes = found.indices.fill_null(-1) if found.indices.null_count else found.indices
    return codes.to_numpy().astype(np.int64), found.dictionary


def _level_counts(values: pa.Array) -> LevelCounts:
    import pyarrow.compute as pc

    counted = pc.value_counts(values)
    distinct, counts = counted.field("values"), counted.field("counts").to_numpy()
    if not values.null_count:
        return LevelCounts(distinct, counts, 0)
    return LevelCounts(
        distinct.drop_null(), counts[distinct.is_valid().to_numpy(zero_copy_only=False)], values.null_count
    )


def merge(partials: list[dict[Request, Any]]) -> dict[Request, Any]:
    """Statistics of several partitions as one."""
    return {r: _MERGES[r.statistic]([partial[r] for partial in partials]) for r in partials[0]}


def _united(arrays: Sequence[pa.Array]) -> tuple[list[NDArray[np.int64]], pa.Array]:
    """All values of several arrays, and where in them those of each array are."""
    import pyarrow as pa

    codes, values = encoded(pa.concat_arrays(arrays))
    return np.split(codes, np.cumsum([len(array) for array in arrays])[:-1]), values


def _merge_levels(found: Sequence[LevelCounts]) -> LevelCounts:
    places, values = _united([one.values for one in found])
    counts = np.zeros(len(values), dtype=np.int64)
    for place, one in zip(places, found, strict=True):
        counts[place] += one.counts
    return LevelCounts(values, counts, sum(one.nulls for one in found))


def _targets(
    codes: NDArray[np.int64],
    values: pa.Array,
    target: NDArray[np.float64],
    rule: SplitRule,
    folds: NDArray[np.int64],
    number: int,
) -> TargetLevels:
    known = ~np.isnan(target)
    if not known.all():
        codes, target, folds = codes[known], target[known], folds[known]
    shape = (len(values) + 1, number)
    cells = np.where(codes < 0, len(values), codes) * number + folds
    counts: NDArray[Any] = np.bincount(cells, minlength=shape[0] * number)
    classes: tuple[Level, ...] = ()
    if rule.task == "regression":
        sums: NDArray[Any] = np.bincount(cells, weights=target, minlength=counts.size)
        means = sums / np.maximum(counts, 1)
        squares: NDArray[Any] = np.bincount(cells, weights=(target - means[cells]) ** 2, minlength=counts.size)
        return TargetLevels(values, counts.reshape(shape), sums.reshape(1, *shape), squares.reshape(shape), classes)
    lines = [target == 1.0]
    if rule.task == "multiclass":
        classes = rule.classes
        lines = [target == code for code in range(len(classes))]
    sums = np.array([np.bincount(cells[line], minlength=counts.size) for line in lines], dtype=np.float64)
    return TargetLevels(values, counts.reshape(shape), sums.reshape(-1, *shape), None, classes)


def _merge_targets(found: Sequence[TargetLevels]) -> TargetLevels:
    places, values = _united([one.values for one in found])
    shape = (len(values) + 1, found[0].counts.shape[1])
    counts, sums = np.zeros(shape, dtype=np.int64), np.zeros((len(found[0].sums), *shape))
    squares = None if found[0].squares is None else np.zeros(shape)
    for place, one in zip(places, found, strict=True):
        at = np.append(place, len(values))
        if squares is not None and one.squares is not None:
            n, more = counts[at], one.counts
            # Chan, Golub and LeVeque (1979), equation 2.1; cells without rows have no mean and count for nothing.
            delta = one.sums[0] / np.maximum(more, 1) - sums[0, at] / np.maximum(n, 1)
            squares[at] += one.squares + delta**2 * (n * more / np.maximum(n + more, 1))
        counts[at] += one.counts
        sums[:, at] += one.sums
    return TargetLevels(values, counts, sums, squares, found[0].classes)


_MERGES: Mapping[Statistic, Callable[[Sequence[Any]], Any]] = {
    "moments": functools.partial(functools.reduce, merge_moments),
    "sketch": merge_all,
    "levels": _merge_levels,
    "targets": _merge_targets,
}
