"""Text files as blocks of whole records, with the place and the fault of those that cannot be read."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import fsspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from treadle.engine.readers.options import TextOptions
from treadle.engine.readers.text import SAMPLE_BYTES, SAMPLE_ROWS, is_valid_utf8, open_text, shown, undecodable
from treadle.errors import DataError, RequestError
from treadle.kernels.csv_scan import GOOD, TEXT_AFTER_QUOTE, UNCLOSED, WRONG_COUNT, Records, scan, split

DELIMITERS = (";", "\t", ",", "|")
"""What may be meant when a file has one column only."""
ALIKE = 0.9
"""Share of the rows that have the same number of fields with another delimiter, so that it is meant."""
REMEDY = "delimited text, and data.quote"


@dataclass(frozen=True)
class Block:
    """Bytes of one file, in UTF-8, and the whole records in them.

    `line` is the 1-based physical line on which `data` starts, `offset` its place in the
    decompressed file in bytes, when the file is UTF-8.
    """

    data: bytes
    records: Records
    line: int
    offset: int

    def line_of(self, record: int) -> int:
        return self.line + int(self.records.lines[record])

    def text_of(self, record: int) -> str:
        return shown(self.data, int(self.records.starts[record]), int(self.records.ends[record]))

    def faults(self, fields: int, encoding: str) -> dict[int, str]:
        """Why records cannot be cut into values, by their numbers."""
        records = self.records
        found = {
            int(record): _reason(int(records.faults[record]), int(records.counts[record]), fields)
            for record in np.flatnonzero(records.faults != GOOD)
        }
        if is_valid_utf8(self.data, records.consumed):
            return found
        for record in records.rows.tolist():
            start, end = int(records.starts[record]), int(records.ends[record])
            try:
                self.data[start:end].decode()
            except UnicodeDecodeError as error:
                found[record] = undecodable(self.data, start + error.start, self.offset, encoding)
        return found

    def readable(self, faults: Mapping[int, str], *, has_header: bool) -> NDArray[np.bool_]:
        """Which of the good records (rows,) are rows of data; the first is not with `has_header`."""
        keep = ~np.isin(self.records.rows, np.fromiter(faults, np.int32, len(faults)))
        keep[:1] &= not has_header
        return keep

    def columns(self, keep: NDArray[np.bool_], quote: str, nulls: Sequence[str]) -> list[pa.StringArray]:
        """The values of the good records that `keep` (rows,) marks, by field; those in `nulls` are null."""
        records = self.records
        starts, ends, styles = records.field_starts, records.field_ends, records.styles
        if not keep.all():
            starts, ends, styles = starts[keep], ends[keep], styles[keep]
        tokens = [token.encode() for token in nulls]
        columns = split(np.frombuffer(self.data, np.uint8), starts, ends, styles, ord(quote), tokens)
        return [
            pa.StringArray.from_buffers(
                len(column.valid),
                pa.py_buffer(column.offsets),
                pa.py_buffer(column.data),
                pa.py_buffer(np.packbits(column.valid, bitorder="little")),
            )
            for column in columns
        ]


@dataclass(frozen=True)
class Head:
    """What the start of a file tells: names, typical rows, and how short a row may be.

    Spreadsheet programs leave out the delimiters after the last value of a row when the columns
    beyond are empty. So a row may lack the columns at the end that are null in all complete rows of
    the sample; `shortest` is the number of fields that it must have.
    """

    names: tuple[str, ...]
    sample: list[pa.StringArray]
    shortest: int
    has_rows: bool
    """Good ones or broken ones."""


def read_head(fs: fsspec.AbstractFileSystem, path: str, options: TextOptions) -> Head:
    """The head of a file: of its first 4 MiB or 20,000 rows.

    Raises
    ------
    DataError
        A file that is empty or cannot be decompressed, or whose header cannot be read.
    RequestError
        A file without a header whose rows have another number of fields than there are names.
    """
    data, final = _first_bytes(fs, path, options)
    fields = _field_count(data, path, options, final)
    if fields == 1:
        _check_delimiter(data, path, options, final)
    names = _header(data, path, options, fields) if options.header else _given_names(path, options, fields)
    complete, records = _sample(data, options, fields, fields, final)
    shortest = fields
    while len(complete[0]) and shortest > 1 and complete[shortest - 1].null_count == len(complete[0]):
        shortest -= 1
    sample = complete if shortest == fields else _sample(data, options, fields, shortest, final)[0]
    return Head(names, sample, shortest, records > options.header or not final)


def blocks(
    fs: fsspec.AbstractFileSystem, path: str, options: TextOptions, fields: int, shortest: int, block_bytes: int
) -> Iterator[Block]:
    """The whole file in blocks of about `block_bytes` of UTF-8; a longer record makes a longer block.

    Raises
    ------
    DataError
        A file that cannot be decompressed, or a record of more than `RECORD_LIMIT` bytes.
    """
    with open_text(fs, path, options.encoding) as text:
        rest, line, passed, final = b"", 1, 0, False
        while not final:
            # Reading at least as much as is left over keeps the work linear when records exceed the block.
            data, final = text.read_on(rest, max(block_bytes, len(rest)))
            records = _scan(data, options, fields, shortest, final=final)
            if records.starts.size:
                yield Block(data, records, line, text.offset + passed)
            rest = data[records.consumed :]
            line += records.passed
            passed += records.consumed
            text.check_size(line, rest, REMEDY)


def _scan(
    data: bytes, options: TextOptions, fields: int, shortest: int, *, final: bool, most: int | None = None
) -> Records:
    delimiter, quote = ord(options.delimiter), ord(options.quote)
    return scan(np.frombuffer(data, np.uint8), delimiter, quote, fields, shortest=shortest, final=final, most=most)


def _first_bytes(fs: fsspec.AbstractFileSystem, path: str, options: TextOptions) -> tuple[bytes, bool]:
    """The start of the file with at least one record, and whether that is all of it."""
    with open_text(fs, path, options.encoding) as text:
        data, final = text.read_on(b"", SAMPLE_BYTES)
        while not final and not _scan(data, options, 1, 1, final=False, most=1).starts.size:
            data, final = text.read_on(data, len(data))
            text.check_size(1, data, REMEDY)
        return data, final


def _field_count(data: bytes, path: str, options: TextOptions, final: bool) -> int:
    """The fields of the header, or the most frequent number in the sample of a file without one."""
    records = _scan(data, options, 1, 1, final=final, most=1 if options.header else SAMPLE_ROWS)
    if not records.starts.size:
        raise DataError(f"'{path}' is empty: it has no header and no rows; replace it or leave it out.")
    whole = records.counts[(records.faults == GOOD) | (records.faults == WRONG_COUNT)]
    if not whole.size:
        what = "The header" if options.header else "Every row"
        reason = _reason(int(records.faults[0]), 0, 0)
        raise DataError(f"{what} of '{path}' cannot be read: {reason}; mend it, or see data.quote.")
    numbers, frequencies = np.unique(whole, return_counts=True)
    return int(numbers[frequencies.argmax()])


def _check_delimiter(data: bytes, path: str, options: TextOptions, final: bool) -> None:
    """Refuses a file of one column that has several with another delimiter, the same number in nearly all rows."""
    for delimiter in DELIMITERS:
        if delimiter in (options.delimiter, options.quote):
            continue
        other = replace(options, delimiter=delimiter, decimal=".", thousands=None)
        counts = _scan(data, other, 1, 1, final=final, most=SAMPLE_ROWS).counts
        most = int(np.bincount(counts).argmax())
        if most > 1 and counts[0] >= most and np.mean(counts == most) >= ALIKE:
            raise RequestError(
                f"'{path}' has a single column with data.delimiter {options.delimiter!r}; "
                f"did you mean delimiter {delimiter!r}, which makes {counts[0]}?"
            )


def _header(data: bytes, path: str, options: TextOptions, fields: int) -> tuple[str, ...]:
    records = _scan(data, options, fields, fields, final=True, most=1)
    block = Block(data, records, 1, 0)
    if block.faults(fields, options.encoding):
        raise DataError(
            f"The header of '{path}' has bytes that are not {options.encoding}; "
            "see data.encoding (latin-1, cp1252, ...)."
        )
    columns = block.columns(np.ones(1, np.bool_), options.quote, ())
    return unique_names([column[0].as_py().strip() for column in columns])


def unique_names(names: Sequence[str]) -> tuple[str, ...]:
    """An empty name becomes column_<n>, n from 1; one that came before gets the first free of .1, .2, ..."""
    named = [name or f"column_{number}" for number, name in enumerate(names, 1)]
    unique: list[str] = []
    taken = set(named)
    seen: set[str] = set()
    for name in named:
        new = name
        if name in seen:
            new = next(free for n in itertools.count(1) if (free := f"{name}.{n}") not in taken)
        seen.add(name)
        taken.add(new)
        unique.append(new)
    return tuple(unique)


def _given_names(path: str, options: TextOptions, fields: int) -> tuple[str, ...]:
    if not options.names:
        return tuple(f"column_{number}" for number in range(1, fields + 1))
    if len(options.names) != fields:
        raise RequestError(
            f"data.names has {len(options.names)} names, but the rows of '{path}' have {fields} fields; "
            "name each of them, and check data.delimiter."
        )
    return options.names


def _sample(
    data: bytes, options: TextOptions, fields: int, shortest: int, final: bool
) -> tuple[list[pa.StringArray], int]:
    """The values of the good rows in `data` by column, and how many records there are."""
    records = _scan(data, options, fields, shortest, final=final, most=SAMPLE_ROWS)
    block = Block(data, records, 1, 0)
    keep = block.readable(block.faults(fields, options.encoding), has_header=options.header)
    return block.columns(keep, options.quote, options.null_tokens), records.starts.size


def _reason(fault: int, found: int, fields: int) -> str:
    if fault == WRONG_COUNT:
        return f"{found} field{'s' if found != 1 else ''} where {fields} are expected"
    return {UNCLOSED: "a quote is not closed", TEXT_AFTER_QUOTE: "text follows a closing quote"}[fault]
