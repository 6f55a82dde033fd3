"""Partition folders as Hive writes them: `year=2024/month=05/part.parquet` has the columns year and month."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from urllib.parse import unquote

import pyarrow as pa

from treadle.engine.readers.options import TextOptions, given_kinds
from treadle.engine.readers.values import convert, infer
from treadle.errors import DataError

HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"
INFERRED = ("int", "timestamp")
"""What the values of a folder's name may be besides text."""


def folder_values(folders: Sequence[str]) -> dict[str, str | None]:
    """The columns that folders named `key=value` stand for, outermost first; both sides may be URL-encoded."""
    values: dict[str, str | None] = {}
    for folder in folders:
        key, equals, value = folder.partition("=")
        if equals and key:
            values[unquote(key)] = None if value in (HIVE_NULL, "") else unquote(value)
    return values


def typed_values(
    files: Mapping[str, Mapping[str, str | None]], types: Mapping[str, str]
) -> tuple[dict[str, str], dict[str, dict[str, str | None]]]:
    """Kinds of the columns that folders stand for, and by file their values, written in one way for each kind.

    A column is int or timestamp (ISO 8601) if all of its values are, else text, unless `types` says otherwise.

    Raises
    ------
    DataError
        A value that is not of its given type.
    """
    given = given_kinds(types)
    names = list(dict.fromkeys(name for values in files.values() for name in values))
    kinds: dict[str, str] = {}
    written: dict[str, dict[str, str | None]] = {path: {} for path in files}
    for name in names:
        holders = [path for path, values in files.items() if name in values]
        texts = pa.array([files[path][name] for path in holders], pa.string())
        inferred = infer(texts, TextOptions())
        kinds[name] = given.get(name) or (inferred if inferred in INFERRED else "text")
        typed = convert(texts, kinds[name], TextOptions(), given=True)
        for path, text, value in zip(holders, texts.to_pylist(), typed.cast(pa.string()).to_pylist(), strict=True):
            if text is not None and value is None:
                raise DataError(
                    f"The partition column '{name}' of '{path}' is '{text}', which is no {kinds[name]} (data.types); "
                    "change the type, or leave it out."
                )
            written[path][name] = value
    return kinds, written
