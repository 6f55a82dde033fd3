"""Scalar SQL expressions (operations `filter` and `derive`), compiled from a white list.

The text is parsed by sqlglot and every node of the tree is looked up in `sql_nodes._COMPILERS`
and every function in `sql_functions.FUNCTIONS`; whatever is in neither is refused, so that text
of a user never reaches Python's evaluator, a frame's attributes or a query engine.

Null follows SQL's three-valued logic. Meanings are DuckDB's, except: `/` and `%` by zero and
functions outside of their domain give null; NaN is null; decimal literals are doubles; integers
have 64 bits and wrap around; dates are timestamps at midnight. Every branch of CASE is computed
for every row, so a CAST in one may fail for rows that another branch answers: use TRY_CAST there.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from sqlglot import Token, TokenType, exp
from sqlglot.dialects.duckdb import DuckDB
from sqlglot.errors import ParseError, SqlglotError
from sqlglot.parsers.duckdb import DuckDBParser

from treadle.engine.sql.nodes import SYNTAX, TOO_DEEP, compile_node
from treadle.engine.sql.values import Evaluate, Kind, Site, Value, mark_starts, result_series, start_of
from treadle.errors import RequestError, column_not_found

_MAX_NESTING = 24  # sqlglot takes 25 of Python's 1000 stack frames a bracket; Dask's workers start deep


@dataclass(frozen=True)
class Expression:
    """A checked expression; picklable, since only the text travels.

    `columns` are the columns that it reads, in the order of their first use.
    """

    text: str
    columns: tuple[str, ...]

    def __call__(self, frame: pd.DataFrame) -> pd.Series:
        """The value for every row: float64, Int64, boolean, str or datetime64[us], with the frame's index.

        The dtype depends on the frame's dtypes only, not on its rows. RequestError for a missing
        column or types that do not go together; DataError for a value that CAST cannot convert.
        """
        return result_series(self._value(frame), frame)

    def mask(self, frame: pd.DataFrame) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """A host array of bool, one entry a row: True where the predicate is true, not false or null."""
        value = self._value(frame)
        if value.kind is not Kind.BOOLEAN:
            raise Site(self.text, 1).refuse(
                f"a filter needs a condition, this is {value.kind}. Write a comparison, such as x > 0."
            )
        return np.asarray(value.series(frame).fillna(False).to_numpy(dtype=bool))

    def _value(self, frame: pd.DataFrame) -> Value:
        for column in self.columns:
            if column not in frame.columns:
                raise column_not_found(column, f'the expression "{self.text}"', map(str, frame.columns))
        with np.errstate(all="ignore"):
            return _program(self.text)[0](frame)


def compile_expression(text: str) -> Expression:
    """Checks and compiles a scalar SQL expression.

    RequestError says what is not allowed, at which character, and what is.
    """
    return Expression(text, _program(text)[1])


@lru_cache(maxsize=1024)
def _program(text: str) -> tuple[Evaluate, tuple[str, ...]]:
    tree = parsed(text)
    mark_starts(tree)
    evaluate = compile_node(tree, text)
    columns = sorted(tree.find_all(exp.Column), key=start_of)
    return evaluate, tuple(dict.fromkeys(column.name for column in columns))


class _Dialect(DuckDB):
    """DuckDB's grammar, with every function call left as a name and arguments for our own table."""

    class Parser(DuckDBParser):
        FUNCTIONS: ClassVar = {}
        NO_PAREN_FUNCTIONS: ClassVar = {}
        NO_PAREN_FUNCTION_PARSERS: ClassVar = {"CASE": DuckDBParser.NO_PAREN_FUNCTION_PARSERS["CASE"]}
        FUNCTION_PARSERS: ClassVar = {
            name: DuckDBParser.FUNCTION_PARSERS[name] for name in ("CAST", "TRY_CAST", "EXTRACT")
        }
        PRIMARY_PARSERS: ClassVar = {
            **DuckDBParser.PRIMARY_PARSERS,
            TokenType.NULL: lambda self, token: exp.Null().update_positions(token),
            TokenType.TRUE: lambda self, token: exp.Boolean(this=True).update_positions(token),
            TokenType.FALSE: lambda self, token: exp.Boolean(this=False).update_positions(token),
        }


_REFUSED_TOKENS = {
    TokenType.SEMICOLON: ("a second statement (;)", "Write one expression."),
    TokenType.SELECT: ("a subquery (SELECT)", "Use the operations join and aggregate."),
    TokenType.PLACEHOLDER: ("a parameter (?)", "Write the value itself."),
    TokenType.PARAMETER: ("a parameter (@ or $)", "Write the value itself."),
    TokenType.COLON: ("a parameter or a slice (:)", "Write the value itself."),
    TokenType.ARROW: ("a lambda (->)", f"{SYNTAX}."),
    TokenType.L_BRACKET: ("a subscript or a list ([)", 'Quote a column name with brackets: "a[0]".'),
    TokenType.L_BRACE: ("a struct ({)", f"{SYNTAX}."),
    TokenType.DOT: ("a qualified name (.)", 'Quote a column name with dots: "a.b".'),
}


def parsed(text: str) -> exp.Expr:
    if not text.strip():
        raise RequestError("The expression is empty. Write, for example, x > 0.")
    try:
        tokens = _Dialect().tokenize(text)
        _check_tokens(tokens, text)
        tree = _Dialect().parser().parse_into(exp.Condition, tokens, text)[0]
    except RequestError:
        raise
    except ParseError as error:
        raise _syntax_error(error, tokens, text) from error
    except SqlglotError as error:
        raise Site(text, 1).refuse("it cannot be read. Are all quotes closed?") from error
    except RecursionError:
        raise Site(text, 1).refuse(TOO_DEEP) from None
    except Exception as error:
        # The parser is another project's and the text anyone's: whatever it raises is a refusal.
        raise Site(text, 1).refuse(f"it is not a scalar SQL expression. {SYNTAX}.") from error
    if tree is None:
        raise Site(text, 1).refuse(f"it is not a scalar SQL expression. {SYNTAX}.")
    return tree


def _check_tokens(tokens: list[Token], text: str) -> None:
    """Refuses what tokens give away, and comments, which hide between them."""
    end = 0
    for begin, after in [*((token.start, token.end + 1) for token in tokens), (len(text), len(text))]:
        gap = text[end:begin]
        if gap.strip():
            position = end + len(gap) - len(gap.lstrip()) + 1
            raise Site(text, position).refuse("a comment is not allowed. Comment in the spec instead.")
        end = max(end, after)
    depth = 0
    for token in tokens:
        opens = token.token_type in (TokenType.L_PAREN, TokenType.CASE)
        depth += opens - (token.token_type in (TokenType.R_PAREN, TokenType.END))
        if depth > _MAX_NESTING:
            raise Site(text, token.start + 1).refuse(TOO_DEEP)
        if token.token_type in _REFUSED_TOKENS:
            construct, remedy = _REFUSED_TOKENS[token.token_type]
            raise Site(text, token.start + 1).refuse(f"{construct} is not allowed. {remedy}")


def _syntax_error(error: ParseError, tokens: list[Token], text: str) -> RequestError:
    place = error.errors[0] if error.errors else {}
    at = [token for token in tokens if (token.line, token.col) == (place.get("line"), place.get("col"))]
    site = Site(text, (at or tokens)[-1].start + 1 if tokens else 1)
    near = f" near '{at[-1].text}'" if at else ""
    return site.refuse(f"it cannot be read{near}. Is an operator, a comma or a bracket missing?")
