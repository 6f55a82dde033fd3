"""ETL by Treadle, Polars, DuckDB and plain Dask: the same features of the same transactions, each in a process.

The work is that of benchmarks/etl.yaml: a join, aggregates and a rolling sum per customer, medians for what is
missing, one-hot columns, and float32 features as zstd Parquet. Sides take turns. CPU seconds, of all processes of
a side, and their ratios are what to compare; wall seconds are of this machine at that moment.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dask.utils import parse_bytes

from treadle.benchmarks.machine import described
from treadle.benchmarks.process import measured
from treadle.benchmarks.report import Say, written
from treadle.benchmarks.sides import REMEDY, installed
from treadle.errors import RequestError
from treadle.jobs.make_data import make_transactions

PEERS = ("polars", "duckdb", "dask")
LIBRARIES = ("treadle", "dask", "distributed", "pandas", "pyarrow", "polars", "duckdb", "numpy", "numba")


def run(
    rows: int,
    repeats: int,
    data: Path | None,
    memory: str | None,
    peers: Sequence[str],
    out: Path | None,
    say: Say,
) -> dict[str, Any]:
    """Measures all sides on `data`, which `treadle make-data` wrote, or on so many new rows; writes and returns it.

    `memory` limits each of Treadle's workers, and DuckDB as a whole to as much as both of them.

    Raises
    ------
    RequestError
        A peer is not known or not installed.
    TreadleError
        A side did not end well.
    """
    for peer in peers:
        if peer not in PEERS:
            raise RequestError(f"bench etl: '{peer}' is no peer. Allowed: [{', '.join(PEERS)}].")
        if not installed(peer):
            raise RequestError(f"bench etl: {peer} is {REMEDY}.")
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in ("treadle", *peers)}
    with tempfile.TemporaryDirectory() as scratch:
        if data is None:
            make_transactions(Path(scratch), rows)
        folder = (data or Path(scratch)).resolve()
        for number in range(repeats):
            for name, turns in found.items():
                turns.append(_turn(name, folder, memory))
                spent = turns[-1]["process_wall_seconds"], turns[-1]["process_cpu_seconds"]
                say(f"turn {number + 1} of {repeats}: {name:<8}{spent[0]:>8.1f} s{spent[1]:>9.1f} CPU s")
    result = {
        "benchmark": "etl",
        "rows": rows,
        "repeats": repeats,
        "memory": memory,
        **described(LIBRARIES),
        "table": [_row(name, turns) for name, turns in found.items()],
        "differences": differences(found),
        "turns": found,
    }
    show(result, say)
    limited = f"-{memory}" if memory else ""
    written(result, f"etl-{rows}{limited}-cpu", out, whole=set(peers) == set(PEERS) or bool(memory), say=say)
    return result


def _turn(name: str, data: Path, memory: str | None) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as scratch:
        if name == "treadle":
            return measured(["-m", "treadle.benchmarks.etl_job", str(data), scratch, *([memory] if memory else [])])
        # Ours are two workers with so much each.
        limit = [f"{2 * parse_bytes(memory)}B"] if memory and name == "duckdb" else []
        made = measured(["-m", f"treadle.benchmarks.peers.etl_{name}", str(data), f"{scratch}/out", *limit])
        own = ("process_wall_seconds", "process_cpu_seconds", "process_peak_bytes")
        return {**{key: made.pop(key) for key in own}, "features": made}


def _row(name: str, turns: Sequence[dict[str, Any]]) -> dict[str, Any]:
    row: dict[str, Any] = {"side": name}
    for clock in ("wall_seconds", "cpu_seconds"):
        row[clock] = statistics.median(turn[f"process_{clock}"] for turn in turns)
    row["peak_bytes"] = max(turn.get("peak_bytes", turn["process_peak_bytes"]) for turn in turns)
    return row


def differences(found: dict[str, list[dict[str, Any]]]) -> dict[str, dict[str, float]]:
    """Of each peer the features whose sums differ by more than rounding, relative to ours."""
    ours = found["treadle"][-1]["features"]
    out = {}
    for name, turns in found.items():
        theirs = turns[-1]["features"]
        apart = {key: abs(theirs.get(key, 0.0) - value) / max(abs(value), 1.0) for key, value in ours.items()}
        out[name] = {key: value for key, value in apart.items() if value > 1e-6}
    return out


def show(result: dict[str, Any], say: Say) -> None:
    """The table, as it stands in docs."""
    ours = result["table"][0]["cpu_seconds"]
    say(f"{'side':<10}{'wall s':>10}{'CPU s':>10}{'us a row':>10}{'peak GiB':>10}{'our CPU / theirs':>18}")
    for row in result["table"]:
        a_row = row["cpu_seconds"] / result["rows"] * 1e6
        say(
            f"{row['side']:<10}{row['wall_seconds']:>10.1f}{row['cpu_seconds']:>10.1f}{a_row:>10.2f}"
            f"{row['peak_bytes'] / 2**30:>10.2f}{ours / row['cpu_seconds']:>18.2f}"
        )
    for name, apart in result["differences"].items():
        for feature, share in apart.items():
            say(f"{name}: the sum of {feature} differs by {share:.2%}")
