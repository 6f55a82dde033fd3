"""Frames and Arrow tables are the same thing, and a user's frame is taken as the file it came from would be."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engine.parquet_types import TYPES
from treadle.engine.artifacts import Piece
from treadle.engine.backend import ARROW_TYPES, DTYPES, Backend, conform, kind_of_arrow, kinds_of
from treadle.engine.program import read_piece
from treadle.engine.store import Store
from treadle.errors import RequestError

BACKEND = Backend()
KINDS = {kind: kind for kind in DTYPES}
ROW = st.tuples(
    st.none() | st.integers(-(2**63), 2**63 - 1),
    st.none() | st.floats(allow_nan=False),
    st.none() | st.booleans(),
    st.none() | st.text(max_size=3),
    st.none() | st.datetimes(pd.Timestamp("0001-01-01"), pd.Timestamp("9999-12-31")),
)


@settings(max_examples=50, deadline=None)
@given(st.lists(ROW, max_size=8))
def test_frames_become_tables_and_back(rows: list[tuple[Any, ...]]) -> None:
    columns = zip(*rows, strict=True) if rows else [()] * 5
    frame = pd.DataFrame({k: pd.Series(list(c), dtype=DTYPES[k]) for k, c in zip(KINDS, columns, strict=True)})
    assert kinds_of(frame) == KINDS
    table = BACKEND.table(frame)
    assert dict(zip(table.column_names, table.schema.types, strict=True)) == dict(ARROW_TYPES)
    assert {name: kind_of_arrow(type_) for name, type_ in ARROW_TYPES.items()} == KINDS
    again = BACKEND.frame(table)
    pd.testing.assert_frame_equal(again, frame)
    assert again.dtypes.to_dict() == BACKEND.empty(KINDS).dtypes.to_dict()
    pd.testing.assert_frame_equal(conform(frame, KINDS, "the input"), frame)


@pytest.mark.parametrize(("type_", "values", "kind", "expected"), TYPES, ids=[str(case[0]) for case in TYPES])
@pytest.mark.parametrize("library", ["numpy", "pyarrow", "numpy_nullable"])
def test_a_frame_read_by_pandas_is_taken_as_the_file_is(
    tmp_path: Path, type_: pa.DataType, values: list[Any], kind: str, expected: list[Any], library: Any
) -> None:
    path = str(tmp_path / "t.parquet")
    pq.write_table(pa.table({"v": pa.array(values, type_)}), path)
    piece = Piece(path=path, own=False, start=0, stop=len(values), offset=0)
    as_read = BACKEND.frame(read_piece(Store(str(tmp_path)), piece, {"v": kind}))
    frame = pd.read_parquet(path, **({} if library == "numpy" else {"dtype_backend": library}))
    for rows in (len(values), 0):
        pd.testing.assert_frame_equal(conform(frame[:rows], {"v": kind}, "the input"), as_read[:rows])


ACCEPTED: list[tuple[Any, str, list[Any]]] = [
    (pd.Series([1, 2], dtype="int8"), "int", [1, 2]),
    (pd.Series([1.0, np.nan]), "int", [1, pd.NA]),
    (pd.Series([True, False]), "int", [1, 0]),
    (pd.Series([1, 0], dtype="uint8"), "bool", [True, False]),
    (pd.Series([1, None], dtype="Int64"), "float", [1.0, np.nan]),
    (pd.Series(["a", None], dtype=object), "text", ["a", np.nan]),
    (pd.Series(["a", "b"], dtype="category"), "text", ["a", "b"]),
    (pd.Series([None, None], dtype=object), "timestamp", [pd.NaT, pd.NaT]),
    (pd.Series([np.nan, np.nan]), "text", [np.nan, np.nan]),
    (pd.Series([Decimal("1.50"), None]), "float", [1.5, np.nan]),
    (pd.Series([1, 2.5, None], dtype=object), "float", [1.0, 2.5, np.nan]),
    (pd.Series([], dtype=object), "int", []),
    (pd.to_datetime(pd.Series(["2024-01-01T12:00:00+02:00"])), "timestamp", [pd.Timestamp("2024-01-01 10:00")]),
]


@pytest.mark.parametrize(("series", "kind", "expected"), ACCEPTED)
def test_types_of_a_frame_that_become_the_model_s(series: pd.Series, kind: str, expected: list[Any]) -> None:
    series.index = series.index + 5
    found = conform(pd.DataFrame({"extra": 1, "v": series}), {"v": kind}, "the input")
    pd.testing.assert_frame_equal(found, pd.DataFrame({"v": pd.Series(expected, series.index, dtype=DTYPES[kind])}))


REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"w": [1]}, "int", r"Missing in the input: 'v', which the model was trained on. Columns: \[w\]"),
    ({"V": [1]}, "int", r"Missing in the input: 'v'.*Did you mean 'V'\?"),
    ({"v": ["1"]}, "int", r"Column 'v' of the input is text \(str\), but the model was trained on int; give it that"),
    ({"v": [1]}, "text", r"Column 'v' of the input is int \(int64\), but the model was trained on text"),
    ({"v": [1.5]}, "int", "is float .* trained on int, and not all of its values can be that"),
    ({"v": [2]}, "bool", "is int .* trained on bool, and not all of its values can be that"),
    ({"v": [0]}, "timestamp", "is int .* trained on timestamp; give it that type"),
    ({"v": [["a"]]}, "text", "Column 'v' of the input holds mixed objects; give it one plain type"),
    ({"v": [pd.Timedelta(1, "h")]}, "float", r"Column 'v' has type timedelta64\[.*\], which the engine does not take"),
]


@pytest.mark.parametrize(("columns", "kind", "words"), REFUSED)
def test_types_of_a_frame_that_do_not(columns: dict[str, Any], kind: str, words: str) -> None:
    with pytest.raises(RequestError, match=words):
        conform(pd.DataFrame(columns), {"v": kind}, "the input")


def test_a_column_that_is_there_twice_is_refused() -> None:
    frame = pd.DataFrame([[1, 2, 3]], columns=["v", "v", "w"])
    with pytest.raises(RequestError, match="Two columns of the input are called 'v'; drop or rename one"):
        conform(frame, {"v": "int"}, "the input")
    assert conform(frame, {"w": "int"}, "the input")["w"].tolist() == [3]


def test_arrow_types_that_the_engine_does_not_take() -> None:
    for type_ in (pa.list_(pa.int8()), pa.struct({"a": pa.int8()}), pa.binary(), pa.time32("s"), pa.duration("s")):
        assert kind_of_arrow(type_) is None
        assert kind_of_arrow(pa.dictionary(pa.int8(), type_)) is None
    nested = pd.DataFrame({"v": pd.Series([[1]], dtype=pd.ArrowDtype(pa.list_(pa.int8())))})
    with pytest.raises(
        RequestError, match=r"Column 'v' of the input has type list<.*>, which the engine does not take"
    ):
        conform(nested, {"v": "int"}, "the input")
    large = pd.DataFrame({"v": pd.Series([2**63], dtype=pd.ArrowDtype(pa.uint64()))})
    with pytest.raises(
        RequestError, match=r"Column 'v' of the input \(uint64\) cannot become int: .*9223372036854775808"
    ):
        conform(large, {"v": "int"}, "the input")
