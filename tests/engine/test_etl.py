"""The stage `etl` on a real Dask client: exchanges and passes give what one frame with all rows gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from distributed import Client
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engine.relations import BACKEND
from treadle.engine import etl, exchange, gathering, job_inputs, read, sides
from treadle.engine.artifacts import Prepared
from treadle.engine.context import Context
from treadle.engine.events import Events
from treadle.engine.job import Job
from treadle.engine.relational.keys import hash_keys
from treadle.engine.rows import program_of, replay_of
from treadle.engine.store import Store
from treadle.engine.walk import Walk
from treadle.errors import DataError, TreadleError

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
        "aggregations": {
            "total": {"function": "sum", "column": "amount"},
            "rows": {"function": "count"},
            "about": {"function": "approx_nunique", "column": "word"},
        },
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


def prepare(
    client: Client,
    folder: Path,
    frame: pd.DataFrame,
    tables: Sequence[Mapping[str, Any]],
    partitions: int,
    **sections: Any,
) -> tuple[Context, Prepared]:
    """The stage of a job with these operations; its columns are those that were known before it ran."""
    frame.to_parquet(folder / "in.parquet")
    placed = [
        {**table, "with": {**table["with"], "path": str(folder / table["with"]["path"]), "format": "parquet"}}
        if "with" in table
        else dict(table)
        for table in tables
    ]
    data = {"path": str(folder / "in.parquet"), "partitions": partitions, "id": "id", **sections.pop("data", {})}
    job = Job.model_validate({"name": "job", "data": data, "tables": placed, **sections})
    store = Store(str(folder / "root"))
    inputs = job_inputs.inspect(job)
    outlined = etl.outline(job, inputs.main, inputs.sides, store)
    events = Events(store, "run", None)
    context = Context(job, store, BACKEND, client, events, "run", stage="etl", fingerprint="x")
    try:
        prepared = etl.run(context, read.run(context, inputs.main, inputs.test), inputs.sides)
    finally:
        events.close()
    assert prepared.kinds == outlined.output()
    return context, prepared


def outcome(
    client: Client,
    folder: Path,
    frame: pd.DataFrame,
    tables: Sequence[Mapping[str, Any]],
    partitions: int,
    **data: Any,
) -> pd.DataFrame:
    """The table `etl` of a job with these operations, as it was written."""
    context, prepared = prepare(client, folder, frame, tables, partitions, data=data)
    assert prepared.table is not None
    parts = [BACKEND.frame(context.store.read_parquet(part.path)) for part in prepared.table]
    return pd.concat(parts, ignore_index=True)


@settings(max_examples=7, deadline=None)
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
        patch.setattr(exchange, "LARGEST_BUCKET", 10**6)
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


@pytest.mark.parametrize("bucket", [2**25, 100])
def test_rows_that_come_in_are_training_rows_where_those_have_files(
    client: Client, folder: Path, monkeypatch: pytest.MonkeyPatch, bucket: int
) -> None:
    """Training rows and those of a union lie together, and test rows by themselves."""
    monkeypatch.setattr(exchange, "BUCKET_BYTES", bucket)
    frame = rows(np.random.default_rng(6), 20).drop(columns="word")
    test = frame.assign(id=frame["id"] + 500)[:7]
    test.to_parquet(folder / "test.parquet")
    tables = [
        {"op": "union", "with": {"path": "MORE"}},
        {"op": "window", "by": ["day"], "outputs": {"number": {"function": "row_number"}}},
    ]
    data, split = {"target": "key"}, {"kind": "path", "path": str(folder / "test.parquet")}
    context, prepared = prepare(client, folder, frame, tables, 3, data=data, split=split, models=["decision_tree"])
    program = program_of(context, prepared)
    found = pd.concat([program.rows(p).assign(role=p[0].role) for p in prepared.source.partitions])
    found = found.sort_values("id", ignore_index=True)
    assert found["role"].tolist() == ["train"] * 20 + ["test"] * 7 + ["train"] * 9
    expected = found.groupby(["role", "day"]).cumcount() + 1
    assert found["number"].tolist() == expected.tolist()


NUMBERED = {"function": "row_number"}


def test_a_column_called_like_a_lost_key_is_another(
    client: Client, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows that lie together by a key do not by what is given its name later."""
    monkeypatch.setattr(exchange, "BUCKET_BYTES", 300)
    frame = rows(np.random.default_rng(6), 40)
    for lost in ({"op": "drop", "columns": ["key"]}, {"op": "select", "columns": ["id", "day", "by_key"]}):
        tables = [
            {"op": "window", "by": ["key"], "outputs": {"by_key": NUMBERED}},
            lost,
            {"op": "rename", "columns": {"day": "key"}},
            {"op": "window", "by": ["key"], "outputs": {"by_day": NUMBERED}},
        ]
        found = outcome(client, folder, frame, tables, 4).sort_values("id", ignore_index=True)
        assert found["by_day"].tolist() == (frame.groupby("day").cumcount() + 1).tolist()
        assert found["by_key"].tolist() == (frame.groupby("key", dropna=False).cumcount() + 1).tolist()


BY_KEY = {"op": "window", "by": ["key"], "order": "ts", "outputs": {"sum": AMOUNT}}
BY_WORD = {"op": "window", "by": ["word"], "outputs": {"by_word": NUMBERED}}
DROPPED = {
    "two": [BY_KEY, {"op": "drop", "columns": ["word", "day"]}],
    "and made anew": [
        BY_KEY, {"op": "drop", "columns": ["word"]}, {"op": "rename", "columns": {"day": "word"}}, BY_WORD,
        {"op": "drop", "columns": ["word"]},
    ],
    "and derived": [
        BY_KEY, {"op": "derive", "name": "day", "sql": "amount"}, {"op": "drop", "columns": ["word"]},
        BY_WORD | {"by": ["day"]},
    ],
    "not selected": [
        BY_KEY, {"op": "derive", "name": "n", "sql": "day + 1"}, {"op": "select", "columns": ["sum", "n", "id"]},
    ],
    "all but the keys": [OPERATIONS["join"], {"op": "drop", "columns": ["word", "ts", "amount"]}, {"op": "dedupe"}],
    "the id": [BY_KEY, {"op": "drop", "columns": ["id", "word"]}],
    "for groups": [
        BY_KEY, {"op": "aggregate", "by": ["day"], "aggregations": {"n": {"function": "sum", "column": "sum"}}},
    ],
    "for itself": [
        BY_KEY, {"op": "union", "with": {"path": "MORE"}, "fill": True}, {"op": "drop", "columns": ["word"]},
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", DROPPED)
def test_columns_that_nothing_looks_at_are_not_exchanged_and_nobody_notices(
    client: Client, folder: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    frame = rows(np.random.default_rng(7), 40)
    expected = outcome(client, folder, frame, DROPPED[name], 1)
    monkeypatch.setattr(exchange, "BUCKET_BYTES", 300)
    monkeypatch.setattr(sides, "broadcast_limit", lambda _: 0)
    written: list[set[str]] = []
    go_on = Walk._go_on_from

    def exchanged(walk: Walk, *args: Any) -> None:
        go_on(walk, *args)
        written.append(set(walk.program.output()))

    monkeypatch.setattr(Walk, "_go_on_from", exchanged)
    found = outcome(client, folder, frame, DROPPED[name], 4)
    assert list(found) == list(expected)
    assert ("word" in written[0]) == (name == "for itself")
    by = sorted(set(found) - {"sum"})
    pd.testing.assert_frame_equal(
        found.sort_values(by, ignore_index=True), expected.sort_values(by, ignore_index=True), rtol=1e-12
    )


def test_what_was_not_exchanged_is_not_replayed_either(
    client: Client, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchange, "BUCKET_BYTES", 300)
    frame = rows(np.random.default_rng(8), 40)
    context, prepared = prepare(
        client, folder, frame, DROPPED["and made anew"], 4, **TREE | {"data": {"target": "key"}}
    )
    assert "day" not in prepared.source.kinds
    program = program_of(context, prepared)
    found = pd.concat([program.rows(partition) for partition in prepared.source.partitions]).drop(columns="__order__")
    replayed = replay_of(context, prepared).apply(BACKEND.frame(BACKEND.table(frame.assign(__id__=frame["id"]))))
    pd.testing.assert_frame_equal(found.sort_values("id", ignore_index=True), replayed[list(found)])


@pytest.mark.parametrize("bucket", [2**25, 300])
def test_rows_without_an_id_are_numbered_on(
    client: Client, folder: Path, monkeypatch: pytest.MonkeyPatch, bucket: int
) -> None:
    """Rows of a union come after those that were read, not after those that filters and exchanges left."""
    monkeypatch.setattr(exchange, "BUCKET_BYTES", bucket)
    frame = rows(np.random.default_rng(6), 40)
    tables = [
        {"op": "filter", "sql": "amount > 0.7"},
        {"op": "window", "by": ["key"], "outputs": {"number": NUMBERED}},
        {"op": "union", "with": {"path": "MORE"}, "fill": True},
    ]
    context, prepared = prepare(
        client, folder, frame, tables, 4, data={"id": None, "target": "key"}, models=["decision_tree"]
    )
    program = program_of(context, prepared)
    found = pd.concat([program.rows(partition) for partition in prepared.source.partitions]).sort_values("id")
    kept = np.flatnonzero(frame["amount"] > 0.7).tolist()
    assert found["__id__"].tolist() == [*kept, *range(40, 49)]
    sampled = outcome(client, folder, frame, [*tables, {"op": "sample", "rows": 10}], 4, id=None)
    by_number = dict(zip(found["__id__"], found["id"], strict=True))
    drawn = hash_keys(pd.Series(list(by_number), dtype="Int64"), 7)
    assert sorted(sampled["id"]) == sorted(np.array(list(by_number.values()))[np.argsort(drawn)[:10]].tolist())


ASOF = {
    "op": "join", "with": {"path": "SIDE", "columns": ["since", "rate"]}, "how": "asof",
    "time": {"here": "ts", "there": "since"},
}  # fmt: skip
TREE = {"models": ["decision_tree"], "data": {"target": "day"}}
NOTHING = {"op": "filter", "sql": "amount > 99"}


def test_an_estimate_needs_no_rows_in_one_place(client: Client, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the exact number is refused, since a few keys have most of the rows."""
    monkeypatch.setattr(exchange, "BUCKET_BYTES", 1)
    frame = rows(np.random.default_rng(6), 400)
    for broadcast in (True, False):
        table = {"op": "aggregate", "by": ["word"], "broadcast": broadcast}
        exact, about = ({"days": {"function": f, "column": "day"}} for f in ("nunique", "approx_nunique"))
        with pytest.raises(DataError, match="one group of them has up to .* rows"):
            outcome(client, folder, frame, [{**table, "aggregations": exact}], 3)
        found = outcome(client, folder, frame, [{**table, "aggregations": about}], 3)
        assert found["days"].tolist() == [4] * (400 if broadcast else 3)


@pytest.mark.parametrize(
    ("tables", "sections", "message"),
    [
        (
            [OPERATIONS["join"]], TREE,
            "join with .*SIDE: about 0.0 GiB in memory, more than the 0 GiB that is sent to every worker and kept with "
            "a model; aggregate or filter it first",
        ),
        ([ASOF], {}, "join with .*SIDE: about 0.0 GiB in memory, more than the 0 GiB.*or name columns in `on`"),
        ([OPERATIONS["window of all"]], {}, "Without `by`, all 40 rows .* must lie together, too many for one worker"),
        (
            [OPERATIONS["sums"]], TREE,
            r"aggregate by \['key'\]: 5 groups take .* GiB, more than the .* GiB that is sent to every worker",
        ),
        (
            [OPERATIONS["window"]], {},
            r"Rows with equal \['key'\] must lie together, and one group of them has up to .* Filter those values out "
            ".null among them., or group by more columns",
        ),
        (
            [OPERATIONS["distinct"]], {},
            r"Rows with equal \['word'\] must lie together.* or group by more columns, or take approx_nunique for "
            r"nunique, which no group is too large for \(there is nothing of that kind for median, mode: leave ",
        ),
        ([NOTHING, *GROUPS[1]], {}, "tables.1 .aggregate.: no row is left to group; look at the filters before it"),
        ([NOTHING, *GROUPS[2]], {}, "tables.1 .pivot.: no row is left to group"),
        (
            [{"op": "union", "with": {"path": "SIDE"}, "fill": True}], {},
            "tables.0 .union.: .*SIDE has no column 'id', the id of these rows; rename its own id to that, or leave",
        ),
        ([{"op": "union", "with": {"path": "MORE"}}], {}, "union with .*MORE: it lacks 'word'; select the same"),
        ([{"op": "derive", "name": "__id__", "sql": "1"}], {}, "tables.0 .derive.: '__id__' is a name that the engine"),
        ([{**GROUPS[1][0], "by": ["wrd"]}], {}, "'wrd' was not found in the input of tables.0 .aggregate.*mean 'word'"),
        ([{**GROUPS[2][0], "names": "kee"}], {}, "'kee' was not found in the input of tables.0 .pivot.*mean 'key'"),
        ([{**OPERATIONS["window"], "by": ["kee"]}], {}, "'kee' was not found in the input of tables.0 .window.*'key'"),
        ([{**OPERATIONS["window"], "order": "word"}], {}, "tables.0 .window.: window: order column 'word' is text"),
        ([{**OPERATIONS["dedupe"], "order": "word"}], {}, "tables.0 .dedupe.: dedupe: order column 'word' is text"),
    ],
)  # fmt: skip
def test_refusals(
    client: Client,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    tables: list[dict[str, Any]],
    sections: dict[str, Any],
    message: str,
) -> None:
    """Nothing fits in memory here; of some mistakes the columns tell, and of others the rows."""
    monkeypatch.setattr(sides, "broadcast_limit", lambda _: 0)
    monkeypatch.setattr(gathering, "BROADCAST_BYTES", 10)
    monkeypatch.setattr(exchange, "BUCKET_BYTES", 1)
    with pytest.raises(TreadleError, match=message):
        prepare(client, folder, rows(np.random.default_rng(6), 40), tables, 3, **sections)


@pytest.mark.parametrize("how", ["left", "inner", "semi"])
def test_a_join_that_multiplies_rows_says_so_however_the_tables_meet(
    client: Client, folder: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr(exchange, "BUCKET_BYTES", 300)
    there = pd.DataFrame(
        {
            "key": pd.array([0, 0, 0, 1, 2, 2, 3, None, None], dtype="Int64"),
            "day": [0, 0, 1, 0, 2, 2, 0, 0, 0],
            "more": range(9),
        }
    )
    there.to_parquet(folder / "many.parquet")
    frame = rows(np.random.default_rng(9), 60)
    for on, keys in ((("key",), 2), (("key", "day"), 2)):
        join = {"op": "join", "with": {"path": "many.parquet", "columns": [*on, "more"]}, "on": list(on), "how": how}
        for limit in (2**30, 0):
            monkeypatch.setattr(sides, "broadcast_limit", lambda _, limit=limit: limit)
            tables = [join, {"op": "drop", "columns": ["word"]}]
            _, prepared = prepare(client, folder, frame, tables, 3)
            said = f"tables.0 (join): {keys} keys occur more than once in {folder}/many.parquet; rows multiply"
            assert prepared.warnings == (() if how == "semi" else (said,))
