"""The work of benchmarks/etl.yaml by Polars' streaming engine.

    python -m treadle.benchmarks.peers.etl_polars DATA OUT

DATA is what `treadle make-data transactions` wrote; the features go to OUT as zstd Parquet.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

os.environ.setdefault("POLARS_MAX_THREADS", "2")

import polars as pl

from treadle.benchmarks.peers.etl_result import described
from treadle.benchmarks.peers.transactions import per_customer

IMPUTED = ("amount", "log_amount", "amount_ratio", "customer_std", "sum_7d", "age")
LEVELS = ("channel", "segment")
LEFT_OUT = ("customer_id", "merchant", "country", "home_country", "signup", "ts", "fraud")


def main(data: Path, out: Path) -> dict[str, float]:
    """Runs the work; the table between both passes is held in memory."""
    out.mkdir(parents=True, exist_ok=True)
    transactions = pl.scan_parquet(data / "transactions" / "*.parquet")
    customers = pl.scan_parquet(data / "customers" / "*.parquet")
    seven_days = pl.col("amount").rolling_sum_by("ts", window_size="7d").over("customer_id")
    frame = (
        transactions.join(customers.join(per_customer(transactions), on="customer_id"), on="customer_id", how="left")
        .sort("customer_id", "ts")
        .with_columns(
            log_amount=pl.col("amount").log1p(),
            night=(pl.col("ts").dt.hour() < 6).cast(pl.Int64),
            sum_7d=seven_days,
            amount_ratio=pl.col("amount") / pl.col("customer_mean"),
        )
        .drop(LEFT_OUT)
        .collect(engine="streaming")
    )
    medians = frame.select(pl.col(IMPUTED).median()).row(0, named=True)
    levels = {name: frame[name].unique().sort().drop_nulls() for name in LEVELS}
    features = frame.lazy().with_columns(
        *(pl.col(name).cast(pl.Float64).fill_null(value) for name, value in medians.items()),
        *((pl.col(name) == level).alias(f"{name}={level}") for name in LEVELS for level in levels[name]),
    )
    features = features.drop(LEVELS).with_columns(pl.exclude("transaction_id").cast(pl.Float32))
    features.sink_parquet(out / "features.parquet", compression="zstd", row_group_size=131_072)
    return described(out)


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), Path(sys.argv[2]))))
