"""The work of benchmarks/etl.yaml by plain dask.dataframe on a local cluster, as its documentation would have it.

    python -m treadle.benchmarks.peers.etl_dask DATA OUT

DATA is what `treadle make-data transactions` wrote; the features go to OUT as zstd Parquet.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import dask.dataframe as dd
import numpy as np
import pandas as pd
from distributed import Client, LocalCluster

from treadle.benchmarks.peers.etl_result import described

IMPUTED = ("amount", "log_amount", "amount_ratio", "customer_std", "sum_7d", "age")
LEVELS = ("channel", "segment")
LEFT_OUT = ["customer_id", "merchant", "country", "home_country", "signup", "ts", "fraud"]


def with_sums(frame: pd.DataFrame) -> pd.DataFrame:
    """The sum of the last seven days of every row; all rows of a customer are in the frame."""
    ordered = frame.sort_values(["customer_id", "ts"], kind="stable")
    rolling = ordered.set_index("ts").groupby("customer_id", sort=True)["amount"].rolling("7D", min_periods=1)
    return ordered.assign(sum_7d=rolling.sum().to_numpy())


def prepare(data: Path) -> Any:
    transactions = dd.read_parquet(f"{data}/transactions")
    customers = dd.read_parquet(f"{data}/customers")
    by_customer = transactions.groupby("customer_id")
    sums = by_customer.amount.agg(["mean", "std", "max"]).rename(columns="customer_{}".format)
    sums = sums.assign(customer_count=by_customer.size(), customer_merchants=by_customer.merchant.nunique())
    # One small table in memory: merges of several lazy ones fail in its optimiser at some numbers of partitions.
    customers = customers.merge(sums.reset_index(), on="customer_id").compute()
    frame = transactions.merge(customers, on="customer_id", how="left").shuffle("customer_id")
    meta = frame._meta.assign(sum_7d=0.0)
    frame = frame.map_partitions(with_sums, meta=meta)
    return frame.assign(
        log_amount=np.log1p(frame.amount),
        night=(frame.ts.dt.hour < 6).astype("int64"),
        amount_ratio=frame.amount / frame.customer_mean,
    ).drop(columns=LEFT_OUT)


def main(data: Path, out: Path) -> dict[str, float]:
    """Runs the work; the table between both passes is kept on the workers, and spilled by them."""
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster, Client(cluster):
        frame = prepare(data).persist()
        medians = frame[list(IMPUTED)].quantile(0.5).compute()
        frame = frame.fillna({name: float(medians[name]) for name in IMPUTED})
        frame = dd.get_dummies(frame.categorize(columns=list(LEVELS)), columns=list(LEVELS), prefix_sep="=")
        names = [name for name in frame.columns if name != "transaction_id"]
        frame.astype(dict.fromkeys(names, "float32")).to_parquet(str(out), compression="zstd", write_index=False)
    return described(out)


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), Path(sys.argv[2]))))
