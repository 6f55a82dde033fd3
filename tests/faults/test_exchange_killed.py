"""Workers that are killed while rows are exchanged, grouped, windowed and written: the table is the same."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import pytest
from distributed import LocalCluster

from tests.conftest import two_workers
from treadle.engine import exchange, sides
from treadle.jobs.make_data import make_transactions
from treadle.jobs.runner import run

TABLES: list[dict[str, Any]] = [
    {"op": "derive", "name": "cents", "sql": "cast(coalesce(amount, 0) * 100 as integer)"},
    {
        "op": "aggregate",
        "by": ["merchant"],
        "broadcast": True,
        "aggregations": {"customers": {"function": "nunique", "column": "customer_id"}},
    },
    {"op": "dedupe", "columns": ["customer_id", "merchant", "channel"], "keep": "last", "order": "ts"},
    {
        "op": "window",
        "by": ["customer_id"],
        "order": "ts",
        "outputs": {"week": {"function": "rolling_sum", "column": "cents", "span": "7d"}},
    },
    {"op": "join", "with": {"path": "CUSTOMERS"}, "on": ["customer_id"]},
    {
        "op": "aggregate",
        "by": ["country"],
        "broadcast": True,
        "aggregations": {"middle": {"function": "median", "column": "cents"}},
    },
]
"""Exchanges for a group table, for rows twice, for both sides of a join, and for a group table of these."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("transactions")
    make_transactions(folder, 12_000, 6)
    return folder


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """One of its own, whose workers are killed."""
    with two_workers(tmp_path_factory.mktemp("dask")) as cluster:
        yield cluster


@pytest.fixture(autouse=True)
def _small_buckets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Buckets are counted, and the sizes of tables compared, in this process."""
    monkeypatch.setattr(exchange, "BUCKET_BYTES", 200_000)
    monkeypatch.setattr(sides, "BROADCAST_BYTES", 1000)


def table(data: Path, cluster: LocalCluster, root: Path, kill_at: int | None = None) -> tuple[pd.DataFrame, int]:
    """The table `etl`, and how many tasks of the stage were done; a worker is killed when `kill_at` of them are."""
    spec = {
        "apiVersion": "treadle/v1",
        "name": "exchanged",
        "data": {"path": str(data / "transactions"), "id": "transaction_id", "partitions": 6},
        "tables": [{**t, "with": {**t["with"], "path": str(data / "customers")}} if "with" in t else t for t in TABLES],
        "cluster": {"profile": "address", "address": cluster.scheduler_address},
    }
    done = 0

    def listen(event: dict[str, Any]) -> None:
        nonlocal done
        if event["stage"] == "etl" and event["event"] == "progress":
            done += 1
            if done == kill_at:
                worker = cluster.workers[done % 2]
                psutil.Process(worker.pid).kill()  # type: ignore[attr-defined]

    found = run(spec, root=str(root), listener=listen).table("etl").to_pandas()
    return found.sort_values("transaction_id", ignore_index=True), done


@pytest.fixture(scope="module")
def undisturbed(
    data: Path, cluster: LocalCluster, tmp_path_factory: pytest.TempPathFactory
) -> tuple[pd.DataFrame, int]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exchange, "BUCKET_BYTES", 200_000)
        patch.setattr(sides, "BROADCAST_BYTES", 1000)
        return table(data, cluster, tmp_path_factory.mktemp("undisturbed"))


@pytest.mark.parametrize(
    "share",
    [
        0.1,
        pytest.param(0.3, marks=pytest.mark.slow),
        pytest.param(0.55, marks=pytest.mark.slow),
        pytest.param(0.8, marks=pytest.mark.slow),
        pytest.param(0.95, marks=pytest.mark.slow),
    ],
)
def test_a_worker_killed_in_the_stage_etl(
    data: Path, cluster: LocalCluster, undisturbed: tuple[pd.DataFrame, int], tmp_path: Path, share: float
) -> None:
    expected, tasks = undisturbed
    assert tasks > 40, "rows were exchanged several times"
    found, _ = table(data, cluster, tmp_path, max(int(share * tasks), 1))
    pd.testing.assert_frame_equal(found, expected)
    assert not list((tmp_path / "stages").rglob("*.arrow")), "exchanged rows are removed"
    assert not list(tmp_path.rglob("*.tmp"))
