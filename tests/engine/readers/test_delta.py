"""Delta tables as inputs: versions, partition columns, evolved schemas; deltalake's own reader as the oracle."""

from __future__ import annotations

import base64
import datetime as dt
import json
import struct
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake

from tests.engine.readers.reading import rows_of
from treadle.engine.readers.options import TextOptions
from treadle.engine.text_input import inspect
from treadle.errors import DataError, RequestError, StorageError

DAY = dt.date(2024, 2, 29)
TIME = dt.datetime(2024, 2, 29, 13, 14, 15, 678901)
PARTITIONED = {
    "v": [1, 2, 3, 4],
    "text": ["x", "y z%/é=", "2024", None],
    "number": pa.array([1, -2, 3, None], pa.int32()),
    "day": [DAY, DAY, None, DAY],
    "time": [TIME, None, TIME, TIME],
    "flag": [True, False, None, True],
    "share": [0.5, 1e-9, 2.0, None],
    "zoned": pa.array([TIME, TIME, None, TIME], pa.timestamp("us", "UTC")),
}


@pytest.fixture
def table(tmp_path: Path) -> str:
    """Three versions of a table: [1, 2], then [3], then [3, 4] with a column more."""
    path = str(tmp_path / "a table")
    write_deltalake(path, pa.table({"a": pa.array([1, 2], pa.int32()), "s": ["x", None]}))
    write_deltalake(path, pa.table({"a": pa.array([3], pa.int32()), "s": ["y"]}), mode="overwrite")
    more = pa.table({"a": pa.array([4], pa.int32()), "s": ["z"], "new": [0.5], "tags": [["x"]]})
    write_deltalake(path, more, mode="append", schema_mode="merge")
    return path


def sorted_rows(table: pa.Table) -> list[dict[str, Any]]:
    return sorted(table.to_pylist(), key=lambda row: json.dumps(row, default=str))


def test_versions(table: str) -> None:
    newest = inspect(table)
    assert (newest.format, newest.version, newest.rows) == ("delta", 2, 2)
    assert newest.kinds == {"a": "int", "s": "text", "new": "float"}
    assert newest.left_out == {"tags": "list<element: string>"}
    assert sorted_rows(rows_of(newest)) == [{"a": 3, "s": "y", "new": None}, {"a": 4, "s": "z", "new": 0.5}]
    first = inspect(table, "delta", version=0)
    assert (first.version, first.kinds) == (0, {"a": "int", "s": "text"})
    assert rows_of(first).to_pydict() == {"a": [1, 2], "s": ["x", None]}
    assert rows_of(inspect(table, version=1)).to_pydict() == {"a": [3], "s": ["y"]}
    assert rows_of(inspect(f"file://{table}", version=1)).num_rows == 1


def test_the_digest_is_that_of_the_version(table: str) -> None:
    digests = [inspect(table, version=version).digest for version in (0, 1, 2, 2)]
    assert len(set(digests)) == 3
    DeltaTable(table).alter.set_table_properties({"delta.appendOnly": "false"})
    assert inspect(table).version == 3
    assert inspect(table).digest not in digests
    assert inspect(table, version=2).digest == digests[2]


@pytest.mark.parametrize("by", [["text"], ["number", "day"], ["time", "flag"], ["share"], ["zoned", "text"]])
def test_partition_columns(by: list[str], tmp_path: Path) -> None:
    path = str(tmp_path / "t")
    write_deltalake(path, pa.table(PARTITIONED), partition_by=by)
    found = inspect(path)
    assert list(found.kinds.values()) == ["int", "text", "int", "timestamp", "timestamp", "bool", "float", "timestamp"]
    expected = DeltaTable(path).to_pyarrow_table().to_pylist()
    for row in expected:
        row["day"] = row["day"] and dt.datetime.combine(row["day"], dt.time())
        row["zoned"] = row["zoned"] and row["zoned"].replace(tzinfo=None)
    read = rows_of(found)
    assert sorted_rows(read) == sorted(expected, key=lambda row: json.dumps(row, default=str))
    # The order, by which rows are numbered, is that of the files' names, however the log lists them.
    assert rows_of(inspect(path)).equals(read)
    assert [file.path for file in found.files] == sorted((f.path for f in found.files), key=lambda p: p.split("/")[-1])


def test_given_types(tmp_path: Path) -> None:
    path = str(tmp_path / "t")
    write_deltalake(path, pa.table({"a": ["1", "2"], "p": [3, 4]}), partition_by=["p"])
    found = inspect(path, options=TextOptions(types={"a": "int", "p": "text"}))
    assert found.kinds == {"a": "int", "p": "text"}
    assert sorted_rows(rows_of(found)) == [{"a": 1, "p": "3"}, {"a": 2, "p": "4"}]
    with pytest.raises(RequestError, match=r"'b' was not found in data\.types"):
        inspect(path, options=TextOptions(types={"b": "int"}))
    with pytest.raises(DataError, match=r"column 'p' of '.*' is '[34]', which is no bool \(data.types\)"):
        inspect(path, options=TextOptions(types={"p": "bool"}))


def test_what_is_no_version(table: str, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="Table 'a table' has no version 7; its versions are 0 to 2"):
        inspect(table, version=7)
    file = str(tmp_path / "a.parquet")
    pq.write_table(pa.table({"a": [1]}), file)
    with pytest.raises(RequestError, match=r"data\.version is for Delta tables, and '.*a.parquet' is parquet"):
        inspect(file, version=1)
    with pytest.raises(RequestError, match=r"'.*a.parquet' is no Delta table: it has no folder _delta_log"):
        inspect(file, "delta")


def test_a_file_that_is_gone(table: str) -> None:
    for path in Path(table).glob("*.parquet"):
        path.unlink()
    with pytest.raises(DataError, match=r"is no readable Parquet file: .*No such file"):
        inspect(table)


def test_an_empty_table(tmp_path: Path) -> None:
    path = str(tmp_path / "t")
    DeltaTable.create(path, pa.schema([("a", pa.int64())]))
    found = inspect(path)
    assert (found.rows, found.kinds, found.files) == (0, {"a": "int"}, ())


def with_log(folder: Path, features: list[str], configuration: dict[str, str], **added: Any) -> str:
    """A table of one file, with three rows, whose log another writer has written."""
    (folder / "_delta_log").mkdir(parents=True)
    pq.write_table(pa.table({"a": [1, 2, 3]}), folder / "f.parquet")
    column = {"name": "a", "type": "long", "nullable": True, "metadata": {}}
    if configuration:
        column["metadata"] = {"delta.columnMapping.id": 1, "delta.columnMapping.physicalName": "col-1"}
    size = (folder / "f.parquet").stat().st_size
    actions: list[dict[str, Any]] = [
        {"protocol": {"minReaderVersion": 3, "minWriterVersion": 7}},
        {"metaData": {"id": "x", "format": {"provider": "parquet", "options": {}}, "partitionColumns": []}},
        {"add": {"path": "f.parquet", "partitionValues": {}, "size": size, "modificationTime": 1, "dataChange": True}},
    ]
    actions[0]["protocol"].update(readerFeatures=features, writerFeatures=features)
    schema = json.dumps({"type": "struct", "fields": [column]})
    actions[1]["metaData"].update(schemaString=schema, configuration=configuration, createdTime=1)
    actions[2]["add"].update(stats=json.dumps({"numRecords": 3}), **added)
    (folder / "_delta_log" / f"{0:020d}.json").write_text("\n".join(map(json.dumps, actions)))
    return str(folder)


def deletion_vector(row: int) -> dict[str, Any]:
    """Row `row` is deleted: a Roaring bitmap of one container, inline, in the encoding of ZeroMQ's RFC 32."""
    bitmap = struct.pack("<IIHHIH", 12346, 1, 0, 0, 16, row)
    content = struct.pack("<IQI", 1681511377, 1, 0) + bitmap
    ours = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#$%&()*+-;<=>?@^_`{|}~"
    theirs = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"
    padded = content + b"\0" * (-len(content) % 4)
    text = base64.b85encode(padded).decode().translate(str.maketrans(ours, theirs))
    return {"storageType": "i", "pathOrInlineDv": text, "sizeInBytes": len(content), "cardinality": 1}


def test_features_with_which_files_are_not_the_rows_are_refused_by_name(tmp_path: Path) -> None:
    harmless = with_log(tmp_path / "harmless", ["deletionVectors", "v2Checkpoint"], {})
    assert rows_of(inspect(harmless)).to_pydict() == {"a": [1, 2, 3]}
    widened = with_log(tmp_path / "widened", ["typeWidening"], {})
    assert rows_of(inspect(widened)).to_pydict() == {"a": [1, 2, 3]}
    deleted = with_log(tmp_path / "deleted", ["deletionVectors"], {}, deletionVector=deletion_vector(1))
    with pytest.raises(DataError, match=r"version 0 of '.*deleted' has deletion vectors, .*PURGE"):
        inspect(deleted)
    mapped = with_log(tmp_path / "mapped", ["columnMapping"], {"delta.columnMapping.mode": "name"})
    with pytest.raises(DataError, match=r"version 0 of '.*mapped' uses column mapping, which Treadle does not read"):
        inspect(mapped)
    with pytest.raises(DataError, match=r"version 0 of '.*variant' uses the feature 'variantType', which Treadle does"):
        inspect(with_log(tmp_path / "variant", ["variantType"], {}))
    with pytest.raises(StorageError, match="Feature 'fromTheFuture' is not supported"):
        inspect(with_log(tmp_path / "future", ["fromTheFuture"], {}))
