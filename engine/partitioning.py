"""Files of a table by the values of its partition columns, as Delta Lake and Hive lay them out."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any
from urllib.parse import quote

import numpy as np
import pyarrow as pa

from treadle.engine.document import Document, Part
from treadle.engine.store import Store
from treadle.errors import DataError, shortened

MAX_PARTITIONS = 1000
"""Folders of a version: more make more files than readers are quick with."""
LONGEST_NAME = 255
"""Bytes of the name of a folder, on the file systems that there are."""
NULL_FOLDER = "__HIVE_DEFAULT_PARTITION__"
Values = tuple[tuple[str, str | None], ...]
"""Partition columns and their values, as text."""


class Piece(Document):
    """A file with the rows of a part that have the same values of the partition columns, and without these."""

    part: Part
    values: Values


def split_part(store: Store, part: Part, columns: Sequence[str], stem: str) -> list[Piece]:
    """Writes the rows of a part to one file a combination of values, named after `stem`, in the order of the values.

    Raises
    ------
    DataError
        A column has an empty text, or there are too many combinations.
    """
    table = store.read_parquet(part.path)
    codes = np.zeros(table.num_rows, dtype=np.int64)
    distinct = []
    for name in columns:
        encoded = table.column(name).combine_chunks().dictionary_encode(null_encoding="encode")
        encoded = encoded.combine_chunks() if isinstance(encoded, pa.ChunkedArray) else encoded
        texts = [_text(name, value) for value in encoded.dictionary.to_pylist()]
        ordered = sorted(range(len(texts)), key=lambda i: (texts[i] is None, texts[i] or ""))
        distinct.append([texts[i] for i in ordered])
        codes = codes * max(len(texts), 1) + np.argsort(ordered)[encoded.indices.to_numpy()]
    order = np.argsort(codes, kind="stable")
    starts = np.flatnonzero(np.diff(codes[order], prepend=-1))
    check_count(len(starts), columns)
    rest = table.drop_columns(list(columns))
    pieces = []
    for number, (start, stop) in enumerate(pairwise([*starts, len(order)])):
        code, values = int(codes[order[start]]), []
        for name, texts in zip(reversed(columns), reversed(distinct), strict=True):
            code, place = divmod(code, len(texts))
            values.append((name, texts[place]))
        written = store.write_parquet(f"{stem}-{number:04d}.parquet", rest.take(pa.array(order[start:stop])))
        pieces.append(Piece(part=written, values=tuple(reversed(values))))
    return pieces


def folder_of(values: Values) -> str:
    """`a=1/b=x/`, with what a name of a folder cannot hold in percent codes; '' without partition columns."""
    return "".join(f"{name}={NULL_FOLDER if text is None else quote(text, safe='')}/" for name, text in values)


def check_count(count: int, columns: Sequence[str]) -> None:
    """Refuses more combinations of values than a version may have."""
    if count > MAX_PARTITIONS:
        raise DataError(
            f"partition_by {list(columns)}: the rows have more than {MAX_PARTITIONS} combinations of values, each of "
            "which would be a folder; partition by columns with fewer values."
        )


def partition_text(value: Any) -> str | None:
    """A value of a partition column as Delta Lake writes it."""
    if value is None:
        return None
    return str(value).lower() if isinstance(value, bool) else str(value)


def _text(name: str, value: Any) -> str | None:
    if value == "":
        raise DataError(
            f"partition_by: column '{name}' has an empty text, which Delta Lake does not hold apart from null in a "
            "partition; fill it in tables, or partition by another column."
        )
    text = partition_text(value)
    if len(f"{name}={quote(text or '', safe='')}") > LONGEST_NAME:
        raise DataError(
            f"partition_by: column '{name}' has the value '{shortened(str(text))}', which is too long for the name of "
            "a folder; partition by another column."
        )
    return text
