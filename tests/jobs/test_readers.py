"""Inputs of every format in whole jobs: real data against reference numbers, versions, broken lines, partitionings."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest
from deltalake import write_deltalake
from typer.testing import CliRunner

import treadle
from tests.conftest import people_spec
from treadle.errors import DataError, RequestError
from treadle.jobs.cli import app
from treadle.jobs.predict import predict_files
from treadle.jobs.run import Run

DAYS = (1, 2, 3, 5, 6, 7)
CANCELLED = {"op": "derive", "name": "cancelled", "sql": "case when starts_with(InvoiceNo, 'C') then 1 else 0 end"}
AMOUNT = {"op": "derive", "name": "amount", "sql": "cast(Quantity as double) * UnitPrice"}


@pytest.fixture
def etl(tmp_path: Path, scheduler: str) -> Callable[..., Run]:
    """Runs an ETL job on an input, with tables and more keys of data."""

    def run(path: Any, *tables: dict[str, Any], **data: Any) -> Run:
        return treadle.run(spec(tmp_path, scheduler, path, *tables, **data))

    return run


def spec(folder: Path, scheduler: str, path: Any, *tables: dict[str, Any], **data: Any) -> dict[str, Any]:
    return {
        "apiVersion": "treadle/v1",
        "name": "etl",
        "data": {"path": path if isinstance(path, list) else str(path), **data},
        "tables": list(tables),
        "artifacts": {"root": str(folder / "artifacts")},
        "cluster": {"profile": "address", "address": scheduler},
    }


def rows(run: Run) -> pd.DataFrame:
    return run.table("etl").to_pandas()


def grouped(run: Run, key: str) -> dict[Any, dict[str, Any]]:
    return rows(run).set_index(key).to_dict("index")


@pytest.fixture(scope="module")
def reference(shared_data: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((shared_data / "reference.json").read_text())
    return found


def one(run: Run) -> dict[str, Any]:
    (row,) = rows(run).to_dict("records")
    return {str(name): value for name, value in row.items()}


class TestRetail:
    def test_totals(self, etl: Callable[..., Run], shared_data: Path, reference: dict[str, Any]) -> None:
        expected = reference["etl_retail"]
        distinct = expected["distinct"]
        aggregations = {
            "rows": {"function": "count"},
            "customers": {"function": "count", "column": "CustomerID"},
            "descriptions": {"function": "count", "column": "Description"},
            "cancelled": {"function": "sum", "column": "cancelled"},
            "quantity": {"function": "sum", "column": "Quantity"},
            "amount": {"function": "sum", "column": "amount"},
            **{f"distinct_{name}": {"function": "nunique", "column": name} for name in distinct},
        }
        found = one(
            etl(
                shared_data / "retail" / "transactions",
                CANCELLED,
                AMOUNT,
                {"op": "derive", "name": "all", "sql": "1"},
                {"op": "aggregate", "by": ["all"], "aggregations": aggregations},
            )
        )
        assert found["rows"] == expected["rows"]
        assert found["rows"] - found["customers"] == expected["null_customer"]
        assert found["rows"] - found["descriptions"] == expected["null_description"]
        assert (found["cancelled"], found["quantity"]) == (expected["cancel_lines"], expected["sum_quantity"])
        assert found["amount"] == pytest.approx(expected["sum_amount"], abs=0.01)
        assert {name: found[f"distinct_{name}"] for name in distinct} == distinct

    @pytest.mark.parametrize("partitions", [1, 5])
    def test_months_from_the_folders(
        self, etl: Callable[..., Run], shared_data: Path, reference: dict[str, Any], partitions: int
    ) -> None:
        by_month = {"op": "aggregate", "by": ["month"], "aggregations": {"a": {"function": "sum", "column": "amount"}}}
        run = etl(shared_data / "retail" / "transactions", AMOUNT, by_month, partitions=partitions)
        found = {month: row["a"] for month, row in grouped(run, "month").items()}
        assert found == pytest.approx(reference["etl_retail"]["amount_by_month"], abs=0.01)

    @pytest.mark.parametrize("partitions", [pytest.param(1, marks=pytest.mark.slow), 4])
    def test_raw_days_are_the_rows_of_the_parts(
        self, etl: Callable[..., Run], shared_data: Path, partitions: int
    ) -> None:
        trimmed = {"op": "derive", "name": "Description", "sql": "trim(Description)"}
        same = [trimmed, {"op": "cast", "columns": {"CustomerID": "int"}}]
        raw = etl(shared_data / "retail" / "raw_by_day", *same, partitions=partitions)
        assert raw.manifest["warnings"] == []
        december = shared_data / "retail" / "transactions" / "month=2010-12"
        parts = rows(etl(december, *same, {"op": "filter", "sql": "InvoiceDate < '2010-12-08'"}))
        key = ["InvoiceNo", "StockCode", "Description", "Quantity", "InvoiceDate", "UnitPrice", "CustomerID"]
        ours = rows(raw).sort_values(key, ignore_index=True)
        pd.testing.assert_frame_equal(ours, parts.sort_values(key, ignore_index=True))
        assert len(ours) == sum(
            len(pd.read_csv(shared_data / "retail" / "raw_by_day" / f"2010-12-0{day}.csv")) for day in DAYS
        )


class TestBaseball:
    def test_joins(self, etl: Callable[..., Run], shared_data: Path, reference: dict[str, Any]) -> None:
        expected = reference["etl_baseball"]
        folder = shared_data / "baseball"
        run = etl(
            folder / "Salaries.parquet",
            {"op": "join", "with": {"path": str(folder / "People.parquet")}, "on": ["playerID"]},
            {"op": "aggregate", "by": ["birthCountry"], "aggregations": {
                "n": {"function": "count"}, "mean": {"function": "mean", "column": "salary"},
                "sum": {"function": "sum", "column": "salary"}}},
        )  # fmt: skip
        found = rows(run)
        assert (found["n"].sum(), found["sum"].sum()) == (expected["salaries_rows"], expected["sum_salary"])
        top = found.nlargest(5, "mean").set_index("birthCountry")["mean"].to_dict()
        assert top == pytest.approx(expected["mean_salary_by_birth_country_top5"], abs=0.01)


class TestMessyFiles:
    @pytest.mark.parametrize("partitions", [1, 3])
    def test_bikes(self, etl: Callable[..., Run], shared_data: Path, partitions: int) -> None:
        path = shared_data / "messy" / "bikes.csv"
        options = {"delimiter": ";", "encoding": "latin-1", "date_formats": ["%d/%m/%Y"], "partitions": partitions}
        found = rows(etl(path, **options))
        theirs = pd.read_csv(path, sep=";", encoding="latin-1", parse_dates=["Date"], dayfirst=True)
        assert (len(found), list(found.columns)) == (310, list(theirs.columns))
        assert found["Date"].tolist() == theirs["Date"].tolist() == list(pd.date_range("2012-01-01", periods=310))
        for name in theirs.columns[1:]:
            assert found[name].astype(float).equals(theirs[name].astype(float))
        assert found["Brébeuf (données non disponibles)"].isna().all()

    def test_what_is_said_without_the_options(self, etl: Callable[..., Run], shared_data: Path) -> None:
        path = shared_data / "messy" / "bikes.csv"
        with pytest.raises(RequestError, match="a single column with data.delimiter ','; did you mean delimiter ';'"):
            etl(path)
        with pytest.raises(DataError, match="header of '.*bikes.csv' has bytes that are not utf-8; see data.encoding"):
            etl(path, delimiter=";")

    def test_compas(self, etl: Callable[..., Run], shared_data: Path) -> None:
        twins = ["decile_score", "decile_score.1", "priors_count", "priors_count.1"]
        select = {"op": "select", "columns": ["id", *twins, "c_jail_in", "dob"]}
        found = rows(etl(shared_data / "compas" / "compas-scores-two-years.csv", select, id="id"))
        theirs = pq.read_table(shared_data / "compas" / "compas_two_years.parquet").to_pandas()
        assert len(found) == 7214
        for name in ["id", *twins]:
            assert found[name].tolist() == theirs[name].tolist()
        for name in ("c_jail_in", "dob"):
            assert found[name].equals(pd.to_datetime(theirs[name], format="ISO8601").astype("datetime64[us]"))


def test_json_lines_with_broken_and_nested_ones(etl: Callable[..., Run], tmp_path: Path) -> None:
    lines = [json.dumps({"a": i, "when": f"2024-01-{1 + i % 28:02d}", "tags": [i]}) for i in range(2000)]
    lines[1500], lines[1900] = lines[1500][:-4], '{"a": "many"}'
    folder = tmp_path / "in" / "source=a%20b"
    folder.mkdir(parents=True)
    (folder / "1.jsonl").write_text("\n".join(lines[:1000]))
    (folder / "2.jsonl").write_text("\n".join(lines[1000:]))
    data: dict[str, Any] = {"bad_rows": {"limit": 2}, "types": {"a": "int"}}
    outcomes = []
    for partitions in (1, 4):
        run = etl(tmp_path / "in", **data, partitions=partitions)
        outcomes.append(rows(run))
        bad = run.table("quarantine").to_pandas()
        assert bad["line"].tolist() == [501, 901]
        assert set(bad["file"]) == {str(folder / "2.jsonl")}
        assert bad["reason"].tolist() == [
            f"no JSON: expecting ',' delimiter at character {len(lines[1500]) + 1}",
            "column 'a': 'many' is not an int",
        ]
        assert run.manifest["warnings"] == [
            "data: columns of types that Treadle does not take are left out: tags (a list)",
            "2 broken rows were set aside in the table `quarantine`",
        ]
    first, second = outcomes
    pd.testing.assert_frame_equal(first, second)
    assert first["a"].tolist() == [i for i in range(2000) if i not in (1500, 1900)]
    assert (set(first["source"]), str(first["when"].dtype)) == ({"a b"}, "datetime64[us]")
    with pytest.raises(DataError, match=r"tables.0 \(filter\): column 'tags' of '.*1.jsonl' has type a list, .*types"):
        etl(tmp_path / "in", {"op": "filter", "sql": "tags is not null"}, **data)
    data["types"]["tags"] = "text"
    kept = etl(tmp_path / "in", {"op": "filter", "sql": "tags = '[7]'"}, **data)
    assert rows(kept)["a"].tolist() == [7]


def test_a_version_of_a_delta_table(etl: Callable[..., Run], tmp_path: Path) -> None:
    table = tmp_path / "table"
    for number in range(3):
        frame = pd.DataFrame({"a": [number, number + 10], "p": ["x", "y z"]})
        write_deltalake(str(table), frame, mode="append", partition_by=["p"])
    newest, second = etl(table), etl(table, version=1)
    assert sorted(rows(newest)["a"]) == [0, 1, 2, 10, 11, 12]
    assert sorted(rows(second)["a"]) == [0, 1, 10, 11]
    assert rows(second).groupby("p")["a"].min().to_dict() == {"x": 0, "y z": 10}
    (recorded,) = second.manifest["inputs"]
    assert (recorded["format"], recorded["version"], len(recorded["files"])) == ("delta", 1, 4)
    assert recorded["digest"] != newest.manifest["inputs"][0]["digest"]
    assert newest.manifest["inputs"][0]["version"] == 2
    # What a run has published is an input of the next.
    published = newest.table("etl")
    again = etl(published.path, {"op": "filter", "sql": "a > 10"}, version=published.version)
    assert sorted(rows(again)["a"]) == [11, 12]


def test_other_tables_at_versions_of_delta_tables(etl: Callable[..., Run], tmp_path: Path, scheduler: str) -> None:
    """A join, a union and the keys of a contract; a version that is named is the newest one as long as it is that."""
    pd.DataFrame({"k": [1, 2, 3], "v": [0.5, 0.5, 0.5]}).to_parquet(tmp_path / "a.parquet")
    table = str(tmp_path / "side")
    write_deltalake(table, pd.DataFrame({"k": [1, 2], "d": [10, 20]}))
    write_deltalake(table, pd.DataFrame({"k": [1, 2, 3], "d": [11, 21, 31]}), mode="overwrite")

    def made(**version: int) -> tuple[list[float | None], dict[str, str]]:
        run = etl(tmp_path / "a.parquet", {"op": "join", "with": {"path": table, **version}, "on": ["k"]})
        (side,) = [found for found in run.manifest["inputs"] if found["section"] == "tables.0"]
        assert side["version"] == version.get("version", 1)
        joined = [None if pd.isna(value) else value for value in rows(run).sort_values("k")["d"]]
        return joined, {stage["stage"]: stage["fingerprint"] for stage in run.manifest["stages"]}

    newest, first, second = made(), made(version=0), made(version=1)
    assert (newest[0], first[0], second[0]) == ([11, 21, 31], [10, 20, None], [11, 21, 31])
    assert first[1]["read"] == newest[1]["read"]
    assert first[1]["etl"] != newest[1]["etl"] == second[1]["etl"]

    archive = {"path": table, "format": "delta", "version": 0, "rename": {"d": "v"}}
    both = rows(etl(tmp_path / "a.parquet", {"op": "union", "with": archive}))
    assert both["v"].tolist() == [0.5, 0.5, 0.5, 10, 20]

    def known(**version: int) -> Run:
        rule = {"expect": "known", "columns": ["k"], "in": {"path": table, **version}, "otherwise": "quarantine"}
        return treadle.run({**spec(tmp_path, scheduler, tmp_path / "a.parquet"), "contract": [rule]})

    assert [rows(known(**version))["k"].tolist() for version in ({"version": 0}, {})] == [[1, 2], [1, 2, 3]]


def test_sides_of_joins_are_of_any_format(etl: Callable[..., Run], tmp_path: Path) -> None:
    main = pd.DataFrame({"k": [1, 2, 3]})
    main.to_parquet(tmp_path / "main.parquet")
    (tmp_path / "side.jsonl").write_text('{"k": 1, "v": "one"}\n{"k": 3, "v": "three", "n": [1]}\n')
    (tmp_path / "hive" / "w=7").mkdir(parents=True)
    pd.DataFrame({"k": [2]}).to_parquet(tmp_path / "hive" / "w=7" / "1.parquet")
    write_deltalake(str(tmp_path / "delta"), pd.DataFrame({"k": [1, 2], "d": [0.5, 1.5]}), partition_by=["k"])
    joins = [
        {"op": "join", "with": {"path": str(tmp_path / name)}, "on": ["k"]} for name in ("side.jsonl", "hive", "delta")
    ]
    found = rows(etl(tmp_path / "main.parquet", *joins)).astype(object)
    assert found.where(found.notna(), None).to_dict("list") == {
        "k": [1, 2, 3], "v": ["one", None, "three"], "w": [None, 7, None], "d": [0.5, 1.5, None],
    }  # fmt: skip


@pytest.mark.parametrize("name", ["new.ndjson.gz", pytest.param("new.csv", marks=pytest.mark.slow)])
def test_batch_prediction_reads_text_as_the_job_did(people: Path, tmp_path: Path, scheduler: str, name: str) -> None:
    frame = pd.read_parquet(people)[["key", "age", "member", "buys"]]
    frame["member"] = frame["member"].map({True: "yes", False: "no"})
    frame.to_json(tmp_path / "in.jsonl", orient="records", lines=True)
    types = {"member": "bool", "age": "float"}
    changes = {
        "name": "text",
        "data": {"path": str(tmp_path / "in.jsonl"), "target": "buys", "id": "key", "types": types},
        "tables": [], "features": [], "models": ["decision_tree"], "predict": {"rows": "all"},
    }  # fmt: skip
    run = treadle.run(people_spec(people, tmp_path / "artifacts", scheduler, **changes))
    expected = run.table("predictions").to_pandas().set_index("id")["score"]
    # Here, some of the numbers are texts, and other keys are there.
    rows = frame.drop(columns="buys").assign(age=frame["age"].where(frame.index % 2 == 0, frame["age"].astype(str)))
    rows.assign(new=[[1]] * len(rows)).to_json(tmp_path / "new.ndjson.gz", orient="records", lines=True)
    frame.to_csv(tmp_path / "new.csv", index=False)
    output = str(tmp_path / "scored")
    told = predict_files("text", [str(tmp_path / name)], output, root=str(tmp_path / "artifacts"), workers=1)
    assert told["rows_predicted"] == 600
    scored = pd.read_parquet(output).set_index("id")["score"]
    pd.testing.assert_series_equal(scored.sort_index(), expected.sort_index())


def test_check_and_plan_tell_what_was_found(tmp_path: Path, scheduler: str) -> None:
    write_deltalake(str(tmp_path / "t"), pd.DataFrame({"a": [1], "tags": [["x"]]}))
    path = tmp_path / "spec.json"
    path.write_text(json.dumps(spec(tmp_path, scheduler, tmp_path / "t")))
    for command in ("check", "plan"):
        said = CliRunner().invoke(app, [command, str(path)])
        assert said.exit_code == 0, said.output
        assert "1 delta files of version 0, 1 rows" in said.stdout
        assert "warning: columns of types that Treadle does not take are left out: tags (list<" in said.stdout
        assert CliRunner().invoke(app, [command, str(path), "--json"]).exit_code == 0
