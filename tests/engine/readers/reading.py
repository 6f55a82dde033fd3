"""Text files that are written for a test, and read as the stage `read` reads them."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from treadle.engine.backend import ARROW_TYPES
from treadle.engine.inputs import InputFile, Inspected, cut
from treadle.engine.program import read_piece
from treadle.engine.readers.options import TextOptions
from treadle.engine.readers.parts import BadRow, Parts, TextPart
from treadle.engine.readers.schemas import unify
from treadle.engine.store import Store
from treadle.engine.text_input import TEXT_FORMATS, convert_file

SHARED = Path(__file__).resolve().parents[3].parent / "shared" / "data"
LOCAL = fsspec.filesystem("file")
NAMES = itertools.count()


def shared(name: str) -> str:
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"{name} is in the shared test data, which are not here")
    return str(path)


def written(folder: Path, content: str | bytes, suffix: str = ".csv", encoding: str = "utf-8") -> str:
    path = folder / f"{next(NAMES)}{suffix}"
    path.write_bytes(content if isinstance(content, bytes) else content.encode(encoding))
    return str(path)


def inferred(paths: list[str], options: TextOptions | None = None, format_: str = "csv") -> dict[str, str]:
    """The kinds of the columns of some files."""
    options, reader = options or TextOptions(), TEXT_FORMATS[format_]
    return unify({path: reader.sample(path, options).columns for path in paths}, options.types, reader.rules).kinds


def converted(
    path: str,
    folder: Path,
    options: TextOptions | None = None,
    kinds: dict[str, str] | None = None,
    format_: str = "csv",
    left_out: dict[str, str] | None = None,
    **keywords: Any,
) -> tuple[pa.Table, list[BadRow]]:
    """All good rows of a file in one table, after a look at what was written, and the bad ones."""
    options = options or TextOptions()
    kinds = kinds or inferred([path], options, format_)
    schema = pa.schema([(name, ARROW_TYPES[kind]) for name, kind in kinds.items()])
    prefix = f"{folder}/out-{next(NAMES)}/part"
    out = Parts(LOCAL, prefix)
    TEXT_FORMATS[format_].convert(path, kinds, left_out or {}, options, out, **keywords)
    assert [part.path for part in out.written] == [f"{prefix}-{i:05d}.parquet" for i in range(len(out.written))]
    assert sorted(map(str, Path(prefix).parent.glob("*"))) == [part.path for part in out.written]
    tables = [pq.read_table(part.path, partitioning=None) for part in out.written]
    for part, table in zip(out.written, tables, strict=True):
        assert part == TextPart(part.path, table.num_rows, Path(part.path).stat().st_size)
        assert table.schema == schema
    return pa.concat_tables([schema.empty_table(), *tables]).combine_chunks(), out.bad


def reasons(bad: list[BadRow]) -> list[tuple[int, str]]:
    return [(row.line, row.reason) for row in bad]


def rows_of(inspected: Inspected, folder: Path | None = None, columns: list[str] | None = None) -> pa.Table:
    """All rows of an input, or some columns of them, in the engine's types; text is converted in `folder`."""
    store = Store(str(folder or "/"))
    files = list(inspected.files)
    if inspected.is_text:
        tasks = enumerate(file.path for file in inspected.files)
        made = [convert_file(task, store, inspected, f"rows-{next(NAMES)}") for task in tasks]
        assert all(not bad for _, bad in made), made
        files = [InputFile(part.path, part.bytes, "", part.rows) for parts, _ in made for part in parts]
    kinds = {name: inspected.kinds[name] for name in columns or inspected.kinds}
    pieces = [piece for partition in cut(files, 3, own=inspected.is_text) for piece in partition]
    schema = pa.schema([(name, ARROW_TYPES[kind]) for name, kind in kinds.items()])
    return pa.concat_tables([schema.empty_table(), *(read_piece(store, piece, kinds) for piece in pieces)])
