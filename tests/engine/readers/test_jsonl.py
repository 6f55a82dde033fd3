"""JSON lines to Parquet: the json module and pandas as oracles, both ways of reading, broken lines, refusals."""

from __future__ import annotations

import bz2
import datetime as dt
import gzip
import json
import lzma
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.engine.readers import reading
from tests.engine.readers.reading import inferred, reasons, rows_of, shared, written
from treadle.engine.readers import jsonl, jsonl_lines
from treadle.engine.readers import text as text_reader
from treadle.engine.readers.options import TextOptions
from treadle.engine.readers.parts import BadRow
from treadle.engine.text_input import inspect
from treadle.errors import DataError

PROPERTY = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


def converted(path: str, folder: Path, *args: Any, **keywords: Any) -> tuple[pa.Table, list[BadRow]]:
    return reading.converted(path, folder, *args, **keywords, format_="jsonl")


def lines(folder: Path, *rows: object, suffix: str = ".jsonl") -> str:
    """A file of these objects; a text stands as it is."""
    texts = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    return written(folder, "".join(f"{text}\n" for text in texts), suffix)


def both_ways(path: str, folder: Path, *args: Any, **keywords: Any) -> tuple[pa.Table, list[BadRow]]:
    """The outcome, once all ways are seen to give it: Arrow's reader where it can, on small pieces, and never."""
    found = converted(path, folder, *args, **keywords)
    for name, value in {"PIECE_BYTES": 40, "_at_once": lambda *_: None}.items():
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(jsonl, name, value)
            table, bad = converted(path, folder, *args, **keywords)
        assert bad == found[1]
        # NaN is like itself.
        assert json.dumps(table.to_pylist(), default=str) == json.dumps(found[0].to_pylist(), default=str)
        assert table.schema == found[0].schema
    return found


class TestRealFiles:
    @pytest.mark.parametrize("name", ["adult/adult_test", "baseball/People"])
    def test_what_pandas_writes(self, name: str, tmp_path: Path) -> None:
        table = pq.read_table(shared(f"{name}.parquet")).slice(0, 5000)
        path = str(tmp_path / "a.jsonl.gz")
        table.to_pandas().to_json(path, orient="records", lines=True, date_format="iso", double_precision=15)
        inspected = inspect(path)
        read = rows_of(inspected, tmp_path)
        assert read.column_names == table.column_names
        for column in table.column_names:
            ours, theirs = read[column].to_pandas(), table[column].to_pandas()
            if inspected.kinds[column] == "timestamp":
                theirs = pd.to_datetime(theirs, format="ISO8601").dt.as_unit("us")
            pd.testing.assert_series_equal(ours, theirs, check_dtype=False)


class TestValues:
    def test_types_are_inferred_over_all_files(self, tmp_path: Path) -> None:
        one = lines(tmp_path, {"i": 1, "f": 1, "b": True, "t": "5", "d": "2020-01-02", "n": None}, {"i": None})
        two = lines(tmp_path, {"f": 2.5, "new": False, "d": "2020-01-02T03:04:05.123456789+01:00", "t": "", "e": {}})
        empty = lines(tmp_path)
        inspected = inspect([one, two, empty])
        assert inspected.kinds == {
            "i": "int", "f": "float", "b": "bool", "t": "text", "d": "timestamp", "n": "text", "new": "bool",
        }  # fmt: skip
        assert inspected.left_out == {"e": "an object"}
        assert [file.rows for file in inspected.files] == [None, None, 0]
        nothing = dict.fromkeys(inspected.kinds)
        assert rows_of(inspected, tmp_path).to_pylist() == [
            {**nothing, "i": 1, "f": 1.0, "b": True, "t": "5", "d": dt.datetime(2020, 1, 2)},
            nothing,
            {**nothing, "f": 2.5, "t": "", "d": dt.datetime(2020, 1, 2, 2, 4, 5, 123456), "new": False},
        ]

    def test_times_beside_other_texts_are_text(self, tmp_path: Path) -> None:
        one, two = lines(tmp_path, {"a": "2020-01-02"}), lines(tmp_path, {"a": "soon"})
        inspected = inspect([one, two])
        assert inspected.kinds == {"a": "text"}
        assert inspected.warnings == (
            f"column 'a' is read as text: it is timestamp in line 1 of '{one}' and text in line 1 of '{two}'",
        )

    def test_conflicts_are_named_with_their_lines(self, tmp_path: Path) -> None:
        one = lines(tmp_path, {"a": 1, "b": "x", "k": 2}, {"a": 2, "b": [1]}, {"k": 2**63})
        two = lines(tmp_path, {"a": "x"}, {"c": True}, {"c": 1})
        with pytest.raises(DataError) as caught:
            inspect([one, two])
        assert str(caught.value).splitlines() == [
            "The input's types differ:",
            f"  column 'a' is int in line 1 of '{one}' and text in line 1 of '{two}'",
            f"  column 'b' is text in line 1 of '{one}' and a list in line 2 of '{one}'",
            f"  column 'k' is int in line 1 of '{one}' and a whole number beyond 64 bits in line 3 of '{one}'",
            f"  column 'c' is bool in line 2 of '{two}' and int in line 3 of '{two}'",
            "Write the files alike, or give a column its type in data.types.",
        ]

    def test_given_types_decide(self, tmp_path: Path) -> None:
        path = lines(
            tmp_path,
            '{"k": 12345678901234567890, "f": "1.5", "b": "yes", "d": "31/12/2020", "t": 1.10, "j": [1, {"a": 2.0}]}',
            '{"k": "x", "f": 2, "b": 1, "d": "NA", "t": true, "late": 5}',
            '{"f": "NaN", "b": "maybe", "t": null}',
            '{"f": "1,5", "d": 5}',
        )
        types = {"k": "text", "f": "float", "b": "bool", "d": "date", "t": "text", "j": "text", "late": "int"}
        options = TextOptions(types=types, date_formats=("%d/%m/%Y",), delimiter=";", decimal=",")
        table, bad = both_ways(path, tmp_path, options)
        assert table.to_pylist() == [
            {"k": "12345678901234567890", "f": 1.5, "b": True, "d": dt.datetime(2020, 12, 31), "t": "1.10",
             "j": '[1, {"a": 2.0}]', "late": None},
            {"k": "x", "f": 2.0, "b": True, "d": None, "t": "true", "j": None, "late": 5},
        ]  # fmt: skip
        assert reasons(bad) == [
            (3, "column 'b': 'maybe' is not a bool"),
            (4, "column 'f': '1,5' is not a float"),
        ]
        with pytest.raises(DataError, match=r"column 'j' is a list in line 1 of '.*', which is no int \(data.types\)"):
            inspect(path, options=TextOptions(types={**types, "j": "int"}))

    @PROPERTY
    @given(
        rows=st.lists(
            st.fixed_dictionaries(
                {},
                optional={
                    "i": st.none() | st.integers(-(2**63), 2**63 - 1),
                    "f": st.none() | st.floats(allow_nan=False) | st.integers(-(2**70), 2**70),
                    "b": st.none() | st.booleans(),
                    "t é\n": st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
                    "nested": st.recursive(
                        st.integers(0, 3),
                        lambda inner: st.lists(inner) | st.dictionaries(st.text("ab", max_size=1), inner),
                    ),
                },
            ),
            min_size=1,
            max_size=12,
        ),
        ascii_only=st.booleans(),
        encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
        end=st.sampled_from(["\n", "\r\n", " \n\n\t"]),
        block_bytes=st.sampled_from([1, 30, 10_000]),
    )
    def test_what_the_json_module_writes(
        self, rows: list[dict[str, Any]], ascii_only: bool, encoding: str, end: str, block_bytes: int, tmp_path: Path
    ) -> None:
        text = end.join(json.dumps(row, ensure_ascii=ascii_only) for row in rows)
        path = written(tmp_path, text, ".jsonl", encoding)
        kinds = {"i": "int", "f": "float", "b": "bool", "t é\n": "text"}
        options = TextOptions(encoding=encoding)
        table, bad = both_ways(path, tmp_path, options, kinds, left_out={"nested": "a list"}, block_bytes=block_bytes)
        assert bad == []
        expected = [{name: row.get(name) for name in kinds} for row in rows]
        for row in expected:
            row["f"] = None if row["f"] is None else float(row["f"])
        assert table.to_pylist() == expected

    @pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e400", "-0.0", "1E+2", "5e-324", "1e-400"])
    def test_numbers_at_the_edges(self, number: str, tmp_path: Path) -> None:
        table, bad = both_ways(lines(tmp_path, '{"f": 1.5}', f'{{"f": {number}}}'), tmp_path)
        assert bad == []
        expected = math.inf if number == "1e400" else json.loads(number)
        np.testing.assert_array_equal(table["f"].to_numpy(), [1.5, expected])


class TestForms:
    @pytest.mark.parametrize(
        ("suffix", "pack"),
        [
            (".jsonl.gz", gzip.compress),
            (".ndjson.bz2", bz2.compress),
            (".NDJSON.XZ", lzma.compress),
            (".jsonl.zst", lambda text: pa.compress(text, "zstd", asbytes=True)),
        ],
    )
    def test_compressed_files(self, suffix: str, pack: Callable[[bytes], bytes], tmp_path: Path) -> None:
        path = written(tmp_path, pack(b'{"a": 1, "b": "x"}\n' * 5000), suffix)
        assert inspect(path).format == "jsonl"
        table, bad = converted(path, tmp_path, block_bytes=1000)
        assert (table.num_rows, set(table["b"].to_pylist()), bad) == (5000, {"x"}, [])

    def test_latin_1(self, tmp_path: Path) -> None:
        path = written(tmp_path, '{"é": "ü"}\n', ".jsonl", "latin-1")
        assert both_ways(path, tmp_path, TextOptions(encoding="latin-1"))[0].to_pydict() == {"é": ["ü"]}


GOOD_LINES = [
    '{"n": %, "s": "x"}',
    ' {"s": null, "n": %}\t',
    '\n{"n": %}',
    '{"n": %, "s": "{}[]"}\r',
    '{"n": %, "x": {}}',
]
BROKEN_LINES = {
    '{"n": %': "no JSON: expecting ',' delimiter at character",
    '{"n": %,}': "no JSON: ",
    "[%]": "a list where an object is expected",
    "%": "a number where an object is expected",
    '"{%}"': "a text where an object is expected",
    "null": "null where an object is expected",
    "true": "true or false where an object is expected",
    '{"n": %}{"n": %}': "no JSON: extra data at character",
    '{"n": %} //': "no JSON: extra data at character",
    '{"n": %, "n": %}': "the key 'n' occurs twice",
    '{"n": %.5}': "column 'n': '%.5' is not an int (the type was inferred from the first rows; set data.types: {n: flo",
    '{"n": "%"}': "column 'n': '%' is in another JSON type than in the first rows (data.types: {n: int} takes both)",
    '{"n": [%]}': "column 'n': '[%]' is not an int",
    '{"n": %, "s": %}': "column 's': '%' is in another JSON type than in the first rows (data.types: {s: text} takes",
    '{"n": %, "extra": 1}': "the key 'extra' is not in the first rows; set data.types: {extra: int}",
    '{"n": %, "extra": []}': "the key 'extra' is not in the first rows; set data.types: {extra: text}",
    '{"n": %, "s": "\\udc00"}': "half a surrogate pair (\\ud800 to \\udfff) in a text",
    '{"n": Inf}': "no JSON: expecting value at character 7",
    '{"n": 9223372036854775808}': "column 'n': '9223372036854775808' is not an int (the type was inferred from the fir",
}


class TestBrokenLines:
    @PROPERTY
    @given(
        chosen=st.lists(st.sampled_from([*GOOD_LINES, *BROKEN_LINES]), max_size=10),
        block_bytes=st.sampled_from([1, 20, 64, 10_000]),
    )
    def test_are_found_with_line_reason_and_text(self, chosen: list[str], block_bytes: int, tmp_path: Path) -> None:
        texts, expected, good = [], [], []
        for n, line in enumerate(chosen, 1):
            text = line.replace("%", str(n))
            if line in BROKEN_LINES:
                number = "\n".join(texts).count("\n") + 1 + bool(texts)
                expected.append((number, BROKEN_LINES[line].replace("%", str(n)), text))
            else:
                good.append(n)
            texts.append(text)
        path = written(tmp_path, "\n".join(texts), ".jsonl")
        kinds = {"n": "int", "s": "text"}
        table, bad = both_ways(path, tmp_path, None, kinds, left_out={"x": "an object"}, block_bytes=block_bytes)
        assert [(row.line, row.text) for row in bad] == [(line, text) for line, _, text in expected]
        for row, (_, reason, _) in zip(bad, expected, strict=True):
            assert row.reason.startswith(reason)
        assert table["n"].to_pylist() == good

    @PROPERTY
    @given(content=st.lists(st.sampled_from(list(b'{{}}"""aa:::11,[]\n\n \r\xc3\xa9')), max_size=60).map(bytes))
    def test_do_not_depend_on_the_blocks_or_the_way(self, content: bytes, tmp_path: Path) -> None:
        path = written(tmp_path, b'{"a": 1}\n' + content, ".jsonl")
        whole = both_ways(path, tmp_path, None, {"a": "int"})
        for block_bytes in (1, 2, 5, 30):
            assert converted(path, tmp_path, None, {"a": "int"}, block_bytes=block_bytes) == whole

    def test_one_line_is_lost_and_not_the_file(self, tmp_path: Path) -> None:
        rows = [json.dumps({"a": i, "b": f"text {i}"}) for i in range(5000)]
        rows[3210] = rows[3210][:-3]
        table, bad = both_ways(lines(tmp_path, *rows), tmp_path, block_bytes=10_000)
        assert [(row.line, row.text) for row in bad] == [(3211, rows[3210])]
        assert table["a"].to_pylist() == [i for i in range(5000) if i != 3210]

    @pytest.mark.parametrize("opening", ["[", '{"a":'])
    def test_a_line_that_is_nested_too_deeply(self, opening: str, tmp_path: Path) -> None:
        closing = {"[": "]", '{"a":': "}"}[opening]
        deep = f'{{"x": {opening * 200_000}1{closing * 200_000}}}'
        table, bad = both_ways(lines(tmp_path, {"a": 1, "x": {}}, deep, {"a": 2}), tmp_path, None, {"a": "int"},
                               left_out={"x": "an object"})  # fmt: skip
        assert reasons(bad) == [(2, "nested too deeply")]
        assert table["a"].to_pylist() == [1, 2]
        # What Arrow may be given nests no deeper than what it can bear.
        within = '{"x": ' + "[" * (jsonl.MOST_OPENINGS - 1) + "]" * (jsonl.MOST_OPENINGS - 1) + "}"
        assert both_ways(lines(tmp_path, within), tmp_path, None, {"a": "int"}, left_out={"x": "a list"})[1] == []

    def test_bytes_that_are_not_utf8(self, tmp_path: Path) -> None:
        content = b'\xef\xbb\xbf{"a": "ok"}\n{"a": "caf\xe9"}\n{"a": "\xc3\xa9"}\n'
        for block_bytes in (1, 1000):
            table, bad = both_ways(written(tmp_path, content, ".jsonl"), tmp_path, block_bytes=block_bytes)
            fault = f"byte 0xe9 at offset {content.index(0xE9)} of the file is not utf-8"
            assert reasons(bad) == [(2, f"{fault}; see data.encoding (latin-1, cp1252, ...)")]
            assert (bad[0].text, table["a"].to_pylist()) == ('{"a": "caf\ufffd"}', ["ok", "é"])

    def test_a_key_that_comes_late_is_no_silent_loss(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(jsonl_lines, "SAMPLE_ROWS", 2)
        path = lines(tmp_path, {"a": 1}, {"a": 2}, {"a": 3, "late": 0.5})
        table, bad = both_ways(path, tmp_path)
        assert reasons(bad) == [(3, "the key 'late' is not in the first rows; set data.types: {late: float}")]
        assert table["a"].to_pylist() == [1, 2]
        table, bad = both_ways(path, tmp_path, TextOptions(types={"late": "float"}))
        assert (table["late"].to_pylist(), bad) == ([None, None, 0.5], [])


class TestRefusals:
    @pytest.mark.parametrize("content", [b"", b"\n \r\n", b"\xef\xbb\xbf"])
    def test_no_rows(self, content: bytes, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"The input .*\.jsonl has no rows"):
            inspect(written(tmp_path, content, ".jsonl"))

    @pytest.mark.parametrize(
        ("content", "words"),
        [
            (
                b'[{"a": 1},\n{"a": 2}]\n',
                r"None of the first 2 lines of '.*' is a JSON object; line 1: no JSON: expecting",
            ),
            (b'{\n  "a": 1\n}\n', "None of the first 3 lines of '.*' is a JSON object; line 1: no JSON"),
            (b"a,b\n1,2\n", r"None of the first 2 lines .* at character 1\. See data\.format and data\.encoding"),
            (b"\xff\xfe{\x00}\x00", "starts with the byte-order mark of UTF-16; set data.encoding: utf-16"),
        ],
    )
    def test_what_is_no_file_of_json_lines(self, content: bytes, words: str, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=words):
            inspect(written(tmp_path, content, ".jsonl"))

    def test_nested_values_alone(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"The input has no column that Treadle takes: a \(an object or a list\)"):
            inspect(lines(tmp_path, {"a": {}}, {"a": []}))

    def test_a_line_without_end(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(text_reader, "RECORD_LIMIT", 2**20)
        path = written(tmp_path, b'{"a": 1}\n' + b"x" * 2**22, ".jsonl")
        with pytest.raises(DataError, match=r"line 2: a row of more than 1 MiB; check that the file is JSON lines"):
            converted(path, tmp_path, None, {"a": "int"}, block_bytes=2**16)

    def test_a_corrupt_compressed_file(self, tmp_path: Path) -> None:
        cut = gzip.compress(b'{"a": 1}\n' * 999)[:-9]
        with pytest.raises(DataError, match=r"jsonl\.gz' cannot be decompressed as gzip: .*Replace it"):
            inferred([written(tmp_path, cut, ".jsonl.gz")], format_="jsonl")
