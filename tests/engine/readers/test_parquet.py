"""Parquet inputs: schemas that unify or are refused in one message, given types, partition folders."""

from __future__ import annotations

import datetime as dt
import itertools
import json
import string
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.engine.readers.reading import SHARED, rows_of, shared
from treadle.engine.inputs import Inspected, cut
from treadle.engine.readers.options import TextOptions
from treadle.engine.text_input import inspect
from treadle.errors import DataError, RequestError

PROPERTY = settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
NAMES = itertools.count()


def write(path: Path, columns: dict[str, Any], **options: Any) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path, **options)
    return str(path)


def typed(paths: str | list[str], **types: str) -> Inspected:
    return inspect(paths, options=TextOptions(types=types))


class TestSchemas:
    def test_footers_give_rows_groups_and_kinds(self, tmp_path: Path) -> None:
        nothing = pa.nulls(3)
        one = write(tmp_path / "1.parquet", {"a": [1, 2, 3], "s": nothing, "n": nothing}, row_group_size=2)
        two = write(tmp_path / "2.parquet", {"n": nothing, "s": ["x", "y", None], "a": pa.array([1, 2, 3], pa.int8())})
        inspected = inspect([one, two])
        assert inspected.kinds == {"a": "int", "s": "text", "n": "text"}
        assert inspected.rows == 6
        assert [file.groups for file in inspected.files] == [(2, 1), (3,)]
        assert inspected.bytes == Path(one).stat().st_size + Path(two).stat().st_size
        assert (inspected.warnings, inspected.is_text) == ((), False)

    def test_whole_numbers_and_fractions_unite(self, tmp_path: Path) -> None:
        one = write(tmp_path / "1.parquet", {"a": [1, None], "b": [0.5, 1.5]})
        two = write(tmp_path / "2.parquet", {"b": pa.nulls(1), "a": pa.array([2.5], pa.float32())})
        inspected = inspect([one, two])
        assert inspected.kinds == {"a": "float", "b": "float"}
        assert rows_of(inspected).to_pydict() == {"a": [1.0, None, 2.5], "b": [0.5, 1.5, None]}

    def test_a_whole_number_that_no_float_holds_is_refused(self, tmp_path: Path) -> None:
        one = write(tmp_path / "1.parquet", {"a": [2**53 + 1]})
        inspected = inspect([one, write(tmp_path / "2.parquet", {"a": [0.5]})])
        with pytest.raises(DataError, match=r"Column 'a' of '.*1.parquet' \(int64\) cannot become double.*9007199254"):
            rows_of(inspected)

    def test_every_conflict_is_named_at_once(self, tmp_path: Path) -> None:
        one = write(tmp_path / "1.parquet", {"a": [1], "s": pa.nulls(1), "t": [dt.datetime(2020, 1, 1)]})
        two = write(tmp_path / "2.parquet", {"a": [True], "s": [2.5], "t": [dt.date(2020, 1, 1)]})
        three = write(tmp_path / "3.parquet", {"a": [1], "s": ["x"], "u": [1]})
        with pytest.raises(DataError) as caught:
            inspect([one, two, three])
        assert str(caught.value).splitlines() == [
            "The input's files differ:",
            f"  '{one}' has no column 'u', which '{three}' has",
            f"  '{two}' has no column 'u', which '{three}' has",
            f"  '{three}' has no column 't', which '{one}' has",
            f"  column 'a' is int in '{one}' and bool in '{two}'",
            f"  column 's' is float in '{two}' and text in '{three}'",
            "Write the files alike, or give a column its type in data.types.",
        ]
        more = [write(tmp_path / "more" / f"{i}.parquet", {f"c{i}": [1]}) for i in range(9)]
        with pytest.raises(DataError, match=r"\n  and 52 more\nWrite the files alike\.$"):
            inspect(more)

    def test_a_file_that_cannot_be_read_as_input(self, tmp_path: Path) -> None:
        twice = str(tmp_path / "t.parquet")
        pq.write_table(pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"]), twice)
        with pytest.raises(DataError, match=r"'.*t.parquet' has two columns called 'a'; rename one of them"):
            inspect([twice])
        (tmp_path / "b.parquet").write_bytes(b"PAR1 this is none")
        with pytest.raises(DataError, match=r"'.*b.parquet' is no readable Parquet file: .* Replace it or leave it"):
            inspect(str(tmp_path / "b.parquet"))

    def test_columns_of_other_types_are_left_out_with_a_warning(self, tmp_path: Path) -> None:
        columns = {"a": [1], "tags": [["x"]], "blob": [b"x"], "at": [dt.time(1)]}
        inspected = inspect(write(tmp_path / "n.parquet", columns))
        assert inspected.kinds == {"a": "int"}
        assert inspected.left_out == {"tags": "list<element: string>", "blob": "binary", "at": "time64[us]"}
        assert inspected.warnings == (
            "columns of types that Treadle does not take are left out: "
            "tags (list<element: string>), blob (binary), at (time64[us])",
        )
        assert rows_of(inspected).to_pydict() == {"a": [1]}
        text = write(tmp_path / "t.parquet", {**columns, "tags": ["x"]})
        with pytest.raises(DataError, match=r"column 'tags' is text in '.*t.parquet' and list<.*> in '.*n.parquet'"):
            inspect([str(tmp_path / "n.parquet"), text])
        only = write(tmp_path / "only.parquet", {"tags": [["x"]]})
        with pytest.raises(DataError, match=r"no column that Treadle takes: tags \(list<element: string>\)"):
            inspect(only)
        with pytest.raises(
            DataError, match=r"column 'tags' is list<.*> in '.*only.parquet', which is no text \(data.t"
        ):
            typed(only, tags="text")


class TestGivenTypes:
    def test_they_decide(self, tmp_path: Path) -> None:
        days = pa.array(["2020-01-02", None]).dictionary_encode()
        one = write(tmp_path / "1.parquet", {"a": [1, None], "b": days, "c": [17850.0, float("nan")]})
        two = write(tmp_path / "2.parquet", {"a": ["x"], "b": [dt.date(2021, 1, 1)], "c": [5]})
        inspected = typed([one, two], a="text", b="date", c="int")
        assert inspected.kinds == {"a": "text", "b": "timestamp", "c": "int"}
        assert rows_of(inspected).to_pydict() == {
            "a": ["1", None, "x"],
            "b": [dt.datetime(2020, 1, 2), None, dt.datetime(2021, 1, 1)],
            "c": [17850, None, 5],
        }

    @pytest.mark.parametrize(
        ("values", "type_", "words"),
        [
            ([1.5], "int", r"'a' of '.*' \(double\) cannot become int64: .*1.5"),
            (["x"], "float", r"'a' of '.*' \(string\) cannot become double: .*'x'"),
            (["02/01/2020"], "timestamp", r"'a' of '.*' \(string\) cannot become timestamp\[us\]: .*02/01/2020"),
            ([1], "timestamp", r"'a' of '.*a.parquet' is int, which cannot be read as timestamp \(data.types\); use"),
            ([dt.date(2020, 1, 1)], "int", "'a' of '.*' is timestamp, which cannot be read as int"),
            ([True], "float", "'a' of '.*' is bool, which cannot be read as float"),
        ],
    )
    def test_what_they_cannot_make(self, values: list[Any], type_: str, words: str, tmp_path: Path) -> None:
        path = write(tmp_path / "a.parquet", {"a": values})
        with pytest.raises(DataError, match=words):
            rows_of(typed(path, a=type_))

    def test_of_a_column_that_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(RequestError, match=r"'aeg' was not found in data\.types.* Did you mean 'age'\?"):
            typed(write(tmp_path / "a.parquet", {"age": [1]}), aeg="int")


TEXTS = st.text(string.ascii_letters + string.digits + " %=/é#?&.-_", min_size=1, max_size=6)


class TestPartitionFolders:
    def test_kinds_nulls_and_encoded_names(self, tmp_path: Path) -> None:
        for number, folder in enumerate(
            ["y=2020/m=01/d=2020-01-02/a%20b=x%2Fy", "y=2021/m=12/d=2021-02-03T04%3A05%3A06/a%20b=%C3%A9%3D"]
        ):
            write(tmp_path / "in" / folder / "1.parquet", {"v": [number]})
        default = "__HIVE_DEFAULT_PARTITION__"
        write(tmp_path / "in" / f"y={default}/m={default}/d={default}/a%20b={default}" / "1.parquet", {"v": [2]})
        inspected = inspect(str(tmp_path / "in"))
        assert inspected.kinds == {"v": "int", "y": "int", "m": "int", "d": "timestamp", "a b": "text"}
        assert rows_of(inspected).to_pylist() == [
            {"v": 0, "y": 2020, "m": 1, "d": dt.datetime(2020, 1, 2), "a b": "x/y"},
            {"v": 1, "y": 2021, "m": 12, "d": dt.datetime(2021, 2, 3, 4, 5, 6), "a b": "é="},
            {"v": 2, "y": None, "m": None, "d": None, "a b": None},
        ]
        assert rows_of(typed(str(tmp_path / "in"), m="text")).column("m").to_pylist() == ["01", "12", None]
        assert rows_of(inspected, columns=["m"]).to_pydict() == {"m": [1, 12, None]}
        with pytest.raises(DataError, match=r"column 'a b' of '.*' is 'x/y', which is no float \(data"):
            typed(str(tmp_path / "in"), **{"a b": "float"})

    @PROPERTY
    @given(
        rows=st.lists(
            st.tuples(TEXTS | st.none(), st.integers(-3, 3) | st.none(), st.integers()), min_size=1, max_size=12
        )
    )
    def test_what_arrow_writes(self, rows: list[tuple[str | None, int | None, int]], tmp_path: Path) -> None:
        texts, numbers, values = (list(column) for column in zip(*rows, strict=True))
        values = [value % 1000 for value in values]
        table = pa.table({"t": pa.array(texts, pa.string()), "n": pa.array(numbers, pa.int64()), "v": values})
        folder = tmp_path / str(next(NAMES))
        ds.write_dataset(table, folder, format="parquet", partitioning=["t", "n"], partitioning_flavor="hive")
        read = rows_of(typed(str(folder), t="text", n="int"))
        key = lambda row: json.dumps(row, sort_keys=True)  # noqa: E731
        assert sorted(read.select(["t", "n", "v"]).to_pylist(), key=key) == sorted(table.to_pylist(), key=key)

    def test_a_column_of_the_same_name(self, tmp_path: Path) -> None:
        write(
            tmp_path / "in/y=2020/1.parquet", {"v": [1, 2], "y": pa.array([2020, 2020], pa.int32())}, row_group_size=1
        )
        write(tmp_path / "in/y=2021/1.parquet", {"v": [3]})
        assert rows_of(inspect(str(tmp_path / "in"))).to_pydict() == {"v": [1, 2, 3], "y": [2020, 2020, 2021]}
        for name, values in {"other": [2021], "null": [2020, None], "mixed": [2019, 2021], "text": ["x"]}.items():
            write(tmp_path / name / "y=2020/1.parquet", {"y": values})
            with pytest.raises(DataError, match=r"has a column 'y' whose values are not, or not known to be, those"):
                inspect(str(tmp_path / name))
        write(tmp_path / "unknown/y=2020/1.parquet", {"y": [2020]}, write_statistics=False)
        with pytest.raises(DataError, match="'y=...' stands for; rename the folder or the column"):
            inspect(str(tmp_path / "unknown"))
        months = {"v": [1], "y": ["2020-01"], "d": [dt.date(2020, 1, 1)]}
        write(tmp_path / "equal/y=2020-01/d=2020-01-01/1.parquet", months)
        assert inspect(str(tmp_path / "equal")).kinds == {"v": "int", "y": "text", "d": "timestamp"}

    def test_a_file_beside_the_folders(self, tmp_path: Path) -> None:
        write(tmp_path / "in/y=2020/1.parquet", {"v": [1]})
        write(tmp_path / "in/2.parquet", {"v": [1]})
        with pytest.raises(DataError, match=r"'.*in/2.parquet' has no column 'y', which '.*y=2020/1.parquet' has"):
            inspect(str(tmp_path / "in"))

    def test_the_digest_follows_the_folders(self, tmp_path: Path) -> None:
        digests = set()
        for value in ("1", "2", "1 "):
            write(tmp_path / value / f"y={value.strip()}" / "1.parquet", {"v": [1]})
            digests.add(inspect(str(tmp_path / value)).digest)
        assert len(digests) == 2

    def test_text_files_in_folders(self, tmp_path: Path) -> None:
        for suffix, text in (("csv", "v\n1\n2\n"), ("jsonl", '{"v":1}\n{"v":2}\n')):
            for month in ("2020-01", "2020-02"):
                (tmp_path / suffix / f"month={month}").mkdir(parents=True)
                (tmp_path / suffix / f"month={month}" / f"a.{suffix}").write_text(text)
            inspected = inspect(str(tmp_path / suffix))
            assert inspected.kinds == {"v": "int", "month": "text"}
            assert rows_of(inspected, tmp_path).to_pydict() == {
                "v": [1, 2, 1, 2],
                "month": ["2020-01", "2020-01", "2020-02", "2020-02"],
            }
        (tmp_path / "csv" / "v=3").mkdir()
        (tmp_path / "csv" / "v=3" / "a.csv").write_text("v\n1\n")
        with pytest.raises(DataError, match=r"'.*v=3/a.csv' has a column 'v', and its folder 'v=...' stands for one"):
            inspect(str(tmp_path / "csv"))


class TestRetail:
    def test_months_are_a_column(self) -> None:
        folder = shared("retail/transactions")
        reference = json.loads((SHARED / "reference.json").read_text())["etl_retail"]
        inspected = inspect(folder)
        assert (inspected.kinds["month"], inspected.rows) == ("text", reference["rows"])
        for count in (1, 7):
            assert sum(p.rows for partition in cut(inspected.files, count) for p in partition) == reference["rows"]
        table = rows_of(inspected, columns=["month", "Quantity", "UnitPrice"])
        amount = pc.multiply(table["Quantity"].cast(pa.float64()), table["UnitPrice"])
        sums = table.append_column("amount", amount).group_by("month").aggregate([("amount", "sum")])
        by_month = dict(zip(sums["month"].to_pylist(), sums["amount_sum"].to_pylist(), strict=True))
        assert by_month == pytest.approx(reference["amount_by_month"], abs=0.01)
        assert pc.sum(table["Quantity"]).as_py() == reference["sum_quantity"]
