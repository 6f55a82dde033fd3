"""What texts mean as values, how files may be written, and files written in random ways that are read back."""

from __future__ import annotations

import bz2
import csv
import datetime as dt
import gzip
import io
import itertools
import json
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.engine.readers.reading import rows_of
from treadle.engine.backend import ARROW_TYPES
from treadle.engine.readers.options import TextOptions
from treadle.engine.readers.values import convert, infer
from treadle.engine.text_input import inspect
from treadle.errors import RequestError

DEFAULT = TextOptions()
# The first example of a process compiles the kernels; the examples share one temporary folder.
PROPERTY = settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
NAMES = itertools.count()


@pytest.mark.parametrize(
    ("kind", "texts", "values"),
    [
        (
            "int",
            ["7", "-0", "007", "+5", " 5 ", "9223372036854775807", "-9223372036854775808", "0" * 30 + "1"],
            [7, 0, 7, 5, 5, 2**63 - 1, -(2**63), 1],
        ),
        ("int", ["1.0", "0x10", "1e3", "9223372036854775808", "-9223372036854775809", "٣", "1_0", "--1"], None),
        ("float", ["1", "-.5", "1.", "+2.5", " 1e3 ", "1E-2"], [1, -0.5, 1, 2.5, 1000, 0.01]),
        ("float", ["1,5", "0x10", "1e", "1d3", ".", "1.2.3", "+-1", "e5", "1 2"], None),
        ("bool", ["true", "FALSE", "True"], [True, False, True]),
        ("bool", ["yes", "1", "t", "truee"], None),
        (
            "timestamp",
            ["2020-02-29", "2020-02-29 10", "2020-02-29T10:30", "2020-02-29 10:30:15.5Z", "0001-01-01"],
            [
                dt.datetime(2020, 2, 29),
                dt.datetime(2020, 2, 29, 10),
                dt.datetime(2020, 2, 29, 10, 30),
                dt.datetime(2020, 2, 29, 10, 30, 15, 500_000),
                dt.datetime(1, 1, 1),
            ],
        ),
        ("timestamp", ["2019-02-29", "2020", "2020-02", "20200229", "10:30", "2020-1-2", "29/02/2020"], None),
        ("text", ["a", " b "], ["a", " b "]),
    ],
)
def test_what_is_of_a_type(kind: str, texts: list[str], values: list[object] | None) -> None:
    # A value means the same among values that need the careful way, alone, and among its like.
    for text, value in zip(texts, values or [None] * len(texts), strict=True):
        for others in ([], texts, ["junk", None]):
            found = convert(pa.array([text, *others], pa.string()), kind, DEFAULT)
            assert found[0].as_py() == value


def test_a_given_bool_takes_more_words() -> None:
    words = pa.array(["yes", "N", "1", "0", "t", "2"])
    assert convert(words, "bool", DEFAULT, given=True).to_pylist() == [True, False, True, False, True, None]


@pytest.mark.parametrize(
    ("mark", "decimal", "numbers"),
    [
        (",", ".", {"1,234": 1234, "-12,345,678": -12345678, "1,234.5": 1234.5, " 1,000e2 ": 100000.0, "7": 7}),
        (".", ",", {"1.234": 1234, "+1.234,50": 1234.5, "1,5": 1.5, "1.000.000": 1000000}),
        ("'", ".", {"1'234": 1234, "1'234.25": 1234.25}),
        ("\u00a0", ",", {"1\u00a0234": 1234, "1\u00a0234,5": 1234.5}),
        (" ", ".", {"12 345": 12345}),
    ],
)
def test_thousands_marks(mark: str, decimal: str, numbers: dict[str, float]) -> None:
    options = TextOptions(";", decimal=decimal, thousands=mark)
    for text, number in numbers.items():
        assert infer(pa.array([text]), options) == type(number).__name__
        for kind in {type(number).__name__, "float"}:
            assert convert(pa.array([text, "x", None]), kind, options).to_pylist() == [number, None, None]
    # A mark is one only between three digits: all else would be another number than is meant.
    forms = ("1|2", "12|34", "1234|567", "1||234", "1|234|5", *(("|123", "1|") if mark != " " else ()))
    misplaced = [form.replace("|", mark) for form in forms]
    for kind in ("int", "float"):
        assert convert(pa.array(misplaced), kind, options).null_count == len(misplaced)


@PROPERTY
@given(st.lists(st.floats() | st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=20))
def test_numbers_survive(numbers: list[float]) -> None:
    texts = pa.array([repr(number) for number in numbers])
    kind = "int" if all(isinstance(number, int) for number in numbers) else "float"
    assert infer(texts, DEFAULT) == kind
    read = convert(texts, kind, DEFAULT).to_numpy()
    np.testing.assert_array_equal(read, np.array(numbers, dtype="int64" if kind == "int" else "float64"))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"delimiter": ";;"}, r"data\.delimiter is ';;'; it must be one ASCII character"),
        ({"quote": "«"}, r"data\.quote is '«'"),
        ({"delimiter": '"'}, r"data\.delimiter and data\.quote are both '\"'"),
        ({"thousands": "."}, r"data\.decimal and data\.thousands are both '\.'; set data\.decimal: ','"),
        ({"thousands": "5"}, r"data\.thousands is '5'; it must be one character, no digit, letter or sign"),
        ({"thousands": '"'}, r"data\.quote and data\.thousands are both '\"'"),
        ({"names": ("a", "b", "a")}, r"data\.names has 'a' twice; rename one of them"),
        ({"decimal": ","}, r"data\.delimiter and data\.decimal are both ','"),
        ({"encoding": "utf-9"}, r"data\.encoding 'utf-9' is no known text encoding\. Did you mean 'utf-8'\?"),
        ({"encoding": "base64"}, r"data\.encoding 'base64' is no known text encoding"),
        ({"types": {"a": "integer"}}, r"column 'a' has the unknown type 'integer'\. Types: .*Did you mean 'int'\?"),
        ({"date_formats": ("%d/%Q",)}, r"'%d/%Q' is no strptime format: 'Q' is a bad directive"),
        ({"date_formats": ("dd/mm/yyyy",)}, r"'dd/mm/yyyy' is no strptime format: it has no directive"),
    ],
)
def test_options(options: dict[str, Any], words: str) -> None:
    with pytest.raises(RequestError, match=words):
        TextOptions(**options)


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "": lambda content: content,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": lambda content: pa.compress(content, "zstd", asbytes=True),
}
TIMES = st.datetimes(dt.datetime(1900, 1, 1), dt.datetime(2100, 1, 1)).map(lambda time: time.replace(microsecond=0))
# Texts that no reader may take for something else: they begin with a letter, and are no null token.
TEXTS = st.text(st.sampled_from("äb ;,|.'1%\"\t\n"), max_size=6).map(lambda text: f"x{text}x")
ROWS = st.lists(
    st.tuples(
        st.none() | st.integers(-(2**63), 2**63 - 1),
        st.none() | st.floats(allow_nan=False, allow_infinity=False),
        st.none() | st.booleans(),
        st.none() | TIMES,
        st.none() | TEXTS,
    ),
    min_size=1,
    max_size=8,
)
KINDS = {"an int": "int", "ä float": "float", "b": "bool", "when": "timestamp", "t": "text"}


def table_of(rows: list[tuple[Any, ...]]) -> pa.Table:
    columns = zip(*rows, strict=True)
    return pa.table({n: pa.array(c, ARROW_TYPES[k]) for (n, k), c in zip(KINDS.items(), columns, strict=True)})


@PROPERTY
@given(
    rows=ROWS,
    delimiter=st.sampled_from(";|\t,"),
    quote=st.sampled_from("\"'"),
    marks=st.sampled_from([(".", None), (",", None), (".", ","), (",", "."), (".", "'"), (",", "\u00a0")]),
    time=st.sampled_from(["%d/%m/%Y %H:%M:%S", "%Y-%m-%dT%H:%M:%S", "%H:%M:%S on %b %d, %Y", "%Y%m%d%H%M%S"]),
    null=st.sampled_from(["", "NA", "?", "-999"]),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "latin-1", "cp1252", "utf-16"]),
    packing=st.sampled_from(sorted(PACKERS)),
    header=st.booleans(),
)
def test_csv_in_any_dialect(
    rows: list[tuple[Any, ...]], delimiter: str, quote: str, marks: tuple[str, str | None], time: str, null: str,
    end: str, encoding: str, packing: str, header: bool, tmp_path: Path,
) -> None:  # fmt: skip
    decimal, thousands = marks
    if decimal == delimiter or thousands == quote:
        delimiter, quote = ";", '"'

    def written(value: Any) -> str:
        if value is None:
            return null
        if isinstance(value, bool):
            return str(value)
        if isinstance(value, dt.datetime):
            return value.strftime(time.replace("%Y", f"{value.year:04d}"))
        if isinstance(value, int):
            return f"{value:,}".replace(",", thousands or "")
        if isinstance(value, float):
            whole, _, rest = repr(value).partition(".")
            grouped = f"{int(whole):,}".replace(",", thousands or "") if "e" not in whole and whole != "-0" else whole
            return f"{grouped}{decimal}{rest}" if rest else grouped
        return str(value)

    file = io.StringIO(newline="")
    # The module quotes a line feed only where it ends lines.
    quoting = csv.QUOTE_MINIMAL if "\n" in end else csv.QUOTE_ALL
    writer = csv.writer(file, delimiter=delimiter, quotechar=quote, lineterminator=end, quoting=quoting)
    writer.writerows([*([list(KINDS)] if header else []), *([written(value) for value in row] for row in rows)])
    path = tmp_path / f"{next(NAMES)}.csv{packing}"
    path.write_bytes(PACKERS[packing](file.getvalue().encode(encoding)))
    options = TextOptions(
        delimiter, quote, encoding, decimal, thousands, (null,), header, () if header else tuple(KINDS), (time,), KINDS
    )
    found = inspect(str(path), options=options)
    assert found.kinds == KINDS
    assert rows_of(found, tmp_path).equals(table_of(rows))


@PROPERTY
@given(rows=ROWS, packing=st.sampled_from(sorted(PACKERS)), files=st.integers(1, 3), group=st.integers(1, 3))
def test_all_formats_give_the_same_rows(
    rows: list[tuple[Any, ...]], packing: str, files: int, group: int, tmp_path: Path
) -> None:
    folder = tmp_path / str(next(NAMES))
    folder.mkdir()
    for number in range(files):
        part = rows[number::files]
        objects = [
            {
                name: value.isoformat() if isinstance(value, dt.datetime) else value
                for name, value in zip(KINDS, row, strict=True)
                if value is not None
            }
            for row in part
        ]
        text = "".join(f"{json.dumps(line)}\n" for line in objects)
        (folder / f"{number}.jsonl{packing}").write_bytes(PACKERS[packing](text.encode()))
        pq.write_table(
            table_of(part) if part else table_of(rows)[:0], folder / f"{number}.parquet", row_group_size=group
        )
        with (folder / f"{number}.csv").open("w", newline="") as file:
            csv.writer(file).writerows([list(KINDS), *part])
    options = TextOptions(types=KINDS)
    read = {format_: rows_of(inspect(str(folder), format_, options), folder) for format_ in ("parquet", "jsonl", "csv")}
    expected = table_of([row for number in range(files) for row in rows[number::files]])
    for format_, table in read.items():
        # Keys of JSON lines have no order but that in which they come.
        assert table.select(list(KINDS)).equals(expected), format_
