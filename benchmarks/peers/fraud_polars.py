"""The job of jobs/examples/fraud.yaml by hand: Polars for the tables, XGBoost's own interface for the model.

    python -m treadle.benchmarks.peers.fraud_polars DATA OUT

DATA is what `treadle make-data transactions` wrote. Features, predictions and explanations go to
OUT as zstd Parquet, and one line of JSON about cost and quality to standard output.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import platform
import resource
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import xgboost as xgb

from treadle.benchmarks.peers.transactions import per_customer

THREADS = 2
TREES = 100
PARAMS = {"objective": "binary:logistic", "tree_method": "hist", "max_depth": 6, "eta": 0.1, "seed": 7}
TEST_PERCENT = 25
SEED = 7
IMPUTED = ("amount", "log_amount", "amount_ratio", "customer_std", "age")
KEPT_BACK = ("transaction_id", "fraud", "test")


@dataclass
class Meter:
    """Wall and CPU seconds of each step, and the most memory that the process had held when it ended."""

    steps: dict[str, dict[str, float]] = field(default_factory=dict)

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[None]:
        wall, cpu = time.perf_counter(), time.process_time()
        yield
        self.steps[name] = {
            "wall_seconds": time.perf_counter() - wall,
            "cpu_seconds": time.process_time() - cpu,
            "peak_bytes": peak_bytes(),
        }


def peak_bytes() -> int:
    """The process's highest resident size so far."""
    unit = 1 if platform.system() == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def make_features(data: Path) -> pl.DataFrame:
    """One row a transaction: its id, `test`, `fraud`, and 25 float32 features.

    Everything that does not depend on the training rows is one lazy query; the medians and
    levels of the training rows are then put in. The test rows are drawn by a hash of the id, so
    they are not those of the engine, which also stratifies.
    """
    transactions = pl.scan_parquet(data / "transactions" / "*.parquet")
    customers = pl.scan_parquet(data / "customers" / "*.parquet")
    known = customers.join(per_customer(transactions), on="customer_id")
    ts = pl.col("ts")
    # XGBoost's cuts depend on the order of the rows, and with them the AUC's third decimal.
    frame = (
        transactions.join(known, on="customer_id", how="left", maintain_order="left")
        .with_columns(
            test=pl.col("transaction_id").hash(SEED) % 100 < TEST_PERCENT,
            amount_missing=pl.col("amount").is_null(),
            log_amount=pl.col("amount").log1p(),
            amount_ratio=pl.col("amount") / pl.col("customer_mean"),
            ts_hour=ts.dt.hour(),
            ts_weekday=ts.dt.weekday() - 1,
            night=ts.dt.hour() < 6,
            abroad=(pl.col("country") != pl.col("home_country")).fill_null(False),
            days_since_signup=ts.dt.date().cast(pl.Int32) - pl.col("signup").dt.date().cast(pl.Int32),
        )
        .drop("customer_id", "merchant", "home_country", "signup", "ts")
        .collect()
    )
    training = frame.filter(~pl.col("test"))
    medians = training.select(pl.col(IMPUTED).median()).row(0, named=True)
    levels = {name: training[name].unique().sort().drop_nulls() for name in ("channel", "segment", "country")}
    frame = frame.with_columns(
        *(pl.col(name).fill_null(value) for name, value in medians.items()),
        *((pl.col(n) == level).alias(f"{n}={level}") for n in ("channel", "segment") for level in levels[n]),
        pl.col("country").cast(pl.Enum(levels["country"]), strict=False).to_physical(),
    ).drop("channel", "segment")
    return frame.with_columns(pl.exclude(KEPT_BACK).cast(pl.Float32))


def auc(labels: np.ndarray, scores: np.ndarray) -> float:
    """Area under the ROC curve, from the ranks of the positive rows (Mann and Whitney)."""
    ranks = pl.Series(scores).rank().to_numpy()
    positive = int(labels.sum())
    least = positive * (positive + 1) / 2
    return float((ranks[labels == 1].sum() - least) / (positive * (len(labels) - positive)))


def main(data: Path, out: Path, explain_rows: int | None = None) -> dict[str, Any]:
    """Runs the job and measures its steps; explains the first `explain_rows` test rows, or all of them."""
    out.mkdir(parents=True, exist_ok=True)
    meter = Meter()
    wall, cpu = time.perf_counter(), time.process_time()
    with meter.step("etl"):
        frame = make_features(data)
    names = [name for name in frame.columns if name not in KEPT_BACK]
    with meter.step("train"):
        training = frame.filter(~pl.col("test"))
        matrix = xgb.QuantileDMatrix(
            training.select(names).to_numpy(),
            training["fraud"].to_numpy(),
            feature_names=names,
            nthread=THREADS,
        )
        booster = xgb.train({**PARAMS, "nthread": THREADS}, matrix, TREES)
        del matrix, training
    with meter.step("predict"):
        test = frame.filter(pl.col("test"))
        values = test.select(names).to_numpy()
        scores = booster.inplace_predict(values)
        quality = auc(test["fraud"].to_numpy(), scores)
    with meter.step("explain"):
        explained = xgb.DMatrix(values[:explain_rows], feature_names=names, nthread=THREADS)
        contributions = booster.predict(explained, pred_contribs=True)
    with meter.step("write"):
        ids = test.select(id="transaction_id")
        predictions = ids.with_columns(score=pl.Series(scores), **{"class": pl.Series(scores > 0.5).cast(pl.Int8)})
        columns = dict(zip([*names, "bias"], contributions.T, strict=True))
        explanations = ids.head(len(contributions)).with_columns(pl.Series(n, c) for n, c in columns.items())
        tables = {"features": frame, "predictions": predictions, "explanations": explanations}
        for name, table in tables.items():
            table.write_parquet(out / f"{name}.parquet", compression="zstd")
    return {
        "rows": frame.height,
        "test_rows": test.height,
        "explained_rows": explanations.height,
        "features": len(names),
        "auc": quality,
        "wall_seconds": time.perf_counter() - wall,
        "cpu_seconds": time.process_time() - cpu,
        "peak_bytes": peak_bytes(),
        "steps": meter.steps,
        "versions": {
            "polars": pl.__version__,
            "xgboost": xgb.__version__,
            "python": platform.python_version(),
        },
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="The fraud example by hand in Polars and XGBoost.")
    parser.add_argument("data", type=Path, help="folder that treadle make-data wrote")
    parser.add_argument("out", type=Path, help="folder for features, predictions and explanations")
    parser.add_argument("--explain-rows", type=int, help="explain this many test rows only")
    given = parser.parse_args()
    print(json.dumps(main(given.data, given.out, given.explain_rows)))
