"""Relational operations on rows as queries: each makes of a table what the operation's `apply` makes of a frame."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import polars as pl

from treadle.engine.operation import OWN_COLUMNS, Operation
from treadle.engine.queries.expressions import Compiled, truth
from treadle.engine.queries.query import PLACE, THERE, Query
from treadle.engine.queries.values import KINDS, TYPES, Typed, Unsupported, converted
from treadle.engine.queries.windows import window
from treadle.engine.relational import Aggregate, Cast, Dedupe, Derive, Drop, Filter, Join, Rename, Select, Union, Window
from treadle.engine.sql.values import Kind


def query_of(query: Query, operation: Operation, side: pl.LazyFrame | None = None) -> Query:
    """The operation on rows, with the small table that it takes.

    Raises
    ------
    Unsupported
        There is no query for it, or the host would refuse it, and is to say so.
    """
    missing = [name for name in operation.reads if name not in query.kinds]
    if missing:
        raise Unsupported(f"there is no column '{missing[0]}'")
    build = _QUERIES.get(type(operation))
    if build is None:
        raise Unsupported(_REASONS.get(getattr(operation, "op", ""), "there is no query for it"))
    return build(query, operation, side)


def is_by_row(operation: Operation) -> bool:
    """Whether a row's outcome does not depend on the rows beside it, so that rows can be computed in parts."""
    return operation.together is None and not isinstance(operation, Dedupe)


_REASONS = {
    "sample": "its hash of ids is the host's",
}


def _derive(query: Query, operation: Derive, side: pl.LazyFrame | None) -> Query:
    compiled = Compiled(query.kinds)
    return query.columns({operation.name: compiled.of(operation.sql)}, compiled.refused)


def _filter(query: Query, operation: Filter, side: pl.LazyFrame | None) -> Query:
    compiled = Compiled(query.kinds)
    value = compiled.of(operation.sql)
    if value.constant or compiled.refused:
        raise Unsupported("a condition that is a constant, or that casts")
    return query.rows(query.lazy.filter(truth(value)))


def _cast(query: Query, operation: Cast, side: pl.LazyFrame | None) -> Query:
    changed, refused = {}, []
    for name, to in operation.columns.items():
        value = Typed(KINDS[query.kinds[name]], pl.col(name))
        target = KINDS.get(to, Kind.TIMESTAMP)
        if (value.kind, target) == (Kind.TEXT, Kind.TIMESTAMP):
            raise Unsupported("a cast of TEXT to TIMESTAMP")
        found, lost = converted(value, target)
        if lost is not None:
            refused += [lost, value.expr % 1 != 0]
        changed[name] = Typed(found.kind, found.expr.dt.truncate("1d")) if to == "date" else found
    return query.columns(changed, refused)


def _select(query: Query, operation: Select, side: pl.LazyFrame | None) -> Query:
    return query.kept([c for c in dict.fromkeys((*OWN_COLUMNS, *operation.columns)) if c in query.kinds])


def _drop(query: Query, operation: Drop, side: pl.LazyFrame | None) -> Query:
    return query.kept([c for c in query.kinds if c not in operation.columns])


def _rename(query: Query, operation: Rename, side: pl.LazyFrame | None) -> Query:
    kinds = {operation.columns.get(name, name): kind for name, kind in query.kinds.items()}
    if len(kinds) < len(query.kinds):
        raise Unsupported("two columns of one name")
    return Query(query.lazy.rename(operation.columns), kinds)


def _dedupe(query: Query, operation: Dedupe, side: pl.LazyFrame | None) -> Query:
    columns = operation.columns or [c for c in query.kinds if c not in OWN_COLUMNS]
    if operation.order is not None and query.kinds[operation.order] not in ("int", "float", "timestamp"):
        raise Unsupported("an order that is neither time nor number")
    order = [PLACE] if operation.order is None else [operation.order, PLACE]
    found = query.lazy.with_row_index(PLACE).sort(order, nulls_last=False, maintain_order=True)
    return query.rows(found.unique(list(columns), keep=operation.keep, maintain_order=True).sort(PLACE))


def _join(query: Query, operation: Join, side: pl.LazyFrame | None) -> Query:
    if operation.how == "asof":
        raise Unsupported("joins by time are the host's")
    assert side is not None
    there = Query.of(side)
    if any(there.kinds.get(name) != query.kinds[name] for name in operation.on):
        raise Unsupported("keys of different types")
    added = [name for name in there.kinds if name not in operation.on]
    here, on = query.lazy.with_row_index(PLACE), list(operation.on)
    if operation.how in ("semi", "anti"):
        return query.rows(here.join(side.select(on), on=on, how=operation.how).sort(PLACE))
    if set(added) & set(query.kinds):
        raise Unsupported("two columns of one name")
    joined = here.join(side.with_row_index(THERE), on=on, how=operation.how).sort([PLACE, THERE])
    kinds = {**query.kinds, **{name: there.kinds[name] for name in added}}
    return Query(joined.select(list(kinds)), kinds)


def _aggregate(query: Query, operation: Aggregate, side: pl.LazyFrame | None) -> Query:
    """The group table beside the rows; null is a key like any other."""
    assert side is not None
    there, made = Query.of(side), list(operation.aggregations)
    if any(there.kinds.get(name) != query.kinds[name] for name in operation.by):
        raise Unsupported("keys of different types")
    kept = [name for name in query.kinds if name not in made]
    by = list(operation.by)
    joined = (
        query.lazy.select(kept)
        .with_row_index(PLACE)
        .join(side.select([*by, *made]), on=by, how="left", nulls_equal=True)
    )
    kinds = {**{name: query.kinds[name] for name in kept}, **{name: there.kinds[name] for name in made}}
    return Query(joined.sort(PLACE).select(list(kinds)), kinds)


def _union(query: Query, operation: Union, side: pl.LazyFrame | None) -> Query:
    assert side is not None
    wanted = Query.of(side).kinds
    own = [name for name in OWN_COLUMNS if name in query.kinds]
    columns = [
        pl.col(name).cast(TYPES[kind]) if name in query.kinds else pl.lit(None, dtype=TYPES[kind]).alias(name)
        for name, kind in wanted.items()
    ]
    kinds = {**{name: query.kinds[name] for name in own}, **wanted}
    return Query(query.lazy.select(*own, *columns), kinds)


def _window(query: Query, operation: Window, side: pl.LazyFrame | None) -> Query:
    return window(query, operation)


_QUERIES: Mapping[type, Callable[[Query, Any, pl.LazyFrame | None], Query]] = {
    Derive: _derive,
    Filter: _filter,
    Cast: _cast,
    Select: _select,
    Drop: _drop,
    Rename: _rename,
    Dedupe: _dedupe,
    Join: _join,
    Aggregate: _aggregate,
    Union: _union,
    Window: _window,
}
