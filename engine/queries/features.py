"""Fitted feature operations as queries: all columns of a partition in one, and of one_hot only the codes.

Operations work here on symbols in the place of columns: expressions of what lies in the frame. What no query is for
gets its columns computed first, and goes on with them on the host.
"""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import polars as pl

from treadle.engine.device import in_parts
from treadle.engine.encoders import FittedImpute, FittedLevels, FittedTarget
from treadle.engine.encoders.columns import NULL, UNSEEN, Columns, Indicator
from treadle.engine.encoders.dates import CYCLES, FittedDateParts
from treadle.engine.encoders.products import FittedInteractions
from treadle.engine.encoders.scale import FittedBin, FittedClip, FittedScale
from treadle.engine.encoders.worth import FittedFrequency, FittedWorth
from treadle.engine.queries.engine import HOST_ENGINE, collected, engine_of, no_memory, reason_of
from treadle.engine.queries.functions import PARTS
from treadle.engine.queries.values import TYPES, Unsupported, known, table_of

if TYPE_CHECKING:
    from treadle.engine.backend import Backend
    from treadle.engine.encoders import Fitted, Levels, Training

DOUBLE = pl.Float64()


@dataclass(frozen=True, eq=False)
class Symbol:
    """A column that is still to be computed: of numbers, texts or times, or 1 where codes are `code`, else 0."""

    expr: pl.Expr
    kind: str
    code: int | None = None

    def number(self) -> pl.Expr:
        """As float64, null for null."""
        if self.code is not None:
            return (self.expr == self.code).cast(DOUBLE)
        if self.kind == "bool":
            return self.expr.cast(pl.Int64()).cast(DOUBLE)
        return self.expr if self.kind == "float" else self.expr.cast(DOUBLE)


class Features:
    """The columns of a partition while features are made of them."""

    def __init__(self, columns: Columns, training: Training | None, backend: Backend) -> None:
        self.columns: dict[str, Any] = dict(columns)
        """By name: columns on the host, and symbols."""
        self._training, self._backend = training, backend
        self._given: dict[str, Any] = {}
        """What symbols are expressions of, by the names that it has in the query."""
        self._symbols: dict[int, Symbol] = {}
        self._folds: dict[int, Symbol] = {}

    def add(self, fitted: Fitted) -> None:
        """One more operation: as symbols, or on the host where there is no query for it."""
        try:
            if isinstance(fitted, FittedInteractions):
                self._multiply(fitted)
                return
            build = _EFFECTS.get(type(fitted))
            if build is None:
                raise Unsupported("there is no query for it")
            self.columns = fitted.placed(
                self.columns, lambda name, column: build(self, fitted, name, self.symbol(column))
            )
        except Unsupported as why:
            where = f"features ({fitted.operation} of {', '.join(fitted.names)})"
            self._backend.fell_back(where, f"on the host, since {why}")
            self.compute()
            self.columns = dict(fitted.apply(self.columns, self._training))

    def _multiply(self, fitted: FittedInteractions) -> None:
        found = {name: self.symbol(self.columns[name]).number() for name in fitted.names if name in self.columns}
        for factors in fitted.products:
            if found.keys() >= set(factors):
                product = functools.reduce(operator.mul, (found[name] for name in factors))
                self.columns["*".join(factors)] = Symbol(known(product), "float")

    def symbol(self, column: Any) -> Symbol:
        """Of a column on the host, or what is one already."""
        if isinstance(column, Symbol):
            return column
        if id(column) not in self._symbols:
            name = f"c{len(self._given)}"
            code = None
            if isinstance(column, Indicator):
                kind, code, given = "int", column.code, pl.Series(name, column.codes)
            elif isinstance(column, np.ndarray):
                kind, given = "float", pl.Series(name, column.astype(np.float64), nan_to_null=True)
            else:
                given = table_of(column.rename(name).to_frame()).to_series()
                kind = next(k for k, type_ in TYPES.items() if given.dtype == type_)
            self._given[name] = (column, given)  # the column, too, so that its id stays its own
            self._symbols[id(column)] = Symbol(pl.col(name), kind, code)
        return self._symbols[id(column)]

    def fold(self, number: int) -> pl.Expr | None:
        """Of so many folds that of each training row, -1 of other rows; None where there are no training rows."""
        if self._training is None:
            return None
        if number not in self._folds:
            name = f"c{len(self._given)}"
            self._given[name] = (None, pl.Series(name, self._training.folds(number)))
            self._folds[number] = Symbol(pl.col(name), "int")
        return self._folds[number].expr

    def compute(self) -> None:
        """Makes arrays of all symbols, in one query."""
        wanted = {name: column for name, column in self.columns.items() if isinstance(column, Symbol)}
        texts = {name for name, symbol in wanted.items() if symbol.kind == "text"}
        exprs = {id(s.expr): s.expr if s.code is not None or n in texts else s.number() for n, s in wanted.items()}
        if exprs:
            found = self._collected([expr.alias(str(key)) for key, expr in exprs.items()])
            # One array for all columns of one_hot, by which `to_matrix` knows that they belong together.
            codes = {id(s.expr): found[str(id(s.expr))].to_numpy() for s in wanted.values() if s.code is not None}
            for name, symbol in wanted.items():
                key = id(symbol.expr)
                column = (
                    _host_column(found[str(key)], symbol) if symbol.code is None else Indicator(codes[key], symbol.code)
                )
                self.columns[name] = column
        self._given, self._symbols, self._folds = {}, {}, {}

    def _collected(self, exprs: Sequence[pl.Expr]) -> pl.DataFrame:
        table = pl.DataFrame([given for _, given in self._given.values()])

        def there(low: int, high: int) -> pl.DataFrame:
            return collected(table.slice(low, high - low).lazy().select(exprs), engine_of(self._backend))

        def here(low: int, high: int) -> pl.DataFrame:
            return collected(table.slice(low, high - low).lazy().select(exprs), HOST_ENGINE)

        try:
            parts, on_host = in_parts(table.height, there, here)
        except Exception as error:
            parts, on_host = [here(0, table.height)], 0
            self._backend.fell_back("features", f"on the host, since {reason_of(error)}")
        if on_host:
            self._backend.fell_back("features", no_memory(on_host, table.height, int(table.estimated_size())))
        return pl.concat(parts)


def applied(columns: Columns, fitted: Sequence[Fitted], training: Training | None, backend: Backend) -> Columns:
    """The columns of a partition after fitted operations, as `treadle.engine.encoders.apply`."""
    features = Features(columns, training, backend)
    for one in fitted:
        features.add(one)
    features.compute()
    return features.columns


def _host_column(values: pl.Series, symbol: Symbol) -> Any:
    if symbol.kind == "text":
        return pd.Series(values.to_arrow(), dtype="str")
    return values.fill_null(math.nan).to_numpy()


Made = Sequence[Symbol]


def _number(expr: pl.Expr) -> Symbol:
    return Symbol(known(expr), "float")


def _impute(features: Features, fitted: FittedImpute, name: str, column: Symbol) -> Made:
    value = fitted.values[name]
    made = [Symbol(column.expr.fill_null(value), "text")] if isinstance(value, str) else []
    made = made or [_number(column.number().fill_null(value))]
    return [*made, _number(column.expr.is_null().cast(DOUBLE))] if fitted.indicator else made


def _clip(features: Features, fitted: FittedClip, name: str, column: Symbol) -> Made:
    return [_number(column.number().clip(fitted.lower[name], fitted.upper[name]))]


def _scale(features: Features, fitted: FittedScale, name: str, column: Symbol) -> Made:
    return [_number((column.number() - fitted.centre[name]) / fitted.width[name])]


def _bin(features: Features, fitted: FittedBin, name: str, column: Symbol) -> Made:
    x, edges = column.number(), pl.Series(fitted.edges[name], dtype=DOUBLE)
    code = pl.lit(edges).search_sorted(x, side="right").cast(DOUBLE) if len(edges) else pl.lit(0.0)
    return [_number(pl.when(x.is_not_null()).then(code))]


def _levels(features: Features, fitted: FittedLevels, name: str, column: Symbol) -> Made:
    if fitted.unseen == "error":
        raise Unsupported("it is the host that says which values are unseen")
    codes = _found(fitted.levels[name], column, fitted.table(name))
    if fitted.op == "ordinal":
        return [_number(pl.when(codes >= 0).then(codes).cast(DOUBLE))]
    return [Symbol(codes, "int", code) for code in range(len(fitted.place(name, "text")))]


def _frequency(features: Features, fitted: FittedFrequency, name: str, column: Symbol) -> Made:
    return [_number(_worth(fitted, name, column, 0))]


def _target(features: Features, fitted: FittedTarget, name: str, column: Symbol) -> Made:
    levels = fitted.levels[name]
    assert levels.worth is not None
    lines = len(levels.worth)
    made = [_worth(fitted, name, column, line) for line in range(lines)]
    fold = features.fold(fitted.folds) if name in fitted.held_out else None
    if fold is None:
        return [_number(expr) for expr in made]
    worth = fitted.held_out[name].worth
    assert worth is not None
    width = worth.shape[1]
    values = pl.lit(pl.Series(worth.ravel()))
    # The codes of unseen values and nulls count from the end of a line.
    code = _found(fitted.held_out[name], column, np.arange(width, dtype=np.int32)).cast(pl.Int64())
    trained = [values.gather((fold.clip(0) * lines + line) * width + code) for line in range(lines)]
    return [_number(pl.when(fold >= 0).then(t).otherwise(m)) for t, m in zip(trained, made, strict=True)]


def _worth(fitted: FittedWorth, name: str, column: Symbol, line: int) -> pl.Expr:
    if fitted.unseen == "error":
        raise Unsupported("it is the host that says which values are unseen")
    worth = fitted.levels[name].worth
    assert worth is not None
    values = worth[line].copy()
    if fitted.unseen == "ignore":
        values[UNSEEN] = np.nan
    return _found(fitted.levels[name], column, values)


def _found(levels: Levels, column: Symbol, values: np.ndarray) -> pl.Expr:
    """Of each value what stands for its level in `values` (levels + 2); the last two: of unseen ones, and of nulls."""
    x = column.number() + 0.0 if column.code is not None or column.kind == "float" else column.expr
    kind = TYPES["float"] if column.code is not None else TYPES[column.kind]
    made: Any = pl.from_arrow(levels.values)
    try:
        old = made.cast(kind)
    except pl.exceptions.PolarsError as error:
        raise Unsupported(f"its levels are {made.dtype}, and the column {kind}") from error
    new = pl.Series(values)
    if len(old):
        found = x.replace_strict(old, new.head(len(old)), default=values[UNSEEN], return_dtype=new.dtype)
    else:
        found = pl.lit(values[UNSEEN], dtype=new.dtype)
    return pl.when(x.is_null()).then(pl.lit(values[NULL], dtype=new.dtype)).otherwise(found)


def _date_parts(features: Features, fitted: FittedDateParts, name: str, column: Symbol) -> Made:
    made = []
    for part in dict.fromkeys(fitted.parts):
        expr = column.expr.dt.weekday() - 1 if part == "weekday" else PARTS[part](column.expr.dt)
        values = expr.cast(DOUBLE)
        made.append(_number(values))
        if fitted.cyclic and part in CYCLES:
            first, period = CYCLES[part]
            angles = (values - first) * (2.0 * math.pi / period)
            made += [_number(angles.sin()), _number(angles.cos())]
    return made


_EFFECTS: Mapping[type, Callable[[Features, Any, str, Symbol], Made]] = {
    FittedImpute: _impute,
    FittedClip: _clip,
    FittedScale: _scale,
    FittedBin: _bin,
    FittedLevels: _levels,
    FittedFrequency: _frequency,
    FittedTarget: _target,
    FittedDateParts: _date_parts,
}
