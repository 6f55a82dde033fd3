"""The CSV kernels against a slow reference that reads one record at a time with regular expressions."""

from __future__ import annotations

import csv
import io
import re

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from treadle.kernels import csv_scan
from treadle.kernels.csv_scan import GOOD, PLAIN, TEXT_AFTER_QUOTE, UNCLOSED, WRONG_COUNT, Records, scan, split

QUOTED = re.compile(rb'[ \t]*"((?:[^"]|"")*+)"[ \t]*(?=[,\r\n]|\Z)')
PLAIN_FIELD = re.compile(rb'(?![ \t]*")[ \t]*([^,\r\n]*?)[ \t]*(?=[,\r\n]|\Z)')
CLOSED = re.compile(rb'[ \t]*"(?:[^"]|"")*+"')
LINE = re.compile(rb"[^\r\n]*")
BREAK = re.compile(rb"\r\n|\r|\n")

# Before Python 3.13 the csv module leaves those line ends unquoted that it does not itself write.
DIALECTS = [(csv.QUOTE_MINIMAL, "\r\n"), *((csv.QUOTE_ALL, end) for end in ("\n", "\r\n", "\r"))]

Record = tuple[int, int, int, int, list[bytes]]
"""First byte, end, lines before, fault, fields."""


def reference(data: bytes, fields: int, shortest: int) -> list[Record]:
    """Every record of a whole file, in the words of the kernel's docstring."""
    records: list[Record] = []
    at = 0
    while at < len(data):
        start, values, fault, blank = at, [], GOOD, False
        while True:
            if match := QUOTED.match(data, at):
                values.append(match[1].replace(b'""', b'"'))
            elif match := PLAIN_FIELD.match(data, at):
                values.append(match[1])
                blank = len(values) == 1 and not match[1]
            else:
                fault = TEXT_AFTER_QUOTE if CLOSED.match(data, at) else UNCLOSED
                line = LINE.match(data, at)
                assert line is not None
                at = line.end()
                break
            at = match.end()
            if data[at : at + 1] != b",":
                break
            at += 1
            blank = False
        if fault == GOOD and not shortest <= len(values) <= fields:
            fault = WRONG_COUNT
        if not (blank and len(values) == 1):
            padded = values + [b""] * (fields - len(values))
            records.append((start, at, len(BREAK.findall(data, 0, start)), fault, [] if fault else padded))
        end = BREAK.match(data, at)
        at = end.end() if end else len(data)
    return records


def values_of(data: bytes, records: Records, nulls: tuple[bytes, ...] = ()) -> list[list[bytes | None]]:
    columns = split(
        np.frombuffer(data, np.uint8), records.field_starts, records.field_ends, records.styles, ord('"'), nulls
    )
    texts = [
        [
            column.data[column.offsets[i] : column.offsets[i + 1]].tobytes() if valid else None
            for i, valid in enumerate(column.valid)
        ]
        for column in columns
    ]
    return [list(row) for row in zip(*texts, strict=True)]


def scanned(data: bytes, fields: int, shortest: int) -> list[Record]:
    records = scan(np.frombuffer(data, np.uint8), ord(","), ord('"'), fields, shortest=shortest, final=True)
    values: list[list[bytes]] = [[] for _ in records.starts]
    for record, row in zip(records.rows, values_of(data, records), strict=True):
        values[record] = [value or b"" for value in row]
    columns = (records.starts, records.ends, records.lines, records.faults)
    assert (records.consumed, records.passed) == (len(data), physical_lines(data))
    return list(zip(*(column.tolist() for column in columns), values, strict=True))


def physical_lines(data: bytes) -> int:
    return len(re.findall(rb"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+", data))


@settings(deadline=None)  # The first example compiles.
@given(st.text('a," \t\r\n', max_size=60).map(str.encode), st.integers(1, 3), st.integers(1, 3))
def test_records_are_those_of_the_reference(data: bytes, fields: int, shortest: int) -> None:
    shortest = min(fields, shortest)
    assert scanned(data, fields, shortest) == reference(data, fields, shortest)


@settings(deadline=None)  # The first example compiles.
@given(
    st.lists(st.lists(st.text('é," \t\r\n', max_size=5), min_size=2, max_size=2), max_size=8),
    st.sampled_from(DIALECTS),
)
def test_what_the_csv_module_writes_is_read_back(table: list[list[str]], dialect: tuple[int, str]) -> None:
    quoting, end = dialect
    file = io.StringIO(newline="")
    csv.writer(file, quoting=quoting, lineterminator=end).writerows(table)  # type: ignore[arg-type]
    data = file.getvalue().encode()
    records = scan(np.frombuffer(data, np.uint8), ord(","), ord('"'), 2, final=True)
    read = [[(value or b"").decode() for value in row] for row in values_of(data, records)]
    plain = records.styles == PLAIN
    assert (records.faults == GOOD).all()
    # Padding is kept where it stands inside quotes only.
    expected = [
        [value.strip(" \t") if plain[i, j] else value for j, value in enumerate(row)] for i, row in enumerate(table)
    ]
    assert read == expected


@settings(deadline=None)  # The first example compiles.
@given(st.text('a,"\r\n', max_size=40).map(str.encode), st.integers(0, 40))
def test_a_buffer_that_ends_early_gives_the_first_of_the_whole_files_records(data: bytes, cut: int) -> None:
    whole = scan(np.frombuffer(data, np.uint8), ord(","), ord('"'), 2, final=True)
    part = scan(np.frombuffer(data[:cut], np.uint8), ord(","), ord('"'), 2, final=False)
    n = len(part.starts)
    for name in ("starts", "ends", "lines", "counts", "faults"):
        assert getattr(part, name).tolist() == getattr(whole, name)[:n].tolist()
    assert part.consumed <= cut
    assert part.passed == len(BREAK.findall(data[: part.consumed]))


def test_scanning_stops_after_so_many_records() -> None:
    data = np.frombuffer(b"a,b\n\n1,2\n3,4\n", np.uint8)
    records = scan(data, ord(","), ord('"'), 2, final=True, most=2)
    assert (records.lines.tolist(), records.consumed, records.passed) == ([0, 2], 9, 3)


def test_only_whole_values_are_null_and_they_take_no_bytes() -> None:
    data = b'NA,"NA"\nNAN,N\n"",A\n'
    records = scan(np.frombuffer(data, np.uint8), ord(","), ord('"'), 2, final=True)
    read = values_of(data, records, (b"NA", b""))
    assert read == [[None, None], [b"NAN", b"N"], [None, b"A"]]


def test_a_quote_is_taken_for_unclosed_beyond_the_limit(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    data = b'1,"long\ntext"\n2,"b"\n'
    for limit, faults in ((10, [GOOD, GOOD]), (9, [UNCLOSED, WRONG_COUNT, GOOD])):
        monkeypatch.setattr(csv_scan, "FIELD_LIMIT", limit)
        records = scan(np.frombuffer(data, np.uint8), ord(","), ord('"'), 2, final=False)
        assert records.faults.tolist() == faults
