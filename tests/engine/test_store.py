"""The artifacts root: files are whole or absent, and what a file system refuses is said in words."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from treadle.engine.document import Part
from treadle.engine.store import Store, storage_errors
from treadle.errors import StorageError, TreadleError

TABLE = pa.table({"a": [1, 2, None], "b": ["x", None, "ä"]})


@pytest.fixture(params=["file", "memory", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "s3":
        request.getfixturevalue("s3")
        return Store(f"s3://lake{tmp_path}")
    return Store(str(tmp_path / "root") if request.param == "file" else f"memory://{tmp_path}")


def names_below(store: Store) -> list[str]:
    root = store.path("").rstrip("/")
    return sorted(path.removeprefix(f"{root}/") for path in store.fs.find(root))


def test_a_name_appears_only_when_the_file_is_whole(store: Store) -> None:
    with store.writing("a/b/c.bin") as file:
        file.write(b"first")
        assert "a/b/c.bin" not in names_below(store)
        assert store.list("a/b") == []
    assert names_below(store) == ["a/b/c.bin"]
    with store.writing("a/b/c.bin") as file:
        file.write(b"second")
        assert store.fs.cat(store.path("a/b/c.bin")) == b"first"
    assert store.fs.cat(store.path("a/b/c.bin")) == b"second"
    assert names_below(store) == ["a/b/c.bin"]


def fail_half_way(store: Store, name: str, error: BaseException) -> None:
    with store.writing(name) as file:
        file.write(b"half")
        raise error


@pytest.mark.parametrize("error", [ValueError("x"), KeyboardInterrupt(), OSError(errno.EIO, "x")])
def test_nothing_is_left_behind_by_an_error(store: Store, error: BaseException) -> None:
    store.write_json("kept.json", 1)
    for name in ("kept.json", "new.json"):
        with pytest.raises(type(error)):
            fail_half_way(store, name, error)
    assert names_below(store) == ["kept.json"]
    assert store.read_json("kept.json") == 1


def test_json_and_tables_come_back(store: Store) -> None:
    value = {"a": [1, 2.5, None, float("inf")], "b": {"ä": "ß"}, "path": Path("x")}
    store.write_json("v.json", value)
    assert store.read_json("v.json") == {**value, "path": "x"}
    part = store.write_parquet("t.parquet", TABLE)
    assert (part.path, part.rows, part.bytes) == ("t.parquet", 3, store.fs.size(store.path("t.parquet")))
    assert store.read_parquet("t.parquet") == TABLE
    assert store.read_parquet("t.parquet", ["b"]) == TABLE.select(["b"])


def test_tables_that_follow_each_other_become_one_file(store: Store) -> None:
    parts = [TABLE, TABLE[:0], TABLE[1:]]
    part = store.write_tables("t.parquet", iter(parts))
    assert (part.rows, part.bytes) == (5, store.fs.size(store.path("t.parquet")))
    assert store.read_parquet("t.parquet").equals(pa.concat_tables(parts))
    with store.fs.open(store.path("t.parquet"), "rb") as file:
        found = pq.ParquetFile(file).metadata
        assert [found.row_group(i).num_rows for i in range(found.num_row_groups)] == [3, 0, 2]


def test_a_table_that_cannot_be_made_leaves_the_file_as_it_was(store: Store) -> None:
    def tables() -> Iterator[pa.Table]:
        yield TABLE
        raise ValueError("no more")

    part = store.write_parquet("t.parquet", TABLE[:1])
    for name in ("t.parquet", "new.parquet"):
        with pytest.raises(ValueError, match="no more"):
            store.write_tables(name, tables())
    assert names_below(store) == ["t.parquet"]
    assert store.has(part)


def test_a_stage_that_is_forgotten_keeps_its_files(store: Store) -> None:
    store.forget("stages/a-1")
    for name in ("stages/a-1/stage.json", "stages/a-1/part.json", "stages/b-1/stage.json"):
        store.write_json(name, 1)
    store.forget("stages/a-1")
    assert names_below(store) == ["stages/a-1/part.json", "stages/b-1/stage.json"]


def test_has_asks_for_the_size_too(store: Store) -> None:
    part = store.write_parquet("t.parquet", TABLE)
    assert store.has(part)
    assert not store.has(part.model_copy(update={"bytes": part.bytes + 1}))
    assert not store.has(Part(path="none/u.parquet", rows=1, bytes=1))
    with store.writing("t.parquet") as file:
        file.write(b"shorter")
    assert not store.has(part)


def test_list_is_sorted_and_leaves_unfinished_files_out(store: Store) -> None:
    assert store.list("m") == []
    for name in ("m/10/x", "m/9/x", "m/b.json", "m/a.json"):
        store.write_json(name, 0)
    with store.fs.open(store.path("m/a.json.0123abcd.tmp"), "wb") as file:
        file.write(b"its writer was killed")
    assert store.list("m") == ["10", "9", "a.json", "b.json"]


def test_a_stamp_changes_when_a_file_is_written_again(store: Store) -> None:
    stamps = set()
    for value in (1, 22, 1):
        store.write_json("v.json", value)
        stamps |= {store.stamp("v.json"), store.stamp("v.json")}
    assert len(stamps) >= 2


def test_what_cannot_be_read_is_named(store: Store) -> None:
    with pytest.raises(StorageError, match=r"none.json cannot be found or made \(.*\); look at the folder that --root"):
        store.read_json("none.json")
    with pytest.raises(StorageError, match=r"none.parquet cannot be read: "):
        store.read_parquet("none.parquet")
    with store.writing("bad.json") as file:
        file.write(b'{"a": ')
    with pytest.raises(StorageError, match=r"bad.json is damaged: .*Run again with --fresh"):
        store.read_json("bad.json")
    with pytest.raises(StorageError, match=r"bad.json cannot be read: .*[Pp]arquet"):
        store.read_parquet("bad.json")


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (errno.ENOSPC, "No space left on the device of /r/x; free space there, or choose another folder with --root"),
        (errno.EDQUOT, "No space left on the device of /r/x"),
        (errno.EROFS, r"/r/x may not be written \(.*\); choose another folder with --root"),
        (errno.EACCES, r"/r/x may not be written"),
        (errno.ENOENT, r"/r/x cannot be found or made"),
        (errno.ENOTDIR, r"/r/x cannot be found or made"),
    ],
)
def test_errors_of_the_file_system_have_a_remedy(code: int, words: str) -> None:
    with pytest.raises(StorageError, match=words), storage_errors("/r/x"):
        raise OSError(code, "said the system")


@pytest.mark.parametrize("error", [OSError(errno.EIO, "broken"), ValueError("mine"), StorageError("said before")])
def test_other_errors_pass_as_they_are(error: Any) -> None:
    with pytest.raises(type(error)) as caught, storage_errors("/r/x"):
        raise error
    assert caught.value is error
    assert issubclass(StorageError, TreadleError)
