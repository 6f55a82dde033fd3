"""one_hot and ordinal: levels as columns, or as their position."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from treadle.engine.encoders.base import MAX_LEVELS, Fitted, Kind, Operation, Statistic, Titles, all_null
from treadle.engine.encoders.columns import NULL, UNSEEN, Indicator, Training
from treadle.engine.encoders.levels import Levels, unseen_error
from treadle.errors import DataError

if TYPE_CHECKING:
    from treadle.engine.encoders.columns import Column
    from treadle.engine.statistics import LevelCounts

OTHER = "other"
"""The level of rare values, and with `unseen: other` of those that the training rows did not have."""
Unseen = Literal["ignore", "other", "error"]


class FittedLevels(Fitted):
    """one_hot or ordinal: the levels of each column as the training rows had them."""

    op: Literal["one_hot", "ordinal"]
    levels: dict[str, Levels]
    rare: dict[str, int] = Field(default_factory=dict)
    """How many of the last levels of a column are rare, and have no code of their own."""
    missing: str | None
    unseen: Unseen

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.levels)

    def place(self, name: str, kind: Kind) -> Titles:
        if self.op == "ordinal":
            return [(name, "number")]
        own = [*self.levels[name]][: self._own(name)]
        named = [] if self._missing(name) < len(own) else [self.missing]
        other = [OTHER] if self._has_other(name) and self._other(name) == len(own) + len(named) else []
        return [(f"{name}={level}", "indicator") for level in (*own, *named, *other)]

    def effect(self, name: str, column: Column, training: Training | None) -> Sequence[Column]:
        codes = self._codes(name, column)
        if self.op == "ordinal":
            return [np.where(codes < 0, np.nan, codes)]
        return [Indicator(codes, code) for code in range(len(self.place(name, "text")))]

    def _own(self, name: str) -> int:
        """How many levels have a code of their own."""
        return len(self.levels[name]) - self.rare.get(name, 0)

    def _missing(self, name: str) -> int:
        """The code of nulls: that of the level of their name, else one of their own; -1 for none."""
        if self.missing is None:
            return -1
        own = self._own(name)
        at = self.levels[name].called(self.missing)
        return own if at is None or at >= own else at

    def _has_other(self, name: str) -> bool:
        return self.unseen == "other" or self.rare.get(name, 0) > 0

    def _other(self, name: str) -> int:
        """The code of rare and unseen values: one_hot's level `other` when there is one, else one of their own."""
        own = self._own(name)
        if self.op == "one_hot":
            if self.missing == OTHER:
                return self._missing(name)
            if (at := self.levels[name].called(OTHER)) is not None and at < own:
                return at
        return own + (self._missing(name) == own)

    def _codes(self, name: str, column: Column) -> npt.NDArray[np.int32]:
        """The code of every value; -1 for a null or an unseen value without a code."""
        levels = self.levels[name]
        codes = levels.codes(column)
        if self.unseen == "error" and (codes == UNSEEN).any():
            raise unseen_error(name, column, codes, [*levels])
        return self.table(name)[codes]

    def table(self, name: str) -> npt.NDArray[np.int32]:
        """(levels + 2,): the code of each level, of an unseen value, and of a null; -1 for none."""
        own = self._own(name)
        table = np.arange(len(self.levels[name]) + 2, dtype=np.int32)
        if self._has_other(name):
            table[own:] = self._other(name)
        if self.unseen != "other":
            table[UNSEEN] = -1
        table[NULL] = self._missing(name)
        return table


class _Categories(Operation):
    missing: str | None = None
    """Name of the level that nulls get; without it they get none (one_hot) or stay null (ordinal)."""
    unseen: Unseen = "ignore"
    """A value that the training rows did not have: no level, the level `other`, or an error."""
    min_count: Annotated[int, Field(ge=1)] = 1
    """Levels of fewer training rows are rare: together they are the level `other`."""
    min_share: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """The same, as a share of the training rows."""
    max_levels: Annotated[int, Field(ge=1)] | None = None
    """All levels but so many of the most frequent are rare; of equally frequent ones the first stay."""

    def statistic(self) -> Statistic | None:
        return "levels"

    def accepted(self) -> frozenset[Kind]:
        return frozenset({"text", "number", "indicator"})

    def fit(self, names: Sequence[str], statistics: Mapping[str, Any]) -> Fitted:
        levels, rare = {}, {}
        for name in names:
            levels[name], rare[name] = self._chosen(name, statistics[name])
        return self._fitted(levels, {name: number for name, number in rare.items() if number})

    def outline(self, names: Sequence[str]) -> Fitted:
        return self._fitted({name: Levels(["?"]) for name in names}, {})

    def _fitted(self, levels: dict[str, Levels], rare: dict[str, int]) -> FittedLevels:
        op: Any = getattr(self, "op", "")
        return FittedLevels(op=op, levels=levels, rare=rare, missing=self.missing, unseen=self.unseen)

    def _chosen(self, name: str, found: LevelCounts) -> tuple[Levels, int]:
        """The levels, in order, the rare ones last; and how many these are."""
        if not len(found.values) and self.missing is None:
            raise all_null(getattr(self, "op", ""), name)
        values, counts = found.ordered()
        kept = (counts >= self.min_count) & (counts >= self.min_share * found.rows)
        if self.max_levels is not None:
            kept[np.argsort(-counts, kind="stable")[self.max_levels :]] = False
        order = np.flatnonzero(kept)
        # Where unseen values go the same way, nobody has to know which were rare.
        if self.unseen != "other":
            order = np.concatenate([order, np.flatnonzero(~kept)])
        return Levels(values.take(order)), int(len(order) - kept.sum())


class OneHot(_Categories):
    """One 0/1 column a level, named `column=level`, levels sorted."""

    op: Literal["one_hot"]

    def _chosen(self, name: str, found: LevelCounts) -> tuple[Levels, int]:
        levels, rare = super()._chosen(name, found)
        if len(levels) - rare > MAX_LEVELS:
            raise DataError(
                f"one_hot: column '{name}' has {len(levels) - rare} levels, more than {MAX_LEVELS}; "
                "use ordinal or hash_encode for it, group rare levels with min_count or max_levels, or drop it."
            )
        return levels, rare


class Ordinal(_Categories):
    """The position of the value among the sorted levels; null stays null unless `missing` names it."""

    op: Literal["ordinal"]
