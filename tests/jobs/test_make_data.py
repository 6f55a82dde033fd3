"""Made-up transactions: the same rows however they are cut, learnable, and what fraud.yaml expects."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from treadle.benchmarks.peers import fraud_polars
from treadle.engine import etl, features
from treadle.engine.relational import Join
from treadle.engine.store import Store
from treadle.engine.text_input import inspect
from treadle.errors import RequestError, StorageError
from treadle.jobs.make_data import BLOCK, CHANNELS, COUNTRIES, SEGMENTS, TRANSACTIONS, make_transactions
from treadle.jobs.spec import load_spec

FRAUD_YAML = Path(__file__).resolve().parents[2] / "jobs" / "examples" / "fraud.yaml"
ROWS = 50_000


def read(folder: Path) -> pa.Table:
    """All part files of a folder, in order of their names."""
    return pa.concat_tables([pq.read_table(path) for path in sorted(folder.iterdir())]).combine_chunks()


def value(frame: pl.DataFrame, expression: pl.Expr) -> Any:
    """The one value of an expression."""
    return frame.select(expression).item()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("fraud") / "fraud-data"
    make_transactions(out, ROWS)
    return out


@pytest.fixture(scope="module")
def transactions(data: Path) -> pl.DataFrame:
    return pl.read_parquet(data / "transactions")


@pytest.fixture(scope="module")
def customers(data: Path) -> pl.DataFrame:
    return pl.read_parquet(data / "customers")


def test_rows_do_not_depend_on_the_partitions(tmp_path: Path) -> None:
    rows = 2 * BLOCK + 12_345
    tables = []
    for partitions in (1, 3, 16):
        out = tmp_path / str(partitions)
        make_transactions(out, rows, partitions)
        assert len(list((out / "transactions").iterdir())) == partitions
        tables.append((read(out / "transactions"), read(out / "customers")))
    assert tables[0] == tables[1] == tables[2]
    assert tables[0][0].schema == TRANSACTIONS
    assert tables[0][0]["transaction_id"].to_pylist() == list(range(rows))


def test_a_block_repeats_no_other(tmp_path: Path) -> None:
    make_transactions(tmp_path, 2 * BLOCK, 1)
    amounts = np.nan_to_num(read(tmp_path / "transactions")["amount"].to_numpy())
    assert np.mean(amounts[:BLOCK] == amounts[BLOCK:]) < 0.01


def test_the_seed_decides_the_rows(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        make_transactions(tmp_path / name, 2_000, seed=seed)
    for folder in ("transactions", "customers"):
        a, b, c = (read(tmp_path / name / folder) for name in "abc")
        assert a == b
        assert a.num_rows == c.num_rows
        assert a != c


def test_what_the_columns_hold(transactions: pl.DataFrame, customers: pl.DataFrame) -> None:
    amount, day = pl.col("amount"), pl.col("ts").dt.date()
    assert value(transactions, amount.is_null().mean()) == pytest.approx(0.03, abs=0.005)
    assert value(transactions, amount.min()) > 0
    assert transactions.drop("amount").null_count().sum_horizontal().item() == 0
    assert value(transactions, pl.col("fraud").mean()) == pytest.approx(0.02, abs=0.005)
    assert set(transactions["fraud"]) == {0, 1}
    assert set(transactions["country"]) == set(COUNTRIES)
    assert set(transactions["channel"]) == set(CHANNELS)
    assert value(transactions, day.n_unique()) == 180
    assert transactions.select(day).to_series().is_sorted()
    assert value(transactions, day.min().cast(pl.String)) == "2025-01-01"
    assert customers["customer_id"].to_list() == list(range(ROWS // 50))
    assert set(transactions["customer_id"]) <= set(customers["customer_id"])
    assert set(customers["segment"]) == set(SEGMENTS)
    assert 0 < value(customers, pl.col("age").is_null().mean()) < 0.1
    assert value(customers, pl.col("signup").max()) < value(transactions, pl.col("ts").min())


def test_some_customers_and_merchants_are_busy(transactions: pl.DataFrame) -> None:
    count = pl.col("count")
    by_customer = transactions["customer_id"].value_counts()
    assert value(by_customer, count.max() / count.median()) > 10
    by_merchant = transactions["merchant"].value_counts()
    assert by_merchant.height > 1_000
    assert value(by_merchant, count.max() / count.median()) > 100


def test_fraud_follows_night_amount_country_and_customer(transactions: pl.DataFrame, customers: pl.DataFrame) -> None:
    usual = pl.col("amount").median().over("customer_id")
    frame = transactions.join(customers, on="customer_id").with_columns(ratio=pl.col("amount") / usual)

    def rate(condition: pl.Expr) -> Any:
        return value(frame.filter(condition), pl.col("fraud").mean())

    night, abroad = pl.col("ts").dt.hour() < 6, pl.col("country") != pl.col("home_country")
    assert rate(night) > 2 * rate(~night)
    assert rate(abroad) > 2 * rate(~abroad)
    assert rate(pl.col("ratio") > 3) > 4 * rate(pl.col("ratio") <= 1)
    counts = frame.group_by("customer_id").agg(pl.len(), pl.col("fraud").sum()).filter(pl.col("len") > 100)
    expected = pl.col("len") * pl.col("fraud").sum() / pl.col("len").sum()
    # Were customers alike, the counts would be about Poisson: variance and mean equal.
    assert value(counts, ((pl.col("fraud") - expected) ** 2 / expected).mean()) > 2


def test_the_usual_amount_is_not_given_away(transactions: pl.DataFrame, customers: pl.DataFrame) -> None:
    usual = transactions.group_by("customer_id").agg(pl.col("amount").log().mean())
    joined = customers.join(usual, on="customer_id")
    correlation = joined.select(pl.corr(pl.col("credit_limit").log(), "amount")).item()
    assert 0.4 < correlation < 0.9


def test_the_peer_learns_from_it_but_not_everything(data: Path, tmp_path: Path) -> None:
    measured = fraud_polars.main(data, tmp_path, explain_rows=200)
    assert 0.8 < measured["auc"] < 0.97
    assert measured["features"] == 25
    assert measured["rows"] == ROWS
    assert measured["test_rows"] == pytest.approx(ROWS / 4, rel=0.05)
    assert list(measured["steps"]) == ["etl", "train", "predict", "explain", "write"]
    assert pl.read_parquet(tmp_path / "features.parquet").height == ROWS
    predictions = pl.read_parquet(tmp_path / "predictions.parquet")
    assert predictions.height == measured["test_rows"]
    explanations = pl.read_parquet(tmp_path / "explanations.parquet").join(predictions, on="id")
    assert explanations.height == 200
    margin = explanations.select(pl.sum_horizontal(pl.exclude("id", "score", "class"))).to_series()
    score = explanations["score"].cast(pl.Float64)
    np.testing.assert_allclose(margin, np.log(score / (1 - score)), atol=1e-3)


def test_fraud_yaml_fits_the_data(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(data.parent)
    spec = load_spec(FRAUD_YAML)
    joins = {i: operation for i, operation in enumerate(spec.tables) if isinstance(operation, Join)}
    sides = {i: inspect(join.with_.path) for i, join in joins.items()}
    inspected = inspect(spec.data.path)
    program = etl.outline(spec.job, inspected, sides, Store(str(tmp_path)))
    made = set(features.check(spec.job, program.output()))
    peer = {name.split("=")[0] for name in fraud_polars.make_features(data).columns}
    assert {name.split("=")[0] for name in made} == peer - set(fraud_polars.KEPT_BACK)


def test_progress_counts_the_rows(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    made = make_transactions(tmp_path, 1_000, 4, progress=lambda done, rows: seen.append((done, rows)))
    assert seen == [(250, 1_000), (500, 1_000), (750, 1_000), (1_000, 1_000)]
    fraud = read(tmp_path / "transactions")["fraud"].to_pylist()
    assert made["fraud"] == sum(fraud)
    assert (made["rows"], made["partitions"], made["customers"]) == (1_000, 4, 100)


def test_a_second_run_replaces_the_files_of_the_first(tmp_path: Path) -> None:
    make_transactions(tmp_path, 1_000, 8)
    (tmp_path / "transactions" / "notes.txt").write_text("not a part file")
    make_transactions(tmp_path, 90, 2)
    names = sorted(path.name for path in (tmp_path / "transactions").iterdir())
    assert names == ["notes.txt", "part-00000.parquet", "part-00001.parquet"]
    assert sum(pq.read_metadata(p).num_rows for p in (tmp_path / "transactions").glob("*.parquet")) == 90
    assert sorted(path.name for path in tmp_path.iterdir()) == ["customers", "transactions"]


def test_a_run_that_stops_leaves_what_was_there(tmp_path: Path) -> None:
    make_transactions(tmp_path, 1_000, 2)
    before = read(tmp_path / "transactions"), read(tmp_path / "customers")

    def stop(done: int, rows: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_transactions(tmp_path, 2_000, 4, seed=8, progress=stop)
    assert (read(tmp_path / "transactions"), read(tmp_path / "customers")) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["customers", "transactions"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"rows": 0, "partitions": 1}, "rows is 0; ask for at least 1"),
        ({"rows": 10, "partitions": 0}, "partitions is 0; .* choose 1 to 10"),
        ({"rows": 10, "partitions": 11}, "partitions is 11; each needs a row, so for 10 rows choose 1 to 10"),
        ({"rows": 10, "partitions": 1, "customers": 0}, "customers is 0; ask for at least 1"),
        ({"rows": 10, "partitions": 1, "seed": -1}, "seed is -1; choose a whole number from 0"),
    ],
)
def test_numbers_out_of_range_are_refused(tmp_path: Path, arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(RequestError, match=words):
        make_transactions(tmp_path / "out", **arguments)
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(StorageError, match=r"cannot be written to '.*taken': .* another folder with --out"):
        make_transactions(tmp_path / "taken", 100, 1)
