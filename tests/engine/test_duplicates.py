"""The stage `duplicates` on a real Dask client, against pandas; partitions, files and buckets change nothing."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from distributed import Client
from hypothesis import given, settings
from hypothesis import strategies as st

from treadle.engine import contract, duplicates, exchange, job_inputs, pipeline, read
from treadle.engine.artifacts import Contracted, Deduplicated, Source
from treadle.engine.backend import Backend
from treadle.engine.context import Context
from treadle.engine.duplicates import RowDigests
from treadle.engine.events import Events
from treadle.engine.found import DIGEST
from treadle.engine.job import Job
from treadle.engine.operation import ROW_ID
from treadle.engine.program import Program
from treadle.engine.store import Store
from treadle.errors import DataError

BACKEND = Backend()
NOON = pd.Timestamp("2024-01-01 12:00")
VALUES: dict[str, tuple[list[Any], str]] = {
    "number": ([0, 1, None, -(2**63), 2**63 - 1], "Int64"),
    "share": ([0.0, -0.0, None, float("nan"), float("inf"), 5e-324], "float64"),
    "word": (["", "a", None, "a\0", "ab"], "str"),
    "flag": ([True, False, None], "boolean"),
    "at": ([NOON, None, NOON + pd.Timedelta(1, "us")], "datetime64[us]"),
}
"""Of each kind of column values that differ by little, with null beside what could stand for it."""


@st.composite
def tables(draw: st.DrawFn) -> pd.DataFrame:
    """Up to 40 rows of some columns, drawn from a few different ones, so that many are equal."""
    names = draw(st.lists(st.sampled_from(sorted(VALUES)), min_size=1, max_size=5, unique=True))
    row = st.tuples(*(st.sampled_from(VALUES[name][0]) for name in names))
    distinct = draw(st.lists(row, min_size=1, max_size=12))
    rows = draw(st.lists(st.sampled_from(distinct), min_size=1, max_size=40))
    return frame_of(names, rows)


def frame_of(names: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> pd.DataFrame:
    columns = zip(names, zip(*rows, strict=True), strict=True)
    return pd.DataFrame({name: pd.array(list(values), dtype=VALUES[name][1]) for name, values in columns})


def job_of(path: Path | list[str], *expectations: Mapping[str, Any], **sections: Any) -> Job:
    data = {"path": path if isinstance(path, list) else str(path), "duplicates": "drop", **sections.pop("data", {})}
    return Job.model_validate({"name": "job", "data": data, "contract": expectations, **sections})


def outcome(client: Client, folder: Path, job: Job) -> tuple[Store, Deduplicated, Contracted | None]:
    """What the stages up to the contract make under an empty root."""
    shutil.rmtree(folder / "root", ignore_errors=True)
    store = Store(str(folder / "root"))
    events = Events(store, "run", None)
    inputs = job_inputs.inspect(job)
    try:
        context = Context(job, store, BACKEND, client, events, "run", stage="read", fingerprint="x")
        source = read.run(context, inputs.main, inputs.test)
        context.stage = "duplicates"
        found = duplicates.run(context, source)
        # Nothing else is left of the stage: no digests.
        there = {f"stages/duplicates-x/{name}" for name in store.list("stages/duplicates-x")}
        assert there == {part.path for part in found.parts} - {part.path for part in source.parts}
        if not job.contract:
            return store, found, None
        context.stage = "contract"
        return store, found, contract.run(context, found.source, inputs.known)
    finally:
        events.close()


def rows_of(store: Store, source: Source) -> pd.DataFrame:
    """The rows that are there, with their numbers in `__id__`."""
    program = Program(store, BACKEND, tuple(source.kinds.items()), None, ())
    return pd.concat([program.rows(partition) for partition in source.partitions], ignore_index=True)


def numbered(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.reset_index(names=ROW_ID).astype({ROW_ID: "Int64"})


SETTINGS = ((1, 2**25), (3, 2**25), (16, 500))
"""Partitions, and bytes of a bucket."""


@settings(max_examples=4, deadline=None)
@given(tables(), st.integers(0, 40))
def test_repeated_rows_are_those_that_pandas_finds(
    client: Client, tmp_path_factory: pytest.TempPathFactory, frame: pd.DataFrame, cut: int
) -> None:
    folder = tmp_path_factory.mktemp("duplicates")
    files = [part for part in (frame[:cut], frame[cut:]) if len(part)]
    for number, part in enumerate(files):
        part.to_parquet(folder / f"{number}.parquet", row_group_size=7)
    repeated = frame.duplicated()
    path = [str(folder / f"{number}.parquet") for number in range(len(files))]
    with pytest.MonkeyPatch.context() as patch:
        for partitions, bucket in SETTINGS:
            patch.setattr(exchange, "BUCKET_BYTES", bucket)
            store, found, _ = outcome(client, folder, job_of(path, data={"partitions": partitions}))
            assert (found.rows, found.repeated, found.dropped) == (len(frame), repeated.sum(), repeated.sum())
            assert found.source.rows_left == len(frame) - repeated.sum()
            left = rows_of(store, found.source)
            pd.testing.assert_frame_equal(left, numbered(frame)[~repeated].reset_index(drop=True), check_dtype=False)
            assert bool(found.warnings) == repeated.any()


def test_digests_are_equal_for_equal_rows_only() -> None:
    """Every mixture of values, of which pandas says which are alike."""
    frame = frame_of(list(VALUES), list(itertools.product(*(values for values, _ in VALUES.values()))))
    found = RowDigests().apply(numbered(frame))
    assert found[list(DIGEST)].duplicated().tolist() == frame.duplicated().tolist()
    for half in DIGEST:
        assert found[half].nunique() == len(frame.drop_duplicates())


def test_counting_leaves_every_row(client: Client, tmp_path: Path) -> None:
    pd.DataFrame({"a": [1, 1, 2, 1]}).to_parquet(tmp_path / "in.parquet")
    job = job_of(tmp_path / "in.parquet", data={"duplicates": "count", "partitions": 2})
    store, found, _ = outcome(client, tmp_path, job)
    assert (found.rows, found.repeated, found.dropped, found.in_both) == (4, 2, 0, None)
    assert found.warnings == (
        "2 of 4 rows equal an earlier one in every column; data.duplicates: drop would leave them out",
    )
    assert rows_of(store, found.source)["a"].tolist() == [1, 1, 2, 1]


@pytest.mark.parametrize("partitions", [1, 2, 5])
def test_a_contract_does_not_see_rows_that_are_dropped(client: Client, tmp_path: Path, partitions: int) -> None:
    """From a text file; a whole partition of five is dropped."""
    frame = pd.DataFrame({"k": [1, 2, 2, 3, 3, 3, 3, 3, 1, 4], "x": [None, 9, 9, 5, 5, 5, 5, 5, 7, None]})
    frame.to_csv(tmp_path / "in.csv", index=False)
    expectations = [
        {"expect": "unique", "columns": ["k"], "otherwise": "quarantine"},
        {"expect": "range", "column": "x", "max": 8, "otherwise": "quarantine"},
        {"expect": "nulls", "column": "x", "at_most": 0.4, "otherwise": "warn"},
        {"expect": "nulls", "column": "x", "at_most": 0.39, "otherwise": "warn"},
        {"expect": "rows", "min": 5, "max": 5},
    ]
    job = job_of(tmp_path / "in.csv", *expectations, data={"partitions": partitions})
    store, found, held = outcome(client, tmp_path, job)
    assert held is not None
    assert (found.dropped, held.rows, held.set_aside) == (5, 5, 2)
    assert [(v.status, v.rows, v.violations) for v in held.verdicts] == [
        ("quarantined", 5, 1), ("quarantined", 5, 1), ("passed", 5, None), ("warned", 5, None), ("passed", 5, None),
    ]  # fmt: skip
    assert rows_of(store, held.source)[ROW_ID].tolist() == [0, 3, 9]
    aside = pd.concat([store.read_parquet(part.path).to_pandas() for part in held.source.quarantine])
    assert aside["line"].tolist() == [2, 9]
    assert aside["text"].tolist() == ['{"k": 2, "x": 9.0}', '{"k": 1, "x": 7.0}']
    assert [example.line for verdict in held.verdicts for example in verdict.examples] == [9, 2]
    assert held.source.rows_left == 3

    nothing = {"expect": "range", "column": "k", "max": 0, "otherwise": "quarantine"}
    with pytest.raises(DataError, match="sets all 5 rows of the input aside"):
        outcome(client, tmp_path, job_of(tmp_path / "in.csv", nothing, data={"partitions": partitions}))


@pytest.mark.parametrize("bucket", [2**25, 100])
def test_two_inputs_are_looked_at_each_by_itself(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bucket: int
) -> None:
    monkeypatch.setattr(exchange, "BUCKET_BYTES", bucket)
    train, test = pd.DataFrame({"a": [1, 2, 1, 3, 4] * 3}), pd.DataFrame({"a": [3, 3, 9, 1, 8, 8, 3]})
    for name, frame in (("train", train), ("test", test)):
        frame.to_parquet(tmp_path / f"{name}.parquet")
    split = {"kind": "path", "path": str(tmp_path / "test.parquet")}
    job = job_of(tmp_path / "train.parquet", data={"partitions": 3}, split=split)
    store, found, _ = outcome(client, tmp_path, job)
    assert (found.repeated, found.in_both) == (train.duplicated().sum() + test.duplicated().sum(), 2)
    assert found.warnings[1].startswith("2 distinct rows of the test input equal a training row in every column")
    left = rows_of(store, found.source)
    assert left["a"].tolist() == [1, 2, 3, 4, 3, 9, 1, 8]
    assert left[ROW_ID].tolist() == [0, 1, 3, 4, 15, 17, 18, 19]


def test_counting_makes_no_later_stage_anew(tmp_path: Path) -> None:
    pd.DataFrame({"a": [1]}).to_parquet(tmp_path / "in.parquet")
    rule = {"expect": "not_null", "column": "a", "otherwise": "quarantine"}

    def fingerprints(action: str) -> dict[str, str]:
        job = job_of(tmp_path / "in.parquet", rule, data={"duplicates": action})
        return {stage.name: stage.fingerprint for stage in pipeline.stages_of(job, job_inputs.inspect(job))}

    keep, count, drop = fingerprints("keep"), fingerprints("count"), fingerprints("drop")
    assert "duplicates" not in keep
    assert list(count) == list(drop) == ["read", "duplicates", "contract", "etl", "publish"]
    assert keep["etl"] == count["etl"] != drop["etl"]
    assert keep["contract"] == count["contract"] != drop["contract"]
    assert keep["read"] == drop["read"]
