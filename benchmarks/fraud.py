"""fraud.yaml by Treadle, and the same work written by hand in Polars + XGBoost, in turn, as one table.

Every run is a process of its own. Wall seconds are of this machine at that moment; CPU seconds
(of all processes) and the ratio of the medians are what to compare. Both sides train the same
number of trees on the same features and explain every test row.
"""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path
from typing import Any

from treadle.benchmarks.machine import described
from treadle.benchmarks.process import measured
from treadle.benchmarks.report import Say, written
from treadle.benchmarks.sides import REMEDY, installed
from treadle.errors import RequestError
from treadle.jobs.make_data import make_transactions

STEPS = {
    "etl and features": (("read", "etl", "split", "features"), ("etl",)),
    "train": (("train:xgboost",), ("train",)),
    "predict, evaluate, explain": (("evaluate", "predict", "explain"), ("predict", "explain")),
    "publish / write": (("publish",), ("write",)),
}
"""Rows of the table: the engine's stages and the peer's steps that do the same work."""
LIBRARIES = ("treadle", "dask", "pandas", "pyarrow", "polars", "xgboost", "numpy")


def compare(data: Path, repeats: int, say: Say) -> list[dict[str, Any]]:
    """Engine and peer in turn, `repeats` times each."""
    pairs = []
    for number in range(repeats):
        with tempfile.TemporaryDirectory() as scratch:
            ours = measured(["-m", "treadle.benchmarks.fraud_job", str(data), f"{scratch}/root"])
            peer = measured(["-m", "treadle.benchmarks.peers.fraud_polars", str(data), f"{scratch}/peer"])
        pairs.append({"treadle": ours, "polars": peer})
        say(
            f"pair {number + 1} of {repeats}: {ours['process_wall_seconds']:.0f} s "
            f"and {peer['process_wall_seconds']:.0f} s"
        )
    return pairs


def table(pairs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Medians by step, wall and CPU seconds of both, and the ratio of CPU seconds."""
    rows = []
    for step, (stages, steps) in STEPS.items():
        row: dict[str, Any] = {"step": step}
        for clock in ("wall_seconds", "cpu_seconds"):
            ours = [sum(p["treadle"]["stages"][s][clock] for s in stages) for p in pairs]
            peer = [sum(p["polars"]["steps"][s][clock] for s in steps) for p in pairs]
            row[f"treadle_{clock}"] = statistics.median(ours)
            row[f"polars_{clock}"] = statistics.median(peer)
        rows.append(row)
    whole: dict[str, Any] = {"step": "whole process"}
    for clock in ("wall_seconds", "cpu_seconds"):
        for name in ("treadle", "polars"):
            whole[f"{name}_{clock}"] = statistics.median(p[name][f"process_{clock}"] for p in pairs)
    return [*rows, whole]


def added(pairs: list[dict[str, Any]]) -> dict[str, float]:
    """What the engine adds to the work itself: planning with hashing, and publishing; medians of wall seconds."""
    plan = statistics.median(p["treadle"]["plan_seconds"] for p in pairs)
    publish = statistics.median(p["treadle"]["stages"]["publish"]["wall_seconds"] for p in pairs)
    whole = statistics.median(p["treadle"]["process_wall_seconds"] for p in pairs)
    start = statistics.median(p["treadle"]["cluster_start_seconds"] for p in pairs)
    return {
        "plan_seconds": plan,
        "publish_seconds": publish,
        "share_of_job": (plan + publish) / whole,
        "cluster_start_seconds": start,
    }


def run(rows: int, repeats: int, data: Path | None, out: Path | None, say: Say) -> dict[str, Any]:
    """Measures the job on `data`, which `treadle make-data` wrote, or on so many new rows; writes and returns it.

    Raises
    ------
    RequestError
        Polars is not installed.
    TreadleError
        One of the two did not end well.
    StorageError
        The result cannot be written.
    """
    if not installed("polars"):
        raise RequestError(f"bench fraud: polars is {REMEDY}.")
    with tempfile.TemporaryDirectory() as scratch:
        if data is None:
            make_transactions(Path(scratch), rows)
        pairs = compare((data or Path(scratch)).resolve(), repeats, say)
    result = {
        "benchmark": "fraud",
        "rows": rows,
        "repeats": repeats,
        **described(LIBRARIES),
        "table": table(pairs),
        "added": added(pairs),
        "auc": {name: [p[name]["auc"] for p in pairs] for name in ("treadle", "polars")},
        "peak_bytes": {name: max(p[name]["peak_bytes"] for p in pairs) for name in ("treadle", "polars")},
        "pairs": pairs,
    }
    show(result, say)
    written(result, f"fraud-{rows}-cpu", out, whole=True, say=say)
    return result


def show(result: dict[str, Any], say: Say) -> None:
    """The table, as it stands in docs."""
    say(f"{'step':<28}{'treadle wall':>14}{'cpu':>9}{'polars wall':>14}{'cpu':>9}{'cpu ratio':>11}")
    for row in result["table"]:
        ours, peer = row["treadle_cpu_seconds"], row["polars_cpu_seconds"]
        say(
            f"{row['step']:<28}{row['treadle_wall_seconds']:>14.2f}{ours:>9.2f}"
            f"{row['polars_wall_seconds']:>14.2f}{peer:>9.2f}{ours / peer:>11.2f}"
        )
    extra = result["added"]
    say(
        f"planning {extra['plan_seconds']:.2f} s + publishing {extra['publish_seconds']:.2f} s = "
        f"{extra['share_of_job']:.1%} of the job; cluster start {extra['cluster_start_seconds']:.1f} s"
    )
    peak = result["peak_bytes"]
    say(
        f"peak memory: treadle {peak['treadle'] / 2**30:.2f} GiB (all processes), "
        f"polars {peak['polars'] / 2**30:.2f} GiB"
    )
    say(f"AUC: treadle {result['auc']['treadle']}, polars {result['auc']['polars']}")
