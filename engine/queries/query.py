"""Rows that are still to be computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import polars as pl

from treadle.engine.operation import ROW_ID
from treadle.engine.queries.values import KINDS, Typed, Unsupported, kind_of
from treadle.engine.sql.values import Kind

PLACE = f"{ROW_ID}place"
"""Where a row was, for operations that would lose it."""
THERE = f"{ROW_ID}there"
"""The same of the other table."""


@dataclass(frozen=True)
class Query:
    """Rows that are still to be computed, with their columns' kinds."""

    lazy: pl.LazyFrame
    kinds: Mapping[str, str]
    refused: tuple[str, ...] = field(default=())
    """Columns beside these that say of which rows the host is to refuse a value, in words."""

    @classmethod
    def of(cls, lazy: pl.LazyFrame) -> Query:
        """Rows without anything done to them yet, or after what changed their columns."""
        return cls(lazy, {name: kind_of(type_) for name, type_ in lazy.collect_schema().items()})

    def columns(self, changed: Mapping[str, Typed], refused: Sequence[pl.Expr] = ()) -> Query:
        """With columns added, or replaced in their places."""
        if any(value.kind is Kind.NULL for value in changed.values()):
            raise Unsupported("a column of no kind")
        exprs = [value.expr.alias(name) for name, value in changed.items()]
        names = tuple(f"{ROW_ID}refused{number}" for number in range(len(refused)))
        asked = [expr.fill_null(value=False).alias(name) for name, expr in zip(names, refused, strict=True)]
        kinds = {**self.kinds, **{name: _KIND_NAMES[value.kind] for name, value in changed.items()}}
        return Query(self.lazy.with_columns(*exprs, *asked), kinds, names)

    def kept(self, names: Sequence[str]) -> Query:
        """With these columns only, in this order."""
        return Query(self.lazy.select(names), {name: self.kinds[name] for name in names})

    def rows(self, lazy: pl.LazyFrame) -> Query:
        """Other rows of the same columns."""
        return Query(lazy.select(list(self.kinds)), self.kinds)


_KIND_NAMES = {kind: name for name, kind in KINDS.items()}
