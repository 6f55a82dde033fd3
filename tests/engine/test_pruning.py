"""Filters that leave row groups and files unread: the same rows as without that, and fewer that are read."""

from __future__ import annotations

import datetime as dt
import itertools
from decimal import Decimal
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from tests.engine.readers.reading import shared
from treadle.engine import program as program_module
from treadle.engine.backend import Backend
from treadle.engine.inputs import Inspected, cut
from treadle.engine.operation import ROW_ID
from treadle.engine.program import Program, Step
from treadle.engine.pruning import conditions_of, narrowed
from treadle.engine.relational import TableOperation
from treadle.engine.store import Store
from treadle.engine.text_input import inspect
from treadle.errors import DataError

PROPERTY = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
NAMES = itertools.count()
OPERATION: TypeAdapter[Any] = TypeAdapter(TableOperation)


def program_of(inspected: Inspected, *tables: Any, id_column: str | None = None) -> Program:
    """A text stands for a filter."""
    operations = [{"op": "filter", "sql": table} if isinstance(table, str) else table for table in tables]
    steps = tuple(Step(i, OPERATION.validate_python(operation)) for i, operation in enumerate(operations))
    return Program(Store("/"), Backend(), tuple(inspected.kinds.items()), id_column, steps)


def rows_read(program: Program, inspected: Inspected, count: int) -> int:
    """Rows that are left to read of all partitions."""
    parts = (
        narrowed(program.store, dict(program.kinds), program.id_column, program.steps, partition)
        for partition in cut(inspected.files, count)
    )
    return sum(piece.rows for part in parts for piece in part)


def outcome(program: Program, inspected: Inspected, count: int) -> pd.DataFrame:
    frames = [program.rows(partition) for partition in cut(inspected.files, count)]
    return pd.concat(frames, ignore_index=True)


def outcome_of_all(program: Program, inspected: Inspected, count: int) -> pd.DataFrame:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(program_module, "narrowed", lambda store, kinds, id_column, steps, pieces: list(pieces))
        return outcome(program, inspected, count)


TIMES = st.datetimes(dt.datetime(2020, 1, 1), dt.datetime(2020, 1, 5))
CELLS = {
    "i": (pa.int16(), st.integers(-4, 4)),
    "f": (pa.float32(), st.sampled_from([-1.5, -0.0, 0.5, 2.0, float("nan"), float("inf")])),
    "s": (pa.string(), st.sampled_from(["", "a", "ab", "b", "é", "\U0001f600"])),
    "t": (pa.timestamp("ns"), TIMES),
    "z": (pa.timestamp("us", "UTC"), TIMES.map(lambda time: time.replace(tzinfo=dt.UTC))),
    "d": (pa.date32(), TIMES.map(lambda time: time.date())),
    "m": (pa.decimal128(6, 2), st.integers(-3, 3).map(lambda n: Decimal(n) / 4)),
    "b": (pa.bool_(), st.booleans()),
}
LITERALS = {
    "i": ["-2", "0", "3", "1.5", "99"],
    "f": ["-1.5", "0", "0.5", "7"],
    "s": ["''", "'a'", "'b'", "'é'", "'zz'"],
    "t": ["'2020-01-02'", "'2020-01-03 12:00:00'", "'2021-01-01'"],
    "z": ["'2020-01-02'", "'2020-01-03 12:00:00'", "'2021-01-01'"],
    "d": ["'2020-01-02'", "'2020-01-03 12:00:00'", "'2019-01-01'"],
    "m": ["-0.5", "0", "0.25", "9"],
}


@st.composite
def conditions(draw: st.DrawFn) -> str:
    name = draw(st.sampled_from(sorted(LITERALS)))
    one, other = (draw(st.sampled_from(LITERALS[name])) for _ in range(2))
    operator = draw(st.sampled_from(["=", "<", "<=", ">", ">=", "<>"]))
    return draw(
        st.sampled_from(
            [
                f"{name} {operator} {one}",
                f"{one} {operator} {name}",
                f"{name} in ({one}, {other})",
                f"{name} between {one} and {other}",
                f"{name} is null",
                f"{name} is not null",
                f"not ({name} is null)",
                f"not ({name} = {one})",
                f"({name} = {one} or {name} > {other})",
                "b",
            ]
        )
    )


@PROPERTY
@given(
    rows=st.lists(st.tuples(*(st.none() | cells for _, cells in CELLS.values())), min_size=1, max_size=30),
    filters=st.lists(st.lists(conditions(), min_size=1, max_size=2).map(" and ".join), min_size=1, max_size=2),
    group=st.sampled_from([1, 3, 100]),
    count=st.integers(1, 4),
    files=st.integers(1, 2),
)
def test_the_rows_are_those_of_the_filters(
    rows: list[tuple[Any, ...]], filters: list[str], group: int, count: int, files: int, tmp_path: Path
) -> None:
    folder = tmp_path / str(next(NAMES))
    for number in range(files):
        (folder / f"file={number}").mkdir(parents=True)
        part = rows[number::files]
        arrays = [pa.array([row[i] for row in part], type_) for i, (type_, _) in enumerate(CELLS.values())]
        table = pa.table(dict(zip(CELLS, arrays, strict=True)))
        pq.write_table(table, folder / f"file={number}" / "1.parquet", row_group_size=group)
    inspected = inspect(str(folder))
    program = program_of(inspected, *filters, {"op": "derive", "name": "x", "sql": "i + file"})
    expected = outcome_of_all(program, inspected, count)
    pd.testing.assert_frame_equal(outcome(program, inspected, count), expected)
    assert rows_read(program, inspected, count) >= len(expected)


@pytest.fixture
def days(tmp_path: Path) -> Inspected:
    """400 rows in row groups of 100: day numbers, and a key that is null in the first row."""
    numbers = list(range(400))
    table = pa.table({"n": numbers, "key": [None, *numbers[1:]], "t": [f"{n // 100}" for n in numbers]})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=100)
    return inspect(str(tmp_path / "a.parquet"))


@pytest.mark.parametrize(
    ("filters", "left"),
    [
        (["n >= 250"], 200),
        (["n >= 250 and n < 280"], 100),
        (["250 <= n", "t = '2'"], 100),
        (["n in (5, 399)"], 200),
        (["n between 90 and 110"], 200),
        (["n > 1000"], 0),
        (["key is null"], 100),
        (["n is null"], 0),
        (["n > 150.5"], 400),
        (["n + 0 > 350"], 400),
        (["n > 350 or n < 10"], 400),
        (["n > 350 and abs(n) > 0"], 400),
        ([{"op": "derive", "name": "n", "sql": "399 - n"}, "n > 350"], 400),
        (["t <> '0'"], 300),
        (["t <> '0'", "n < 150"], 100),
    ],
)
def test_what_is_left_to_read(days: Inspected, filters: list[Any], left: int) -> None:
    program = program_of(days, *filters)
    assert rows_read(program, days, 1) == left
    for count in (1, 3):
        pd.testing.assert_frame_equal(outcome(program, days, count), outcome_of_all(program, days, count))


def test_ids_are_the_same_and_a_null_id_is_found(days: Inspected) -> None:
    assert outcome(program_of(days, "n >= 398"), days, 2)[ROW_ID].tolist() == [398, 399]
    for count in (1, 4):
        with pytest.raises(DataError, match="The id column 'key' is null in 1 rows"):
            outcome(program_of(days, "n >= 398", id_column="key"), days, count)
    assert rows_read(program_of(days, "n >= 398", id_column="n"), days, 1) == 100


def test_conditions() -> None:
    assert [(c.column, c.operator) for c in conditions_of("not (a is null) and (b = -1 and 'x' > c)") or ()] == [
        ("c", "<"),
        ("b", "="),
        ("a", "not null"),
    ]
    for text in ("a", "a = b", "a = 1 or b = 2", "not a = 1", "a like 'x%'", "cast(a as int) = 1", "a = null"):
        assert conditions_of(text) is None


def test_months_are_files_that_are_not_opened() -> None:
    inspected = inspect(shared("retail/transactions"))
    program = program_of(inspected, "month = '2011-02'", {"op": "select", "columns": ["Quantity"]})
    expected = next(file.rows for file in inspected.files if "month=2011-02" in file.path)
    assert rows_read(program, inspected, 5) == expected == len(outcome(program, inspected, 5))
