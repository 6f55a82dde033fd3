"""What a plan expects of memory and disk, against what the footers say and what a run writes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from distributed import Client

from treadle.engine import etl, exchange, expected, job_inputs, pipeline, read, sides
from treadle.engine.backend import Backend
from treadle.engine.context import Context
from treadle.engine.events import Events
from treadle.engine.inputs import PARTITION_BYTES, row_bytes
from treadle.engine.job import Job
from treadle.engine.operation import ROW_ID
from treadle.engine.store import Store
from treadle.engine.workers import Workers
from treadle.errors import RequestError

ROWS = 6000
WIDTH = row_bytes({"id": "int", "key": "int", "amount": "float", "word": "text", ROW_ID: "int"})
SUM = {"total": {"function": "sum", "column": "amount"}}
WINDOW = {"op": "window", "by": ["key"], "order": "id", "outputs": {"n": {"function": "row_number"}}}
WINDOW_AGAIN = {"op": "window", "by": ["key"], "order": "id", "outputs": {"m": {"function": "row_number"}}}
OF_ALL = {"op": "window", "order": "id", "outputs": {"n": {"function": "row_number"}}}
AGGREGATE = {"op": "aggregate", "by": ["key"], "broadcast": True, "aggregations": SUM}
FILTER = {"op": "filter", "sql": "amount > 0.5"}
DROP = {"op": "drop", "columns": ["word"]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("expected")
    rng = np.random.default_rng(1)
    columns = {
        "id": np.arange(ROWS),
        "key": rng.integers(0, 500, ROWS),
        "amount": rng.random(ROWS),
        "word": pa.array(["a word"] * ROWS),
    }
    pq.write_table(pa.table(columns), folder / "rows.parquet", row_group_size=1000)
    return folder


def job_of(folder: Path, tables: Sequence[Mapping[str, Any]], target: str | None = None, **rest: Any) -> Job:
    data = {"path": str(folder / "rows.parquet"), "id": "id", "partitions": 3, "target": target}
    return Job(name="expected", data=data, tables=tables, **rest)  # type: ignore[arg-type]


def memory_of(job: Job, workers: Workers = Workers(2, 1, None)) -> expected.Memory:  # noqa: B008
    inputs = job_inputs.inspect(job)
    programs, features = pipeline.check(job, inputs, Store("nowhere"))
    return expected.memory(job, inputs, programs, 3, len(features), workers)


def test_of_rows_that_are_exchanged_it_says_how_many_lie_together_and_what_they_take_on_disk(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchange, "BUCKET_BYTES", 64 * 1024)
    buckets = exchange.bucket_count(ROWS, WIDTH)
    assert buckets > 2
    once = memory_of(job_of(folder, [WINDOW]))
    assert once.bucket == ROWS * WIDTH // buckets
    assert once.exchanged == ROWS * WIDTH
    # By keys that lie together already nothing is exchanged again; when they change it is.
    assert memory_of(job_of(folder, [WINDOW, AGGREGATE])).exchanged == once.exchanged
    double = {"op": "derive", "name": "key", "sql": "key * 2"}
    assert memory_of(job_of(folder, [WINDOW, double, WINDOW_AGAIN])).exchanged > 2 * once.exchanged
    assert memory_of(job_of(folder, [WINDOW, DROP])).exchanged == ROWS * (WIDTH - row_bytes({"word": "text"}) + 8)
    assert memory_of(job_of(folder, [FILTER])).exchanged == 0


def test_what_it_expects_on_disk_is_about_what_a_run_writes(
    folder: Path, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchange, "BUCKET_BYTES", 64 * 1024)
    job = job_of(folder, [WINDOW])
    store = Store(str(tmp_path))
    written: list[int] = []
    remove = Store.remove

    def removed(self: Store, *parts: Any) -> None:
        written.extend(part.bytes for part in parts)
        remove(self, *parts)

    monkeypatch.setattr(Store, "remove", removed)
    events = Events(store, "run")
    context = Context(job, store, Backend(), client, events, "run", stage="etl", fingerprint="0")
    inputs = job_inputs.inspect(job)
    etl.run(context, read.run(context, inputs.main, None), inputs.sides)
    events.close()
    assert 0.5 < sum(written) / memory_of(job).exchanged < 1.5


def test_rows_that_must_all_lie_together_are_refused_before_they_are_read_unless_they_may_become_fewer(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchange, "BUCKET_BYTES", 4096)
    with pytest.raises(RequestError, match=r"tables.0 \(window\): Without `by`, all 6000 rows .* name columns in `by`"):
        memory_of(job_of(folder, [OF_ALL]))
    assert memory_of(job_of(folder, [FILTER, OF_ALL])).bucket == ROWS * WIDTH


def test_a_table_that_goes_to_every_worker_counts_and_a_larger_one_is_exchanged(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    join = {
        "op": "join",
        "with": {"path": str(folder / "rows.parquet"), "columns": ["key"]},
        "on": ["key"],
        "how": "semi",
    }
    there = ROWS * row_bytes({"key": "int"})
    assert memory_of(job_of(folder, [join])).broadcast == there
    monkeypatch.setattr(sides, "BROADCAST_BYTES", there - 1)
    monkeypatch.setattr(exchange, "BUCKET_BYTES", 64 * 1024)
    found = memory_of(job_of(folder, [join]))
    assert (found.broadcast, found.exchanged) == (0, ROWS * WIDTH + there)


def test_threads_need_room_each_and_partitions_are_cut_for_it() -> None:
    one, four = (Workers(2, threads, 2 * 2**30) for threads in (1, 4))
    assert one.partition_bytes == PARTITION_BYTES
    assert four.partition_bytes < PARTITION_BYTES
    assert four.partitions(10**8, 100) > one.partitions(10**8, 100)


def test_only_models_hold_a_matrix_of_features(folder: Path) -> None:
    impute = [{"op": "impute", "columns": ["amount"]}]
    assert memory_of(job_of(folder, [DROP], features=impute)).features == 0
    with_model = job_of(folder, [DROP], models=[{"name": "ridge"}], target="amount")
    assert memory_of(with_model).features == ROWS * 4


@pytest.mark.parametrize(
    ("workers", "tables", "remedy"),
    [
        (Workers(1, 1, 419_500_000), [], "leave data.partitions out, or set it to 12 or more"),
        (
            Workers(1, 2, 420_500_000),
            [OF_ALL],
            r"of rows must lie together for tables.0 \(window\): set cluster.threads to 1",
        ),
    ],
)
def test_what_does_not_fit_is_refused_with_what_to_change(
    folder: Path, workers: Workers, tables: list[Mapping[str, Any]], remedy: str
) -> None:
    with pytest.raises(RequestError, match=f"The job does not fit: .* {remedy}"):
        memory_of(job_of(folder, tables), workers)


def test_digests_of_rows_that_may_repeat_take_disk_before_any_rows_do(folder: Path) -> None:
    """Of a row its id, its place and two halves of a digest."""
    job = job_of(folder, [])
    counted = job.model_copy(update={"data": job.data.model_copy(update={"duplicates": "count"})})
    assert memory_of(job).exchanged == 0
    assert memory_of(counted).exchanged == ROWS * row_bytes(dict.fromkeys("abcd", "int"))
