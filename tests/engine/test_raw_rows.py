"""Single rows of Parquet files: those that pandas finds, without reading the row groups that cannot hold them."""

from __future__ import annotations

from pathlib import Path

import fsspec
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from treadle.engine.raw_rows import numbers_where, row_at
from treadle.errors import StorageError

FS = fsspec.filesystem("file")


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("rows") / "rows.parquet"


@given(
    st.lists(st.none() | st.integers(0, 6), min_size=1, max_size=30),
    st.integers(1, 7),
    st.integers(0, 6),
    st.sampled_from(["int", "text", "float"]),
    st.booleans(),
)
def test_rows_are_those_with_the_value(
    path: Path, values: list[int | None], group: int, wanted: int, kind: str, statistics: bool
) -> None:
    types = {"int": pa.int32(), "text": pa.string(), "float": pa.float32()}
    column = pa.array(values).cast(types[kind])
    table = pa.table({"id": column, "place": range(len(values))})
    pq.write_table(table, path, row_group_size=group, write_statistics=statistics)
    scalar = pa.scalar(wanted).cast(types[kind])
    found = list(numbers_where(FS, str(path), "id", kind, scalar))
    assert found == [place for place, value in enumerate(values) if value == wanted]
    assert [row_at(FS, str(path), place) for place in found] == [
        {"id": scalar.as_py(), "place": place} for place in found
    ]


def test_row_groups_that_cannot_hold_the_value_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "sorted.parquet"
    pd.DataFrame({"id": range(1000), "x": 1.0}).to_parquet(path, row_group_size=100)
    raw = bytearray(path.read_bytes())
    metadata = pq.read_metadata(path)
    for number in range(metadata.num_row_groups):
        chunk = metadata.row_group(number).column(0)
        start = chunk.dictionary_page_offset or chunk.data_page_offset
        if number != 4:
            raw[start : start + chunk.total_compressed_size] = b"\xff" * chunk.total_compressed_size
    path.write_bytes(bytes(raw))
    assert list(numbers_where(FS, str(path), "id", "int", pa.scalar(432))) == [432]
    assert row_at(FS, str(path), 432) == {"id": 432, "x": 1.0}
    with pytest.raises(StorageError, match="cannot be read"):
        list(numbers_where(FS, str(path), "id", "int", pa.scalar(532)))
    with pytest.raises(StorageError, match="has no row 1001; it is another file"):
        row_at(FS, str(path), 1000)
