"""The stage `etl` on a real Dask client: exchanges and passes give what one frame with all rows gives."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from distributed import Client
from hypothesis import given, settings
from hypothesis import strategies as st

from treadle.engine import etl, exchange, pipeline, read, sides
from treadle.engine.backend import Backend
from treadle.engine.context import Context
from treadle.engine.events import Events
from treadle.engine.job import Job
from treadle.engine.store import Store
from treadle.errors import DataError

BACKEND = Backend()
AMOUNT = {"function": "rolling_sum", "column": "amount", "span": "3d"}
OPERATIONS: dict[str, dict[str, Any]] = {
    "derive": {"op": "derive", "name": "double", "sql": "amount * 2"},
    "filter": {"op": "filter", "sql": "amount > 0.2 or amount is null"},
    "dedupe": {"op": "dedupe", "columns": ["key", "day"]},
    "dedupe last": {"op": "dedupe", "columns": ["day"], "keep": "last", "order": "amount"},
    "dedupe all": {"op": "dedupe"},
    "window": {"op": "window", "by": ["key"], "order": "ts", "outputs": {"sum": AMOUNT}},
    "window of two": {
        "op": "window",
        "by": ["key", "word"],
        "order": "ts",
        "outputs": {"before": {"function": "lag", "column": "word"}, "n": {"function": "cum_count"}},
    },
    "window of all": {"op": "window", "order": "ts", "outputs": {"number": {"function": "row_number"}}},
    "sums": {
        "op": "aggregate",
        "by": ["key"],
        "broadcast": True,
        "aggregations": {"total": {"function": "sum", "column": "amount"}, "rows": {"function": "count"}},
    },
    "distinct": {
        "op": "aggregate",
        "by": ["word"],
        "broadcast": True,
        "aggregations": {
            "days": {"function": "nunique", "column": "day"},
            "middle": {"function": "median", "column": "amount"},
            "usual": {"function": "mode", "column": "key"},
        },
    },
    "join": {"op": "join", "with": {"path": "SIDE", "columns": ["key", "name"]}, "on": ["key"]},
    "inner join": {
        "op": "join", "with": {"path": "SIDE", "columns": ["key", "name"], "rename": {"name": "inner_name"}},
        "on": ["key"], "how": "inner",
    },
    "semi": {"op": "join", "with": {"path": "SIDE"}, "on": ["key"], "how": "semi"},
    "anti": {"op": "join", "with": {"path": "SIDE"}, "on": ["key"], "how": "anti"},
    "as-of": {
        "op": "join", "with": {"path": "SIDE", "columns": ["key", "since", "rate"]}, "on": ["key"], "how": "asof",
        "time": {"here": "ts", "there": "since"}, "tolerance": "5d",
    },
    "union": {"op": "union", "with": {"path": "MORE"}, "fill": True},
    "sample": {"op": "sample", "rows": 15},
    "share": {"op": "sample", "fraction": 0.6},
}  # fmt: skip
GROUPS: list[list[dict[str, Any]]] = [
    [],
    [
        {
            "op": "aggregate", "by": ["key", "word"],
            "aggregations": {
                "last": {"function": "last", "column": "amount"},
                "mean": {"function": "mean", "column": "amount"},
                "std": {"function": "std", "column": "amount"},
            },
        }
    ],
    [
        {
            "op": "pivot", "by": ["word"], "names": "key", "levels": [1, 2], "values": "amount", "function": "max",
            "prefix": "key_",
        }
    ],
]  # fmt: skip


@pytest.fixture(scope="module")
def client(scheduler: str) -> Iterator[Client]:
    with Client(scheduler) as client:
        yield client


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With the tables SIDE and MORE, that joins and unions take."""
    folder = tmp_path_factory.mktemp("tables")
    rng = np.random.default_rng(3)
    side = pd.DataFrame(
        {
            "key": pd.array([0, 1, 2, 2, None], dtype="Int64"),
            "name": ["zero", "one", "two", "two again", "null"],
            "since": pd.Timestamp("2024-01-01") + pd.to_timedelta([3, 4, 5, 1, 0], unit="D").as_unit("us"),
            "rate": rng.random(5),
        }
    )
    pq.write_table(BACKEND.table(side), folder / "SIDE")
    rows(rng, 9).drop(columns="word").assign(id=range(1000, 1009)).to_parquet(folder / "MORE")
    return folder


def rows(rng: np.random.Generator, count: int) -> pd.DataFrame:
    """Few keys, ties in time, nulls in all but the time; an id that follows the order."""
    return pd.DataFrame(
        {
            "id": np.arange(count),
            "key": pd.array([None if k == 4 else int(k) for k in rng.integers(0, 5, count)], dtype="Int64"),
            "word": pd.array(rng.choice(["a", "b", None], count), dtype="str"),
            "day": rng.integers(0, 4, count),
            "ts": pd.Timestamp("2024-01-01") + pd.to_timedelta(rng.integers(0, 8, count), unit="D").as_unit("us"),
            "amount": np.where(rng.random(count) < 0.2, np.nan, rng.integers(0, 9, count) / 4),
        }
    )


def outcome(
    client: Client, folder: Path, frame: pd.DataFrame, tables: Sequence[Mapping[str, Any]], partitions: int
) -> pd.DataFrame:
    """The table `etl` of a job with these operations, as it was written."""
    frame.to_parquet(folder / "in.parquet")
    placed = [
        {**table, "with": {**table["with"], "path": str(folder / table["with"]["path"]), "format": "parquet"}}
        if "with" in table
        else dict(table)
        for table in tables
    ]
    data = {"path": str(folder / "in.parquet"), "partitions": partitions, "id": "id"}
    job = Job.model_validate({"name": "job", "data": data, "tables": placed})
    store = Store(str(folder / "root"))
    inputs = pipeline.inspect(job)
    outlined = etl.outline(job, inputs.main, inputs.sides, store)
    events = Events(store, "run", None)
    context = Context(job, store, BACKEND, client, events, "run", stage="etl", fingerprint="x")
    prepared = etl.run(context, read.run(context, inputs.main, None), inputs.sides)
    events.close()
    assert prepared.table is not None
    found = pd.concat([BACKEND.frame(store.read_parquet(part.path)) for part in prepared.table], ignore_index=True)
    assert prepared.kinds == outlined.output()
    return found


@settings(max_examples=10, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.lists(st.sampled_from(sorted(OPERATIONS)), max_size=3, unique=True),
    st.sampled_from(range(len(GROUPS))),
)
def test_partitions_buckets_and_broadcasts_change_nothing(
    client: Client, folder: Path, seed: int, names: list[str], last: int
) -> None:
    frame = rows(np.random.default_rng(seed), 40)
    tables = [OPERATIONS[name] for name in names] + GROUPS[last]
    frames, empty = [], []
    with pytest.MonkeyPatch.context() as patch:
        for partitions, bucket, broadcast in ((1, 2**25, 2**30), (5, 2**25, 2**30), (5, 400, 2**30), (3, 200, 0)):
            patch.setattr(exchange, "BUCKET_BYTES", bucket)
            patch.setattr(sides, "broadcast_limit", lambda _, limit=broadcast: limit)
            try:
                frames.append(outcome(client, folder, frame, tables, partitions))
            except DataError as error:
                empty.append(str(error))
    if empty:
        assert (len(empty), len(frames)) == (4, 0)
        assert all("no row is left to group" in message for message in empty)
        return
    by = [name for name in ("id", "key", "word", "name", "inner_name") if name in frames[0].columns]
    expected = frames[0].sort_values(by, ignore_index=True)
    for found in frames[1:]:
        pd.testing.assert_frame_equal(found.sort_values(by, ignore_index=True), expected, rtol=1e-12)
