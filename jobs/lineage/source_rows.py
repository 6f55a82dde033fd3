"""Rows of a run's inputs by their ids: which file, which row of it, and what stands there.

Without an id column an id is the row's number in the input, from which file and row follow. Else the column is
looked through in the files that are still what they were, by statistics of their row groups. Text files were
converted when they were read; while that outcome is cached, rows are found there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from treadle.errors import StorageError, TreadleError
from treadle.jobs.lineage.inputs_now import stale

if TYPE_CHECKING:
    import fsspec
    import pyarrow as pa

    from treadle.jobs.run import Run

OTHER_ROWS = ("aggregate", "pivot")
"""Operations that make other rows of rows, unless they are broadcast."""

ALL = 1 << 62
"""More rows than any file has."""


@dataclass(frozen=True)
class SourceRow:
    """A raw row."""

    section: str
    """Of the spec, which names the input."""
    file: str
    row: int
    """From 1 in the file; of a text file among the rows that could be read."""
    values: dict[str, Any] | None
    """As they stand in the file; None where they cannot be read any more."""
    said: str = ""
    """Why there are no values."""


@dataclass(frozen=True)
class _File:
    """Some rows of an input as a Parquet file that may be there to be read."""

    section: str
    path: str
    """Of the input's file."""
    rows: int | None
    """None where they are not known."""
    before: int = 0
    """Rows of the input's file before these."""
    record: Mapping[str, Any] | None = None
    """What the manifest says of the file, where its rows lie in itself."""
    converted: tuple[fsspec.AbstractFileSystem, str] | None = None
    """Where the rows of a text file are."""

    @property
    def constants(self) -> dict[str, str | None]:
        """Columns that are not in the file and have one value in all of its rows."""
        return dict(self.record.get("constants", ())) if self.record is not None else {}

    def opened(self) -> tuple[fsspec.AbstractFileSystem, str] | str:
        """Where the rows can be read now, or why they cannot: the file must be what it was."""
        from treadle.engine.inputs import filesystem

        if self.converted is not None:
            return self.converted
        if self.record is None:
            return "it is text, whose rows as they were read are not kept (any more); run the spec again to have them"
        said = stale(self.record)
        return f"it {said}" if said else filesystem(self.path)


def source_rows(run: Run, value: pa.Scalar, most: int) -> tuple[list[SourceRow], str]:
    """At most `most` rows that have the id, and why there are none, or what is to be known of them."""
    spec = run.manifest["spec"]
    made = next((index for index, one in reversed(list(enumerate(spec.get("tables", ())))) if _makes_rows(one)), None)
    if made is not None:
        where = f"tables.{made} ({spec['tables'][made]['op']})"
        return [], f"the rows were made by {where}, each of several rows of the input"
    column = spec["data"].get("id")
    try:
        if column is None:
            return _by_number(run, value.as_py())
        return _by_column(run, str(column), value, most)
    except StorageError as error:
        return [], str(error)


def _makes_rows(operation: Mapping[str, Any]) -> bool:
    return operation["op"] in OTHER_ROWS and not operation.get("broadcast")


def _by_number(run: Run, number: int) -> tuple[list[SourceRow], str]:
    """The row of that number: files follow each other in the order of the manifest."""
    first = 0
    for file in _files(run):
        if file.rows is None:
            return [], f"how many rows '{file.path}' has is not known: {file.opened()}"
        if number < first + file.rows:
            return [_row(file, number - first)], ""
        first += file.rows
    return [], f"the input has {first:,} rows"


def _by_column(run: Run, column: str, value: pa.Scalar, most: int) -> tuple[list[SourceRow], str]:
    from treadle.engine.raw_rows import numbers_where

    kind = run.manifest["results"]["read"]["kinds"][column]
    found: list[SourceRow] = []
    unread: list[str] = []
    for file in _files(run):
        name = _name_there(run, file.section, column)
        place = f"its folder's name is its column '{name}'" if name in file.constants else file.opened()
        if isinstance(place, str):
            unread.append(f"'{file.path}' was not looked into: {place}")
            continue
        for number in numbers_where(*place, name, kind, value):
            if len(found) == most:
                return found, f"there are more than {most} such rows in the input"
            found.append(_row(file, number))
    said = "; ".join(unread[:2]) + (f"; and {len(unread) - 2} more files" if len(unread) > 2 else "")
    return found, said or ("" if found else "no row of the input has this id")


def _name_there(run: Run, section: str, column: str) -> str:
    """What a column is called in the other table of a union."""
    kind, _, place = section.partition(".")
    if kind != "tables":
        return column
    renamed = run.manifest["spec"]["tables"][int(place)]["with"].get("rename", {})
    return str(next((old for old, new in renamed.items() if new == column), column))


def _row(file: _File, number: int) -> SourceRow:
    from treadle.engine.raw_rows import row_at

    where, there = (file.section, file.path, file.before + number + 1), file.opened()
    if isinstance(there, str):
        return SourceRow(*where, None, there)
    try:
        values = row_at(*there, number)
    except StorageError as error:
        return SourceRow(*where, None, str(error))
    return SourceRow(*where, {**values, **file.constants})


def _files(run: Run) -> Iterator[_File]:
    """The files of the rows that a run read as its own, in the order of their numbers."""
    manifest = run.manifest
    sections = ["data", "split"]
    sections += [f"tables.{i}" for i, one in enumerate(manifest["spec"].get("tables", ())) if one["op"] == "union"]
    own = [found for found in manifest["inputs"] if found["section"] in sections]
    for found in own:
        section, files = found["section"], found["files"]
        if found["format"] not in ("csv", "jsonl"):
            yield from (_File(section, file["path"], file["rows"], record=file) for file in files)
        elif (source := _outcome(run) if section in ("data", "split") else None) is None:
            # All rows are those of the only file, however many it has.
            rows = ALL if len(own) == len(files) == 1 else None
            yield from (_File(section, file["path"], rows) for file in files)
        else:
            paths = {file["path"] for file in files}
            for part in source.files:
                origin = source.origins.get(part.path)
                if origin is not None and origin.file in paths:
                    place = (run.store.fs, run.store.path(part.path))
                    yield _File(section, origin.file, part.rows, origin.before, converted=place)


def _outcome(run: Run) -> Any:
    """What the stage `read` made in the run, if it is still cached with all its files."""
    from treadle.engine.artifacts import Source
    from treadle.engine.store import OUTCOME

    fingerprint = next((s["fingerprint"] for s in run.manifest["stages"] if s["stage"] == "read"), None)
    path = f"stages/read-{fingerprint}/{OUTCOME}"
    if fingerprint is None or not run.store.exists(path):
        return None
    try:
        source = Source.model_validate(run.store.read_json(path))
    except (TreadleError, ValueError):
        return None
    return source if all(run.store.has(part) for part in source.files) else None
