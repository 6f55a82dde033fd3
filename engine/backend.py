"""Backend: which library holds frames and arrays. A value, chosen once and carried.

Rows lie in frames of pandas on both; on GPUs the operations on them are queries of Polars, which cuDF
computes, where there are such (`treadle.engine.preparing`). Frames follow one convention of types, so
that a partition's dtypes never depend on its values: floats are float64 with NaN for null,
whole numbers nullable Int64, booleans nullable boolean, text `str`, times datetime64[us].
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from treadle.engine.device import Part, on_device, sums_on_device
from treadle.errors import RequestError, did_you_mean, listed

DTYPES: Mapping[str, Any] = {
    "int": pd.Int64Dtype(),
    "float": "float64",
    "bool": pd.BooleanDtype(),
    "text": "str",
    "timestamp": "datetime64[us]",
}
ARROW_TYPES: Mapping[str, pa.DataType] = {
    "int": pa.int64(),
    "float": pa.float64(),
    "bool": pa.bool_(),
    "text": pa.string(),
    "timestamp": pa.timestamp("us"),
}
KIND_OF_CODE: Mapping[str, str] = {
    "i": "int", "u": "int", "f": "float", "b": "bool", "M": "timestamp", "O": "text", "U": "text",
}  # fmt: skip
_TYPES_MAPPER = {pa.int64(): pd.Int64Dtype(), pa.bool_(): pd.BooleanDtype()}.get


@dataclass(frozen=True)
class Backend:
    """What computes: the host (`cpu`), or GPUs where there is code for them (`cuda`). Frames are pandas' on both."""

    name: Literal["cpu", "cuda"] = "cpu"
    topic: str = ""
    """Under which workers tell what the host did instead (`treadle.engine.fallbacks`); nobody listens without one."""

    def of_stage(self, run: str, stage: str) -> Backend:
        """The same for one stage of a run, whose notes are kept apart."""
        return self if self.name == "cpu" else replace(self, topic=f"treadle/{run}/{stage}")

    def fell_back(self, what: str, why: str) -> None:
        """Notes that the host does something instead of a device, for the manifest; nothing on the CPU."""
        if self.name == "cuda":
            from treadle.engine.fallbacks import tell

            tell(self.topic, f"{what}: {why}")

    def compute(self, function: Callable[[Any], Any], matrix: np.ndarray) -> tuple[np.ndarray, int]:
        """`function` of float32 rows (rows, features), one line a row, where the backend computes.

        Returns the lines, on the host, and how many of them the host had to compute instead of a device.
        """
        if self.name == "cpu":
            return function(matrix), 0
        return on_device(function, matrix)

    def engine(self) -> Any:
        """What Polars computes queries with: cuDF on the worker's GPU, in the memory that all of its libraries share.

        Numba's simulator stands in for a machine without a GPU; there it is Polars' own engine.
        """
        if self.name == "cpu" or simulated():
            return "in-memory"
        import polars as pl
        import rmm

        resource = rmm.mr.get_current_device_resource()
        return pl.GPUEngine(executor="in-memory", raise_on_fail=True, memory_resource=resource)

    def sums(self, function: Callable[..., Any], merge: Callable[[list[Any]], Any], rows: Part, *args: Any) -> Any:
        """`function(rows, *args)`, sums over the rows that merge, where the backend computes.

        Parameters
        ----------
        function
            Takes rows whose matrix lies on a device, too, and gives its sums on the host.
        """
        if self.name == "cpu":
            return function(rows, *args)
        found, on_host = sums_on_device(function, merge, rows, *args)
        if on_host:
            # Without their number, so that a thousand parts tell it once.
            self.fell_back("sums over rows", "some on the host, for want of memory on the GPU")
        return found

    def frame(self, table: pa.Table) -> pd.DataFrame:
        """A frame of the engine's types from an Arrow table of the types in `ARROW_TYPES`."""
        return table.to_pandas(types_mapper=_TYPES_MAPPER, date_as_object=False)

    def table(self, frame: pd.DataFrame) -> pa.Table:
        """The frame as an Arrow table on the host, with the types in `ARROW_TYPES`."""
        kinds = kinds_of(frame)
        schema = pa.schema([pa.field(name, ARROW_TYPES[kind]) for name, kind in kinds.items()])
        return pa.Table.from_pandas(frame, schema=schema, preserve_index=False).replace_schema_metadata(None)

    def empty(self, kinds: Mapping[str, str]) -> pd.DataFrame:
        """No rows, but the dtypes: operations run on it to find what they would make."""
        return pd.DataFrame({name: pd.Series([], dtype=DTYPES[kind]) for name, kind in kinds.items()})


HOST = Backend()


def simulated() -> bool:
    """Whether Numba's simulator stands in for a GPU."""
    return os.environ.get("NUMBA_ENABLE_CUDASIM") == "1"


def kind_of_arrow(type_: pa.DataType) -> str | None:
    """The engine's kind of an Arrow type; None for nested, binary and other types it does not take."""
    if pa.types.is_dictionary(type_):
        return kind_of_arrow(type_.value_type)
    if pa.types.is_boolean(type_):
        return "bool"
    if pa.types.is_integer(type_):
        return "int"
    if pa.types.is_floating(type_) or pa.types.is_decimal(type_):
        return "float"
    if pa.types.is_string(type_) or pa.types.is_large_string(type_) or pa.types.is_string_view(type_):
        return "text"
    if pa.types.is_timestamp(type_) or pa.types.is_date(type_):
        return "timestamp"
    return "text" if pa.types.is_null(type_) else None


def converted(column: pa.ChunkedArray, kind: str) -> pa.ChunkedArray:
    """A column in the Arrow type of its kind; of a time, microseconds in UTC are kept. NaN becomes no int, but null.

    ArrowException when a value does not fit.
    """
    type_ = ARROW_TYPES[kind]
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if kind == "int" and pa.types.is_floating(column.type):
        column = pc.if_else(pc.is_nan(column), pa.scalar(None, column.type), column)
    return column if column.type == type_ else column.cast(type_, safe=not pa.types.is_timestamp(type_))


def kinds_of(frame: pd.DataFrame) -> dict[str, str]:
    """Name -> kind of every column of a frame."""
    kinds = {}
    for name, dtype in frame.dtypes.items():
        kind = KIND_OF_CODE.get(dtype.kind)
        if kind is None:
            raise RequestError(f"Column '{name}' has type {dtype}, which the engine does not take.")
        kinds[str(name)] = kind
    return kinds


def conform(frame: pd.DataFrame, kinds: Mapping[str, str], where: str) -> pd.DataFrame:
    """A user's frame with just the columns `kinds`, in the engine's types.

    Raises
    ------
    RequestError
        A column is missing, or has a type that cannot become the one the model was trained on.
    """
    missing = [name for name in kinds if name not in frame.columns]
    if missing:
        raise RequestError(
            f"Missing in {where}: {listed(map(repr, missing))}, which the model was trained on. "
            f"Columns: [{listed(frame.columns)}].{did_you_mean(missing[0], map(str, frame.columns))}"
        )
    twice = [name for name in frame.columns[frame.columns.duplicated()] if name in kinds]
    if twice:
        raise RequestError(f"Two columns of {where} are called '{twice[0]}'; drop or rename one of them.")
    columns = {}
    for name, kind in kinds.items():
        series = _plain(frame[name], where)
        found = kinds_of(series.to_frame())[name]
        allowed = (
            found == kind
            or {found, kind} <= {"int", "float", "bool"}
            or ((len(series) > 0 or series.dtype == object) and bool(series.isna().all()))
        )
        retyped = f"Column '{name}' of {where} is {found} ({series.dtype}), but the model was trained on {kind}"
        if not allowed:
            raise RequestError(f"{retyped}; give it that type.")
        try:
            columns[name] = series.astype(DTYPES[kind])
        except (TypeError, ValueError) as error:
            raise RequestError(f"{retyped}, and not all of its values can be that.") from error
    return pd.DataFrame(columns, index=frame.index)


def _plain(series: pd.Series, where: str) -> pd.Series:
    """Times in UTC without their zone, as they are read from files; objects as what they are."""
    if isinstance(series.dtype, pd.DatetimeTZDtype):
        return series.dt.tz_convert("UTC").dt.tz_localize(None)
    if isinstance(series.dtype, pd.ArrowDtype):
        return _from_arrow(series, where)
    if series.dtype != object:
        return series
    held = pd.api.types.infer_dtype(series)
    if held == "decimal":
        return _from_arrow(series, where)
    if held in ("date", "datetime"):
        return pd.to_datetime(series)
    if held in ("string", "empty", "boolean", "integer", "floating", "mixed-integer-float"):
        return series.convert_dtypes()
    raise RequestError(f"Column '{series.name}' of {where} holds {held} objects; give it one plain type.")


def _from_arrow(series: pd.Series, where: str) -> pd.Series:
    column = pa.Table.from_pandas(series.to_frame("v"), preserve_index=False).column("v")
    kind = kind_of_arrow(column.type)
    if kind is None:
        raise RequestError(f"Column '{series.name}' of {where} has type {column.type}, which the engine does not take.")
    try:
        plain = Backend().frame(pa.table({"v": converted(column, kind)}))["v"]
    except pa.ArrowException as error:
        raise RequestError(
            f"Column '{series.name}' of {where} ({column.type}) cannot become {kind}: {error}"
        ) from error
    return pd.Series(plain.array, index=series.index, name=series.name)
