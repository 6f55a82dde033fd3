"""frequency and target_encode: a level as the share of the rows that have it, or as the mean of their target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from treadle.engine.encoders.base import Fitted, Kind, Level, Operation, Statistic, Titles, all_null
from treadle.engine.encoders.columns import UNSEEN, Training
from treadle.engine.encoders.levels import Levels, unseen_error

if TYPE_CHECKING:
    from treadle.engine.encoders.columns import Column
    from treadle.engine.statistics import LevelCounts, TargetLevels

ANY = frozenset[Kind]({"text", "number", "indicator"})


class FittedWorth(Fitted):
    """What is common to both: levels with what they are worth, and a policy for values that are no level."""

    levels: dict[str, Levels]
    unseen: str

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.levels)

    def place(self, name: str, kind: Kind) -> Titles:
        return [(name, "number")]

    def _codes(self, name: str, column: Column) -> NDArray[np.int32]:
        codes = self.levels[name].codes(column)
        if self.unseen == "error" and (codes == UNSEEN).any():
            raise unseen_error(name, column, codes, [*self.levels[name]])
        return codes

    def _known(self, codes: NDArray[np.int32], values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.where(codes == UNSEEN, np.nan, values) if self.unseen == "ignore" else values


class FittedFrequency(FittedWorth):
    op: Literal["frequency"] = "frequency"

    def effect(self, name: str, column: Column, training: Training | None) -> Sequence[Column]:
        codes = self._codes(name, column)
        worth = self.levels[name].worth
        assert worth is not None
        return [self._known(codes, worth[0][codes])]


class Frequency(Operation):
    """The share of the training rows that have the value; null is a value like any other."""

    op: Literal["frequency"]
    unseen: Literal["zero", "ignore", "error"] = "zero"
    """A value that the training rows did not have: 0, null, or an error."""

    def statistic(self) -> Statistic | None:
        return "levels"

    def accepted(self) -> frozenset[Kind]:
        return ANY

    def fit(self, names: Sequence[str], statistics: Mapping[str, Any]) -> Fitted:
        return FittedFrequency(levels={name: _shares(statistics[name]) for name in names}, unseen=self.unseen)

    def outline(self, names: Sequence[str]) -> Fitted:
        return FittedFrequency(levels={name: Levels() for name in names}, unseen=self.unseen)


def _shares(found: LevelCounts) -> Levels:
    values, counts = found.ordered()
    return Levels(values, np.array([[*counts, 0, found.nulls]]) / max(found.rows, 1))


class FittedTarget(FittedWorth):
    """target_encode: training rows get what the other folds' rows say, all other rows what all training rows say."""

    op: Literal["target_encode"] = "target_encode"
    classes: tuple[Level, ...] = ()
    """With more than two classes: those that have a column."""
    folds: int
    held_out: dict[str, Levels] = Field(default_factory=dict)
    """What levels are worth to the rows of each fold, fold by fold; left out where no training rows are to come."""

    def place(self, name: str, kind: Kind) -> Titles:
        return [(f"{name}~{level}", "number") for level in self.classes] or super().place(name, kind)

    def effect(self, name: str, column: Column, training: Training | None) -> Sequence[Column]:
        codes = self._codes(name, column)
        worth = self.levels[name].worth
        assert worth is not None
        made = [self._known(codes, line[codes]) for line in worth]
        if training is None or name not in self.held_out:
            return made
        folds = training.folds(self.folds)
        rows = np.flatnonzero(folds >= 0)
        held_out = self.held_out[name].worth
        assert held_out is not None
        for number, values in enumerate(made):
            values[rows] = held_out[folds[rows] * len(worth) + number, codes[rows]]
        return made

    def at_prediction(self) -> FittedTarget:
        """The same for rows that are no training rows."""
        return self.model_copy(update={"held_out": {}})


class TargetEncode(Operation):
    """The mean of the target over the training rows with the same value, drawn towards the mean of all.

    A training row's own target has no part in its value: the training rows are divided into folds by a
    hash of their ids, and each gets the means of the other folds. Test rows and rows to predict get those
    of all training rows. Of more than two classes, each is a target of its own, 1 or 0, with a column of
    its own. Null is a value like any other.

    A mean over n rows counts with the weight n / (n + m) and the overall mean with the rest, where m is
    the given `smoothing`, or, with `auto`, the value's variance over that of the whole target (empirical
    Bayes). Source: Micci-Barreca, "A preprocessing scheme for high-cardinality categorical attributes in
    classification and prediction problems", SIGKDD Explorations 3 (2001), equations 3 to 5.
    """

    op: Literal["target_encode"]
    smoothing: Literal["auto"] | Annotated[float, Field(ge=0)] = "auto"
    folds: Annotated[int, Field(ge=2, le=100)] = 5
    unseen: Literal["mean", "ignore", "error"] = "mean"
    """A value that the training rows did not have: the mean of all, null, or an error."""

    def statistic(self) -> Statistic | None:
        return "targets"

    def accepted(self) -> frozenset[Kind]:
        return ANY

    def fit(self, names: Sequence[str], statistics: Mapping[str, Any]) -> Fitted:
        levels, held_out = {}, {}
        classes: tuple[Level, ...] = ()
        for name in names:
            found: TargetLevels = statistics[name]
            if found.counts.sum() == 0:
                raise all_null("target_encode", name)
            found = found.ordered()
            every = np.arange(self.folds)
            levels[name] = Levels(found.values, self._encoded(found, every))
            others = [self._encoded(found, every[every != fold]) for fold in every]
            held_out[name] = Levels(found.values, np.concatenate(others))
            classes = found.classes
        return FittedTarget(levels=levels, held_out=held_out, classes=classes, folds=self.folds, unseen=self.unseen)

    def outline(self, names: Sequence[str]) -> Fitted:
        return FittedTarget(levels={name: Levels() for name in names}, folds=self.folds, unseen=self.unseen)

    def _encoded(self, found: TargetLevels, folds: NDArray[np.int64]) -> NDArray[np.float64]:
        """(lines, levels + 2): what the rows of some folds say of each level, of an unseen one, and of null."""
        counts = found.counts[:, folds].sum(axis=1)
        lines = []
        for line in range(len(found.sums)):
            sums = found.sums[line][:, folds].sum(axis=1)
            squares = found.deviations(line, folds)
            total = int(counts.sum())
            mean = sums.sum() / max(total, 1)
            means = np.where(counts > 0, sums / np.maximum(counts, 1), mean)
            if self.smoothing == "auto":
                variance = (squares.sum() + (counts * (means - mean) ** 2).sum()) / max(total, 1)
                own = squares / np.maximum(counts, 1)
                weight = _ratio(variance * counts, variance * counts + own)
            else:
                weight = _ratio(counts, counts + self.smoothing)
            worth = weight * means + (1 - weight) * mean
            lines.append([*worth[:-1], mean, worth[-1]])
        return np.array(lines)


def _ratio(part: NDArray[Any], whole: NDArray[Any]) -> NDArray[np.float64]:
    """Their quotient; 0 where the whole is."""
    return np.divide(part, whole, out=np.zeros(len(whole)), where=whole != 0)
