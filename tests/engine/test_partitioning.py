"""Files by the values of partition columns: whatever the values are, every reader finds the same rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engine.delta_tables import FS
from treadle.engine import delta, partitioning
from treadle.engine.commits import commit_table, prepare_table, restore_table
from treadle.engine.delta_files import DataFile
from treadle.engine.partitioning import Piece, split_part
from treadle.engine.store import Store
from treadle.errors import DataError

TEXTS = st.one_of(st.none(), st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=6))
INTS = st.one_of(st.none(), st.integers(-3, 3))
ROWS = st.lists(st.tuples(TEXTS, INTS, st.one_of(st.none(), st.booleans())), max_size=12)
SCHEMA = pa.schema([("id", pa.int64()), ("t", pa.string()), ("i", pa.int64()), ("b", pa.bool_()), ("x", pa.float64())])


def split(root: Path, rows: list[Any], columns: tuple[str, ...], parts: int = 2) -> tuple[pa.Table, list[Piece]]:
    """The rows as a table, and the files of two parts of it by partition."""
    store = Store(str(root))
    table = pa.Table.from_pylist(
        [{"id": n, "t": t, "i": i, "b": b, "x": n / 2} for n, (t, i, b) in enumerate(rows)], schema=SCHEMA
    )
    pieces = []
    for number in range(parts):
        cut = table.slice(number * len(rows) // parts, (number + 1) * len(rows) // parts - number * len(rows) // parts)
        part = store.write_parquet(f"whole-{number}.parquet", cut)
        pieces += split_part(store, part, columns, f"split-{number:05d}")
    return table, pieces


def published(root: Path, pieces: list[Piece], columns: tuple[str, ...], name: str = "a") -> str:
    path = str(root / "table")
    store = Store(str(root))
    files = [DataFile(store.path(p.part.path), p.part.rows, p.part.bytes, p.values) for p in pieces]
    made = {"fingerprint": name.rjust(12, "0"), "metadata": {}}
    ready = prepare_table(FS, path, files, SCHEMA, partition_by=columns, **made)
    ready.commit(ready.base)
    return path


@settings(max_examples=25)
@given(rows=ROWS, columns=st.sampled_from([("t",), ("i",), ("b", "t"), ("i", "t", "b")]))
def test_every_reader_finds_the_rows(tmp_path_factory: pytest.TempPathFactory, rows: list[Any], columns: Any) -> None:
    root = tmp_path_factory.mktemp("partitioned")
    table, pieces = split(root, rows, columns)
    assert sum(piece.part.rows for piece in pieces) == len(rows)
    expected = table.to_pylist()
    path = published(root, pieces, columns)
    opened = delta.open_table(FS, path)
    assert opened.metadata().partition_columns == list(columns)
    assert sorted(delta.read_arrow(opened).select(SCHEMA.names).to_pylist(), key=lambda row: row["id"]) == expected
    if rows:
        assert pl.read_delta(path).sort("id").select(SCHEMA.names).to_dicts() == expected
        found = duckdb.read_parquet(delta.data_files(opened), hive_partitioning=True)
        assert sorted(found.project("id").fetchall()) == [(row["id"],) for row in expected]


def test_rows_keep_their_order_within_a_partition_and_readers_skip_the_others(tmp_path: Path) -> None:
    rows = [(text, number, None) for number, text in enumerate(["b", "a", ">50K", "b", "a", "ü/x=1", "100%", None] * 3)]
    table, pieces = split(tmp_path, rows, ("t",))
    opened = delta.open_table(FS, published(tmp_path, pieces, ("t",)))
    read = delta.read_arrow(opened)
    for value in {text for text, _, _ in rows}:
        of_value = [row["id"] for row in read.to_pylist() if row["t"] == value]
        assert of_value == [row["id"] for row in table.to_pylist() if row["t"] == value]
    few = opened.to_pyarrow_dataset().get_fragments(filter=pa.compute.field("t") == "a")
    assert {Path(fragment.path).parent.name for fragment in few} == {"t=a"}


def test_a_table_is_partitioned_otherwise_and_back(tmp_path: Path) -> None:
    rows = [("a", 1, True), ("b", None, False), (None, 2, None)]
    table, by_text = split(tmp_path, rows, ("t",))
    path = published(tmp_path, by_text, ("t",), "1")
    _, by_both = split(tmp_path / "other", rows, ("b", "i"))
    moved = [
        piece.model_copy(update={"part": piece.part.model_copy(update={"path": f"other/{piece.part.path}"})})
        for piece in by_both
    ]
    assert published(tmp_path, moved, ("b", "i"), "2") == path
    whole = Store(str(tmp_path)).write_parquet("whole.parquet", table)
    plain = DataFile(str(tmp_path / "whole.parquet"), whole.rows, whole.bytes)
    assert commit_table(FS, path, [plain], SCHEMA, fingerprint="3".rjust(12, "0"), metadata={}).version == 2
    layouts = [["t"], ["b", "i"], []]
    for version, columns in enumerate(layouts):
        opened = delta.open_table(FS, path, version)
        assert opened.metadata().partition_columns == columns
        found = delta.read_arrow(opened).select(SCHEMA.names).to_pylist()
        assert sorted(found, key=lambda row: row["id"]) == table.to_pylist()
    restored = restore_table(FS, path, 0, {})
    assert delta.open_table(FS, path, restored.version).metadata().partition_columns == ["t"]


def test_what_cannot_be_a_partition(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        DataError, match=r"column 't' has an empty text, which Delta Lake does not hold apart from null"
    ):
        split(tmp_path, [("", 1, None)], ("t",))
    with pytest.raises(DataError, match=r"column 't' has the value 'ü+…?.*', which is too long for the name"):
        split(tmp_path, [("ü" * 60, 1, None)], ("t",))
    monkeypatch.setattr(partitioning, "MAX_PARTITIONS", 3)
    with pytest.raises(DataError, match=r"more than 3 combinations of values.*by columns with fewer values"):
        split(tmp_path, [("a", n, None) for n in range(4)], ("t", "i"), parts=1)
