"""What a partition contributes to an aggregate or a pivot, as queries; the same as `Aggregate.partial`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import polars as pl

from treadle.engine.operation import ROW_ID, ROW_ORDER
from treadle.engine.queries.engine import collected
from treadle.engine.queries.query import PLACE
from treadle.engine.queries.values import TYPES, Unsupported, frame_of, table_of
from treadle.engine.relational import Aggregate, Pivot, values
from treadle.engine.relational.aggregate import GROUPS, PAIRS, ROWS
from treadle.engine.relational.values import COUNT, GROUP, VALUE

if TYPE_CHECKING:
    import pandas as pd

    from treadle.engine.relational.aggregate import Partial

INTEGER = pl.Int64()


def partial(operation: Aggregate | Pivot, frame: pd.DataFrame, engine: Any) -> Partial:
    """The contribution of a partition's rows.

    Raises
    ------
    Unsupported
        A function has no query.
    """
    if isinstance(operation, Pivot):
        # What it aggregates is made on the host: a column a level, of the columns that it reads.
        return partial(operation.as_aggregate, operation.spread(frame), engine)
    operation.check_types(frame)
    columns = [*operation.gathers, *(name for name in (ROW_ORDER,) if name in frame.columns)]
    table = table_of(frame[columns]).with_row_index(PLACE)
    by = list(operation.by)
    order = [*([] if operation.order is None else [operation.order]), *columns[len(operation.gathers) :]]
    states: dict[str, pl.Expr] = {}
    pairs: set[str] = set()
    ends: dict[str, list[tuple[str, str]]] = {}
    for name, aggregation in operation.aggregations.items():
        column, function = aggregation.column, aggregation.function
        if column is None:
            continue
        if function in values.FUNCTIONS:
            pairs.add(column)
            continue
        if function in ("first", "last"):
            ends.setdefault(column, []).append((name, function))
            continue
        state = _states(function, column, table.schema[column])
        states.update({f"{name}{ROW_ID}{key}": expr for key, expr in state.items()})
    found = [expr.alias(name) for name, expr in states.items()]
    place = pl.col(PLACE).min().alias(PLACE)
    grouped = table.lazy().group_by(by).agg(pl.len().cast(INTEGER).alias(ROWS), place, *found)
    groups = collected(grouped.sort(PLACE), engine)
    for column, wanted in ends.items():
        groups = collected(_with_ends(groups, table, by, column, wanted, order), engine)
    parts = {f"{PAIRS}{column}": _pairs(table, groups.select(by), by, column, engine) for column in sorted(pairs)}
    return {GROUPS: frame_of(groups.drop(PLACE)), **parts}


def _with_ends(
    groups: pl.DataFrame,
    table: pl.DataFrame,
    by: list[str],
    column: str,
    wanted: list[tuple[str, str]],
    order: list[str],
) -> pl.LazyFrame:
    """The groups with the states of first and last of a column: of rows in order, where it and the order are known."""
    named = {"value": column, **{"place" if name == ROW_ORDER else "key": name for name in order}}
    rows = table.lazy().drop_nulls([column, *order]).sort([*order, PLACE])
    states = [
        (pl.col(of).first() if function == "first" else pl.col(of).last()).alias(f"{name}{ROW_ID}{key}")
        for name, function in wanted
        for key, of in named.items()
    ]
    return groups.lazy().join(rows.group_by(by).agg(states), on=by, how="left", nulls_equal=True).sort(PLACE)


def _states(function: str, column: str, type_: Any) -> dict[str, pl.Expr]:
    """The state of one function, as `treadle.engine.relational.states` keeps it."""
    x = pl.col(column)
    count = x.count().cast(INTEGER)
    number = x.cast(INTEGER) if type_ == TYPES["bool"] else x
    match function:
        case "count":
            return {"count": count}
        case "sum":
            return {"sum": number.sum(), "count": count}
        case "mean" | "std":
            double = number.cast(pl.Float64())
            return {"count": count, "mean": double.mean(), "m2": double.var(ddof=0) * count}
        case "min":
            return {"value": x.min()}
        case "max":
            return {"value": x.max()}
    raise Unsupported(f"{function} of groups is the host's")


def _pairs(table: pl.DataFrame, groups: pl.DataFrame, by: list[str], column: str, engine: Any) -> pd.DataFrame:
    """Each value of each group once, with the number of its group and how many rows have it; nulls are left out."""
    import pandas as pd

    value = pl.col(column)
    named = {name: f"{GROUP}{number}" for number, name in enumerate(by)}
    keys = [pl.col(name).alias(new) for name, new in named.items()]
    rows = table.lazy().filter(value.is_not_null()).select(*keys, value.alias(VALUE))
    counted = rows.group_by([*named.values(), VALUE]).agg(pl.len().cast(INTEGER).alias(COUNT))
    numbered = groups.rename(named).with_row_index(GROUP).lazy()
    found = counted.join(numbered, on=list(named.values()), how="inner", nulls_equal=True)
    frame = frame_of(collected(found.select(pl.col(GROUP).cast(INTEGER), VALUE, COUNT), engine))
    plain = {name: frame[name].to_numpy("int64") for name in (GROUP, COUNT)}
    return pd.DataFrame(
        {
            GROUP: plain[GROUP],
            VALUE: frame[VALUE] + 0.0 if frame[VALUE].dtype.kind == "f" else frame[VALUE],
            COUNT: plain[COUNT],
        }
    )
