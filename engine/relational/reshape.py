"""Operations that make other rows of the rows: union, pivot."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from treadle.engine.operation import OWN_COLUMNS, ROW_ID, ROW_ORDER, Operation
from treadle.engine.relational.aggregate import Aggregate, Function, check_number
from treadle.engine.relational.join import Side
from treadle.engine.relational.keys import kind_of
from treadle.errors import RequestError, listed

if TYPE_CHECKING:
    import pandas as pd

    from treadle.engine.relational.aggregate import Partial

SPREAD = f"{ROW_ID}of:"
"""Prefix of the columns that a pivot aggregates: a level may be called like a key's column."""
Level = str | int | float | bool
LEVELS = {"text": (str,), "int": (int,), "float": (int, float), "bool": (bool,), "timestamp": ()}
"""What is a level of a column, by its kind; in Python bool is int, and here it is not."""


class Union(Operation):
    """Adds the rows of another table after these; columns go by their names."""

    op: Literal["union"]
    with_: Side = Field(alias="with")
    fill: bool = False
    """Whether a column that only one of the two has is null in the rows of the other; else it is an error."""

    def kinds(self, here: dict[str, str], there: dict[str, str]) -> dict[str, str]:
        """The columns of both, in the order of these rows; int and float together are float.

        Raises
        ------
        RequestError
            Columns that only one has, without `fill`; columns of the same name and different kinds.
        """
        lacking = [name for name in here if name not in there]
        more = [name for name in there if name not in here]
        if (lacking or more) and not self.fill:
            which = f"it lacks {listed(map(repr, lacking))}" if lacking else ""
            which += ", and " if lacking and more else ""
            which += f"only it has {listed(map(repr, more))}" if more else ""
            raise RequestError(
                f"union with {self.with_.path}: {which}; select the same columns on both sides (with: {{columns: "
                "[...]}), or set fill: true to make them null."
            )
        out = dict(here)
        for name, kind in there.items():
            if out.setdefault(name, kind) != kind:
                if {out[name], kind} != {"int", "float"}:
                    raise RequestError(
                        f"union with {self.with_.path}: column '{name}' is {out[name]} here and {kind} there; "
                        "cast it before the union, or give that file's types."
                    )
                out[name] = "float"
        return out

    def apply(self, frame: pd.DataFrame, side: pd.DataFrame | None = None) -> pd.DataFrame:
        """The frame with the columns of `side`, which has no rows but the names and dtypes of both together."""
        assert side is not None
        lacking = [name for name in side.columns if name not in frame.columns]
        if lacking:
            frame = frame.join(side[lacking].reindex(frame.index))
        changed = {name: side[name].dtype for name in side.columns if side[name].dtype != frame[name].dtype}
        return frame.astype(changed)[[*(name for name in OWN_COLUMNS if name in frame.columns), *side.columns]]


class Pivot(Operation):
    """One row a key and one column a level of another column: an aggregate of the rows of that key and level."""

    op: Literal["pivot"]
    by: tuple[str, ...] = Field(min_length=1)
    names: str
    """The column whose levels become columns."""
    levels: tuple[Level, ...] = Field(min_length=1)
    """These levels, in this order; rows with another one only take part in which keys there are."""
    values: str | None = None
    """The column to aggregate; rows are counted without one."""
    function: Function = "sum"
    prefix: str = ""

    @model_validator(mode="after")
    def _becomes_an_aggregate(self) -> Pivot:
        if self.values is None and self.function != "count":
            raise PydanticCustomError("pivot", "values: missing; only function: count works without it")
        if self.function == "quantile":
            raise PydanticCustomError(
                "pivot", "function: quantile is not for pivot; use median, or an aggregate a level"
            )
        names = [*self.by, *self.columns]
        twice = [name for name in names if names.count(name) > 1]
        if twice:
            raise PydanticCustomError(
                "pivot",
                "levels: there would be two columns '{name}'; leave one out, or set a prefix",
                {"name": twice[0]},
            )
        return self

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(f"{self.prefix}{_text(level)}" for level in self.levels)

    @property
    def broadcast(self) -> bool:
        return False

    @property
    def gathers(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys([*self.by, self.names, *([] if self.values is None else [self.values])]))

    @property
    def is_holistic(self) -> bool:
        return self.as_aggregate.is_holistic

    @property
    def mergeable(self) -> str:
        return self.as_aggregate.mergeable

    def partial(self, frame: pd.DataFrame) -> Partial:
        return self.as_aggregate.partial(self.spread(frame))

    def merge(self, partials: Sequence[Partial]) -> Partial:
        return self.as_aggregate.merge(partials)

    def finish(self, partial: Partial) -> pd.DataFrame:
        return self.as_aggregate.finish(partial)

    @property
    def as_aggregate(self) -> Aggregate:
        """What is done with the frame of `spread`."""
        spread = {name: {"function": self.function, "column": f"{SPREAD}{name}"} for name in self.columns}
        return Aggregate.model_validate({"op": "aggregate", "by": self.by, "aggregations": spread})

    def spread(self, frame: pd.DataFrame) -> pd.DataFrame:
        """The keys, and a column a level with the values of its rows, null in the others."""
        import pandas as pd

        names = frame[self.names]
        kind = kind_of(names)
        for level in self.levels:
            if not isinstance(level, LEVELS[kind]) or (isinstance(level, bool) and kind != "bool"):
                remedy = "cast it to text first" if kind == "timestamp" else "write levels as the column has them"
                shown = repr(level) if isinstance(level, str) else _text(level)
                raise RequestError(
                    f"pivot: level {shown} is no value of column '{self.names}', which is {kind}; {remedy}."
                )
        if self.values is not None:
            check_number("pivot", self.function, frame[self.values])
            values = frame[self.values]
        else:
            values = pd.Series(np.ones(len(frame), "int64"), dtype="Int64")
        out = frame[[*self.by, *(name for name in (ROW_ORDER,) if name in frame.columns)]]
        return out.assign(
            **{
                f"{SPREAD}{name}": values.where((names == level).fillna(False).to_numpy(bool))
                for name, level in zip(self.columns, self.levels, strict=True)
            }
        )


def _text(level: Level) -> str | int | float:
    """As texts have it: true, not True."""
    return str(level).lower() if isinstance(level, bool) else level
