"""SQL expressions of `filter` and `derive` as queries: the same trees as `treadle.engine.sql`, other leaves.

That an expression is allowed, and that its kinds go together, the host's compiler has said before; here is only what
each node means in Polars. What the two would not compute alike has no query.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import reduce
from typing import Any

import polars as pl
from sqlglot import exp

from treadle.engine.queries.functions import call, part_of
from treadle.engine.queries.values import KINDS, Typed, Unsupported, coerced, constant, converted, known, unified
from treadle.engine.sql.expression import parsed
from treadle.engine.sql.nodes import CAST_TYPES
from treadle.engine.sql.values import Kind


@dataclass
class Compiled:
    """An expression of columns of known kinds, and what must hold of no row: else the host, which says it in words."""

    kinds: Mapping[str, str]
    refused: list[pl.Expr] = field(default_factory=list)

    def of(self, text: str) -> Typed:
        """The expression `text`. Unsupported where there is no query for it."""
        return self(parsed(text))

    def __call__(self, node: exp.Expr) -> Typed:
        compiler = _COMPILERS.get(type(node))
        if compiler is None:
            raise Unsupported(f"{type(node).__name__.lower()} in an expression")
        return compiler(self, node)


def _literal(compiled: Compiled, node: exp.Expr) -> Typed:
    if isinstance(node, exp.Null):
        return constant(Kind.NULL, None)
    if isinstance(node, exp.Boolean):
        return constant(Kind.BOOLEAN, bool(node.this))
    if node.is_string:
        return constant(Kind.TEXT, node.name)
    whole = node.name.isdigit() and len(node.name) < 20 and int(node.name) < 2**63
    return constant(Kind.INTEGER, int(node.name)) if whole else constant(Kind.DOUBLE, float(node.name))


def _column(compiled: Compiled, node: exp.Expr) -> Typed:
    return Typed(KINDS[compiled.kinds[node.name]], pl.col(node.name))


def _paren(compiled: Compiled, node: exp.Expr) -> Typed:
    return compiled(node.this)


def _number(value: Typed) -> Typed:
    if value.kind in (Kind.INTEGER, Kind.DOUBLE):
        return value
    fitting = coerced(value, Kind.INTEGER)
    if fitting is None:
        raise Unsupported(f"arithmetic with {value.kind}")
    return fitting


def _negative(compiled: Compiled, node: exp.Expr) -> Typed:
    part = _number(compiled(node.this))
    if part.constant:
        return constant(part.kind, None if part.data is None else -part.data)
    return Typed(part.kind, part.expr * (-1 if part.kind is Kind.INTEGER else -1.0))


def _arithmetic(compiled: Compiled, node: exp.Expr) -> Typed:
    kind, (x, y) = unified([_number(compiled(node.this)), _number(compiled(node.expression))])
    if isinstance(node, exp.Div):
        x, y = (_double(value) for value in (x, y))
        return Typed(Kind.DOUBLE, known(pl.when(y.expr != 0).then(x.expr / y.expr)))
    if isinstance(node, exp.Mod):
        return _modulo(x, y)
    operators: dict[Any, Callable[[Any, Any], Any]] = {
        exp.Add: operator.add,
        exp.Sub: operator.sub,
        exp.Mul: operator.mul,
    }
    apply = operators[type(node)]
    result = apply(x.expr, y.expr)
    return Typed(kind, known(result) if kind is Kind.DOUBLE else result)


def _modulo(x: Typed, y: Typed) -> Typed:
    """The sign is that of `x`, whatever the engine's own remainder has."""
    if x.kind is Kind.DOUBLE:
        raise Unsupported("% of DOUBLE, which is not exact")
    remainder = x.expr % y.expr
    opposite = (remainder != 0) & ((remainder < 0) != (x.expr < 0))
    return Typed(x.kind, pl.when(y.expr != 0).then(pl.when(opposite).then(remainder - y.expr).otherwise(remainder)))


def _double(value: Typed) -> Typed:
    found = coerced(value, Kind.DOUBLE)
    assert found is not None
    return found


def truth(value: Typed) -> pl.Expr:
    """A condition: true, false or null."""
    found = coerced(value, Kind.BOOLEAN)
    if found is None:
        raise Unsupported(f"{value.kind} as a condition")
    return found.expr


def _compared(apply: Callable[[Any, Any], Any], left: Typed, right: Typed) -> Typed:
    kind, (x, y) = unified([left, right])
    if kind is Kind.NULL:
        return constant(Kind.BOOLEAN, None)
    return Typed(Kind.BOOLEAN, apply(x.expr, y.expr))


_COMPARISONS: dict[Any, Callable[[Any, Any], Any]] = {
    exp.EQ: operator.eq,
    exp.NEQ: operator.ne,
    exp.LT: operator.lt,
    exp.LTE: operator.le,
    exp.GT: operator.gt,
    exp.GTE: operator.ge,
}


def _comparison(compiled: Compiled, node: exp.Expr) -> Typed:
    return _compared(_COMPARISONS[type(node)], compiled(node.this), compiled(node.expression))


def _distinct(compiled: Compiled, node: exp.Expr) -> Typed:
    x, y = compiled(node.this), compiled(node.expression)
    nulls = _is_null(x) & _is_null(y)
    equal = _compared(operator.eq, x, y).expr.fill_null(value=False) | nulls
    return Typed(Kind.BOOLEAN, equal if isinstance(node, exp.NullSafeEQ) else ~equal)


def _is_null(value: Typed) -> pl.Expr:
    return pl.lit(value.data is None) if value.constant else value.expr.is_null()


def _connector(compiled: Compiled, node: Any) -> Typed:
    apply = operator.and_ if isinstance(node, exp.And) else operator.or_
    return Typed(Kind.BOOLEAN, reduce(apply, (truth(compiled(part)) for part in node.flatten(unnest=False))))


def _negation(compiled: Compiled, node: exp.Expr) -> Typed:
    return Typed(Kind.BOOLEAN, ~truth(compiled(node.this)))


def _is_test(compiled: Compiled, node: exp.Expr) -> Typed:
    value = compiled(node.this)
    if isinstance(node.expression, exp.Null):
        return Typed(Kind.BOOLEAN, _is_null(value))
    condition = truth(value).fill_null(value=not node.expression.this)
    return Typed(Kind.BOOLEAN, condition if node.expression.this else ~condition)


def _membership(compiled: Compiled, node: exp.Expr) -> Typed:
    kind, (value, *members) = unified([compiled(node.this), *map(compiled, node.expressions)])
    if kind is Kind.NULL:
        return constant(Kind.BOOLEAN, None)
    # Comparisons one by one: a list would have a type of its own, with its own idea of nulls.
    equal = [value.expr == member.expr for member in members if member.data is not None]
    found = reduce(operator.or_, equal, pl.when(value.expr.is_not_null()).then(pl.lit(value=False)))
    if any(member.data is None for member in members):
        found = pl.when(found).then(pl.lit(value=True))
    return Typed(Kind.BOOLEAN, found)


def _between(compiled: Compiled, node: exp.Expr) -> Typed:
    value = compiled(node.this)
    above = _compared(operator.ge, value, compiled(node.args["low"])).expr
    return Typed(Kind.BOOLEAN, above & _compared(operator.le, value, compiled(node.args["high"])).expr)


def _like(compiled: Compiled, node: exp.Expr) -> Typed:
    """Patterns with % at the ends only: others are regular expressions, whose rules differ."""
    value, pattern = coerced(compiled(node.this), Kind.TEXT), compiled(node.expression).data
    found = re.fullmatch(r"(%*)([^%_]*)(%*)", pattern)
    if value is None or found is None:
        raise Unsupported("LIKE with _ or with % in the middle")
    start, text, end = found.groups()
    expr = value.expr
    if isinstance(node, exp.ILike):
        expr, text = expr.str.to_lowercase(), text.lower()
    holds: pl.Expr
    if not text and (start or end):
        holds = pl.when(expr.is_not_null()).then(pl.lit(value=True))
    elif start and end:
        holds = expr.str.contains(text, literal=True)
    elif start:
        holds = expr.str.ends_with(text)
    elif end:
        holds = expr.str.starts_with(text)
    else:
        holds = expr == text
    return Typed(Kind.BOOLEAN, ~holds if node.args.get("negate") else holds)


def _case(compiled: Compiled, node: exp.Expr) -> Typed:
    tested = None if node.this is None else compiled(node.this)
    default = node.args.get("default")
    branches = node.args["ifs"]
    values = [compiled(branch.args["true"]) for branch in branches]
    values.append(constant(Kind.NULL, None) if default is None else compiled(default))
    kind, same = unified(values)
    if kind is Kind.NULL:
        return constant(Kind.NULL, None)
    result = same[-1].expr
    for branch, then in zip(reversed(branches), reversed(same[:-1]), strict=True):
        when = compiled(branch.this)
        holds = truth(when) if tested is None else _compared(operator.eq, tested, when).expr
        result = pl.when(holds).then(then.expr).otherwise(result)
    return Typed(kind, result)


def _cast(compiled: Compiled, node: exp.Expr) -> Typed:
    to = node.args["to"].this
    target, value = CAST_TYPES[to.value], compiled(node.this)
    found, lost = converted(value, target)
    if lost is not None and type(node) is exp.Cast:
        compiled.refused.append(lost)
    if to is exp.DType.DATE:
        found = Typed(found.kind, found.expr.dt.truncate("1d"))
    return found


def _extract(compiled: Compiled, node: exp.Expr) -> Typed:
    return part_of(node.name.lower(), compiled(node.expression))


def _function(compiled: Compiled, node: exp.Expr) -> Typed:
    return call(node.name.lower(), [compiled(argument) for argument in node.expressions])


def _pipe(compiled: Compiled, node: exp.Expr) -> Typed:
    return call("||", [compiled(node.this), compiled(node.expression)])


_COMPILERS: dict[type[exp.Expr], Callable[[Compiled, Any], Typed]] = {
    **dict.fromkeys((exp.Literal, exp.Boolean, exp.Null), _literal),
    exp.Column: _column,
    exp.Paren: _paren,
    exp.Neg: _negative,
    **dict.fromkeys((exp.Add, exp.Sub, exp.Mul, exp.Div, exp.Mod), _arithmetic),
    **dict.fromkeys(_COMPARISONS, _comparison),
    **dict.fromkeys((exp.NullSafeEQ, exp.NullSafeNEQ), _distinct),
    **dict.fromkeys((exp.And, exp.Or), _connector),
    exp.Not: _negation,
    exp.Is: _is_test,
    exp.In: _membership,
    exp.Between: _between,
    **dict.fromkeys((exp.Like, exp.ILike), _like),
    exp.Case: _case,
    **dict.fromkeys((exp.Cast, exp.TryCast), _cast),
    exp.Extract: _extract,
    exp.Anonymous: _function,
    exp.DPipe: _pipe,
}
