"""Kernels that cut the bytes of a delimited text file into records and fields.

The grammar (RFC 4180, with the padding and the line ends that files have in practice):

    record  = field *(delimiter field) (LF | CR LF | CR | end of file)
    field   = *space quote *(any byte but quote | quote quote) quote *space      quoted
            | *space *(any byte but delimiter, CR, LF) *space                    plain

A quote inside a plain field is an ordinary byte. A quoted field that is not closed, or that is
followed by something else than a delimiter or a line end, is a fault; the record then ends with
the physical line on which that field opened, so that a stray quote costs one line and not the
rest of the file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray

LF, CR, SPACE, TAB = 10, 13, 32, 9
NONE = 256
"""A byte that never occurs."""

GOOD, WRONG_COUNT, UNCLOSED, TEXT_AFTER_QUOTE = 0, 1, 2, 3
PLAIN, QUOTED, ESCAPED = 0, 1, 2

FIELD_LIMIT = 16 * 2**20
"""A quoted field of more bytes counts as one that is not closed."""


@dataclass(frozen=True)
class Records:
    """The records in a buffer and the fields of the good ones; all arrays are on the host.

    `starts`, `ends` (records,) int32 bound a record's bytes without its line end; `lines` (records,)
    int32 counts the physical lines before it; `counts` (records,) int32 are its fields; `faults`
    (records,) int8. Blank lines are no records. `field_starts`, `field_ends` (rows, fields) int32
    bound the values without padding and quotes, `styles` (rows, fields) int8 tell PLAIN, QUOTED and
    ESCAPED (quotes inside are doubled), for the good records, whose numbers are `rows` (rows,) int32.
    `consumed` bytes and `passed` physical lines precede the first record that is not whole.
    """

    starts: NDArray[np.int32]
    ends: NDArray[np.int32]
    lines: NDArray[np.int32]
    counts: NDArray[np.int32]
    faults: NDArray[np.int8]
    rows: NDArray[np.int32]
    field_starts: NDArray[np.int32]
    field_ends: NDArray[np.int32]
    styles: NDArray[np.int8]
    consumed: int
    passed: int


@dataclass(frozen=True)
class Column:
    """The values of one field, as Arrow lays text out: `offsets` (rows + 1,) int32 into `data`, uint8.

    `valid` (rows,) bool is false for nulls.
    """

    offsets: NDArray[np.int32]
    data: NDArray[np.uint8]
    valid: NDArray[np.bool_]


def scan(
    data: NDArray[np.uint8],
    delimiter: int,
    quote: int,
    fields: int,
    *,
    shortest: int | None = None,
    final: bool,
    most: int | None = None,
) -> Records:
    """The records of `data` (bytes,) uint8, below 2**31 bytes, that starts with a record.

    Parameters
    ----------
    fields
        The number of fields of a good record.
    shortest
        A record may leave out fields at its end, down to so many; `fields` when absent.
    final
        Whether the file ends with `data`; otherwise a record at its end that has no line end, or
        one whose CR may be the first half of a CR LF, is left for the next buffer.
    most
        Stop after so many records.
    """
    delimiters = int(np.count_nonzero(data == delimiter))
    breaks = int(np.count_nonzero(data == LF)) + int(np.count_nonzero(data == CR))
    most = breaks + 1 if most is None else min(most, breaks + 1)
    shortest = fields if shortest is None else shortest
    room = min((delimiters + breaks + 1) // max(shortest, 1), most) * fields + fields
    numbers = np.empty((4, most), np.int32)
    faults = np.empty(most, np.int8)
    rows = np.empty(most, np.int32)
    bounds = np.empty((2, room), np.int32)
    styles = np.empty(room, np.int8)
    records, good, consumed, passed = _scan(
        data, delimiter, quote, fields, shortest, final, most, FIELD_LIMIT, numbers, faults, rows, bounds, styles
    )
    shape = (good, fields)
    return Records(
        starts=numbers[0, :records],
        ends=numbers[1, :records],
        lines=numbers[2, :records],
        counts=numbers[3, :records],
        faults=faults[:records],
        rows=rows[:good],
        field_starts=bounds[0, : good * fields].reshape(shape),
        field_ends=bounds[1, : good * fields].reshape(shape),
        styles=styles[: good * fields].reshape(shape),
        consumed=consumed,
        passed=passed,
    )


@numba.njit(cache=True, nogil=True)
def _scan(  # type: ignore[no-untyped-def]
    data, delimiter, quote, fields, shortest, final, most, limit, numbers, faults, rows, bounds, styles
):
    size = data.size
    space = SPACE if delimiter != SPACE else NONE
    tab = TAB if delimiter != TAB else NONE
    record = good = used = start = line = 0
    while start < size and record < most:
        first, begin, count, fault, at, blank = line, used, 0, GOOD, start, False
        while True:
            low = at
            while low < size and (data[low] == space or data[low] == tab):
                low += 1
            if low < size and data[low] == quote:
                opened, opened_line = low, line
                low += 1
                at, style, closed = low, QUOTED, False
                while at < size and at - opened <= limit:
                    byte = data[at]
                    if byte == quote:
                        if at + 1 < size and data[at + 1] == quote:
                            style = ESCAPED
                            at += 1
                        else:
                            closed = True
                            break
                    elif byte == LF or (byte == CR and (at + 1 == size or data[at + 1] != LF)):
                        line += 1
                    at += 1
                high = at
                if closed:
                    at += 1
                    while at < size and (data[at] == space or data[at] == tab):
                        at += 1
                    if at < size and data[at] != delimiter and data[at] != LF and data[at] != CR:
                        fault = TEXT_AFTER_QUOTE
                elif final or at < size:
                    fault = UNCLOSED
                if fault != GOOD:
                    at, line = opened, opened_line
                    while at < size and data[at] != LF and data[at] != CR:
                        at += 1
                    break
            else:
                at, style = low, PLAIN
                while at < size and data[at] != delimiter and data[at] != LF and data[at] != CR:
                    at += 1
                high = at
                while high > low and (data[high - 1] == space or data[high - 1] == tab):
                    high -= 1
            if count < fields:
                bounds[0, used] = low
                bounds[1, used] = high
                styles[used] = style
                used += 1
            count += 1
            if at == size or data[at] != delimiter:
                blank = count == 1 and style == PLAIN and low == high
                break
            at += 1
        if not final and (at == size or (data[at] == CR and at + 1 == size)):
            return record, good, start, first
        if fault == GOOD and not blank and (count < shortest or count > fields):
            fault = WRONG_COUNT
        if blank or fault != GOOD:
            used = begin
        else:
            while used < begin + fields:
                bounds[0, used] = bounds[1, used] = at
                styles[used] = PLAIN
                used += 1
            rows[good] = record
            good += 1
        if not blank:
            numbers[0, record] = start
            numbers[1, record] = at
            numbers[2, record] = first
            numbers[3, record] = count
            faults[record] = fault
            record += 1
        if at + 1 < size and data[at] == CR and data[at + 1] == LF:
            at += 1
        start = min(at + 1, size)
        line += 1
    return record, good, start, line


def split(
    data: NDArray[np.uint8],
    field_starts: NDArray[np.int32],
    field_ends: NDArray[np.int32],
    styles: NDArray[np.int8],
    quote: int,
    nulls: Sequence[bytes] = (),
) -> list[Column]:
    """The values by column; the field arrays are those of `Records`, for any choice of its rows.

    A value that equals one of `nulls`, quoted or not, is null and takes no bytes.
    """
    rows, fields = field_starts.shape
    sizes = (field_ends - field_starts).sum(axis=0, dtype=np.int64)
    bases = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)])
    tokens = np.frombuffer(b"".join(nulls), np.uint8)
    token_ends = np.cumsum([0, *map(len, nulls)], dtype=np.int64)
    longest = max(map(len, nulls), default=-1)
    out = np.empty(int(bases[-1]), np.uint8)
    offsets = np.zeros((fields, rows + 1), np.int32)
    valid = np.ones((fields, rows), np.bool_)
    _split(data, field_starts, field_ends, styles, quote, tokens, token_ends, longest, bases, offsets, valid, out)
    return [Column(offsets[c], out[bases[c] : bases[c] + offsets[c, rows]], valid[c]) for c in range(fields)]


@numba.njit(cache=True, nogil=True)
def _split(  # type: ignore[no-untyped-def]
    data, field_starts, field_ends, styles, quote, tokens, token_ends, longest, bases, offsets, valid, out
):
    rows, fields = field_starts.shape
    for row in range(rows):
        for field in range(fields):
            start = to = bases[field] + offsets[field, row]
            at, end = field_starts[row, field], field_ends[row, field]
            escaped = styles[row, field] == ESCAPED
            while at < end:
                out[to] = data[at]
                to += 1
                at += 2 if escaped and data[at] == quote else 1
            if to - start <= longest and _is_token(out, start, to - start, tokens, token_ends):
                valid[field, row] = False
                to = start
            offsets[field, row + 1] = to - bases[field]


@numba.njit(cache=True, nogil=True)
def _is_token(out, start, size, tokens, token_ends):  # type: ignore[no-untyped-def]
    for token in range(token_ends.size - 1):
        low = token_ends[token]
        if token_ends[token + 1] - low == size:
            same = 0
            while same < size and tokens[low + same] == out[start + same]:
                same += 1
            if same == size:
                return True
    return False
