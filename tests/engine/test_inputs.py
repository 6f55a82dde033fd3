"""Inputs: which files a path names, what they must have in common, and how rows are cut into partitions."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from treadle.engine.digests import check_unchanged, with_whole_digests
from treadle.engine.inputs import (
    PARTITION_BYTES,
    Found,
    FoundFile,
    InputFile,
    Inspected,
    cut,
    file_of_text,
    find_files,
    partition_count,
    row_bytes,
)
from treadle.errors import DataError, RequestError

LAYOUTS = st.lists(st.lists(st.integers(0, 40), max_size=5), max_size=5)
"""Rows of the row groups of some files."""


def files_of(layout: list[list[int]]) -> list[InputFile]:
    return [InputFile(f"f{i}", 1, "", sum(groups), tuple(groups)) for i, groups in enumerate(layout)]


@given(LAYOUTS, st.integers(1, 60), st.integers(0, 1000))
def test_a_cut_covers_every_row_once_and_in_order(layout: list[list[int]], count: int, offset: int) -> None:
    files = files_of(layout)
    rows = sum(map(sum, layout))
    partitions = cut(files, count, own=True, offset=offset, role="train")
    assert len(partitions) == min(count, rows)
    assert all(partitions)
    pieces = [piece for partition in partitions for piece in partition]
    covered = [(piece.path, row) for piece in pieces for row in range(piece.start, piece.stop)]
    assert covered == [(file.path, row) for file in files for row in range(file.rows or 0)]
    numbers = [piece.offset + i for piece in pieces for i in range(piece.rows)]
    assert numbers == list(range(offset, offset + rows))
    assert {(piece.own, piece.role) for piece in pieces} <= {(True, "train")}


@given(LAYOUTS, st.integers(1, 60))
def test_partitions_are_about_equally_long(layout: list[list[int]], count: int) -> None:
    rows = sum(map(sum, layout))
    sizes = [sum(piece.rows for piece in partition) for partition in cut(files_of(layout), count)]
    if sizes:
        even = rows / len(sizes)
        assert max(sizes) <= 1.5 * even + 1
        assert min(sizes) >= 0.5 * even - 1


def test_cuts_move_to_borders_of_row_groups_that_are_near() -> None:
    partitions = cut(files_of([[98, 104, 98], [100]]), 4)
    assert [(p.path, p.start, p.stop) for partition in partitions for p in partition] == [
        ("f0", 0, 98),
        ("f0", 98, 202),
        ("f0", 202, 300),
        ("f1", 0, 100),
    ]
    assert cut([InputFile("text", 10, "", 7)], 2)[1][0].rows == 4
    assert cut([InputFile("empty", 10, "", 0)], 2) == ()


@given(st.integers(0, 10**10), st.integers(1, 2000), st.integers(1, 64))
def test_partitions_fit_memory_and_feed_every_worker(rows: int, size: int, workers: int) -> None:
    count = partition_count(rows, size, workers)
    assert count >= 1
    assert rows * size <= count * PARTITION_BYTES
    if rows >= 10_000:
        assert count % workers == 0
    if rows * size <= PARTITION_BYTES and rows < 10_000:
        assert count == 1


def test_row_bytes() -> None:
    assert row_bytes({"a": "int", "b": "float", "c": "bool", "d": "timestamp", "e": "text"}) == 9 + 8 + 2 + 8 + 24 + 8


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in (
        "b.parquet",
        "a.PARQUET",
        "k=1/c.pq",
        "k=1/_metadata.parquet",
        ".old/d.parquet",
        "notes.md",
        "_SUCCESS",
    ):
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    return tmp_path / "in"


def names(found: Found, folder: Path) -> list[str]:
    return [path.removeprefix(f"{folder}/") for path in found.paths]


def test_a_folder_is_its_data_files_in_order(folder: Path) -> None:
    found = find_files(str(folder))
    assert found.format == "parquet"
    assert names(found, folder) == ["a.PARQUET", "b.parquet", "k=1/c.pq"]
    assert find_files(f"file://{folder}") == found
    inside = folder / ".old"
    assert names(find_files(str(inside)), inside) == ["d.parquet"]


def test_globs_lists_and_names_with_brackets(folder: Path) -> None:
    assert names(find_files(f"{folder}/*.p*"), folder) == ["b.parquet"]
    both = find_files([f"{folder}/k=1/c.pq", f"{folder}/b.parquet"])
    assert names(both, folder) == ["k=1/c.pq", "b.parquet"]
    (folder / "data[1].csv").write_text("a\n1\n")
    bracketed = find_files(str(folder / "data[1].csv"))
    assert (bracketed.format, bracketed.paths) == ("csv", [str(folder / "data[1].csv")])
    for name, format_ in {
        "x.csv.gz": "csv", "x.tsv.xz": "csv", "x.TXT": "csv", "x.jsonl": "jsonl", "x.ndjson.zst": "jsonl",
    }.items():  # fmt: skip
        (folder / name).write_text("")
        assert find_files(str(folder / name)).format == format_
    assert find_files(str(folder / "notes.md"), "jsonl").paths == [str(folder / "notes.md")]


def test_what_cannot_be_found_is_refused_in_words(folder: Path) -> None:
    with pytest.raises(RequestError, match=r"Input '.*b.parket' was not found. Did you mean 'b.parquet'\?"):
        find_files(str(folder / "b.parket"))
    with pytest.raises(RequestError, match=r"Input '.*' was not found. The folder '.*/no' does not exist"):
        find_files(str(folder / "no" / "b.parquet"))
    with pytest.raises(RequestError, match=r"Nothing matches the glob '.*/\*.csv'; look at the folder part"):
        find_files(f"{folder}/*.csv")
    with pytest.raises(RequestError, match=r"The folder '.*' holds no csv file"):
        find_files(str(folder), "csv")
    with pytest.raises(RequestError, match=r"The format of '.*notes.md' cannot be told from its name; set data.format"):
        find_files(str(folder / "notes.md"))
    (folder / "e.csv").write_text("a\n1\n")
    with pytest.raises(RequestError, match=r"The input mixes formats \(csv, parquet\); set data.format"):
        find_files(str(folder))
    assert names(find_files(str(folder), "csv"), folder) == ["e.csv"]
    twice = [str(folder), str(folder / "b.parquet")]
    with pytest.raises(RequestError, match=r"The input names '.*b.parquet' twice; its rows would count twice"):
        find_files(twice, "parquet")
    with pytest.raises(RequestError, match=r"'.*' is no Delta table: it has no folder _delta_log"):
        find_files(str(folder), "delta")


def test_a_delta_table_is_one_input(folder: Path) -> None:
    (folder / "_delta_log").mkdir()
    (folder / "_delta_log" / "0.json").write_text("")
    assert find_files(str(folder)) == Found("delta", (FoundFile(str(folder), (), "delta"),))
    with pytest.raises(RequestError, match="is a Delta table, whose folder also keeps files of older versions"):
        find_files(str(folder), "parquet")
    with pytest.raises(RequestError, match="is a Delta table, which is an input by itself; name no other paths"):
        find_files([str(folder), str(folder / "b.parquet")])
    with pytest.raises(RequestError, match=rf"holds Delta tables; name one of them: \[{folder}\]"):
        find_files(str(folder.parent))


def test_folders_between_what_is_named_and_the_files(folder: Path) -> None:
    def folders(paths: str | list[str]) -> list[tuple[str, ...]]:
        return [file.folders for file in find_files(paths, "parquet").files]

    (folder / "k=1" / "_j=2").mkdir()
    (folder / "k=1" / "_j=2" / "d.parquet").write_text("")
    assert folders(str(folder)) == [(), (), ("k=1", "_j=2"), ("k=1",)]
    assert folders(str(folder / "k=1")) == [("_j=2",), ()]
    assert folders(str(folder / "k=1" / "c.pq")) == [()]
    assert folders(f"{folder}/k=*/*.pq") == [("k=1",)]
    assert folders(f"{folder}/*.parquet") == [()]
    assert folders(f"{folder}/k=1/**/*.parquet") == [("_j=2",), ()]


def test_the_digest_follows_the_content(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    digests = set()
    for text in ("a\n1\n", "a\n2\n", "a\n12\n", "a\n1\n"):
        path.write_text(text)
        digests.add(file_of_text(str(path)).digest)
    assert len(digests) == 3


def test_a_change_in_the_middle_of_a_large_file_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the stamp of the file, or by all of its content where the spec asks for that; a copy has the same content."""
    monkeypatch.setattr("treadle.engine.digests.HASHED_WHOLE", 2**20)
    path = tmp_path / "a.csv"
    found = []
    for second, middle in enumerate(("x", "x", "y")):
        path.write_text("a" * 2**20 + middle + "b" * 2**20)
        os.utime(path, (second // 2, second // 2))
        found.append(Inspected("csv", (file_of_text(str(path)),), {}))
        assert not found[-1].files[0].whole
    assert found[0].digest == found[1].digest != found[2].digest
    assert len({one.content for one in found}) == 1
    shutil.copy(path, tmp_path / "copy.csv")
    copied = Inspected("csv", (file_of_text(str(tmp_path / "copy.csv")),), {})
    assert copied.digest != found[2].digest
    assert copied.content == found[2].content
    assert with_whole_digests(copied).digest == with_whole_digests(found[2]).digest
    path.write_text("a" * 2**20 + "x" + "b" * 2**20)
    assert with_whole_digests(copied).digest != with_whole_digests(found[2]).digest


def test_files_that_change_are_found_by_their_content(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("a.csv", "b.csv", "c.csv", "d.csv")]
    for path in paths:
        path.write_text("a\n1\n")
    inspected = Inspected("csv", tuple(file_of_text(str(path)) for path in paths), {})
    os.utime(paths[0], (0, 0))
    paths[1].unlink()
    check_unchanged([inspected])
    paths[2].write_text("a\n2\n")
    with pytest.raises(DataError, match=rf"input {paths[2]} was changed while the run was reading it"):
        check_unchanged([inspected])
    paths[3].write_text("a\n1\n2\n")
    with pytest.raises(DataError, match=rf"{paths[2]}, and 1 more files, was changed"):
        check_unchanged([inspected])
