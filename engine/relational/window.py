"""The operation `window`: of each row, something of the rows before and around it with the same key."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from treadle.engine.operation import Operation
from treadle.engine.relational.keys import codes_of, kind_of, values_of
from treadle.errors import DataError, RequestError

if TYPE_CHECKING:
    import pandas as pd

Function = Literal[
    "lag", "lead",
    "rolling_sum", "rolling_mean", "rolling_std", "rolling_min", "rolling_max", "rolling_count",
    "cum_sum", "cum_mean", "cum_std", "cum_min", "cum_max", "cum_count",
    "row_number", "rank", "dense_rank", "time_since_last",
]  # fmt: skip
OF_ORDER = frozenset({"row_number", "rank", "dense_rank", "time_since_last"})
"""Functions that take no column: they say where a row stands in the order.

time_since_last is the distance to the row before, in seconds where the order is time.
"""
UNITS = {
    "us": 1,
    "ms": 10**3,
    "s": 10**6,
    "min": 60 * 10**6,
    "h": 3600 * 10**6,
    "d": 86400 * 10**6,
    "w": 604800 * 10**6,
}
"""Microseconds of a unit of time."""
LONGEST = 2**63
"""Microseconds that no two times are apart."""
SPAN = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]+)")


class Output(BaseModel):
    """One output column of a window; nulls are left out, as in SQL."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    function: Function
    column: str | None = None
    """May be absent for rolling_count and cum_count, which then count rows."""
    rows: Annotated[int, Field(ge=1)] | None = None
    """The last so many rows."""
    span: str | Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """The rows of the last so much time (7d), or of the order column's own unit (a number)."""
    offset: Annotated[int, Field(ge=1)] = 1
    """How many rows lag and lead look back and ahead."""
    current: bool = True
    """Whether the row itself counts, and with a span the rows of equal order."""

    @field_validator("span")
    @classmethod
    def _is_a_span(cls, value: Any) -> Any:
        if isinstance(value, str):
            microseconds(value)
        return value

    @model_validator(mode="after")
    def _keys_fit_the_function(self) -> Output:
        kind = self.function.partition("_")[0]
        needs_column = self.function not in OF_ORDER and not self.function.endswith("_count")
        wrong = ""
        if needs_column and self.column is None:
            wrong = f"column: missing; {self.function} needs one"
        elif self.function in OF_ORDER and self.column is not None:
            wrong = f"column: {self.function} follows from the order alone; leave column out"
        elif kind == "rolling" and (self.rows is None) == (self.span is None):
            wrong = f"{self.function} needs either rows (the last 7 rows) or span (the last 7d)"
        elif kind != "rolling" and (self.rows is not None or self.span is not None):
            wrong = f"rows and span are for rolling functions, not for {self.function}"
        elif kind not in ("lag", "lead") and self.offset != 1:
            wrong = f"offset is for lag and lead, not for {self.function}"
        elif kind not in ("rolling", "cum") and not self.current:
            wrong = f"current is for rolling and cumulative functions, not for {self.function}"
        if wrong:
            raise PydanticCustomError("window", "{wrong}", {"wrong": wrong})
        return self


def microseconds(span: str) -> int:
    """A span of time such as 7d, 12h or 90s."""
    found = SPAN.fullmatch(span.strip().lower())
    time = round(float(found[1]) * UNITS[found[2]]) if found and found[2] in UNITS else 0
    if not 0 < time < LONGEST:
        raise PydanticCustomError(
            "span",
            "'{span}' is no span of time; write a number and one of [{units}], such as 7d or 30min",
            {"span": span, "units": ", ".join(UNITS)},
        )
    return time


@dataclass(frozen=True)
class Layout:
    """Rows of a partition by key and in order; host arrays."""

    index: np.ndarray
    """(rows,) int64: the row at each position."""
    start: np.ndarray
    """(groups + 1,) int64: the first position of each key."""
    keys: np.ndarray | None
    """(rows,) The order column at each position."""


class Window(Operation):
    """Adds columns computed over the rows of the same key, in the order of a column; the rows stay in their order."""

    op: Literal["window"]
    by: tuple[str, ...] = ()
    order: str | None = None
    """Rows of equal order keep the order of the input; without one, all do."""
    outputs: dict[str, Output] = Field(min_length=1)

    @model_validator(mode="after")
    def _order_is_named_where_needed(self) -> Window:
        for name, output in self.outputs.items():
            if self.order is None and (output.span is not None or output.function in OF_ORDER - {"row_number"}):
                wrong = f"order: missing; '{name}' ({output.function}{' over a span' * (output.span is not None)})"
                raise PydanticCustomError("order", "{wrong} needs a column to order by", {"wrong": wrong})
        return self

    @property
    def together(self) -> tuple[str, ...]:
        return self.by

    @property
    def reads(self) -> tuple[str, ...]:
        columns = [output.column for output in self.outputs.values()]
        return tuple(dict.fromkeys([*self.by, *(name for name in (self.order, *columns) if name is not None)]))

    def needs(self, wanted: frozenset[str], side_columns: Sequence[str] = ()) -> frozenset[str]:
        return (wanted - set(self.outputs)) | set(self.reads)

    def makes(self, side_columns: Sequence[str] = ()) -> frozenset[str]:
        return frozenset(self.outputs)

    def only(self, wanted: frozenset[str]) -> Window:
        return self.model_copy(update={"outputs": {n: o for n, o in self.outputs.items() if n in wanted}})

    def apply(self, frame: pd.DataFrame, side: pd.DataFrame | None = None) -> pd.DataFrame:
        self._check_types(frame)
        layout = self._layout(frame)
        bounds: dict[Any, tuple[np.ndarray, np.ndarray]] = {}
        return frame.assign(**{n: self._output(n, o, frame, layout, bounds) for n, o in self.outputs.items()})

    def _layout(self, frame: pd.DataFrame) -> Layout:
        from treadle.kernels.windows import order_groups

        codes, groups = codes_of(frame, self.by)
        if self.order is None:
            return Layout(*order_groups(codes, groups, None), keys=None)
        keys, known = values_of(frame[self.order])
        if not known.all():
            raise DataError(
                f"window: the order column '{self.order}' is null in {int((~known).sum())} rows; filter or fill them."
            )
        index, start = order_groups(codes, groups, keys)
        return Layout(index, start, keys[index])

    def _output(
        self,
        name: str,
        output: Output,
        frame: pd.DataFrame,
        layout: Layout,
        bounds: dict[Any, tuple[np.ndarray, np.ndarray]],
    ) -> pd.Series:
        from treadle.kernels import windows

        function = output.function
        if function in OF_ORDER:
            is_time = self.order is not None and frame[self.order].dtype.kind == "M"
            return _by_row(self._of_order(function, layout, is_time), None, layout, frame)
        if function in ("lag", "lead"):
            offset = output.offset if function == "lag" else -output.offset
            return _taken(frame[output.column], windows.shifted(layout.start, offset), layout)
        shape = (output.rows, output.span, output.current)
        if shape not in bounds:
            bounds[shape] = self._bounds(output, layout)
        low, high = bounds[shape]
        kind = function.partition("_")[2]
        if output.column is None:
            return _by_row(high - low, None, layout, frame)
        if kind == "count":
            known = frame[output.column].notna().to_numpy(bool)[layout.index]
            return _by_row(windows.sliding_count(known, low, high), None, layout, frame)
        values, known = (array[layout.index] for array in values_of(frame[output.column]))
        if kind in ("min", "max"):
            at = windows.sliding_extreme(values, known, low, high, kind == "max")
            return _taken(frame[output.column], at, layout)
        if kind == "std":
            count, _, m2 = windows.sliding_moments(values.astype("float64"), known, low, high)
            with np.errstate(invalid="ignore", divide="ignore"):
                return _by_row(np.sqrt(m2 / (count - 1)), count > 1, layout, frame)
        count = windows.sliding_count(known, low, high)
        if kind == "sum":
            return _by_row(windows.sliding_sum(values, known, low, high), count > 0, layout, frame)
        # Sums of whole numbers wrap around, and their means must not.
        sums = windows.sliding_sum(values.astype("float64"), known, low, high)
        with np.errstate(invalid="ignore", divide="ignore"):
            return _by_row(sums / count, count > 0, layout, frame)

    def _of_order(self, function: str, layout: Layout, is_time: bool) -> np.ndarray:
        from treadle.kernels.windows import ranks, shifted

        keys = layout.keys if layout.keys is not None else layout.index
        if function != "time_since_last":
            number, rank, dense = ranks(layout.start, keys)
            return {"row_number": number, "rank": rank, "dense_rank": dense}[function]
        before = shifted(layout.start, 1)
        comparable = _differing(keys)
        with np.errstate(invalid="ignore"):
            since = (comparable - comparable[before]).astype("float64")
        return np.where(before < 0, np.nan, since / UNITS["s"] if is_time else since)

    def _bounds(self, output: Output, layout: Layout) -> tuple[np.ndarray, np.ndarray]:
        from treadle.kernels.windows import bounds_of_rows, bounds_of_span

        if output.span is None:
            return bounds_of_rows(layout.start, output.rows or 0, output.current)
        assert layout.keys is not None
        span: Any = microseconds(output.span) if isinstance(output.span, str) else output.span
        if layout.keys.dtype.kind == "i":
            # Whole numbers are less than 2.5 apart when they are less than 3, and at most 2.5 when at most 2.
            whole = math.ceil(span) if output.current else math.floor(span)
            span = np.uint64(min(whole, 2**64 - 1))
        return bounds_of_span(layout.start, _differing(layout.keys), span, output.current)

    def _check_types(self, frame: pd.DataFrame) -> None:
        order = None if self.order is None else frame[self.order].dtype.kind
        if order is not None and order not in "iufM":
            raise RequestError(
                f"window: order column '{self.order}' is {kind_of(frame[self.order])}; order by a time or a number."
            )
        for name, output in self.outputs.items():
            if isinstance(output.span, str) and order != "M":
                raise RequestError(
                    f"window '{name}': span {output.span} is time, and '{self.order}' is {kind_of(frame[self.order])}; "
                    "cast it to timestamp, or give the span as a number in its own unit."
                )
            if output.span is not None and not isinstance(output.span, str) and order == "M":
                raise RequestError(
                    f"window '{name}': span {output.span:g} has no unit, and '{self.order}' is a timestamp; "
                    "write it as 7d or 12h."
                )
            kind = output.function.rpartition("_")[2]
            if output.column is None or kind not in ("sum", "mean", "std", "min", "max"):
                continue
            allowed = "biufM" if kind in ("min", "max") else "biuf"
            if frame[output.column].dtype.kind not in allowed:
                raise RequestError(
                    f"window '{name}': {output.function} needs numbers{' or times' * (kind in ('min', 'max'))}, and "
                    f"column '{output.column}' is {kind_of(frame[output.column])}; cast it first."
                )


def _differing(keys: np.ndarray) -> np.ndarray:
    """Ordered keys as numbers whose differences do not overflow: float64, or uint64 for int64."""
    from treadle.kernels.sketch import key_of_int64

    return keys if keys.dtype.kind == "f" else key_of_int64(keys)


def _by_row(values: np.ndarray, known: np.ndarray | None, layout: Layout, frame: pd.DataFrame) -> pd.Series:
    """Values by position as a column of the frame: float, or nullable int."""
    import pandas as pd

    out = np.empty_like(values)
    out[layout.index] = values
    lacking = np.zeros(len(values), dtype=bool)
    if known is not None:
        lacking[layout.index] = ~known
    if values.dtype.kind == "f":
        out[lacking] = np.nan
        return pd.Series(out, index=frame.index)
    return pd.Series(pd.arrays.IntegerArray(out, lacking), index=frame.index)


def _taken(series: pd.Series, positions: np.ndarray, layout: Layout) -> pd.Series:
    """Of each row the value at a position, null for -1, in the column's own type."""
    import pandas as pd

    rows = np.empty(len(positions), dtype=np.int64)
    rows[layout.index] = np.where(positions < 0, -1, layout.index[positions])
    return pd.Series(series.array.take(rows, allow_fill=True), index=series.index)
