"""What versions cost: a commit of many files, opening a table with many versions, a manifest, a job that is cached.

A commit is measured beside deltalake's own of the same files: that one looks at nothing, ours opens every file. Both
open the same table. The cached job is that of fraud.yaml; the start of its cluster is told by itself.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from treadle.benchmarks.machine import described
from treadle.benchmarks.process import measured
from treadle.benchmarks.report import Say, written
from treadle.jobs.make_data import make_transactions

LIBRARIES = ("treadle", "deltalake", "pyarrow", "fsspec", "dask", "distributed", "pandas")
ROWS_OF_FILE = 100


def run(files: int, versions: int, rows: int, repeats: int, out: Path | None, say: Say) -> dict[str, Any]:
    """Measures all of it; writes and returns the result.

    Raises
    ------
    TreadleError
        The job did not end well.
    """
    result: dict[str, Any] = {
        "benchmark": "versions",
        **_sizes(files, versions, rows),
        "repeats": repeats,
        **described(LIBRARIES),
    }
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch).resolve()
        result["commit"] = _commits(folder / "commit", files, repeats)
        say(_line(f"commit of {files} files", result["commit"]))
        result["open"] = _opening(folder / "open", versions, repeats)
        say(_line(f"open a table with {versions} versions", result["open"]))
        result["job"] = _job(folder, rows, repeats, say)
    job = result["job"]
    say(f"manifest of {job['manifest_bytes']:,} bytes read in {1000 * job['manifest_seconds']:.1f} ms")
    say(
        f"fraud at {rows:,} rows, all stages cached: {job['cached_seconds']:.2f} s without the cluster's start of "
        f"{job['cluster_start_seconds']:.2f} s; nothing changed: {job['unchanged_seconds']:.2f} s in all"
    )
    written(result, "versions-cpu", out, whole=(files, versions, rows) == (1000, 1000, 1_000_000), say=say)
    return result


def _sizes(files: int, versions: int, rows: int) -> dict[str, int]:
    return {"files_of_commit": files, "versions_of_table": versions, "rows_of_job": rows}


def _line(what: str, found: dict[str, float]) -> str:
    return f"{what}: {found['treadle_seconds']:.3f} s; deltalake alone {found['deltalake_seconds']:.3f} s"


def _medians(sides: dict[str, Callable[[int], object]], repeats: int) -> dict[str, float]:
    """Wall and CPU seconds of each side, which take turns; medians."""
    wall: dict[str, list[float]] = {side: [] for side in sides}
    cpu: dict[str, list[float]] = {side: [] for side in sides}
    for number in range(repeats):
        for side, work in sides.items():
            started, spent = time.perf_counter(), time.process_time()
            work(number)
            wall[side].append(time.perf_counter() - started)
            cpu[side].append(time.process_time() - spent)
    found = {f"{side}_seconds": statistics.median(turns) for side, turns in wall.items()}
    return found | {f"{side}_cpu_seconds": statistics.median(turns) for side, turns in cpu.items()}


def _files(folder: Path, count: int) -> list[Any]:
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    from treadle.engine.delta_files import DataFile

    folder.mkdir(parents=True)
    made = []
    for number in range(count):
        ids = np.arange(number * ROWS_OF_FILE, (number + 1) * ROWS_OF_FILE)
        path = folder / f"{number}.parquet"
        pq.write_table(pa.table({"id": ids, "score": ids / 7, "class": [str(i % 2) for i in ids]}), path)
        made.append(DataFile(str(path), ROWS_OF_FILE, path.stat().st_size))
    return made


def _commits(folder: Path, count: int, repeats: int) -> dict[str, float]:
    """A commit of so many files into a new table: placed, checked, committed; and deltalake's of what lies there."""
    import fsspec
    import pyarrow.parquet as pq
    from deltalake import Schema
    from deltalake.transaction import AddAction, create_table_with_add_actions

    from treadle.engine.commits import commit_table

    fs, made = fsspec.filesystem("file"), _files(folder / "files", count)
    schema = pq.read_schema(made[0].path)

    def ours(number: int) -> None:
        path = str(folder / f"ours-{number}")
        commit_table(fs, path, made, schema, fingerprint="0" * 16, metadata={"treadle.run": "bench"})

    def alone(_: int) -> None:
        adds = [
            AddAction(Path(file.path).name, file.bytes, {}, 0, True, json.dumps({"numRecords": file.rows}))
            for file in made
        ]
        log = folder / "files" / "_delta_log"
        for old in log.glob("*"):
            old.unlink()
        create_table_with_add_actions(str(folder / "files"), Schema.from_arrow(schema), adds)

    return _medians({"treadle": ours, "deltalake": alone}, repeats)


def _opening(folder: Path, versions: int, repeats: int) -> dict[str, float]:
    """Opening a table, and naming the files of its newest version."""
    import fsspec
    import pyarrow.parquet as pq
    from deltalake import DeltaTable

    from treadle.engine import delta
    from treadle.engine.commits import commit_table

    fs, made = fsspec.filesystem("file"), _files(folder / "files", 2)
    schema, path = pq.read_schema(made[0].path), str(folder / "table")
    for number in range(versions):
        metadata = {"treadle.run": f"run-{number}"}
        commit_table(fs, path, [made[number % 2]], schema, fingerprint=f"{number:016d}", metadata=metadata)
    return _medians(
        {
            "treadle": lambda _: delta.data_files(delta.open_table(fs, path)),
            "deltalake": lambda _: DeltaTable(path).file_uris(),
        },
        repeats,
    )


def _job(folder: Path, rows: int, repeats: int, say: Say) -> dict[str, float]:
    """The job once from nothing, then again and again: elsewhere than before, so that it runs, and unchanged."""
    data, root = folder / "data", folder / "root"
    make_transactions(data, rows, 8)
    first = measured(["-m", "treadle.benchmarks.versions_job", str(data), str(root), "cpu"])
    say(f"fraud at {rows:,} rows, from nothing: {first['seconds']:.1f} s")
    cached: list[dict[str, Any]] = []
    unchanged: list[dict[str, Any]] = []
    for _ in range(repeats):
        # Another device in the spec makes another spec of the same stages.
        cached.append(measured(["-m", "treadle.benchmarks.versions_job", str(data), str(root), "auto", "execute"]))
        unchanged.append(measured(["-m", "treadle.benchmarks.versions_job", str(data), str(root), "cpu"]))

    def median(turns: Sequence[dict[str, Any]], key: str) -> float:
        return statistics.median(turn[key] for turn in turns)

    return {
        "first_seconds": first["seconds"],
        "first_cpu_seconds": first["process_cpu_seconds"],
        "cached_seconds": median(cached, "seconds") - median(cached, "cluster_start_seconds"),
        "cached_cpu_seconds": median(cached, "process_cpu_seconds"),
        "cluster_start_seconds": median(cached, "cluster_start_seconds"),
        "unchanged_seconds": median(unchanged, "seconds"),
        "unchanged_process_seconds": median(unchanged, "process_wall_seconds"),
        "manifest_seconds": median(cached, "manifest_seconds"),
        "manifest_bytes": median(cached, "manifest_bytes"),
    }
