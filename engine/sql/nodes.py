"""The white list of SQL expressions: what may stand in the tree that sqlglot parses, and what it computes.

Every node is looked up in `_COMPILERS`, which also lists the arguments of the node that are
understood; a node or an argument that is not there is refused. A compiled node is a function of
a frame; all checks that need no frame are made once, at compilation.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd
from sqlglot import exp

from treadle.engine.sql.functions import (
    CONCATENATE,
    FUNCTIONS,
    PART_NAMES,
    call,
    check_call,
    find_function,
)
from treadle.engine.sql.logic import (
    COMPARISONS,
    between,
    compared,
    comparison,
    connector,
    distinct,
    is_test,
    like,
    membership,
    negation,
    truth,
)
from treadle.engine.sql.values import (
    Compile,
    Constant,
    Data,
    Evaluate,
    Kind,
    Site,
    Value,
    cast,
    coerced,
    column_value,
    constant_of,
    start_of,
    timestamp_constant,
    unified,
)
from treadle.errors import RequestError, did_you_mean

_MAX_DEPTH = 150  # compiling takes three of Python's 1000 stack frames a level, computing two
TOO_DEEP = "nested too deeply. Split it into several derive operations."

SYNTAX = (
    "Allowed are columns, literals, + - * / % ||, comparisons, AND, OR, NOT, IS NULL, IS DISTINCT FROM, "
    "IN, BETWEEN, LIKE, ILIKE, CASE, CAST, TRY_CAST, EXTRACT and the functions " + ", ".join(sorted(FUNCTIONS))
)

_REMEDIES: dict[type[exp.Expr], tuple[str, str]] = {
    exp.Window: ("a window function", "Expressions see one row at a time."),
    exp.Pow: ("the operator ^ or **", "Write power(a, b)."),
    exp.IntDiv: ("the operator //", "Write floor(a / b)."),
    exp.Star: ("*", "Name a column."),
    exp.Escape: ("ESCAPE", "Write contains(...), which takes % and _ as they are."),
    exp.Interval: ("an interval", "Write date_diff(unit, a, b)."),
    exp.Concat: ("a text beside a text", "Join texts with ||."),
    exp.Tuple: ("a list of values", "Write one expression."),
}


def _refused(node: exp.Expr, site: Site, detail: str = "") -> RequestError:
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", type(node).__name__).lower()
    construct, remedy = _REMEDIES.get(type(node), (f"'{words}'", f"{SYNTAX}."))
    return site.refuse(f"{construct}{detail} is not allowed. {remedy}")


def compile_node(node: exp.Expr, text: str, depth: int = 0) -> Evaluate:
    site = Site(text, start_of(node) + 1)
    compiler, known = _COMPILERS.get(type(node), (None, frozenset()))
    if compiler is None:
        raise _refused(node, site)
    for name, given in node.args.items():
        if name not in known and given:
            raise _refused(node, site, f" with {name}")
    if depth > _MAX_DEPTH:
        raise site.refuse(TOO_DEEP)
    return compiler(node, site, lambda part: compile_node(part, text, depth + 1))


def _literal(node: exp.Expr, site: Site, compile_: Compile) -> Evaluate:
    if isinstance(node, exp.Null):
        return Constant(Value(Kind.NULL, None, site, constant=True))
    if isinstance(node, exp.Boolean):
        return Constant(Value(Kind.BOOLEAN, bool(node.this), site, constant=True))
    if node.is_string:
        return Constant(Value(Kind.TEXT, node.name, site, constant=True))
    if not re.fullmatch(r"([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?", node.name):
        raise site.refuse(f"'{node.name}' is not a number.")
    whole = node.name.isdigit() and len(node.name) < 20 and int(node.name) < 2**63
    data, kind = (int(node.name), Kind.INTEGER) if whole else (float(node.name), Kind.DOUBLE)
    return Constant(Value(kind, data, site, constant=True))


def _column(node: exp.Expr, site: Site, compile_: Compile) -> Evaluate:
    if not isinstance(node.this, exp.Identifier):
        raise _refused(node.this, site)
    name = node.name
    return lambda frame: column_value(frame[name], site)


def _paren(node: exp.Expr, site: Site, compile_: Compile) -> Evaluate:
    return compile_(node.this)


def _number(value: Value, symbol: str) -> Value:
    if value.kind in (Kind.INTEGER, Kind.DOUBLE):
        return value
    fitting = coerced(value, Kind.INTEGER)
    if fitting is not None:
        return fitting
    remedies = {
        Kind.TEXT: "Join texts with ||, read numbers with CAST or TRY_CAST.",
        Kind.TIMESTAMP: "Write date_diff(unit, a, b) or epoch(...).",
    }
    remedy = remedies.get(value.kind, "Write CAST(... AS INTEGER).")
    raise value.site.refuse(f"the operator {symbol} needs numbers, got {value.kind}. {remedy}")


def _negative(node: exp.Expr, site: Site, compile_: Compile) -> Evaluate:
    part = compile_(node.this)
    constant = constant_of(part)
    if constant is not None and constant.kind in (Kind.INTEGER, Kind.DOUBLE):
        return Constant(replace(constant, data=-constant.data))

    def evaluate(frame: pd.DataFrame) -> Value:
        value = _number(part(frame), "-")
        return Value(value.kind, -value.series(frame), site)

    return evaluate


def _divide(x: Data, y: Data) -> Data:
    return (x.astype("Float64") / y).mask((y == 0).fillna(False))


def _modulo(x: Data, y: Data) -> Data:
    """The sign is that of `x`, as in SQL; pandas takes that of `y`."""
    return np.fmod(x, y).mask((y == 0).fillna(False))


_ARITHMETIC: dict[type[exp.Expr], tuple[str, Callable[[Data, Data], Data]]] = {
    exp.Add: ("+", operator.add),
    exp.Sub: ("-", operator.sub),
    exp.Mul: ("*", operator.mul),
    exp.Div: ("/", _divide),
    exp.Mod: ("%", _modulo),
}


def _arithmetic(node: exp.Expr, site: Site, compile_: Compile) -> Evaluate:
    symbol, apply = _ARITHMETIC[type(node)]
    left, right = compile_(node.this), compile_(node.expression)

    def evaluate(frame: pd.DataFrame) -> Value:
        sides = [_number(part(frame), symbol) for part in (left, right)]
        kind, (x, y) = unified(sides, f"the operator {symbol}")
        kind = Kind.DOUBLE if apply is _divide else kind
        return Value(kind, apply(x.series(frame), y.series(frame)), site)

    return evaluate


def _case(node: exp.Expr, site: Site, compile_: Compile) -> Evaluate:
    operand = compile_(node.this) if node.this is not None else None
    branches = [(compile_(branch.this), compile_(branch.args["true"])) for branch in node.args["ifs"]]
    default = node.args.get("default")
    otherwise = compile_(default if default is not None else exp.Null())

    def holds(when: Evaluate, tested: Value | None, frame: pd.DataFrame) -> Data:
        if tested is None:
            return truth(when(frame), "WHEN", frame).fillna(False)
        return compared("WHEN", operator.eq, tested, when(frame), frame).fillna(False)

    def evaluate(frame: pd.DataFrame) -> Value:
        tested = operand(frame) if operand is not None else None
        values = [then(frame) for _, then in branches] + [otherwise(frame)]
        kind, same = unified(values, "CASE")
        if kind is Kind.NULL:
            return Value(Kind.NULL, None, site, constant=True)
        result = same[-1].series(frame)
        for (when, _), then in zip(reversed(branches), reversed(same[:-1]), strict=True):
            result = then.series(frame).where(holds(when, tested, frame), result)
        return Value(kind, result, site)

    return evaluate


CAST_TYPES = {
    "INT": Kind.INTEGER,
    "BIGINT": Kind.INTEGER,
    "DOUBLE": Kind.DOUBLE,
    "FLOAT": Kind.DOUBLE,
    "BOOLEAN": Kind.BOOLEAN,
    "TEXT": Kind.TEXT,
    "VARCHAR": Kind.TEXT,
    "TIMESTAMP": Kind.TIMESTAMP,
    "TIMESTAMPNTZ": Kind.TIMESTAMP,
    "DATE": Kind.TIMESTAMP,
}
_TYPE_NAMES = "INTEGER, BIGINT, DOUBLE, FLOAT, BOOLEAN, TEXT, VARCHAR, TIMESTAMP and DATE"


def _cast(node: exp.Expr, site: Site, compile_: Compile) -> Evaluate:
    name = node.args["to"].sql("duckdb")
    base = node.args["to"].this
    target = CAST_TYPES.get(getattr(base, "value", "")) if not node.args["to"].expressions else None
    if target is None:
        raise site.refuse(f"the type {name} is not known here. Types: {_TYPE_NAMES}.")
    part = compile_(node.this)
    constant, to_date, strict = constant_of(part), base is exp.DType.DATE, type(node) is exp.Cast
    if strict and target is Kind.TIMESTAMP and constant is not None and constant.kind is Kind.TEXT:
        moment = replace(timestamp_constant(constant), site=site)
        return Constant(replace(moment, data=moment.data.floor("D")) if to_date else moment)

    def evaluate(frame: pd.DataFrame) -> Value:
        value = part(frame)
        result = cast(value, target, frame).series(frame)
        if strict:
            _check_cast(value, result, name, frame, site)
        return Value(target, result.dt.floor("D") if to_date else result, site)

    return evaluate


def _check_cast(value: Value, result: Data, name: str, frame: pd.DataFrame, site: Site) -> None:
    if value.kind in (Kind.NULL, Kind.TIMESTAMP):
        return
    source = value.series(frame)
    failed = source[result.isna() & source.notna()]
    if len(failed):
        raise site.fail(
            f"CAST cannot make {name} of the {value.kind} '{failed.iloc[0]}' ({len(failed)} such rows here). "
            "Write TRY_CAST to get NULL instead."
        )


def _extract(node: exp.Expr, site: Site, compile_: Compile) -> Evaluate:
    part = PART_NAMES.get(node.name.lower())
    if part is None:
        raise site.refuse(
            f"EXTRACT does not know the part '{node.name}'.{did_you_mean(node.name, PART_NAMES)} "
            f"Parts: {', '.join(PART_NAMES)}."
        )
    argument = compile_(node.expression)
    return lambda frame: call(part, FUNCTIONS[part], [argument(frame)], frame, site)


def _function(node: exp.Expr, site: Site, compile_: Compile) -> Evaluate:
    name = node.name.lower()
    function = find_function(node.name, site)
    arguments = [compile_(argument) for argument in node.expressions]
    check_call(name, function, [constant_of(argument) for argument in arguments], site)
    return lambda frame: call(name, function, [argument(frame) for argument in arguments], frame, site)


def _pipe(node: exp.Expr, site: Site, compile_: Compile) -> Evaluate:
    left, right = compile_(node.this), compile_(node.expression)
    return lambda frame: call("||", CONCATENATE, [left(frame), right(frame)], frame, site)


Compiler = Callable[[exp.Expr, Site, Compile], Evaluate]
_BINARY = frozenset({"this", "expression", "typed", "safe"})
_COMPILERS: dict[type[exp.Expr], tuple[Compiler, frozenset[str]]] = {
    exp.Literal: (_literal, frozenset({"this", "is_string"})),
    exp.Boolean: (_literal, frozenset({"this"})),
    exp.Null: (_literal, frozenset()),
    exp.Column: (_column, frozenset({"this"})),
    exp.Paren: (_paren, frozenset({"this"})),
    exp.Neg: (_negative, frozenset({"this"})),
    **dict.fromkeys(_ARITHMETIC, (_arithmetic, _BINARY)),
    **dict.fromkeys(COMPARISONS, (comparison, _BINARY)),
    exp.NullSafeEQ: (distinct, _BINARY),
    exp.NullSafeNEQ: (distinct, _BINARY),
    exp.And: (connector, _BINARY),
    exp.Or: (connector, _BINARY),
    exp.Not: (negation, frozenset({"this"})),
    exp.Is: (is_test, _BINARY),
    exp.In: (membership, frozenset({"this", "expressions", "field"})),
    exp.Between: (between, frozenset({"this", "low", "high"})),
    exp.Like: (like, _BINARY | {"negate"}),
    exp.ILike: (like, _BINARY | {"negate"}),
    exp.Case: (_case, frozenset({"this", "ifs", "default"})),
    exp.Cast: (_cast, frozenset({"this", "to"})),
    exp.TryCast: (_cast, frozenset({"this", "to", "safe"})),
    exp.Extract: (_extract, frozenset({"this", "expression"})),
    exp.Anonymous: (_function, frozenset({"this", "expressions"})),
    exp.DPipe: (_pipe, _BINARY),
}
