"""CSV to Parquet: real files, pandas and the csv module as oracles, broken rows at known lines, refusals."""

from __future__ import annotations

import bz2
import csv as stdlib_csv
import datetime as dt
import errno
import gzip
import io
import lzma
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.engine.readers.reading import LOCAL, converted, inferred, reasons, shared, written
from treadle.engine.readers import csv_blocks
from treadle.engine.readers import text as text_reader
from treadle.engine.readers.csv import convert_file
from treadle.engine.readers.options import TextOptions
from treadle.engine.readers.parts import BadRow, Parts
from treadle.errors import DataError, RequestError, StorageError

DEFAULT = TextOptions()
# The first example of a process compiles the kernels; the examples share one temporary folder.
PROPERTY = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


class TestRealFiles:
    def test_adult(self, tmp_path: Path) -> None:
        expected = pq.read_table(shared("adult/adult_train.parquet"))
        options = TextOptions(header=False, names=tuple(expected.column_names), null_tokens=("?",))
        table, bad = converted(shared("adult/adult-train.csv"), tmp_path, options)
        assert (table.num_rows, bad) == (32561, [])
        assert set(map(str, table.schema.types)) == {"int64", "string"}
        assert table.to_pylist() == expected.to_pylist()

    def test_compas(self, tmp_path: Path) -> None:
        path = shared("compas/compas-scores-two-years.csv")
        expected = pq.read_table(shared("compas/compas_two_years.parquet"))
        table, bad = converted(path, tmp_path, block_bytes=300_000)
        assert (table.num_rows, bad, table.column_names) == (7214, [], expected.column_names)
        for name in table.column_names:
            theirs = expected[name].to_pandas()
            if pa.types.is_timestamp(table.schema.field(name).type):
                theirs = pd.to_datetime(theirs, format="ISO8601").dt.as_unit("us")
            pd.testing.assert_series_equal(table[name].to_pandas(), theirs, check_dtype=False)
        assert str(table.schema.field("c_jail_in").type) == str(table.schema.field("dob").type) == "timestamp[us]"

    def test_bikes(self, tmp_path: Path) -> None:
        # Of 311 lines, 295 lack the delimiter before the last column, which is empty in the others.
        path = shared("messy/bikes.csv")
        table, bad = converted(path, tmp_path, TextOptions(";", encoding="latin-1", date_formats=("%d/%m/%Y",)))
        theirs = pd.read_csv(path, sep=";", encoding="latin-1", parse_dates=["Date"], dayfirst=True)
        assert (table.num_rows, bad, table.column_names) == (310, [], list(theirs.columns))
        assert table["Date"].to_pylist() == theirs["Date"].tolist()
        for name in theirs.columns[1:]:
            assert table[name].to_pandas().astype(float).equals(theirs[name].astype(float))

    def test_retail(self, tmp_path: Path) -> None:
        paths = [shared(f"retail/raw_by_day/2010-12-0{day}.csv") for day in (1, 2, 3, 5, 6, 7)]
        kinds = inferred(paths)
        assert list(kinds.values()) == ["text", "text", "text", "int", "timestamp", "float", "float", "text"]
        for path in paths:
            table, bad = converted(path, tmp_path, kinds=kinds)
            theirs = pd.read_csv(path, parse_dates=["InvoiceDate"], dtype={"InvoiceNo": str, "StockCode": str})
            assert bad == []
            for name in theirs.columns:
                ours, other = table[name].to_pandas(), theirs[name]
                if name in ("Description", "Country"):
                    ours, other = ours.str.strip(), other.str.strip()
                pd.testing.assert_series_equal(ours, other, check_dtype=False)
        assert any(value.endswith(" ") for value in table["Description"].to_pylist() if value)

    @pytest.mark.parametrize("name", ["housing/housing", "diabetes/diabetes"])
    def test_files_that_have_a_parquet_twin(self, name: str, tmp_path: Path) -> None:
        table, bad = converted(shared(f"{name}.csv"), tmp_path, block_bytes=50_000)
        theirs = pq.read_table(shared(f"{name}.parquet")).to_pandas()
        assert bad == []
        pd.testing.assert_frame_equal(table.to_pandas(), theirs, check_dtype=False)


class TestValues:
    def test_types_are_inferred_and_padding_goes(self, tmp_path: Path) -> None:
        text = (
            " i , f,b ,t, d,empty,mixed,key\n"
            "1, 2.5 ,true,\tx y ,2020-01-02,,1,99999999999999999999\n"
            '-2,3,FALSE," z ",2020-01-02T03:04:05.123456789Z,NA,a,1\n'
            '"3",,False,"say ""hi""",2020-01-02 03:04:05+02:00,,,2\n'
        )
        table, bad = converted(written(tmp_path, text), tmp_path)
        assert bad == []
        assert dict(zip(table.column_names, map(str, table.schema.types), strict=True)) == {
            "i": "int64", "f": "double", "b": "bool", "t": "string", "d": "timestamp[us]",
            "empty": "string", "mixed": "string", "key": "string",
        }  # fmt: skip
        assert table.to_pydict() == {
            "i": [1, -2, 3],
            "f": [2.5, 3.0, None],
            "b": [True, False, False],
            "t": ["x y", " z ", 'say "hi"'],
            "d": [
                dt.datetime(2020, 1, 2),
                dt.datetime(2020, 1, 2, 3, 4, 5, 123456),
                dt.datetime(2020, 1, 2, 1, 4, 5),
            ],
            "empty": [None, None, None],
            "mixed": ["1", "a", None],
            "key": ["99999999999999999999", "1", "2"],
        }

    def test_decimal_commas_and_a_given_type(self, tmp_path: Path) -> None:
        path = written(tmp_path, "a;b;c\n1,5;1.5;01\n-2;2.5;2\n")
        table, bad = converted(path, tmp_path, TextOptions(";", decimal=",", types={"c": "text"}))
        assert (table.to_pydict(), bad) == ({"a": [1.5, -2.0], "b": ["1.5", "2.5"], "c": ["01", "2"]}, [])

    def test_marked_numbers_in_a_file(self, tmp_path: Path) -> None:
        path = written(tmp_path, 'a,b,k\n"1,234",x,"9,999,999,999,999,999,999"\n5,"1,5",1\n"1,2",y,1\n')
        options = TextOptions(thousands=",", types={"a": "int"})
        table, bad = converted(path, tmp_path, options)
        assert table.to_pydict() == {"a": [1234, 5], "b": ["x", "1,5"], "k": ["9,999,999,999,999,999,999", "1"]}
        assert reasons(bad) == [(4, "column 'a': '1,2' is not an int")]

    def test_several_date_formats_in_one_column(self, tmp_path: Path) -> None:
        path = written(tmp_path, "d\n31/12/2020\n2020.01.02\n2020-03-04\n30/02/2020\n1/2/20\n")
        options = TextOptions(date_formats=("%d/%m/%Y", "%Y.%m.%d"), types={"d": "date"})
        table, bad = converted(path, tmp_path, options)
        assert table["d"].to_pylist() == [dt.datetime(2020, 12, 31), dt.datetime(2020, 1, 2), dt.datetime(2020, 3, 4)]
        hint = "is not a timestamp (other forms than ISO 8601 are named in data.date_formats)"
        assert reasons(bad) == [(5, f"column 'd': '30/02/2020' {hint}"), (6, f"column 'd': '1/2/20' {hint}")]

    def test_the_schema_is_that_of_all_files(self, tmp_path: Path) -> None:
        paths = [written(tmp_path, text) for text in ("a,b,c\n1,,x\n", "c,b,a\n2,true,1.5\n", "a,b,c\n,,\n")]
        kinds = inferred(paths)
        assert kinds == {"a": "float", "b": "bool", "c": "text"}
        tables = [converted(path, tmp_path, kinds=kinds)[0] for path in paths]
        assert pa.concat_tables(tables).to_pydict() == {
            "a": [1.0, 1.5, None],
            "b": [None, True, None],
            "c": ["x", "2", None],
        }


class TestForms:
    @pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
    @pytest.mark.parametrize("block_bytes", [1, 5, 1000])
    def test_line_ends_and_a_last_line_without_one(self, end: str, block_bytes: int, tmp_path: Path) -> None:
        path = written(tmp_path, f"a,b{end}{end}1,x{end}  {end}2,{end}3,y")
        table, bad = converted(path, tmp_path, block_bytes=block_bytes)
        assert (table.to_pydict(), bad) == ({"a": [1, 2, 3], "b": ["x", None, "y"]}, [])

    @pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be", "latin-1", "cp1252"])
    @pytest.mark.parametrize("block_bytes", [1, 7, 1000])
    def test_encodings(self, encoding: str, block_bytes: int, tmp_path: Path) -> None:
        path = written(tmp_path, "naïve,b\né;ü,1\n«»,2\n", encoding=encoding)
        table, bad = converted(path, tmp_path, TextOptions(encoding=encoding), block_bytes=block_bytes)
        assert (table.to_pydict(), bad) == ({"naïve": ["é;ü", "«»"], "b": [1, 2]}, [])

    @pytest.mark.parametrize(
        ("suffix", "pack"),
        [
            (".csv.gz", gzip.compress),
            (".csv.bz2", bz2.compress),
            (".csv.zst", lambda text: pa.compress(text, "zstd", asbytes=True)),
            (".CSV.XZ", lzma.compress),
        ],
    )
    def test_compressed_files(self, suffix: str, pack: Callable[[bytes], bytes], tmp_path: Path) -> None:
        path = written(tmp_path, pack(b"a,b\n" + b"1,x\n" * 5000), suffix)
        table, bad = converted(path, tmp_path, block_bytes=1000)
        assert (table.num_rows, set(table["b"].to_pylist()), bad) == (5000, {"x"}, [])

    def test_gzip_files_laid_end_to_end(self, tmp_path: Path) -> None:
        path = written(tmp_path, gzip.compress(b"a\n1\n") + gzip.compress(b"2\n"), ".csv.gz")
        assert converted(path, tmp_path)[0].to_pydict() == {"a": [1, 2]}

    def test_names_are_made_unique(self, tmp_path: Path) -> None:
        path = written(tmp_path, 'x, y ,x,," y ",x,x.1,\n1,2,3,4,5,6,7,8\n')
        table, _ = converted(path, tmp_path)
        assert table.column_names == ["x", "y", "x.2", "column_4", "y.1", "x.3", "x.1", "column_8"]
        assert table.to_pylist()[0] == dict(zip(table.column_names, range(1, 9), strict=True))

    def test_a_file_without_header_or_names(self, tmp_path: Path) -> None:
        table, bad = converted(written(tmp_path, "1\n1,x\n2,y\n"), tmp_path, TextOptions(header=False))
        assert table.to_pydict() == {"column_1": [1, 2], "column_2": ["x", "y"]}
        assert reasons(bad) == [(1, "1 field where 2 are expected")]

    def test_a_header_alone_makes_no_part(self, tmp_path: Path) -> None:
        assert converted(written(tmp_path, "a,b"), tmp_path)[0].num_rows == 0

    def test_another_file_system(self, tmp_path: Path) -> None:
        memory = fsspec.filesystem("memory")
        memory.pipe("/csv-in/a.csv", b"a\n1\n")
        out = Parts(memory, "/csv-out/x")
        convert_file("memory://csv-in/a.csv", inferred(["memory://csv-in/a.csv"]), {}, DEFAULT, out)
        assert ([part.path for part in out.written], out.bad) == (["/csv-out/x-00000.parquet"], [])
        assert memory.ls("/csv-out", detail=False) == ["/csv-out/x-00000.parquet"]
        with memory.open(out.written[0].path, "rb") as file:
            assert pq.read_table(file).to_pydict() == {"a": [1]}


CELL = st.none() | st.text(st.sampled_from('aé",;\n\r 1|'), max_size=6)


class TestRoundTrip:
    @PROPERTY
    @given(
        rows=st.lists(st.tuples(CELL, st.none() | st.integers(-9, 9), CELL), min_size=1, max_size=12),
        delimiter=st.sampled_from(",;|\t"),
        block_bytes=st.sampled_from([1, 16, 100, 10_000]),
        encoding=st.sampled_from(["utf-8", "latin-1", "utf-16"]),
    )
    def test_what_the_csv_module_writes(
        self, rows: list[tuple[Any, ...]], delimiter: str, block_bytes: int, encoding: str, tmp_path: Path
    ) -> None:
        file = io.StringIO(newline="")
        writer = stdlib_csv.writer(file, delimiter=delimiter, quoting=stdlib_csv.QUOTE_ALL)
        writer.writerows([("t", "n", "u"), *rows])
        path = written(tmp_path, file.getvalue(), encoding=encoding)
        options = TextOptions(delimiter, encoding=encoding, types={"t": "text", "n": "int", "u": "text"})
        table, bad = converted(path, tmp_path, options, block_bytes=block_bytes)
        assert bad == []
        assert [tuple(row.values()) for row in table.to_pylist()] == [
            tuple(None if value == "" else value for value in row) for row in rows
        ]

    @PROPERTY
    @given(rows=st.lists(st.lists(st.sampled_from(["", "a", '"b, c"', '"d\ne"', "1", '""']), min_size=2, max_size=2)))
    def test_pandas_reads_the_same(self, rows: list[list[str]], tmp_path: Path) -> None:
        path = written(tmp_path, "x,y\n" + "".join(f"{a},{b}\n" for a, b in rows))
        theirs = pd.read_csv(path, dtype=str)
        table, bad = converted(path, tmp_path, TextOptions(types={"x": "text", "y": "text"}))
        assert bad == []
        assert table.to_pylist() == [
            {name: None if pd.isna(value) else value for name, value in row.items()}
            for row in theirs.to_dict("records")
        ]


GOOD_LINES = ['{n},"x\n\ny",a', "{n},b,c", '{n}, "" ,"q""q"', '{n},"\r\n",z', "\n{n},2,3"]
BROKEN_LINES = {
    "{n},too few": "2 fields where 3 are expected",
    "{n},too,many,": "4 fields where 3 are expected",
    "{n}.5,a,b": "column 'n': '{n}.5' is not an int",
    'x,"a\nb",c': "column 'n': 'x' is not an int",
    '{n},"a"b,c': "text follows a closing quote",
    '{n},a,"5" pipe"': "text follows a closing quote",
}


class TestBrokenRows:
    @PROPERTY
    @given(
        lines=st.lists(st.sampled_from([*GOOD_LINES, *BROKEN_LINES]), max_size=12),
        end=st.sampled_from(["\n", "\r\n", "\r"]),
        block_bytes=st.sampled_from([1, 20, 64, 10_000]),
    )
    def test_are_found_with_line_reason_and_text(
        self, lines: list[str], end: str, block_bytes: int, tmp_path: Path
    ) -> None:
        text, expected, good = f"n,s,t{end}", [], []
        for n, line in enumerate(lines):
            record = line.replace("{n}", str(n))
            if line in BROKEN_LINES:
                start = len(io.StringIO(text, newline=None).read().split("\n"))
                expected.append((start, BROKEN_LINES[line].replace("{n}", str(n)), record))
            else:
                good.append(n)
            text += record + end
        options = TextOptions(types={"n": "int", "s": "text", "t": "text"})
        table, bad = converted(written(tmp_path, text), tmp_path, options, block_bytes=block_bytes)
        assert [(row.line, row.reason, row.text) for row in bad] == expected
        assert table["n"].to_pylist() == good

    @PROPERTY
    @given(content=st.lists(st.sampled_from(list(b'aa,,,""\n\n\r \xc3\xa9')), max_size=60).map(bytes))
    def test_do_not_depend_on_the_blocks(self, content: bytes, tmp_path: Path) -> None:
        path = written(tmp_path, b"x,y\n" + content)
        whole, bad = converted(path, tmp_path)
        for block_bytes in (1, 2, 5, 30):
            assert converted(path, tmp_path, block_bytes=block_bytes) == (whole, bad)

    def test_a_stray_quote_costs_one_line(self, tmp_path: Path) -> None:
        text = 'a,b\n1,"x\n2,y\n3,"z"\n4,"open\n5,w\n'
        path = written(tmp_path, text)
        table, bad = converted(path, tmp_path)
        assert bad == [
            BadRow(path, 2, "text follows a closing quote", '1,"x'),
            BadRow(path, 5, "a quote is not closed", '4,"open'),
        ]
        assert table.to_pydict() == {"a": [2, 3, 5], "b": ["y", "z", "w"]}

    def test_bytes_that_are_not_utf8(self, tmp_path: Path) -> None:
        content = b'\xef\xbb\xbf"a",b\n1,ok\n2,caf\xe9\n3,\xc3\xa9\n'
        for block_bytes in (1, 1000):
            table, bad = converted(written(tmp_path, content), tmp_path, block_bytes=block_bytes)
            fault = f"byte 0xe9 at offset {content.index(0xE9)} of the file is not utf-8"
            assert reasons(bad) == [(3, f"{fault}; see data.encoding (latin-1, cp1252, ...)")]
            assert bad[0].text == "2,caf\ufffd"
            assert table.to_pydict() == {"a": [1, 3], "b": ["ok", "é"]}

    def test_bytes_that_another_encoding_lacks(self, tmp_path: Path) -> None:
        table, bad = converted(written(tmp_path, b"a\n\xe9\n\x81\nz\n"), tmp_path, TextOptions(encoding="cp1252"))
        assert reasons(bad) == [(3, "bytes that are not cp1252; see data.encoding")]
        assert table["a"].to_pylist() == ["é", "z"]

    def test_a_type_inferred_from_the_first_rows_only(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(csv_blocks, "SAMPLE_ROWS", 3)
        path = written(tmp_path, "x,y\n1,1\n2,1\n3,1\n3.5,1\n4,99999999999999999999\nabc,1\n")
        table, bad = converted(path, tmp_path)
        remedy = "the type was inferred from the first rows; set data.types: "
        assert reasons(bad) == [
            (5, f"column 'x': '3.5' is not an int ({remedy}{{x: float}})"),
            (6, f"column 'y': '99999999999999999999' is not an int ({remedy}{{y: text}})"),
            (7, "column 'x': 'abc' is not an int"),
        ]
        assert table["x"].to_pylist() == [1, 2, 3]

    def test_long_texts_are_cut(self, tmp_path: Path) -> None:
        path = written(tmp_path, f"n\n{'é' * 5000}\n")
        _, (row,) = converted(path, tmp_path, TextOptions(types={"n": "int"}))
        assert row.text == "é" * 1000
        assert row.reason == f"column 'n': '{'é' * 60}...' is not an int"

    def test_short_rows_may_lack_columns_that_are_empty(self, tmp_path: Path) -> None:
        table, bad = converted(written(tmp_path, "a,b,c,d\n1,2\n3,4,,\n5,6,\n7\n"), tmp_path)
        assert table.to_pydict() == {"a": [1, 3, 5], "b": [2, 4, 6], "c": [None] * 3, "d": [None] * 3}
        assert reasons(bad) == [(5, "1 field where 4 are expected")]
        # Where no row is complete, the header is as likely to be wrong.
        assert len(converted(written(tmp_path, "a,b,c\n1,2\n3,4\n"), tmp_path)[1]) == 2


class TestRefusals:
    @pytest.mark.parametrize("delimiter", [";", "\t", "|", ","])
    @pytest.mark.parametrize("header", [True, False])
    def test_another_delimiter_is_meant(self, delimiter: str, header: bool, tmp_path: Path) -> None:
        rows = [
            ["a", "b", "c"],
            ["1.5", '"x"', ""],
            ["2", "", f'"{delimiter}"'],
            *[["3", "y", "z"]] * 20,
            ["4", "short"],
        ]
        path = written(tmp_path, "\n".join(delimiter.join(row) for row in rows))
        given = "," if delimiter == ";" else ";"
        options = TextOptions(given, header=header)
        words = (
            f"has a single column with data.delimiter '{given}'; did you mean delimiter {delimiter!r}, which makes 3"
        )
        with pytest.raises(RequestError, match=re.escape(words)):
            inferred([path], options)
        assert len(inferred([path], TextOptions(delimiter, header=header))) == 3

    def test_a_single_column_is_one(self, tmp_path: Path) -> None:
        for text in ("a\nx;y\nz\n", '"a;b"\n"x;y"\n', "a;b\nx\ny\n", "a\n1\n", "a;b;c\nx;y\nx\n"):
            assert len(inferred([written(tmp_path, text)])) == 1

    def test_bytes_that_are_no_text(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="starts with the byte-order mark of UTF-16; set data.encoding: utf-16"):
            inferred([written(tmp_path, "a,b\n1,2\n", encoding="utf-16")])
        for content in (
            "a,b\n1,2\n".encode("utf-16-le"),
            b"PAR1" + bytes(range(99)),
            pa.compress(b"a" * 99, "zstd", asbytes=True),
        ):
            with pytest.raises(
                DataError, match=r"has zero bytes at its start, which text has not|bytes that are not utf-8"
            ):
                inferred([written(tmp_path, content)])

    @pytest.mark.parametrize("content", [b"", b"\n \r\n\n", b"\xef\xbb\xbf"])
    def test_an_empty_file(self, content: bytes, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"csv' is empty: it has no header and no rows"):
            inferred([written(tmp_path, content)])

    def test_files_whose_names_differ(self, tmp_path: Path) -> None:
        one, two = written(tmp_path, "age,b\n1,2\n"), written(tmp_path, "agee,b\n1,2\n")
        words = rf"files differ:\n.*\n  '{two}' has no column 'age', which '{one}' has\. Did you mean 'agee'\?\n"
        with pytest.raises(DataError, match=words):
            inferred([one, two])
        with pytest.raises(DataError, match=rf"'{two}' has no column 'age', which the schema has"):
            converted(two, tmp_path, kinds=inferred([one]))
        wide = written(tmp_path, "age,b,c\n1,2,3\n")
        with pytest.raises(DataError, match=rf"files differ: '{one}' has no column 'c', which '{wide}' has\."):
            inferred([one, wide])

    def test_names_for_another_number_of_fields(self, tmp_path: Path) -> None:
        path = written(tmp_path, "1,2,3\n1,2,3\n")
        with pytest.raises(RequestError, match=r"data\.names has 2 names, but the rows of '.*' have 3 fields"):
            inferred([path], TextOptions(header=False, names=("a", "b")))

    def test_a_type_for_a_column_that_is_not_there(self, tmp_path: Path) -> None:
        path = written(tmp_path, "age,b\n1,2\n")
        with pytest.raises(RequestError, match=r"'aeg' was not found in data\.types.* Did you mean 'age'\?"):
            inferred([path], TextOptions(types={"aeg": "int"}))

    @pytest.mark.parametrize(
        ("content", "words"),
        [
            (b"caf\xe9,b\n1,2\n", r"header of '.*' has bytes that are not utf-8; see data\.encoding"),
            (b'a,"b\n1,2\n', r"header of '.*' cannot be read: a quote is not closed"),
        ],
    )
    def test_a_header_that_cannot_be_read(self, content: bytes, words: str, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=words):
            inferred([written(tmp_path, content)])

    @pytest.mark.parametrize(
        "content", [gzip.compress(b"a\n" + b"1\n" * 999)[:-9], b"a,b\n1,2\n"], ids=["cut off", "not compressed"]
    )
    def test_a_corrupt_compressed_file(self, content: bytes, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"csv\.gz' cannot be decompressed as gzip: .*Replace it"):
            inferred([written(tmp_path, content, ".csv.gz")])

    def test_a_row_without_end(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(text_reader, "RECORD_LIMIT", 2**20)
        path = written(tmp_path, b"a,b\n1,2\n" + b"x" * 2**22)
        with pytest.raises(DataError, match=r"line 3: a row of more than 1 MiB; check that the file is delimited"):
            converted(path, tmp_path, block_bytes=2**16)

    def test_a_full_disk(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(table: pa.Table, file: Any, **keywords: Any) -> None:
            file.write(b"PAR1")
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(pq, "write_table", fail)
        path = written(tmp_path, "a\n1\n")
        kinds = inferred([path])
        with pytest.raises(StorageError, match=r"No space left on the device of .*part-00000"):
            convert_file(path, kinds, {}, DEFAULT, Parts(LOCAL, f"{tmp_path}/out/part"))
        assert list((tmp_path / "out").iterdir()) == []
