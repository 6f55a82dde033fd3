"""Tables of the CPU and of a device, held against each other by id."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from treadle.engine.column_parity import Column, InMemory, compare


def made(**columns: Any) -> InMemory:
    return InMemory(pa.table(columns))


def test_rows_are_matched_by_id() -> None:
    a = made(id=[3, 1, 2], x=[30.0, 10.0, None], t=["c", "a", None], b=[True, None, False])
    b = made(id=[1, 2, 3], x=[10.0, None, 30.3], t=["a", None, "c"], b=[None, False, True])
    columns, faults = compare(a, b, "id")
    assert faults == []
    assert [column.name for column in columns] == ["id", "x", "t", "b"]
    assert [column.unequal for column in columns] == [0, 0, 0, 0]
    assert columns[1].difference == pytest.approx(0.3 / 30)
    assert [column.difference for column in columns if column.name != "x"] == [0, 0, 0]


@pytest.mark.parametrize(
    ("here", "there", "unequal", "difference"),
    [
        ([1.0, None], [1.0, float("nan")], 1, 0.0),
        ([1.0, 2.0], [1.0, None], 1, 0.0),
        ([float("nan"), 4.0], [float("nan"), 5.0], 0, 0.25),
        ([float("inf"), 4.0], [float("inf"), 4.0], 0, 0.0),
        ([float("inf"), 4.0], [float("-inf"), 4.0], 1, 0.0),
        ([0.0, 0.0], [0.0, 1e-9], 0, 1e-9),
        ([None, None], [None, None], 0, 0.0),
    ],
)
def test_numbers(here: list[Any], there: list[Any], unequal: int, difference: float) -> None:
    a, b = (made(id=[1, 2], x=pa.array(values, pa.float64(), from_pandas=False)) for values in (here, there))
    assert compare(a, b, "id")[0][1] == Column("x", difference, unequal)


@pytest.mark.parametrize(
    ("here", "there", "unequal"),
    [(["a", None], ["a", None], 0), (["a", "b"], ["a", None], 1), (["a", "b"], ["b", "a"], 2), ([1, 2], [1, 3], 1)],
)
def test_anything_else_is_equal_or_not(here: list[Any], there: list[Any], unequal: int) -> None:
    assert compare(made(x=here), made(x=there), "id")[0] == [Column("x", 0.0, unequal)]


def test_types_rows_and_columns() -> None:
    columns, faults = compare(made(x=[1.0], y=[1]), made(x=pa.array([1.0], pa.float32()), z=[1]), "id")
    assert faults == ["column 'y' is only on the CPU", "column 'z' is only on the device"]
    assert [column.fault for column in columns] == ["column 'x' is double on the CPU and float on the device"]
    assert compare(made(x=[1, 2]), made(x=[1]), "id") == ([], ["2 rows on the CPU, and 1 on the device"])
