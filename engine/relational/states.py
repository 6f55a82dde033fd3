"""What each function of an aggregate keeps of a group: its state of some rows, merged states, and the outcome.

States are columns with a line a group. A state of states is a state again, and no order or tree of merges
changes the outcome (to rounding), except that `first` and `last` go by the order of the parts where rows
have no other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from treadle.engine.relational.keys import taken, values_of

if TYPE_CHECKING:
    import pandas as pd

    Columns = Mapping[str, pd.Series]


@dataclass(frozen=True)
class Groups:
    """Rows by group: the number of each one's group (rows,) int64, and how many groups there are."""

    codes: np.ndarray
    count: int


@dataclass(frozen=True)
class Order:
    """What the first and last of rows go by: a column, and among equals their places; as they come without any."""

    key: pd.Series | None = None
    place: pd.Series | None = None


class State:
    """One function. The base counts rows that are not null."""

    @property
    def kind(self) -> Any:
        """Equal for functions with the same state."""
        return type(self)

    def of_rows(self, series: pd.Series, order: Order, groups: Groups) -> dict[str, pd.Series]:
        from treadle.kernels.grouped import grouped_count

        return {"count": whole(grouped_count(groups.codes, series.notna().to_numpy(bool), groups.count))}

    def merge(self, states: Columns, groups: Groups) -> dict[str, pd.Series]:
        return {"count": total(states["count"], groups)}

    def finish(self, states: Columns) -> pd.Series:
        return states["count"]


class Sum(State):
    def of_rows(self, series: pd.Series, order: Order, groups: Groups) -> dict[str, pd.Series]:
        return {"sum": total(series, groups), **super().of_rows(series, order, groups)}

    def merge(self, states: Columns, groups: Groups) -> dict[str, pd.Series]:
        # A sum that is NaN, of infinities of both signs, is no null, and what it is added to is NaN as well.
        return {"sum": total(states["sum"], groups, every=True), **super().merge(states, groups)}

    def finish(self, states: Columns) -> pd.Series:
        return states["sum"].mask(states["count"] == 0)


class Mean(State):
    @property
    def kind(self) -> Any:
        return Mean

    def of_rows(self, series: pd.Series, order: Order, groups: Groups) -> dict[str, pd.Series]:
        from treadle.kernels.grouped import grouped_moments

        values, known = values_of(series)
        return _moments(*grouped_moments(groups.codes, values.astype("float64", copy=False), known, groups.count))

    def merge(self, states: Columns, groups: Groups) -> dict[str, pd.Series]:
        from treadle.kernels.grouped import merged_moments

        counts, _ = values_of(states["count"])
        mean, m2 = states["mean"].to_numpy(), states["m2"].to_numpy()
        return _moments(*merged_moments(groups.codes, counts, mean, m2, groups.count))

    def finish(self, states: Columns) -> pd.Series:
        return states["mean"]


class Std(Mean):
    def finish(self, states: Columns) -> pd.Series:
        count = states["count"].astype("float64")
        return (states["m2"] / (count - 1).where(count > 1)) ** 0.5


class Extreme(State):
    """min or max, of any kind."""

    def __init__(self, largest: bool) -> None:
        self.largest = largest

    @property
    def kind(self) -> Any:
        return Extreme, self.largest

    def of_rows(self, series: pd.Series, order: Order, groups: Groups) -> dict[str, pd.Series]:
        from treadle.kernels.grouped import grouped_extreme

        values, known = sortable(series)
        return {"value": taken(series, grouped_extreme(groups.codes, values, known, groups.count, self.largest))}

    def merge(self, states: Columns, groups: Groups) -> dict[str, pd.Series]:
        return self.of_rows(states["value"], Order(), groups)

    def finish(self, states: Columns) -> pd.Series:
        return states["value"]


class End(State):
    """first or last value that is not null, by the order column, and among equals as the rows come."""

    def __init__(self, last: bool) -> None:
        self.last = last

    @property
    def kind(self) -> Any:
        return End, self.last

    def of_rows(self, series: pd.Series, order: Order, groups: Groups) -> dict[str, pd.Series]:
        from treadle.kernels.grouped import grouped_last

        known = series.notna().to_numpy(bool)
        codes, keys = groups.codes, np.zeros(len(series), dtype=np.int64)
        if order.key is not None:
            keys, has_key = values_of(order.key)
            known = known & has_key
        place = np.arange(len(series))
        if order.place is not None:
            place = np.argsort(values_of(order.place)[0], kind="stable")
        choose = grouped_last if self.last else _first
        at = choose(codes[place], keys[place], known[place], groups.count)
        at = np.where(at < 0, -1, place[at])
        found = {"value": series, "key": order.key, "place": order.place}
        return {name: taken(column, at) for name, column in found.items() if column is not None}

    def merge(self, states: Columns, groups: Groups) -> dict[str, pd.Series]:
        return self.of_rows(states["value"], Order(states.get("key"), states.get("place")), groups)

    def finish(self, states: Columns) -> pd.Series:
        return states["value"]


STATES: Mapping[str, State] = {
    "sum": Sum(), "mean": Mean(), "std": Std(), "count": State(),
    "min": Extreme(False), "max": Extreme(True), "first": End(False), "last": End(True),
}  # fmt: skip


def _first(codes: np.ndarray, keys: np.ndarray, known: np.ndarray, groups: int) -> np.ndarray:
    from treadle.kernels.grouped import grouped_extreme

    return grouped_extreme(codes, keys, known, groups, False)


def whole(values: np.ndarray) -> pd.Series:
    """int64 without nulls, as the engine's frames have it."""
    import pandas as pd

    return pd.Series(pd.arrays.IntegerArray(values, np.zeros(len(values), dtype=bool)))


def total(series: pd.Series, groups: Groups, every: bool = False) -> pd.Series:
    """Sums of a column, float for float and else int; 0 for groups without any value. With `every`, NaN is a value."""
    import pandas as pd

    from treadle.kernels.grouped import grouped_sum

    values, known = values_of(series)
    sums = grouped_sum(groups.codes, values, known | every, groups.count)
    return pd.Series(sums) if sums.dtype.kind == "f" else whole(sums)


def sortable(series: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    """Numbers in the order of a column's values, of any kind, and which are not null."""
    if series.dtype.kind not in "OU":
        return values_of(series)
    codes, levels = series.factorize()
    place = np.empty(len(levels) + 1, dtype=np.int64)
    place[np.asarray(levels.argsort())] = np.arange(len(levels))
    return place[codes], codes >= 0


def _moments(count: np.ndarray, mean: np.ndarray, m2: np.ndarray) -> dict[str, pd.Series]:
    import pandas as pd

    return {"count": whole(count), "mean": pd.Series(mean), "m2": pd.Series(m2)}
