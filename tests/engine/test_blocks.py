"""Blocks of featurised rows: taken, written as a table, and back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tests.engine.parts import by_path
from treadle.engine.artifacts import SplitRule
from treadle.engine.blocks import Block, load_block
from treadle.engine.store import Store

NAMES = ("f", "g=a b", "h")
RULES: list[tuple[SplitRule, list[Any]]] = [
    (by_path("binary", ("no", "yes")), ["yes", "no", "yes", "no"]),
    (by_path("binary", (True, False)), [False, True, False, True]),
    (by_path("multiclass", (-1, 9, 10)), [9, -1, 10, 9]),
    (by_path("regression"), [0.5, -1.0, 1e300, 0.1]),
]


def block_of(rule: SplitRule, values: list[Any], ids: pa.Array) -> Block:
    matrix = np.array([[1, np.nan, 3], [4, 5, 6], [7, 8, np.nan], [1e30, -0.0, 2]], dtype=np.float32)
    codes = [float(rule.classes.index(v)) if rule.classes else v for v in values]
    protected = {"city": pa.array(["a", None, "b", ""]), "old": pa.array([True, None, False, True])}
    return Block(ids, np.array([True, False, True, False]), np.array(codes), matrix, protected)


def assert_same(one: Block, other: Block) -> None:
    assert one.rows == other.rows
    assert one.ids.equals(other.ids)
    for name in ("test", "target", "matrix"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    assert one.matrix.dtype == other.matrix.dtype == np.float32
    assert one.matrix.flags.c_contiguous
    assert one.target.dtype == other.target.dtype
    assert {name: values.to_pylist() for name, values in one.protected.items()} == {
        name: values.to_pylist() for name, values in other.protected.items()
    }


@pytest.mark.parametrize(("rule", "values"), RULES)
@pytest.mark.parametrize("ids", [pa.array([3, 1, 2, 2**60]), pa.array(["a", "ä", "", "b"])])
def test_a_block_comes_back_from_its_file(tmp_path: Path, rule: SplitRule, values: list[Any], ids: pa.Array) -> None:
    store = Store(str(tmp_path))
    whole = block_of(rule, values, ids)
    for mask in ([True] * 4, [False, True, True, False], [False] * 4):
        block = whole.take(np.array(mask))
        table = block.table(NAMES, "y", rule)
        assert table.column_names == ["id", "split", "y", "protected.city", "protected.old", *NAMES]
        assert table.column("y").to_pylist() == [v for v, kept in zip(values, mask, strict=True) if kept]
        part = store.write_parquet("b.parquet", table)
        assert_same(load_block(part, store, NAMES, "y", rule), block)


def test_take_and_select() -> None:
    block = block_of(*RULES[0], pa.array([3, 1, 2, 4]))
    assert block.select("all") is block
    test = block.select("test")
    assert test.ids.to_pylist() == [3, 2]
    assert test.target.tolist() == [1.0, 1.0]
    assert test.protected["city"].to_pylist() == ["a", "b"]
    np.testing.assert_array_equal(test.matrix, block.matrix[[0, 2]])
    assert test.select("test") is test
    assert block.take(np.zeros(4, dtype=bool)).rows == 0
