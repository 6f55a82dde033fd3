"""The operation `aggregate`: what one partition contributes, how contributions merge, what comes of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from treadle.engine.operation import ROW_ID, ROW_ORDER, Operation
from treadle.engine.relational import sketches, values
from treadle.engine.relational.keys import codes_of, index_of, kind_of, matches, taken, with_columns
from treadle.engine.relational.states import STATES, Groups, Order, total, whole
from treadle.errors import RequestError

if TYPE_CHECKING:
    import pandas as pd

    Partial = dict[str, pd.DataFrame]

Function = Literal[
    "sum", "mean", "std", "min", "max", "count", "first", "last", "nunique", "approx_nunique", "mode", "median",
    "quantile",
]  # fmt: skip
NUMERIC_FUNCTIONS = frozenset({"sum", "mean", "std", "median", "quantile"})
GROUPS = "groups"
"""The part of a partial with a line a group: its keys, its rows, and the states of the functions."""
PAIRS, SKETCHES = "pairs:", "sketches:"
"""How the other parts begin; the column follows."""
ROWS = f"{ROW_ID}:rows"


class Aggregation(BaseModel):
    """One output column of an aggregate; nulls are left out, as in SQL."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    function: Function
    column: str | None = None
    """May be absent for count, which then counts rows."""
    q: Annotated[float, Field(ge=0, le=1)] | None = None
    """Which quantile: 0.9 is the value that nine tenths of the rows do not exceed."""

    @model_validator(mode="after")
    def _has_column(self) -> Aggregation:
        if self.column is None and self.function != "count":
            raise PydanticCustomError(
                "column",
                "column: missing; only count works without one, not {function}",
                {"function": self.function},
            )
        if (self.q is None) == (self.function == "quantile"):
            raise PydanticCustomError("q", "q: it is needed with function: quantile, and only there")
        return self


class Aggregate(Operation):
    """Groups rows by keys (null is a key like any other): one row a group, or added to every row."""

    op: Literal["aggregate"]
    by: tuple[str, ...] = Field(min_length=1)
    aggregations: dict[str, Aggregation] = Field(min_length=1)
    broadcast: bool = False
    order: str | None = None
    """What first and last go by, rows where it is null left out; the order of the rows when absent."""

    @model_validator(mode="after")
    def _names_differ(self) -> Aggregate:
        names = [*self.by, *self.aggregations]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise PydanticCustomError(
                "aggregate_twice",
                "by and aggregations: '{name}' is there twice; every key and outcome needs a name of its own",
                {"name": twice[0]},
            )
        if self.order is not None and not any(a.function in ("first", "last") for a in self.aggregations.values()):
            raise PydanticCustomError("order", "order: it is what first and last go by, and neither is asked for")
        return self

    @property
    def reads(self) -> tuple[str, ...]:
        return self.by

    @property
    def gathers(self) -> tuple[str, ...]:
        """The columns that `partial` needs."""
        columns = [*(a.column for a in self.aggregations.values()), self.order]
        return tuple(dict.fromkeys([*self.by, *(column for column in columns if column is not None)]))

    @property
    def is_holistic(self) -> bool:
        """Whether a function needs all values of a group, so that partials may be as large as the rows."""
        return any(a.function in values.FUNCTIONS for a in self.aggregations.values())

    @property
    def mergeable(self) -> str:
        """What could stand in place of the functions that need all values of a group, for a message; or ''."""
        functions = {a.function for a in self.aggregations.values()} & values.FUNCTIONS
        if not functions & {"nunique"}:
            return ""
        others = sorted(functions - {"nunique"})
        rest = f" (there is nothing of that kind for {', '.join(others)}: leave it out)" if others else ""
        return f", or take approx_nunique for nunique, which no group is too large for{rest}"

    def needs(self, wanted: frozenset[str], side_columns: Sequence[str] = ()) -> frozenset[str]:
        return (wanted - set(self.aggregations)) | set(self.by)

    def makes(self, side_columns: Sequence[str] = ()) -> frozenset[str]:
        return frozenset(self.aggregations)

    def apply(self, frame: pd.DataFrame, side: pd.DataFrame | None = None) -> pd.DataFrame:
        """Adds the group table `side` to the rows; without one, the frame holds all rows of its groups."""
        kept = frame[[c for c in frame.columns if c not in self.aggregations]]
        if side is not None:
            keys = index_of(side[self.by[0]]) if len(self.by) == 1 else None
            if keys is None:
                return kept.merge(side, on=list(self.by), how="left")
            rows = matches(frame[self.by[0]], keys)
            return with_columns(kept, {name: taken(side[name], rows) for name in self.aggregations})
        codes, count = codes_of(frame, self.by)
        table = self._table(self._partial(frame, Groups(codes, count)))
        return with_columns(kept, {name: taken(table[name], codes) for name in self.aggregations})

    def partial(self, frame: pd.DataFrame) -> Partial:
        """What one partition contributes: `groups`; `pairs:<column>` where all values count, `sketches:<column>`."""
        return self._partial(frame, Groups(*codes_of(frame, self.by)))

    def _partial(self, frame: pd.DataFrame, groups: Groups) -> Partial:
        import pandas as pd

        self.check_types(frame)
        order = Order(None if self.order is None else frame[self.order], frame.get(ROW_ORDER))
        columns = {**_keys(frame, self.by, groups), ROWS: _rows(groups)}
        known: dict[Any, dict[str, pd.Series]] = {}
        parts: Partial = {}
        for name, aggregation in self.aggregations.items():
            column, function = aggregation.column, aggregation.function
            if function in values.FUNCTIONS:
                part = f"{PAIRS}{column}"
                parts[part] = parts[part] if part in parts else values.pairs_of(frame[column], groups)
            elif function in sketches.FUNCTIONS:
                part = f"{SKETCHES}{column}"
                parts[part] = parts[part] if part in parts else sketches.sketches_of(frame[column], groups)
            elif column is not None:
                state = STATES[function]
                if (state.kind, column) not in known:
                    known[state.kind, column] = state.of_rows(frame[column], order, groups)
                columns.update({f"{name}{ROW_ID}{key}": series for key, series in known[state.kind, column].items()})
        return {GROUPS: pd.DataFrame(columns), **parts}

    def merge(self, partials: Sequence[Partial]) -> Partial:
        """Partials of several partitions, in their order, as one; how they are taken together does not matter."""
        import pandas as pd

        if len(partials) == 1:
            return partials[0]
        rows = pd.concat([partial[GROUPS] for partial in partials], ignore_index=True)
        groups = Groups(*codes_of(rows, self.by))
        ends = np.cumsum([len(partial[GROUPS]) for partial in partials])
        numbers = np.split(groups.codes, ends[:-1])
        merged = {
            part: sketches.merge_sketches([partial[part] for partial in partials], numbers)
            if part.startswith(SKETCHES)
            else values.merge_pairs([partial[part] for partial in partials], numbers, groups.count)
            for part in partials[0]
            if part != GROUPS
        }
        columns = {**_keys(rows, self.by, groups), ROWS: total(rows[ROWS], groups)}
        for name, aggregation in self.aggregations.items():
            if aggregation.column is not None and aggregation.function in STATES:
                states = STATES[aggregation.function].merge(_states(rows, name), groups)
                columns.update({f"{name}{ROW_ID}{key}": series for key, series in states.items()})
        return {GROUPS: pd.DataFrame(columns), **merged}

    def finish(self, partial: Partial) -> pd.DataFrame:
        """The group table, sorted by its keys: the keys, then one column an aggregation."""
        return self._table(partial).sort_values(list(self.by), ignore_index=True)

    def _table(self, partial: Partial) -> pd.DataFrame:
        by, groups = list(self.by), partial[GROUPS]
        columns = {}
        for name, aggregation in self.aggregations.items():
            column, function = aggregation.column, aggregation.function
            if column is None:
                columns[name] = groups[ROWS]
            elif function in STATES:
                columns[name] = STATES[function].finish(_states(groups, name))
            elif function in sketches.FUNCTIONS:
                columns[name] = sketches.finish_sketches(partial[f"{SKETCHES}{column}"], len(groups))
            else:
                q = 0.5 if function == "median" else aggregation.q
                columns[name] = values.finish_pairs(partial[f"{PAIRS}{column}"], len(groups), function, q)
        return groups[by].assign(**columns)

    def check_types(self, frame: pd.DataFrame) -> None:
        """Refuses columns that a function, or the order, cannot take."""
        for name, aggregation in self.aggregations.items():
            if aggregation.column is not None:
                check_number(f"aggregate '{name}'", aggregation.function, frame[aggregation.column])
        if self.order is not None and frame[self.order].dtype.kind not in "iufM":
            raise RequestError(
                f"aggregate: order column '{self.order}' is {kind_of(frame[self.order])}; order by a time or a number."
            )


def check_number(where: str, function: str, series: pd.Series) -> None:
    """Refuses a column that the function cannot take."""
    kind = kind_of(series)
    if function in NUMERIC_FUNCTIONS and kind not in ("int", "float", "bool"):
        raise RequestError(
            f"{where}: {function} needs numbers, and column '{series.name}' is {kind}; cast it first, or use count, "
            "nunique, mode, first, last, min or max."
        )


def _keys(frame: pd.DataFrame, by: Sequence[str], groups: Groups) -> dict[str, pd.Series]:
    """The keys of each group, as its first row has them."""
    from treadle.kernels.grouped import first_and_count

    first, _ = first_and_count(groups.codes, groups.count)
    return {name: taken(frame[name], first) for name in by}


def _rows(groups: Groups) -> pd.Series:
    from treadle.kernels.grouped import grouped_rows

    return whole(grouped_rows(groups.codes, groups.count))


def _states(table: pd.DataFrame, name: str) -> dict[str, pd.Series]:
    prefix = f"{name}{ROW_ID}"
    return {str(c).removeprefix(prefix): table[c] for c in table.columns if str(c).startswith(prefix)}
