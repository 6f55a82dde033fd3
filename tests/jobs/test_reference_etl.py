"""Real tables: the numbers that pandas found in them, by specs, whatever the partitions and the exchange."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import treadle
from treadle.engine import exchange


def ways(bucket: int) -> pytest.MarkDecorator:
    """Partitions, and bytes of a bucket so small that the rows are exchanged."""
    ways = [
        pytest.param((1, None), id="whole", marks=pytest.mark.slow),
        pytest.param((4, None), id="4 partitions", marks=pytest.mark.slow),
        pytest.param((16, bucket), id="16 partitions, exchanged"),
    ]
    return pytest.mark.parametrize("way", ways)


@pytest.fixture
def partitions(way: tuple[int, int | None], monkeypatch: pytest.MonkeyPatch) -> int:
    count, bucket = way
    if bucket is not None:
        monkeypatch.setattr(exchange, "BUCKET_BYTES", bucket)
    return count


@pytest.fixture(scope="module")
def reference(shared_data: Path) -> dict[str, Any]:
    return dict(json.loads((shared_data / "reference.json").read_text()))


def made(
    root: Path, scheduler: str, data: Mapping[str, Any], tables: Sequence[Mapping[str, Any]], name: str
) -> pd.DataFrame:
    """The table `etl` of a job."""
    spec = {
        "apiVersion": "treadle/v1",
        "name": name,
        "data": data,
        "tables": list(tables),
        "artifacts": {"root": str(root)},
        "cluster": {"profile": "address", "address": scheduler},
    }
    return treadle.run(spec).table("etl").to_pandas()


def total(**aggregations: Any) -> list[dict[str, Any]]:
    """All rows as one group."""
    named = {
        name: {"function": function, "column": column} if column else {"function": function}
        for name, (function, column) in aggregations.items()
    }
    return [
        {"op": "derive", "name": "all", "sql": "1"},
        {"op": "aggregate", "by": ["all"], "aggregations": named},
    ]


RETAIL = [
    {"op": "derive", "name": "amount", "sql": "Quantity * UnitPrice"},
    {"op": "derive", "name": "day", "sql": "date_trunc('day', InvoiceDate)"},
    {"op": "derive", "name": "cancelled", "sql": "starts_with(InvoiceNo, 'C')"},
]
DISTINCT = ["InvoiceNo", "StockCode", "CustomerID", "Country", "Description"]


def money(series: pd.Series) -> dict[str, float]:
    """Sums by the text of their key, to the cent."""
    return {str(key): pytest.approx(value, abs=0.011) for key, value in series.items()}


@ways(2**23)
def test_totals_of_retail(
    shared_data: Path, tmp_path: Path, scheduler: str, partitions: int, reference: dict[str, Any]
) -> None:
    expected = reference["etl_retail"]
    data = {"path": str(shared_data / "retail" / "transactions"), "partitions": partitions}
    counted = {f"distinct {name}": ("nunique", name) for name in DISTINCT}
    tables = RETAIL + total(
        rows=("count", None),
        customers=("count", "CustomerID"),
        descriptions=("count", "Description"),
        cancelled=("sum", "cancelled"),
        days=("nunique", "day"),
        quantity=("sum", "Quantity"),
        amount=("sum", "amount"),
        **counted,
    )
    (found,) = made(tmp_path, scheduler, data, tables, "totals").to_dict("records")
    assert found["rows"] == expected["rows"]
    assert found["rows"] - found["customers"] == expected["null_customer"]
    assert found["rows"] - found["descriptions"] == expected["null_description"]
    assert found["cancelled"] == expected["cancel_lines"]
    assert found["days"] == expected["trading_days"]
    assert found["quantity"] == expected["sum_quantity"]
    assert found["amount"] == pytest.approx(expected["sum_amount"], abs=0.01)
    assert {name: found[f"distinct {name}"] for name in DISTINCT} == expected["distinct"]


@ways(20_000)
def test_groups_of_retail(
    shared_data: Path, tmp_path: Path, scheduler: str, partitions: int, reference: dict[str, Any]
) -> None:
    """Groups of groups: sums a day, customer and country, and these summed again beside each."""
    expected = reference["etl_retail"]
    data = {"path": str(shared_data / "retail" / "transactions"), "partitions": partitions}
    sums = {"amount": {"function": "sum", "column": "amount"}}

    def beside(*by: str, name: str) -> dict[str, Any]:
        return {"op": "aggregate", "by": list(by), "broadcast": True, "aggregations": {name: sums["amount"]}}

    tables = [
        *RETAIL,
        {"op": "aggregate", "by": ["day", "CustomerID", "Country"], "aggregations": sums},
        {"op": "derive", "name": "month", "sql": "year(day) * 100 + month(day)"},
        beside("month", name="of_month"),
        beside("Country", name="of_country"),
        beside("CustomerID", name="of_customer"),
    ]
    found = made(tmp_path, scheduler, data, tables, "groups")
    months = found.groupby("month")["of_month"].agg(["first", "nunique"])
    assert (months["nunique"] == 1).all()
    named = months["first"].rename(lambda month: f"{month // 100}-{month % 100:02d}")
    assert expected["amount_by_month"] == money(named)
    assert expected["amount_by_country"] == money(found.groupby("Country")["of_country"].first())
    customers = found.dropna(subset="CustomerID").groupby("CustomerID")["of_customer"].first().nlargest(5)
    assert expected["top5_customers_by_amount"] == money(customers.rename(lambda customer: str(int(customer))))
    assert list(map(int, expected["top5_customers_by_amount"])) == customers.index.astype(int).tolist()


@ways(2000)
def test_seven_trading_days_of_retail(
    shared_data: Path, tmp_path: Path, scheduler: str, partitions: int, reference: dict[str, Any]
) -> None:
    data = {"path": str(shared_data / "retail" / "transactions"), "partitions": partitions}
    week = {"function": "rolling_sum", "column": "amount", "rows": 7}
    tables = [
        *RETAIL,
        {"op": "aggregate", "by": ["day"], "aggregations": {"amount": {"function": "sum", "column": "amount"}}},
        {"op": "window", "order": "day", "outputs": {"week": week}},
    ]
    found = made(tmp_path, scheduler, data, tables, "days")
    last = found.sort_values("day")[-5:]
    sums = pd.Series(last["week"].to_numpy(), last["day"].dt.strftime("%Y-%m-%d"))
    assert reference["etl_retail"]["rolling_7_trading_day_amount_last5"] == money(sums)


@ways(2**23)
def test_duplicates_of_retail(
    shared_data: Path, tmp_path: Path, scheduler: str, partitions: int, reference: dict[str, Any]
) -> None:
    """What dedupe leaves of all the rows, and the lines that a window counts beyond the first of equal ones."""
    expected = reference["etl_retail"]
    path = str(shared_data / "retail" / "transactions")
    columns = [*DISTINCT, "Quantity", "InvoiceDate", "UnitPrice"]
    numbered = {"op": "window", "by": columns, "outputs": {"number": {"function": "row_number"}}}
    again = {"op": "derive", "name": "again", "sql": "number > 1"}
    data = {"path": path, "partitions": partitions}
    tables = [numbered, again, {"op": "dedupe", "columns": columns, "keep": "last"}]
    (found,) = made(
        tmp_path, scheduler, data, [*tables, *total(rows=("count", None), again=("sum", "again"))], "duplicates"
    ).to_dict("records")
    assert found["rows"] == expected["rows"] - expected["exact_duplicate_rows"]
    assert 0 < found["again"] <= expected["exact_duplicate_rows"]


@ways(500_000)
def test_six_days_of_retail_from_their_csv_are_those_from_parquet(
    shared_data: Path, tmp_path: Path, scheduler: str, partitions: int
) -> None:
    """Row by row, with what windows and aggregates add to them."""
    days = sorted((shared_data / "retail" / "raw_by_day").glob("*.csv"))
    assert len(days) == 6
    added = [
        *RETAIL,
        {"op": "cast", "columns": {"CustomerID": "int"}},
        # Of CSV spaces around values are cut.
        {"op": "derive", "name": "Description", "sql": "trim(Description)"},
        {
            "op": "window", "by": ["CustomerID", "StockCode"], "order": "InvoiceDate",
            "outputs": {"so_far": {"function": "cum_sum", "column": "Quantity"}, "number": {"function": "row_number"}},
        },
        {
            "op": "aggregate", "by": ["day"], "broadcast": True,
            "aggregations": {"invoices": {"function": "nunique", "column": "InvoiceNo"},
                             "middle": {"function": "median", "column": "amount"}},
        },
    ]  # fmt: skip
    text = {"path": [str(day) for day in days], "partitions": partitions}
    first = {"path": str(shared_data / "retail" / "transactions" / "month=2010-12"), "partitions": partitions}
    before = {"op": "filter", "sql": "InvoiceDate < '2010-12-08'"}
    found = made(tmp_path, scheduler, text, added, "csv")
    expected = made(tmp_path, scheduler, first, [before, *added], "parquet")
    by = sorted(set(found.columns) - {"id"})
    found, expected = (frame[by].sort_values(by, ignore_index=True) for frame in (found, expected))
    assert len(found) == sum(len(pd.read_csv(day)) for day in days)
    pd.testing.assert_frame_equal(found, expected, rtol=1e-12)
    assert found["number"].max() > 3


@ways(50_000)
def test_joins_of_baseball(
    shared_data: Path, tmp_path: Path, scheduler: str, partitions: int, reference: dict[str, Any]
) -> None:
    """All in one job: a salary with its player and team, and with each ballot for the hall of fame."""
    expected = reference["etl_baseball"]
    folder = shared_data / "baseball"
    people = {"path": str(folder / "People.parquet"), "columns": ["playerID", "birthCountry", "nameLast"]}
    teams = {"path": str(folder / "Teams.parquet"), "columns": ["yearID", "lgID", "teamID", "name"]}
    data = {"path": str(folder / "Salaries.parquet"), "partitions": partitions}
    tables = [
        {"op": "join", "with": people, "on": ["playerID"]},
        {"op": "join", "with": teams, "on": ["yearID", "lgID", "teamID"]},
        {
            "op": "aggregate", "by": ["birthCountry"],
            "aggregations": {
                "rows": {"function": "count"},
                "players": {"function": "count", "column": "nameLast"},
                "teams": {"function": "count", "column": "name"},
                "salary": {"function": "sum", "column": "salary"},
                "mean": {"function": "mean", "column": "salary"},
            },
        },
    ]  # fmt: skip
    found = made(tmp_path, scheduler, data, tables, "salaries")
    assert found["rows"].sum() == expected["salaries_rows"] == expected["salaries_left_join_teams_rows"]
    assert found["rows"].sum() - found["teams"].sum() == expected["salaries_left_join_teams_unmatched"]
    assert found["salary"].sum() == expected["sum_salary"]
    top = expected["mean_salary_by_birth_country_top5"]
    assert top == money(found.set_index("birthCountry")["mean"].nlargest(5))


@ways(50_000)
def test_players_and_ballots_of_baseball(
    shared_data: Path, tmp_path: Path, scheduler: str, partitions: int, reference: dict[str, Any]
) -> None:
    expected = reference["etl_baseball"]
    folder = shared_data / "baseball"
    data = {"path": str(folder / "Salaries.parquet"), "partitions": partitions}
    people = {"op": "join", "with": {"path": str(folder / "People.parquet")}, "on": ["playerID"], "how": "anti"}
    ballots = {"path": str(folder / "HallOfFame.parquet"), "columns": ["playerID", "inducted"]}
    inner = {"op": "join", "with": ballots, "on": ["playerID"], "how": "inner"}
    unmatched = made(tmp_path, scheduler, data, [people], "unmatched")
    assert len(unmatched) == expected["salaries_left_join_people_unmatched"]
    (found,) = made(tmp_path, scheduler, data, [inner, *total(rows=("count", None))], "ballots").to_dict("records")
    assert found["rows"] == expected["inner_join_hall_of_fame_rows"]
