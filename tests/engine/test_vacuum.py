"""Which files the versions of a table need, held against what deltalake itself reads of them."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import fsspec
import pyarrow as pa
import pytest
from deltalake import CommitProperties, DeltaTable, write_deltalake
from hypothesis import given, settings
from hypothesis import strategies as st

from treadle.engine.vacuum import Unclear, head_of, needed_of

FS = fsspec.filesystem("file")


@pytest.fixture
def table() -> Iterator[str]:
    folder = tempfile.mkdtemp()
    yield f"{folder}/table"
    shutil.rmtree(folder)


def commit(table: str, step: str, number: int, run: bool = True) -> None:
    """One more version: rows that are added, put in the place of all, deleted, or those of the first version again."""
    properties = CommitProperties(custom_metadata={"treadle.run": f"run-{number}"} if run else {})
    rows = pa.table({"x": [number, number + 1], "part": ["a b", "c"]})
    if step in ("append", "overwrite") or not DeltaTable.is_deltatable(table):
        mode = "append" if step == "append" else "overwrite"
        write_deltalake(table, rows, mode=mode, partition_by=["part"], commit_properties=properties)  # type: ignore[call-overload]
    elif step == "delete":
        DeltaTable(table).delete(f"x = {number - 1}", commit_properties=properties)
    elif DeltaTable(table).version() > 0:
        DeltaTable(table).restore(0, commit_properties=properties)


def files_of(table: str, version: int) -> set[str]:
    uris = DeltaTable(table, version=version).file_uris()
    found = {uri.removeprefix(f"{table}/") for uri in uris}
    assert all(Path(table, name).exists() for name in found)  # so they are the names that files have
    return found


STEPS = st.lists(st.sampled_from(["append", "overwrite", "delete", "restore"]), min_size=1, max_size=6)


@settings(max_examples=15)
@given(steps=STEPS, data=st.data())
def test_what_kept_versions_need_is_what_deltalake_reads_of_them(steps: list[str], data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        table = f"{folder}/table"
        for number, step in enumerate(steps):
            commit(table, step, number)
        head = DeltaTable(table).version()
        assert head_of(FS, table) == head
        kept = data.draw(st.sets(st.integers(0, head)))
        needed = needed_of(FS, table, kept)
        assert needed.files == set().union(*(files_of(table, version) for version in {*kept, head}))
        there = {str(path.relative_to(table)) for path in Path(table).rglob("*.parquet")}
        gone = {name for name in there if needed.may_go(name, 0.0, time.time() + 1)}
        assert gone == there - needed.files
        assert not any(needed.may_go(name, 0.0, time.time() - 3600) for name in there)


def test_files_of_other_writers_and_names_that_are_not_ours_stay(table: str) -> None:
    commit(table, "overwrite", 0, run=False)
    commit(table, "overwrite", 1)
    commit(table, "overwrite", 2)
    needed, later = needed_of(FS, table, ()), time.time() + 1
    assert not any(needed.may_go(name, 0.0, later) for name in files_of(table, 0))
    assert all(needed.may_go(name, 0.0, later) for name in files_of(table, 1))
    assert needed.may_go("part-00000-0123456789ab.parquet", 0.0, later)
    assert not needed.may_go("part-00000-0123456789ab.parquet", later, later)
    assert not needed.may_go("notes.parquet", 0.0, later)


def test_a_log_that_begins_with_a_checkpoint_is_read_from_there(table: str) -> None:
    for number in range(3):
        commit(table, "append", number)
    DeltaTable(table).create_checkpoint()
    commit(table, "overwrite", 3)
    wanted = files_of(table, 2) | files_of(table, 3)
    for version in range(2):
        Path(table, "_delta_log", f"{version:020d}.json").unlink()
    needed = needed_of(FS, table, {2})
    assert needed.files == wanted
    # Whose those of the checkpoint are is not known any more.
    assert not any(needed.may_go(name, 0.0, time.time() + 1) for name in wanted)


@pytest.mark.parametrize(
    ("entry", "content", "words"),
    [
        (1, None, "entries of its log are missing"),
        (2, "{half", "cannot be read"),
        (2, json.dumps({"commitInfo": {}}), "deltalake finds other files|could not be read"),
    ],
)
def test_a_log_that_is_not_clear_is_refused(table: str, entry: int, content: str | None, words: str) -> None:
    for number in range(4):
        commit(table, "append", number)
    path = Path(table, "_delta_log", f"{entry:020d}.json")
    path.unlink() if content is None else path.write_text(content)
    if content is not None and "commitInfo" in content:
        DeltaTable(table).create_checkpoint()
        path.write_text(json.dumps({"remove": {"path": quote(min(files_of(table, 0)))}}))
    with pytest.raises(Unclear, match=words):
        needed_of(FS, table, ())


def test_a_folder_without_a_log_is_no_table(tmp_path: Path) -> None:
    with pytest.raises(Unclear, match="its log has no entries"):
        needed_of(FS, str(tmp_path), ())
    assert head_of(FS, str(tmp_path)) == -1
