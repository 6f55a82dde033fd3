"""Inputs of every format as the engine takes them: the one place that knows which reader a format has.

Parquet and Delta are read where they are. Text files are converted to Parquet once, on the workers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import pyarrow as pa

from treadle.engine.document import Part
from treadle.engine.inputs import Found, Inspected, file_of_text, find_files
from treadle.engine.job import Data
from treadle.engine.readers import csv, delta, jsonl, parquet
from treadle.engine.readers.hive import folder_values, typed_values
from treadle.engine.readers.options import TextOptions
from treadle.engine.readers.parts import Parts
from treadle.engine.readers.schemas import Rules, Sampled, unify
from treadle.engine.store import Store
from treadle.errors import DataError, RequestError

SHOWN_BAD_ROWS = 5
THREADS = 4
QUARANTINE = pa.schema([("file", pa.string()), ("line", pa.int64()), ("reason", pa.string()), ("text", pa.string())])


@dataclass(frozen=True)
class TextFormat:
    """How files of one text format are looked at and read."""

    sample: Callable[[str, TextOptions], Sampled]
    """The head of a file."""
    convert: Callable[[str, Mapping[str, str], Mapping[str, str], TextOptions, Parts], None]
    """A whole file, by the kinds of its columns and those that are left out."""
    rules: Rules


TEXT_FORMATS: Mapping[str, TextFormat] = {
    "csv": TextFormat(csv.sample, csv.convert_file, csv.RULES),
    "jsonl": TextFormat(jsonl.sample, jsonl.convert_file, jsonl.RULES),
}


def text_options(data: Data) -> TextOptions:
    """The reader's options from the spec's section."""
    return TextOptions(
        delimiter=data.delimiter,
        quote=data.quote,
        encoding=data.encoding,
        decimal=data.decimal,
        thousands=data.thousands,
        null_tokens=data.null_tokens,
        header=data.header,
        names=data.names,
        date_formats=data.date_formats,
        types=data.types,
    )


def inspect(
    paths: str | Sequence[str],
    format_: str | None = None,
    options: TextOptions | None = None,
    version: int | None = None,
    hints: Mapping[str, str] | None = None,
    section: str = "data",
) -> Inspected:
    """The input as its footers and heads describe it.

    Parameters
    ----------
    version
        Of a Delta table; the newest when None.
    hints
        Types of columns of text files, for those that they have.
    section
        The part of a spec that names the input, for messages.

    Raises
    ------
    RequestError
        What the paths name is not there, or is not what was asked for.
    DataError
        The files differ, or cannot be read.
    """
    options = options or TextOptions()
    found = find_files(paths, format_, section)
    if version is not None and found.format != "delta":
        raise RequestError(f"{section}.version is for Delta tables, and '{found.paths[0]}' is {found.format}.")
    if found.format == "delta":
        return delta.inspect(found.paths[0], version, options.types)
    folders = {file.path: folder_values(file.folders) for file in found.files}
    if found.format == "parquet":
        return parquet.inspect(folders, options.types)
    return _inspect_text(found, folders, options, hints or {})


def _inspect_text(
    found: Found, folders: Mapping[str, Mapping[str, str | None]], options: TextOptions, hints: Mapping[str, str]
) -> Inspected:
    format_ = TEXT_FORMATS[found.format]
    hinted = replace(options, types={**hints, **options.types})
    with ThreadPoolExecutor(THREADS) as pool:
        sampled = dict(zip(found.paths, pool.map(lambda path: format_.sample(path, hinted), found.paths), strict=True))
    # A file without keys and rows has nothing to say; one with a header has.
    heads = {path: sample.columns for path, sample in sampled.items() if sample.columns or sample.has_rows}
    if not heads:
        raise DataError(f"The input {', '.join(found.paths[:3])} has no rows.")
    present = {name for named in (*heads.values(), *folders.values()) for name in named}
    options = replace(options, types={**{n: t for n, t in hints.items() if n in present}, **options.types})
    folder_kinds, written = typed_values(folders, options.types)
    for path, columns in heads.items():
        twice = next((name for name in written[path] if name in columns), None)
        if twice is not None:
            raise DataError(
                f"'{path}' has a column '{twice}', and its folder '{twice}=...' stands for one; rename one of them."
            )
    unified = unify(
        {
            path: {**columns, **{name: {folder_kinds[name]: f"'{path}'"} for name in written[path]}}
            for path, columns in heads.items()
        },
        options.types,
        format_.rules,
    )
    files = [
        replace(
            file_of_text(path),
            rows=None if sampled[path].has_rows else 0,
            constants=tuple(written[path].items()),
        )
        for path in found.paths
    ]
    return Inspected(found.format, tuple(files), unified.kinds, options, left_out=unified.left_out, notes=unified.notes)


def convert_file(
    task: tuple[int, str], store: Store, source: Inspected, prefix: str
) -> tuple[list[Part], list[pa.Table]]:
    """On a worker: one text file as Parquet parts named after `prefix`, and its broken rows as tables."""
    number, path = task
    relative = f"{prefix}-{number:05d}"
    constants = dict(source.files[number].constants)
    parts = Parts(
        store.fs, store.path(relative), {name: (source.kinds[name], value) for name, value in constants.items()}
    )
    kinds = {name: kind for name, kind in source.kinds.items() if name not in constants}
    TEXT_FORMATS[source.format].convert(path, kinds, source.left_out, source.options or TextOptions(), parts)
    written = [
        Part(path=f"{relative}{part.path.removeprefix(store.path(relative))}", rows=part.rows, bytes=part.bytes)
        for part in parts.written
    ]
    rows = [{"file": path, "line": row.line, "reason": row.reason, "text": row.text} for row in parts.bad]
    return written, [pa.Table.from_pylist(rows, QUARANTINE)] if rows else []


def rejected(bad: Sequence[pa.Table], limit: int, remedy: str) -> pa.Table | None:
    """The broken rows of all files together, None when there are none.

    Raises
    ------
    DataError
        There are more than `limit`; names the first few.
    """
    if not bad:
        return None
    table = pa.concat_tables(bad)
    if table.num_rows > limit:
        shown = "\n".join(
            f"  {row['file']}, line {row['line']}: {row['reason']}"
            for row in table.slice(0, SHOWN_BAD_ROWS).to_pylist()
        )
        raise DataError(
            f"{table.num_rows} rows cannot be read, more than data.bad_rows.limit = {limit}:\n{shown}\n{remedy}"
        )
    return table
