"""Nodes of SQL expressions that are true, false or null: comparisons, AND, OR, NOT, IS, IN, BETWEEN, LIKE."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from dataclasses import replace
from functools import reduce

import pandas as pd
from sqlglot import exp

from treadle.engine.sql.values import (
    Compile,
    Data,
    Evaluate,
    Kind,
    Site,
    Value,
    coerced,
    constant_of,
    start_of,
    unified,
)


def compared(symbol: str, apply: Callable[[Data, Data], Data], left: Value, right: Value, frame: pd.DataFrame) -> Data:
    """Three-valued comparison, a Series of dtype boolean."""
    kind, (x, y) = unified([left, right], f"the comparison {symbol}")
    if kind is Kind.NULL:
        return Value(Kind.BOOLEAN, None, left.site, constant=True).series(frame)
    a, b = x.series(frame), y.operand(frame)
    result = apply(a, b).astype("boolean")
    # Comparisons of datetimes give False for NaT.
    return result.mask(a.isna() | pd.isna(b)) if kind is Kind.TIMESTAMP else result


COMPARISONS: dict[type[exp.Expr], tuple[str, Callable[[Data, Data], Data]]] = {
    exp.EQ: ("=", operator.eq),
    exp.NEQ: ("<>", operator.ne),
    exp.LT: ("<", operator.lt),
    exp.LTE: ("<=", operator.le),
    exp.GT: (">", operator.gt),
    exp.GTE: (">=", operator.ge),
}


def comparison(node: exp.Expr, site: Site, compile_: Compile) -> Evaluate:
    symbol, apply = COMPARISONS[type(node)]
    left, right = compile_(node.this), compile_(node.expression)
    return lambda frame: Value(Kind.BOOLEAN, compared(symbol, apply, left(frame), right(frame), frame), site)


def distinct(node: exp.Expr, site: Site, compile_: Compile) -> Evaluate:
    """IS [NOT] DISTINCT FROM: a comparison for which null is a value like any other."""
    left, right = compile_(node.this), compile_(node.expression)
    wanted = isinstance(node, exp.NullSafeEQ)

    def evaluate(frame: pd.DataFrame) -> Value:
        x, y = left(frame), right(frame)
        equal = compared("IS DISTINCT FROM", operator.eq, x, y, frame)
        equal = equal.fillna(False) | (_is_null(x, frame) & _is_null(y, frame))
        return Value(Kind.BOOLEAN, equal if wanted else ~equal, site)

    return evaluate


def _is_null(value: Value, frame: pd.DataFrame) -> Data:
    known = replace(value, kind=Kind.BOOLEAN) if value.kind is Kind.NULL else value
    return known.series(frame).isna().astype("boolean")


def truth(value: Value, where: str, frame: pd.DataFrame) -> Data:
    fitting = coerced(value, Kind.BOOLEAN)
    if fitting is None:
        raise value.site.refuse(f"{where} needs a condition, got {value.kind}. Write a comparison, such as x > 0.")
    return fitting.series(frame)


def connector(node: exp.Expr, site: Site, compile_: Compile) -> Evaluate:
    word, apply = ("AND", operator.and_) if isinstance(node, exp.And) else ("OR", operator.or_)
    # Flat, so that a chain of hundreds is not hundreds of levels deep.
    parts = [compile_(part) for part in node.flatten(unnest=False)]
    return lambda frame: Value(Kind.BOOLEAN, reduce(apply, (truth(part(frame), word, frame) for part in parts)), site)


def negation(node: exp.Expr, site: Site, compile_: Compile) -> Evaluate:
    part = compile_(node.this)
    return lambda frame: Value(Kind.BOOLEAN, ~truth(part(frame), "NOT", frame), site)


def is_test(node: exp.Expr, site: Site, compile_: Compile) -> Evaluate:
    part, wanted = compile_(node.this), node.expression
    if isinstance(wanted, exp.Null):
        return lambda frame: Value(Kind.BOOLEAN, _is_null(part(frame), frame), site)
    if not isinstance(wanted, exp.Boolean):
        raise site.refuse("IS takes NULL, TRUE, FALSE or DISTINCT FROM. Compare values with =.")
    wanted_truth = bool(wanted.this)

    def evaluate(frame: pd.DataFrame) -> Value:
        condition = truth(part(frame), f"IS {str(wanted_truth).upper()}", frame)
        return Value(Kind.BOOLEAN, (condition == wanted_truth).fillna(False), site)

    return evaluate


def membership(node: exp.Expr, site: Site, compile_: Compile) -> Evaluate:
    tested = compile_(node.this)
    if not node.expressions:
        raise site.refuse("IN needs a list of literals in brackets, such as x IN (1, 2).")
    constants = [constant_of(compile_(part)) for part in node.expressions]
    literals = [constant for constant in constants if constant is not None]
    if len(literals) < len(constants):
        part = node.expressions[constants.index(None)]
        raise Site(site.text, start_of(part) + 1).refuse("IN takes literals only. Write comparisons joined with OR.")

    def evaluate(frame: pd.DataFrame) -> Value:
        kind, (value, *members) = unified([tested(frame), *literals], "the list of IN")
        if kind is Kind.NULL:
            return Value(Kind.BOOLEAN, None, site, constant=True)
        series = value.series(frame)
        found = series.isin([member.data for member in members if member.data is not None]).astype("boolean")
        unknown = series.isna()
        if any(member.data is None for member in members):
            unknown = unknown | ~found
        return Value(Kind.BOOLEAN, found.mask(unknown), site)

    return evaluate


def between(node: exp.Expr, site: Site, compile_: Compile) -> Evaluate:
    tested, low, high = compile_(node.this), compile_(node.args["low"]), compile_(node.args["high"])

    def evaluate(frame: pd.DataFrame) -> Value:
        value = tested(frame)
        above = compared("BETWEEN", operator.ge, value, low(frame), frame)
        return Value(Kind.BOOLEAN, above & compared("BETWEEN", operator.le, value, high(frame), frame), site)

    return evaluate


def like(node: exp.Expr, site: Site, compile_: Compile) -> Evaluate:
    tested, pattern = compile_(node.this), constant_of(compile_(node.expression))
    word = "ILIKE" if isinstance(node, exp.ILike) else "LIKE"
    if pattern is None or pattern.kind is not Kind.TEXT:
        raise Site(site.text, start_of(node.expression) + 1).refuse(f"the pattern of {word} must be a text literal.")
    wanted = pattern.data.lower() if word == "ILIKE" else pattern.data
    wildcards = {"%": r"[\s\S]*", "_": r"[\s\S]"}
    regex = "^" + "".join(wildcards.get(c) or re.escape(c) for c in wanted) + "$"
    negate = bool(node.args.get("negate"))

    def evaluate(frame: pd.DataFrame) -> Value:
        value = tested(frame)
        text = coerced(value, Kind.TEXT)
        if text is None:
            raise value.site.refuse(f"{word} needs TEXT, got {value.kind}. Convert it with CAST(... AS VARCHAR).")
        series = text.series(frame)
        found = (series.str.lower() if word == "ILIKE" else series).str.match(regex)
        return Value(Kind.BOOLEAN, ~found if negate else found, site)

    return evaluate
