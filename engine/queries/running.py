"""Where queries are computed: as few as possible for the steps of a program, and on the host what none is for."""

from __future__ import annotations

import json
import threading
import weakref
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import polars as pl

from treadle.engine.backend import Backend, kinds_of
from treadle.engine.device import ALONE, in_parts, is_out_of_memory
from treadle.engine.operation import Operation, Placed
from treadle.engine.queries.engine import HOST_ENGINE, collected, engine_of, first_line, no_memory, reason_of
from treadle.engine.queries.groups import partial
from treadle.engine.queries.query import Query
from treadle.engine.queries.steps import is_by_row, query_of
from treadle.engine.queries.values import TYPES, Unsupported, frame_of, table_of
from treadle.errors import TreadleError

if TYPE_CHECKING:
    import pandas as pd

    from treadle.engine.relational import Aggregate, Pivot
    from treadle.engine.relational.aggregate import Partial

_SIDES: dict[int, tuple[weakref.ref[Any], pl.DataFrame]] = {}
"""Small tables that partitions have in common, by the frames that they were made of."""
_TAKEN: dict[str, str | None] = {}
"""Why cuDF does not take an operation on columns of these kinds; None where it does."""
_LOCK = threading.Lock()


def applied(steps: Iterable[tuple[Placed, pd.DataFrame | None]], frame: pd.DataFrame, backend: Backend) -> pd.DataFrame:
    """The steps on a partition's rows, with the small tables that some take; on the host those without a query.

    Raises
    ------
    TreadleError
        As the operations on the host, which say what they refuse.
    """
    rows = Rows(frame, backend)
    for step, side in steps:
        if step.is_local:
            side = _own_groups(step, rows.frame(), backend)
        rows.add(step, side)
    return rows.frame()


def contributed(operation: Aggregate | Pivot, frame: pd.DataFrame, where: str, backend: Backend) -> Partial:
    """What a partition's rows contribute to an operation; on the host where no query is for it."""

    def there(low: int, high: int) -> Partial:
        return partial(operation, frame.iloc[low:high], engine_of(backend))

    def here(low: int, high: int) -> Partial:
        return operation.partial(frame.iloc[low:high].reset_index(drop=True))

    try:
        parts, on_host = in_parts(len(frame), there, here)
    except TreadleError:
        raise
    except Exception as error:
        backend.fell_back(where, f"on the host, since {reason_of(error)}")
        return operation.partial(frame)
    if on_host:
        backend.fell_back(where, no_memory(on_host, len(frame), int(frame.memory_usage(index=False).sum())))
    return operation.merge(parts)


def _own_groups(step: Placed, frame: pd.DataFrame, backend: Backend) -> pd.DataFrame:
    """The group table of rows that have all of their groups."""
    operation: Any = step.operation
    step.check(frame)
    return operation.finish(contributed(operation, frame, step.where, backend))


class Rows:
    """Rows with steps that are still to be computed."""

    def __init__(self, frame: pd.DataFrame, backend: Backend) -> None:
        self._frame: pd.DataFrame | None = frame
        self._table: pl.DataFrame | None = None
        self._backend = backend
        self._waiting: list[tuple[Placed, pd.DataFrame | None]] = []
        self._query: Query | None = None

    def add(self, step: Placed, side: pd.DataFrame | None) -> None:
        """One more step: it waits for others where there is a query for it."""
        if self._query is None:
            self._query = Query.of(self._rows().lazy())
        try:
            query = query_of(self._query, step.operation, _lazy(side))
            check_taken(step.operation, self._query.kinds, side, engine_of(self._backend))
        except Unsupported as reason:
            frame = self.frame()
            self._backend.fell_back(step.where, f"on the host, since {reason}")
            self._given(step.applied(frame, side))
            return
        self._waiting.append((step, side))
        self._query = query
        if query.refused:
            self._compute()

    def frame(self) -> pd.DataFrame:
        """The rows after all steps."""
        if self._waiting:
            self._compute()
        if self._frame is None:
            assert self._table is not None
            self._frame = frame_of(self._table)
        return self._frame

    def _given(self, frame: pd.DataFrame) -> None:
        self._frame, self._table, self._query = frame, None, None

    def _rows(self) -> pl.DataFrame:
        if self._table is None:
            assert self._frame is not None
            self._table = table_of(self._frame)
        return self._table

    def _compute(self) -> None:
        """Computes what waits, in parts where a device has not the memory; a value that is refused, on the host."""
        table, waiting, query = self._rows(), self._waiting, self._query
        assert query is not None
        self._waiting, self._query, self._frame = [], None, None
        where = ", ".join(step.where for step, _ in waiting)

        def there(low: int, high: int) -> pl.DataFrame:
            part = Query.of(table.slice(low, high - low).lazy())
            for step, side in waiting:
                part = query_of(part, step.operation, _lazy(side))
            return collected(part.lazy, engine_of(self._backend))

        def here(low: int, high: int) -> pl.DataFrame:
            part = frame_of(table.slice(low, high - low))
            for step, side in waiting:
                part = step.applied(part, side)
            return table_of(part).with_columns(pl.lit(value=False).alias(name) for name in query.refused)

        by_row = all(is_by_row(step.operation) for step, _ in waiting)
        try:
            parts, on_host = in_parts(table.height, there, here, by_row)
        except TreadleError:
            raise
        except Exception as error:
            parts, on_host = [here(0, table.height)], 0
            self._backend.fell_back(where, f"on the host, since {reason_of(error)}")
        if on_host:
            self._backend.fell_back(where, no_memory(on_host, table.height, int(table.estimated_size())))
        found = pl.concat(parts)
        if any(found[name].any() for name in query.refused):
            found = here(0, table.height)
        self._table = found.drop(query.refused)


def check_taken(operation: Operation, kinds: Mapping[str, str], side: pd.DataFrame | None, engine: Any) -> None:
    """Tries an operation on columns of these kinds, without rows, once a process. Unsupported where cuDF refuses it."""
    if engine == HOST_ENGINE:
        return
    beside = {} if side is None else kinds_of(side)
    key = json.dumps([operation.model_dump(mode="json", by_alias=True), list(kinds.items()), list(beside.items())])
    with _LOCK:
        known, reason = key in _TAKEN, _TAKEN.get(key)
    if not known:
        reason = _refusal(
            query_of(Query.of(_empty(kinds)), operation, None if side is None else _empty(beside)), engine
        )
        with _LOCK:
            _TAKEN[key] = reason
    if reason is not None:
        raise Unsupported(reason)


def _refusal(query: Query, engine: Any) -> str | None:
    try:
        with ALONE:
            collected(query.lazy, engine)
    except Exception as error:
        if is_out_of_memory(error):
            return None
        return f"cuDF does not take it: {first_line(error)}"
    return None


def _empty(kinds: Mapping[str, str]) -> pl.LazyFrame:
    return pl.LazyFrame(schema={name: TYPES[kind] for name, kind in kinds.items()})


def _lazy(side: pd.DataFrame | None) -> pl.LazyFrame | None:
    """A small table in the form that queries take, made once."""
    if side is None:
        return None
    key = id(side)
    with _LOCK:
        found = _SIDES.get(key)
        if found is not None and found[0]() is side:
            return found[1].lazy()
    table = table_of(side)
    with _LOCK:
        _SIDES[key] = weakref.ref(side, lambda _: _SIDES.pop(key, None)), table
    return table.lazy()
