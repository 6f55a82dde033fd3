"""The log of a table: its history held against deltalake's, and versions that are never cut off it."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from tests.engine.delta_tables import FS, commit, ints, values, write
from treadle.engine import delta
from treadle.engine.delta_log import columns_of, commits, contents, versions
from treadle.errors import StorageError


@pytest.fixture
def table(tmp_path: Path) -> str:
    """Versions 0 to 2 of Treadle, 3 of another writer, who appends."""
    path = str(tmp_path / "tables" / "job #1" / "etl")
    commit(path, [write(tmp_path / "0.parquet", ints(1, 2)), write(tmp_path / "1.parquet", ints(3))], "a")
    commit(path, [write(tmp_path / "2.parquet", ints(4, 5))], "b")
    wider = pa.table({"x": pa.array([1.5]), "y": ["z"]})
    commit(path, [write(tmp_path / "3.parquet", wider)], "c", wider.schema)
    write_deltalake(path, pa.table({"x": [2.5, 3.5], "y": ["u", None]}), mode="append")
    return path


def test_a_history_is_deltalakes_own_with_rows_and_columns(table: str, tmp_path: Path) -> None:
    assert versions(FS, table) == [0, 1, 2, 3]
    found = commits(FS, table, [0, 1, 2, 3])
    assert [commit.rows_added for commit in found] == [3, 2, 1, 2]
    assert [commit.files_added for commit in found] == [2, 1, 1, 1]
    assert [commit.columns for commit in found] == [{"x": "long"}, None, {"x": "double", "y": "string"}, None]
    assert [commit.properties.get("treadle.run") for commit in found] == ["run-a", "run-b", "run-c", None]
    plain = tmp_path / "plain"
    os.rename(table, plain)
    theirs = DeltaTable(plain).history()[::-1]  # it finds nothing where the path has a '#'
    for one, other in zip(found, theirs, strict=True):
        assert (one.version, one.operation) == (other["version"], other["operation"])
        assert one.time is not None
        assert one.time[:23] == str(
            pa.scalar(other["timestamp"], pa.timestamp("ms")).as_py().isoformat("T", "milliseconds")
        )
        assert {key: other[key] for key in other if key.startswith("treadle.")} == dict(one.properties)
    for version in range(4):
        opened = DeltaTable(plain, version=version)
        sizes = pa.table(opened.get_add_actions())["size_bytes"].to_pylist()
        held = contents(opened)
        assert (held.rows, held.bytes, held.files) == (opened.to_pyarrow_dataset().count_rows(), sum(sizes), len(sizes))


def test_columns_of_nested_types_have_a_name(tmp_path: Path) -> None:
    write_deltalake(str(tmp_path / "t"), pa.table({"a": [[1]], "b": [{"c": 1}], "d": [1]}))
    (found,) = commits(FS, str(tmp_path / "t"), [0])
    assert found.columns == {"a": "array", "b": "struct", "d": "long"} == columns_of({
        "fields": [{"name": "a", "type": {"type": "array"}}, {"name": "b", "type": {"type": "struct"}},
                   {"name": "d", "type": "long"}],
    })  # fmt: skip


def test_a_damaged_commit_is_named(table: str) -> None:
    Path(table, "_delta_log", f"{1:020d}.json").write_text('{"commitInfo": {')
    with pytest.raises(StorageError, match="00001.json is damaged"):
        commits(FS, table, [0, 1])
    with pytest.raises(StorageError, match="cannot be found"):
        commits(FS, table, [7])
    assert versions(FS, f"{table}-none") == []


def test_old_versions_stay_in_the_log(tmp_path: Path) -> None:
    path = str(tmp_path / "t")
    commit(path, [write(tmp_path / "0.parquet", ints(0))], "0")
    DeltaTable(path).alter.set_table_properties({"delta.checkpointInterval": "3"})
    for number in range(2, 7):
        commit(path, [write(tmp_path / f"{number}.parquet", ints(number))], str(number))
        for file in Path(path, "_delta_log").iterdir():
            os.utime(file, (time.time() - 60 * 86_400,) * 2)
    assert len(list(Path(path, "_delta_log").glob("*.checkpoint.parquet"))) == 2
    assert versions(FS, path) == list(range(7))
    assert [values(path, version) for version in range(7)] == [[0], [0], [2], [3], [4], [5], [6]]


@pytest.mark.slow
def test_a_table_of_a_thousand_versions_is_opened_at_once(tmp_path: Path) -> None:
    path = str(tmp_path / "t")
    for number in range(1000):
        commit(path, [write(tmp_path / f"s/{number}.parquet", ints(number))], f"{number:04d}")
    checkpoints = sorted(Path(path, "_delta_log").glob("*.checkpoint.parquet"))
    assert len(checkpoints) == 100  # one every ten versions
    for version in (None, 0, 98, 500, 998):
        started = time.process_time()
        opened = delta.open_table(FS, path, version)
        assert contents(opened).rows == 1
        assert time.process_time() - started < 0.5
    started = time.process_time()
    assert len(commits(FS, path, versions(FS, path))) == 1000
    assert time.process_time() - started < 0.5
