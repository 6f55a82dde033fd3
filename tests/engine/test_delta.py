"""Delta tables: laws of publishing and reading, with other readers as oracles."""

from __future__ import annotations

import datetime as dt
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import deltalake
import duckdb
import fsspec
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engine.delta_tables import FS, INTS, commit, ints, values, write
from treadle.engine import delta
from treadle.engine.delta import TableVersion
from treadle.engine.delta_files import LONGEST_BOUND, DataFile, place, table_schema
from treadle.errors import DataError, RequestError, StorageError


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "stages"


@pytest.fixture
def table(tmp_path: Path) -> str:
    return str(tmp_path / "tables" / "job" / "etl")


def _log(table: str, version: int, kind: str) -> list[dict[str, Any]]:
    lines = Path(table, "_delta_log", f"{version:020d}.json").read_text("utf-8").splitlines()
    return [action[kind] for action in map(json.loads, lines) if kind in action]


def all_types() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "i": pd.array([1, None, 2**62 + 1], "Int64"),
            "f": [1.5, np.nan, -0.25],
            "g": np.array([0.1, 2, 3], "float32"),
            "b": pd.array([True, None, False], "boolean"),
            "s": ["a", None, "é"],
            "t": pd.Series([dt.datetime(2024, 2, 29, 12, 0, 0, 1), None, dt.datetime(1960, 1, 1)]),
            "d": [dt.date(2024, 2, 29), None, dt.date(1960, 1, 1)],
        }
    )


def test_pandas_types_come_back_and_other_readers_agree(cache: Path, table: str) -> None:
    rows = pa.Table.from_pandas(all_types(), preserve_index=False)
    assert rows.schema.field("s").type == pa.large_string()
    files = [write(cache / f"{n}.parquet", rows.slice(n, 1)) for n in range(3)]
    version = commit(table, files, "a", rows.schema)
    assert version == TableVersion("etl", table, 0, 3, sum(f.bytes for f in files), 3)

    opened = delta.open_table(FS, table)
    wanted = rows.cast(table_schema(rows.schema))
    read = delta.read_arrow(opened)
    assert read.schema.types == [
        pa.int64(),
        pa.float64(),
        pa.float32(),
        pa.bool_(),
        pa.string(),
        pa.timestamp("us"),
        pa.date32(),
    ]
    assert read.equals(wanted)
    assert delta.read_arrow(opened, ["s", "i"]).equals(wanted.select(["s", "i"]))
    paths = delta.data_files(opened)
    expected = wanted.to_pylist()
    assert pl.read_delta(table).to_dicts() == expected
    assert pl.scan_delta(table, version=0).collect().to_dicts() == expected
    assert duckdb.read_parquet(paths).to_arrow_table().to_pylist() == expected
    assert pa.Table.from_pandas(pd.concat(map(pd.read_parquet, paths))).num_rows == 3


def test_rows_keep_the_order_of_the_files_past_the_padding_of_their_names(cache: Path, table: str) -> None:
    commit(table, [write(cache / f"{n}.parquet", ints(n, -n)) for n in range(12)], "a")
    opened = delta.open_table(FS, table)
    assert delta.read_arrow(opened)["x"].to_pylist() == [s * n for n in range(12) for s in (1, -1)]
    assert delta.order_of("f/part-99999-a.parquet") < delta.order_of("f/part-100000-a.parquet")


def test_tables_without_rows_have_a_schema(cache: Path, table: str) -> None:
    rows = pa.Table.from_pandas(all_types(), preserve_index=False)
    assert commit(table, [], "none", rows.schema).files == 0
    assert delta.read_arrow(delta.open_table(FS, table)).equals(rows.slice(0, 0).cast(table_schema(rows.schema)))
    assert commit(table, [], "none again", rows.schema).version == 1
    empty = commit(table, [write(cache / "0.parquet", rows.slice(0, 0))], "zero", rows.schema)
    assert (empty.version, empty.rows, empty.files) == (2, 0, 1)
    assert delta.read_arrow(delta.open_table(FS, table)).num_rows == 0
    assert pl.read_delta(table).height == 0


def test_replay_commits_nothing_and_an_older_content_becomes_a_new_version(cache: Path, table: str) -> None:
    a, b = [write(cache / "a.parquet", ints(1, 2))], [write(cache / "b.parquet", ints(3))]
    first = commit(table, a, "a")
    assert commit(table, a, "a") == first
    assert commit(table, b, "b").version == 1
    assert commit(table, a, "a").version == 2
    assert commit(table, a, "a").version == 2
    assert [values(table, n) for n in range(3)] == [[1, 2], [3], [1, 2]]
    assert delta.open_table(FS, table).history(1)[0]["treadle.run"] == "run-a"


def test_same_fingerprint_with_other_bytes_leaves_the_older_version_alone(cache: Path, table: str) -> None:
    commit(table, [write(cache / "a.parquet", ints(1, 2))], "a")
    commit(table, [write(cache / "b.parquet", ints(3))], "b")
    (cache / "a.parquet").unlink()
    commit(table, [write(cache / "a.parquet", ints(7, 8))], "a")
    assert [values(table, n) for n in range(3)] == [[1, 2], [3], [7, 8]]


def test_overwrite_drops_what_another_writer_appended(cache: Path, table: str) -> None:
    a = [write(cache / "a.parquet", ints(1, 2))]
    commit(table, a, "a")
    deltalake.write_deltalake(table, ints(9), mode="append")
    assert commit(table, a, "a").version == 2
    assert values(table) == [1, 2]
    assert sorted(values(table, 1)) == [1, 2, 9]
    added, removed = ({action["path"] for action in _log(table, 2, kind)} for kind in ("add", "remove"))
    assert len(removed) == 2
    assert added.isdisjoint(removed), "Delta allows a path once in a commit"
    assert commit(table, a, "a").version == 2


def test_schema_may_change_and_older_versions_keep_theirs(cache: Path, table: str) -> None:
    commit(table, [write(cache / "a.parquet", ints(1))], "a")
    text = pa.table({"y": ["p", None], "x": [0.5, 1.5]})
    commit(table, [write(cache / "b.parquet", text)], "b", text.schema)
    assert delta.read_arrow(delta.open_table(FS, table, 0)).equals(ints(1))
    assert delta.read_arrow(delta.open_table(FS, table, 1)).equals(text)
    assert pl.read_delta(table, version=0).to_dict(as_series=False) == {"x": [1]}
    assert pl.read_delta(table).to_dict(as_series=False) == {"y": ["p", None], "x": [0.5, 1.5]}


def test_timestamps_may_be_added_to_a_table_that_had_none(cache: Path, table: str) -> None:
    commit(table, [write(cache / "a.parquet", ints(1))], "a")
    timed = pa.table({"t": pa.array([dt.datetime(2024, 1, 1), None], pa.timestamp("us"))})
    published = commit(table, [write(cache / "b.parquet", timed)], "b", timed.schema)
    assert delta.read_arrow(delta.open_table(FS, table, published.version)).equals(timed)
    assert pl.read_delta(table)["t"].to_list() == timed["t"].to_pylist()
    assert [values(table, n) for n in range(published.version)] == [[1]] * published.version
    assert commit(table, [write(cache / "c.parquet", ints(2))], "c").version == published.version + 1
    assert values(table) == [2]


def test_table_schema_normalises_and_refuses() -> None:
    schema = pa.schema(
        [
            ("a", pa.large_string()),
            ("b", pa.dictionary(pa.int32(), pa.large_string())),
            ("c", pa.timestamp("ns")),
            ("d", pa.timestamp("s", "Europe/Berlin")),
            ("e", pa.uint8()),
            ("f", pa.float16()),
            ("g", pa.int16()),
        ],
        metadata={"pandas": "{}"},
    )
    assert table_schema(schema).types == [
        pa.string(),
        pa.string(),
        pa.timestamp("us"),
        pa.timestamp("us", "UTC"),
        pa.int16(),
        pa.float32(),
        pa.int16(),
    ]
    for kind in (pa.null(), pa.uint64(), pa.list_(pa.int64()), pa.duration("us")):
        with pytest.raises(DataError, match=r"Column 'x' has the type .*cannot hold; cast it to int, float"):
            table_schema(pa.schema([("x", kind)]))
    with pytest.raises(DataError, match="Columns 'Age' and 'age' cannot both be in a table"):
        table_schema(pa.schema([("Age", pa.int64()), ("age", pa.int64())]))
    with pytest.raises(DataError, match="at least one column"):
        table_schema(pa.schema([]))


def test_unknown_table_version_or_column_is_named(cache: Path, table: str) -> None:
    with pytest.raises(RequestError, match=r"no table 'etl'.*No table is there yet"):
        delta.open_table(FS, table)
    commit(table, [write(cache / "a.parquet", ints(1))], "a")
    with pytest.raises(RequestError, match=r"no table 'elt' in .*job\. Tables: \[etl\]\. Did you mean 'etl'\?"):
        delta.open_table(FS, str(Path(table).with_name("elt")))
    for version in (-1, 1):
        with pytest.raises(RequestError, match=f"'etl' has no version {version}; its versions are 0 to 0"):
            delta.open_table(FS, table, version)
    with pytest.raises(RequestError, match=r"Column 'X' was not found in version 0 of table .*'x'"):
        delta.read_arrow(delta.open_table(FS, table), ["X"])


@pytest.mark.parametrize("folder", ["with space", "ha#sh", "wh?t", "naïve", "100%", "a&b=c+d"])
def test_folders_with_odd_names(cache: Path, tmp_path: Path, folder: str) -> None:
    table = str(tmp_path / folder / "etl")
    a = [write(cache / "a.parquet", ints(1, 2))]
    assert commit(table, a, "a").version == 0
    assert commit(table, a, "a").version == 0
    assert commit(table, [], "b").version == 1
    opened = delta.open_table(FS, table, 0)
    assert delta.read_arrow(opened)["x"].to_pylist() == [1, 2]
    assert pl.read_parquet(delta.data_files(opened), glob=False)["x"].to_list() == [1, 2]


def test_folder_that_deltalake_would_misread_is_refused(tmp_path: Path) -> None:
    for folder in ("a%20b", "a\\b"):
        with pytest.raises(RequestError, match=r"A table cannot be in .*Rename the folder"):
            commit(str(tmp_path / folder / "etl"), [], "a")
        assert not (tmp_path / folder).exists()


def test_files_are_linked_on_one_device_and_copied_from_another(cache: Path, table: str) -> None:
    near = write(cache / "a.parquet", ints(1))
    commit(table, [near], "a")
    assert os.path.samefile(near.path, delta.data_files(delta.open_table(FS, table))[0])
    shared = Path("/dev/shm")
    if not os.access(shared, os.W_OK) or shared.stat().st_dev == Path(table).stat().st_dev:
        pytest.skip("no second device to copy from")
    with tempfile.TemporaryDirectory(dir=shared) as other:
        far = write(Path(other) / "b.parquet", ints(2))
        commit(table, [far], "b")
        commit(table, [near], "c")
        commit(table, [far], "b")
    assert [values(table, n) for n in range(4)] == [[1], [2], [1], [2]]
    assert len([name for name in os.listdir(table) if "-b000" in name]) == 1


def test_place_on_a_file_system_without_links() -> None:
    memory = fsspec.filesystem("memory")
    folder = "/test_delta/table"
    try:
        for name, content in (("one", 1), ("two", 2)):
            with memory.open(f"/test_delta/{name}", "wb") as file:
                pq.write_table(ints(content), file)
        files = [DataFile(f"/test_delta/{n}", 1, memory.size(f"/test_delta/{n}")) for n in ("one", "two")]
        for name, file in (("a", files[0]), ("b", files[0]), ("c", files[1])):
            assert place(memory, file, folder, INTS, "taken", name).name == name
            assert memory.cat(f"{folder}/{name}") == memory.cat(file.path)
        assert not memory.exists(f"{folder}/taken")
        with pytest.raises(StorageError, match=r"one cannot be published: it has .* bytes"):
            place(memory, DataFile("/test_delta/one", 1, 3), folder, INTS, "a", "spare")
    finally:
        memory.rm("/test_delta", recursive=True)


def test_statistics_hold_what_delta_and_json_can_hold(cache: Path, table: str) -> None:
    early, late = dt.datetime(1, 1, 1), dt.datetime(2024, 2, 29, 23, 59, 59, 999999)
    utc = [time.replace(tzinfo=dt.UTC) for time in (late, early)]
    rows = pa.table(
        {
            "i": [2**53 + 1, -1, None],
            "inf": [1.0, float("inf"), None],
            "long": ["a", "b" * (LONGEST_BOUND + 1), None],
            "huge": ["a", "b" * 5000, None],
            "void": pa.nulls(3, pa.string()),
            "b": [True, False, None],
            "t": pa.array([late, early, None], pa.timestamp("us")),
            "z": pa.array([*utc, None], pa.timestamp("us", "UTC")),
            "far": pa.array([2**62, 0, None], pa.int64()).cast(pa.timestamp("us")),
            "d": [dt.date(1, 1, 1), dt.date(9999, 12, 31), None],
            "quoted": ['"\\', "\U00020000", None],
        }
    )
    commit(table, [write(cache / "0.parquet", rows)], "a", rows.schema)
    (add,) = _log(table, 0, "add")

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    found = json.loads(add["stats"], parse_constant=refuse)
    assert found == {
        "numRecords": 3,
        "minValues": {
            "i": -1,
            "t": "0001-01-01 00:00:00.000000",
            "z": "0001-01-01T00:00:00.000000Z",
            "d": "0001-01-01",
            "quoted": '"\\',
        },
        "maxValues": {
            "i": 2**53 + 1,
            "t": "2024-02-29 23:59:59.999999",
            "z": "2024-02-29T23:59:59.999999Z",
            "d": "9999-12-31",
            "quoted": "\U00020000",
        },
        "nullCount": {name: 3 if name == "void" else 1 for name in rows.column_names},
    }
    assert delta.read_arrow(delta.open_table(FS, table)).equals(rows)
    wide = pa.table({f"c{n}": [n] for n in range(40)})
    pq.write_table(wide, cache / "1.parquet", write_statistics=["c1"])
    file = DataFile(str(cache / "1.parquet"), 1, (cache / "1.parquet").stat().st_size)
    commit(table, [file], "b", wide.schema)
    (add,) = _log(table, 1, "add")
    assert json.loads(add["stats"])["minValues"] == {"c1": 1}
    commit(table, [write(cache / "2.parquet", wide)], "c", wide.schema)
    (add,) = _log(table, 2, "add")
    assert list(json.loads(add["stats"])["minValues"]) == wide.column_names[:32]


NUMBERS = st.one_of(st.none(), st.floats(width=32, allow_nan=False), st.sampled_from([0.0, -0.0, 5.0]))
ROWS = st.lists(
    st.tuples(
        st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1), st.integers(-3, 3)),
        NUMBERS,
        NUMBERS,
        st.one_of(
            st.none(),
            st.text(st.characters(codec="utf-8"), max_size=4),
            st.sampled_from(["a" * (LONGEST_BOUND + 1), "\U00020000", "\uffff"]),
        ),
        st.one_of(st.none(), st.datetimes()),
        st.one_of(st.none(), st.dates()),
        st.one_of(st.none(), st.booleans()),
    ),
    max_size=6,
)
MIXED = pa.schema(
    [
        ("i", pa.int64()),
        ("f", pa.float64()),
        ("g", pa.float32()),
        ("s", pa.string()),
        ("t", pa.timestamp("us")),
        ("d", pa.date32()),
        ("b", pa.bool_()),
    ]
)


@pytest.fixture(scope="module")
def scratch() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def _mixed(rows: Sequence[tuple[Any, ...]]) -> pa.Table:
    return pa.table([pa.array([r[k] for r in rows], f.type) for k, f in enumerate(MIXED)], schema=MIXED)


@settings(max_examples=20, deadline=None)
@given(parts=st.lists(ROWS, min_size=1, max_size=3))
def test_statistics_bound_the_rows_and_filters_find_all_of_them(scratch: Path, parts: list[list[Any]]) -> None:
    table = str(scratch / "etl")
    shutil.rmtree(scratch)
    tables = [_mixed(rows) for rows in parts]
    files = [write(scratch / f"{n}.parquet", t, rows_per_group=2) for n, t in enumerate(tables)]
    commit(table, files, "a", MIXED)
    added = pa.table(delta.open_table(FS, table).get_add_actions(flatten=True)).to_pylist()
    for action, rows in zip(sorted(added, key=lambda a: a["path"]), tables, strict=True):
        assert action["num_records"] == rows.num_rows
        for name in MIXED.names:
            assert action.get(f"null_count.{name}", 0) == rows[name].null_count
            low, high = action.get(f"min.{name}"), action.get(f"max.{name}")
            actual = pc.min_max(rows[name]).as_py()
            assert low is None or low == actual["min"]
            assert high is None or high == actual["max"]
            assert name not in "itd" or (low, high) == (actual["min"], actual["max"])
    whole = pl.from_arrow(pa.concat_tables(tables))
    assert isinstance(whole, pl.DataFrame)
    for name in MIXED.names:
        for value, condition in zip(whole[name].drop_nulls(), (pl.Expr.gt, pl.Expr.le, pl.Expr.eq), strict=False):
            chosen = condition(pl.col(name), value)
            assert pl.scan_delta(table).filter(chosen).collect().equals(whole.filter(chosen))


def test_readers_skip_files_by_their_statistics(cache: Path, table: str) -> None:
    commit(table, [write(cache / f"{n}.parquet", ints(n, n + 1)) for n in (0, 10)], "a")
    os.unlink(delta.data_files(delta.open_table(FS, table))[0])
    assert pl.scan_delta(table).filter(pl.col("x") > 5).collect()["x"].to_list() == [10, 11]
