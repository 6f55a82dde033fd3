"""What SQL expressions refuse, in which words, and that nothing but a refusal comes of hostile text."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.engine.sql_cases import edge_rows, make_frame, plain
from treadle.engine.sql.expression import compile_expression
from treadle.errors import DataError, RequestError


def refusal(text: str) -> str:
    with pytest.raises(RequestError) as caught:
        compile_expression(text)(make_frame(edge_rows(4)))
    return str(caught.value)


INJECTIONS = [
    "__import__('os').system('true')",
    "@x",
    "@pd.read_csv",
    "x.__class__",
    "x.__class__.__mro__[1]",
    "__import__('os')",
    "eval('1')",
    "exec('1')",
    "open('/etc/passwd')",
    "getattr(x, '__class__')",
    "pd.eval('1')",
    "lambda: 1",
    "[x for x in (1,)]",
    "`x`",
    "f'{x}'",
    "{{ x }}",
    "{% x %}",
    "x; DROP TABLE t",
    "x -- comment",
    "x /* comment */",
    "/*! x */ 1",
    "x # y",
    "(SELECT 1)",
    "SELECT x",
    "x IN (SELECT 1)",
    "EXISTS (SELECT 1)",
    "FROM t",
    "read_csv('x')",
    "COPY t TO 'x'",
    "ATTACH 'x'",
    "PRAGMA x",
    "SET x = 1",
    "$1",
    "?",
    ":x",
    "*",
    "t.*",
    "COLUMNS(*)",
    "sum(x)",
    "sum(x) OVER ()",
    "lag(x) OVER (ORDER BY i)",
    "list_transform([1], x -> x)",
    "x[1]",
    "{'a': 1}",
    "x::INT[]",
    "CAST(x AS STRUCT(a INT))",
    "lower(DISTINCT s)",
    "lower(s ORDER BY x)",
    "x AS y",
    "x, y",
    "(x, y)",
    "x := 1",
    "if(p, 1, (SELECT 2))",
]


@pytest.mark.parametrize("text", INJECTIONS)
def test_injection_is_refused_before_any_frame_is_seen(text: str) -> None:
    with pytest.raises(RequestError, match="In the expression"):
        compile_expression(text)


WORDS = [
    "x",
    "i",
    "s",
    "p",
    "ts",
    '"',
    "'",
    "'a'",
    "1",
    ".5",
    "NULL",
    "(",
    ")",
    ",",
    "+",
    "-",
    "*",
    "/",
    "%",
    "=",
    "<",
    ">",
    "AND",
    "OR",
    "NOT",
    "IS",
    "IN",
    "LIKE",
    "BETWEEN",
    "CASE",
    "WHEN",
    "THEN",
    "ELSE",
    "END",
    "||",
    "CAST",
    "AS",
    "INT",
    "DATE",
    "TIMESTAMP",
    "SELECT",
    "FROM",
    ".",
    "[",
    "]",
    "::",
    ";",
    "--",
    "lower(",
    "if(",
    "date_trunc(",
    "extract(",
    "round(",
    "sum(",
    "OVER",
    "->",
    "@",
    "$",
    "?",
    "{",
    "}",
    "\\",
    "~",
    "^",
    "\n",
]


@settings(max_examples=200, deadline=None)
@given(text=st.text(max_size=30) | st.lists(st.sampled_from(WORDS), max_size=12).map(" ".join))
@example(text="NOT " * 2000 + "p")
@example(text="(" * 2000)
@example(text="CASE WHEN p THEN " * 200 + "1" + " END" * 200)
@example(text="+".join(["x"] * 5000))
@example(text="1" * 5000)
@example(text="round(x, -" + "9" * 18 + ")")
@example(text="substring(s, -" + "9" * 18 + ", " + "9" * 18 + ")")
@example(text="'\x00' || s")
@example(text="²")
def test_random_text_gives_an_answer_or_a_refusal(text: str) -> None:
    frame = make_frame(edge_rows(4))
    try:
        result = compile_expression(text)(frame)
    except (RequestError, DataError):
        return
    assert result.index.equals(frame.index)


@pytest.mark.parametrize(
    ("text", "position", "words"),
    [
        ("x; y", 2, "a second statement"),
        ("x + (SELECT 1)", 6, "a subquery .SELECT. is not allowed. Use the operations join and aggregate"),
        ("x + ?", 5, "a parameter"),
        ("x  /* y */", 4, "a comment is not allowed"),
        ("1 + t.x", 6, 'a qualified name .* Quote a column name with dots: "a.b"'),
        ("a[0]", 2, r'Quote a column name with brackets: "a\[0\]"'),
        ("x -> 1", 3, "a lambda"),
        ("*", 1, "Name a column"),
        ("1 + sum(x)", 5, "the aggregate sum.. needs many rows.* Use the operation aggregate"),
        ("i + row_number() OVER ()", 5, "a window function is not allowed"),
        (
            "i + lenght(s)",
            5,
            r"unknown function lenght\(\). Did you mean 'length'\? Functions: abs, ceil, coalesce",
        ),
        ("1 + ln(x, y)", 5, r"ln\(\) takes 1 argument, got 2"),
        ("round(x, 1, 2)", 1, r"round\(\) takes 1 or 2 arguments, got 3"),
        ("coalesce()", 1, r"coalesce\(\) takes 1 or more arguments, got 0"),
        ("round(x, i)", 1, r"argument 2 of round\(\) must be a literal INTEGER"),
        ("substring(s, 1, -1)", 18, "must not be negative"),
        ("date_trunc('yeer', ts)", 12, "unknown unit 'yeer' .* Did you mean 'year'"),
        ("extract(mont FROM ts)", 19, "does not know the part .* Did you mean 'month'"),
        ("x + ", 3, "it cannot be read near '\\+'"),
        ("x y", 3, "it cannot be read near 'y'. Is an operator, a comma or a bracket missing"),
        ("s = 'a", 1, "Are all quotes closed"),
        ("x ^ 2", 1, r"Write power\(a, b\)"),
        ("x // 2", 1, r"Write floor\(a / b\)"),
        ("ts + INTERVAL 1 DAY", 1, r"Write date_diff\(unit, a, b\)"),
        ("s LIKE '!%' ESCAPE '!'", 1, "Write contains"),
        ("s LIKE u", 8, "the pattern of LIKE must be a text literal"),
        ("x IN (1, y)", 10, "IN takes literals only"),
        ("x IN y", 1, "IN needs a list of literals"),
        ("x IS 1", 1, "IS takes NULL, TRUE, FALSE"),
        ("x & 1", 1, "'bitwise and' is not allowed. Allowed are columns, literals"),
        ("i BETWEEN SYMMETRIC 1 AND 2", 1, "'between' with symmetric is not allowed"),
        ("CAST(x AS DECIMAL(3, 1))", 6, "the type DECIMAL.* is not known here. Types: INTEGER, BIGINT"),
        ("TIMESTAMP 'soon'", 11, "'soon' is not a timestamp. Write 'YYYY-MM-DD"),
        ("ts > 'soon'", 6, "'soon' is not a timestamp"),
        ("1 + 'a'", 5, r"the operator \+ needs numbers, got TEXT. Join texts with \|\|"),
        ("p * 2", 1, "needs numbers, got BOOLEAN. Write CAST"),
        ("ts - te", 1, "needs numbers, got TIMESTAMP. Write date_diff"),
        ("-s", 2, "the operator - needs numbers, got TEXT"),
        ("s > 1", 5, "the comparison > mixes TEXT and INTEGER. Make them alike with CAST or TRY_CAST"),
        ("p OR x", 6, "OR needs a condition, got DOUBLE. Write a comparison"),
        ("NOT s", 5, "NOT needs a condition, got TEXT"),
        ("x LIKE 'a'", 1, "LIKE needs TEXT, got DOUBLE"),
        ("1 + length(x)", 12, r"argument 1 of length\(\) must be TEXT, got DOUBLE"),
        ("abs(s)", 5, r"argument 1 of abs\(\) must be a number, got TEXT"),
        ("CASE WHEN p THEN 'a' ELSE 1 END", 27, "CASE mixes TEXT and INTEGER"),
        ("coalesce(x, 'a')", 13, r"coalesce\(\) mixes DOUBLE and TEXT"),
        ("x IN ('a')", 7, "the list of IN mixes DOUBLE and TEXT"),
        ("CAST(ts AS INT)", 6, "TIMESTAMP cannot be cast to INTEGER. For seconds since 1970 write epoch"),
        ("CAST(i AS TIMESTAMP)", 6, "INTEGER cannot be cast to TIMESTAMP"),
        ("NULL", 1, "the type of NULL is not known here. Write, say, CAST"),
        ("abs(x) + greatest(NULL, NULL)", 10, r"all arguments of greatest\(\) are NULL"),
        ("+".join(["x"] * 200), 1, "nested too deeply. Split it into several derive operations"),
        ("(" * 30 + "x" + ")" * 30, 25, "nested too deeply"),
    ],
)
def test_refusal_names_construct_position_and_remedy(text: str, position: int, words: str) -> None:
    assert re.search(f"character {position}: .*{words}", refusal(text))


def test_empty_expression_is_refused() -> None:
    assert "The expression is empty. Write, for example, x > 0." in refusal("  ")


def test_missing_column_is_named_with_the_nearest() -> None:
    expression = compile_expression("capital_gian > 0")
    with pytest.raises(RequestError, match=r"Column 'capital_gian' was not found in the expression .*Did you mean"):
        expression(pd.DataFrame({"capital_gain": [1.0]}))
    with pytest.raises(RequestError, match="Column 'Capital_gain' was not found"):  # case matters
        compile_expression("Capital_gain > 0")(pd.DataFrame({"capital_gain": [1.0]}))


def test_cast_failure_names_value_and_type() -> None:
    frame = pd.DataFrame({"s": pd.Series(["1", None, "x1", "x2"], dtype="str"), "x": [1.0, 2.0, np.nan, np.inf]})
    with pytest.raises(DataError, match=r"character 10: CAST cannot make INT of the TEXT 'x1' \(2 such.*TRY_CAST"):
        compile_expression("1 + CAST(s AS INT)")(frame)
    with pytest.raises(DataError, match="CAST cannot make BIGINT of the DOUBLE 'inf'"):
        compile_expression("x::BIGINT")(frame)
    assert plain(compile_expression("TRY_CAST(s AS INT)")(frame)) == [1, None, None, None]
