"""The stage `contract` on a real Dask client, against pandas; partitions, buckets and broadcasts change nothing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from distributed import Client
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from treadle.engine import cache, contract, exchange, job_inputs, pipeline, read, sides
from treadle.engine.artifacts import Contracted
from treadle.engine.backend import Backend
from treadle.engine.context import Context
from treadle.engine.events import Events
from treadle.engine.job import Job
from treadle.engine.program import Program, Step
from treadle.engine.relational import Filter
from treadle.engine.store import Store
from treadle.errors import ContractBroken, DataError, RequestError, TreadleError

BACKEND = Backend()
START = pd.Timestamp("2024-01-01")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With the table KNOWN of keys, some of them twice, and nulls."""
    folder = tmp_path_factory.mktemp("contract")
    known = pd.DataFrame(
        {
            "own_key": pd.array([0, 1, 1, 2, None], dtype="Int64"),
            "word": pd.array(["a", "a", "a", None, "b"], dtype="str"),
            "other": 1.5,
        }
    )
    known.to_parquet(folder / "KNOWN")
    return folder


def rows(rng: np.random.Generator, count: int) -> pd.DataFrame:
    """Few keys, nulls in all but the day, one key with half of the rows."""
    return pd.DataFrame(
        {
            "key": pd.array([None if k == 4 else max(int(k), 0) for k in rng.integers(-3, 5, count)], dtype="Int64"),
            "word": pd.array(rng.choice(["a", "bb", "a'c", None], count), dtype="str"),
            "day": rng.integers(0, 4, count),
            "ts": [pd.NaT if d == 7 else START + pd.Timedelta(int(d), "D") for d in rng.integers(0, 8, count)],
            "amount": np.where(
                rng.random(count) < 0.2, np.nan, rng.choice([-np.inf, -1.0, -0.0, 0.0, 2.5, 1e9], count)
            ),
            "flag": pd.array(rng.choice(np.array([True, False, None], dtype=object), count), dtype="boolean"),
        }
    ).astype({"ts": "datetime64[us]"})


def repeated(frame: pd.DataFrame, *columns: str) -> pd.Series:
    seen: set[tuple[Any, ...]] = set()
    found = []
    for row in frame[list(columns)].itertuples(index=False, name=None):
        there = not any(pd.isna(value) for value in row)
        found.append(there and row in seen)
        if there:
            seen.add(row)
    return pd.Series(found, index=frame.index)


KNOWN = {"path": "KNOWN", "rename": {"own_key": "key"}}
# Each expectation on rows, and pandas' word on which rows break it.
ON_ROWS: dict[str, tuple[dict[str, Any], Any]] = {
    "range": (
        {"expect": "range", "column": "amount", "min": 0, "max": 1e6},
        lambda f: (f.amount < 0) | (f.amount > 1e6),
    ),
    "range of ints": ({"expect": "range", "column": "key", "min": 0.5}, lambda f: f.key.eq(0).fillna(False)),
    "range of times": (
        {"expect": "range", "column": "ts", "min": "2024-01-02T02:00:00+01:00", "max": "2024-01-05"},
        lambda f: (f.ts < START + pd.Timedelta(25, "h")) | (f.ts > START + pd.Timedelta(4, "D")),
    ),
    "values": ({"expect": "values", "column": "word", "allowed": ["a", "a'c"]}, lambda f: f.word.eq("bb")),
    "values of ints": (
        {"expect": "values", "column": "key", "allowed": [1, 3, 2]},
        lambda f: f.key.eq(0).fillna(False),
    ),
    "values of times": (
        {"expect": "values", "column": "ts", "allowed": ["2024-01-01", "2024-01-03"]},
        lambda f: f.ts.notna() & ~f.ts.isin([START, START + pd.Timedelta(2, "D")]),
    ),
    "values of bools": (
        {"expect": "values", "column": "flag", "allowed": [True]},
        lambda f: f.flag.eq(False).fillna(False),
    ),
    "matches": ({"expect": "matches", "column": "word", "like": "a'_"}, lambda f: f.word.notna() & f.word.ne("a'c")),
    "sql": (
        {"expect": "sql", "sql": "amount >= day or flag"},
        lambda f: f.amount.lt(f.day) & f.flag.eq(False).fillna(False),
    ),
    "not null": ({"expect": "not_null", "column": "word"}, lambda f: f.word.isna()),
    "unique": ({"expect": "unique", "columns": ["key"]}, lambda f: repeated(f, "key")),
    "unique pair": ({"expect": "unique", "columns": ["word", "amount"]}, lambda f: repeated(f, "word", "amount")),
    "known": (
        {"expect": "known", "columns": ["key"], "in": KNOWN},
        lambda f: f.key.notna() & ~f.key.isin([0, 1, 2]).astype(bool),
    ),
    "known pair": (
        {"expect": "known", "columns": ["word", "key"], "in": KNOWN},
        lambda f: f.key.notna() & f.word.notna() & ~(f.word.eq("a") & f.key.isin([0, 1]).astype(bool)),
    ),
}  # fmt: skip


def job_of(path: Path, expectations: Sequence[Mapping[str, Any]], **sections: Any) -> Job:
    placed = [
        {**e, "in": {**e["in"], "path": str(path.parent / e["in"]["path"]), "format": "parquet"}} if "in" in e else e
        for e in expectations
    ]
    data = {"path": str(path), **sections.pop("data", {})}
    return Job.model_validate({"name": "job", "data": data, "contract": placed, **sections})


def outcome(client: Client, folder: Path, job: Job) -> tuple[Store, Contracted]:
    """What the stage makes under an empty root, after what `treadle check` does."""
    shutil.rmtree(folder / "root", ignore_errors=True)
    store = Store(str(folder / "root"))
    events = Events(store, "run", None)
    inputs = job_inputs.inspect(job)
    contract.check(job, inputs.main, inputs.known)
    try:
        context = Context(job, store, BACKEND, client, events, "run", stage="read", fingerprint="x")
        source = read.run(context, inputs.main, inputs.test)
        context.stage = "contract"
        return store, contract.run(context, source, inputs.known)
    finally:
        events.close()


def held(client: Client, folder: Path, job: Job) -> tuple[Contracted, pd.DataFrame, pd.DataFrame]:
    """The outcome of the stage, the rows that are left, and those set aside."""
    store, found = outcome(client, folder, job)
    program = Program(store, BACKEND, tuple(found.source.kinds.items()), None, ())
    left = pd.concat([program.rows(partition) for partition in found.source.partitions], ignore_index=True)
    tables = [store.read_parquet(part.path).to_pandas() for part in found.source.quarantine]
    aside = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()
    # Nothing else is left of the stage: neither exchanged rows nor tables of keys.
    there = {f"stages/contract-x/{name}" for name in store.list("stages/contract-x")}
    assert there == {part.path for part in found.parts}
    return found, left, aside


SETTINGS = ((1, 2**25, 2**30), (5, 600, 2**30), (3, 300, 0), (1, 600, 0))
"""Partitions, bytes of a bucket, bytes that are sent to every worker."""


@settings(max_examples=6, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.lists(st.sampled_from(sorted(ON_ROWS)), min_size=1, max_size=4, unique=True),
    st.integers(1, 4),
)
def test_rows_that_break_the_contract_are_those_that_pandas_finds(
    client: Client, folder: Path, seed: int, names: list[str], quarantining: int
) -> None:
    frame = rows(np.random.default_rng(seed), 60)
    frame.to_parquet(folder / "in.parquet", row_group_size=7)
    broken = {name: ON_ROWS[name][1](frame).to_numpy(bool) for name in names}
    aside = [name for i, name in enumerate(names) if i < quarantining]
    gone = np.logical_or.reduce([broken[name] for name in aside])
    expectations = [{**ON_ROWS[n][0], "otherwise": "quarantine" if n in aside else "warn"} for n in names]
    outcomes = []
    with pytest.MonkeyPatch.context() as patch:
        for partitions, bucket, broadcast in SETTINGS:
            patch.setattr(exchange, "BUCKET_BYTES", bucket)
            patch.setattr(sides, "broadcast_limit", lambda _, limit=broadcast: limit)
            job = job_of(folder / "in.parquet", expectations, data={"partitions": partitions})
            if gone.all():
                with pytest.raises(DataError, match="sets all 60 rows of the input aside"):
                    held(client, folder, job)
                continue
            outcomes.append(held(client, folder, job))
    for found, left, set_aside in outcomes:
        assert [v.violations for v in found.verdicts] == [int(broken[name].sum()) for name in names]
        assert found.set_aside == len(set_aside) == gone.sum()
        assert found.verdicts == outcomes[0][0].verdicts
        assert found.warnings == outcomes[0][0].warnings
        expected = frame[~gone].reset_index(names="__id__").astype({"__id__": "Int64", "day": "Int64"})
        pd.testing.assert_frame_equal(left, expected, check_dtype=False)
        pd.testing.assert_frame_equal(set_aside, outcomes[0][2])
        for name, verdict in zip(names, found.verdicts, strict=True):
            assert [e.row for e in verdict.examples] == np.flatnonzero(broken[name])[:3].tolist()
            assert verdict.status == (
                "passed" if not broken[name].any() else "quarantined" if name in aside else "warned"
            )
    if outcomes and gone.any():
        table = outcomes[0][2]
        assert table["line"].tolist() == (np.flatnonzero(gone) + 1).tolist()
        reasons = [
            [v.name for n, v in zip(names, outcomes[0][0].verdicts, strict=True) if n in aside and broken[n][i]]
            for i in np.flatnonzero(gone)
        ]
        assert table["reason"].str.split("; ").tolist() == reasons
        texts = pd.DataFrame([json.loads(text) for text in table["text"]])
        assert texts["day"].tolist() == frame["day"][gone].tolist()
        assert [None if pd.isna(w) else w for w in texts["word"]] == [
            None if pd.isna(w) else w for w in frame["word"][gone]
        ]


ON_INPUT: list[tuple[dict[str, Any], bool, dict[str, Any]]] = [
    ({"expect": "type", "column": "a", "is": "float"}, True, {"kind": "float"}),
    ({"expect": "nulls", "column": "a", "at_most": 0.25}, True, {"nulls": 2, "share": 0.25}),
    ({"expect": "nulls", "column": "a", "at_most": 0.2499}, False, {"nulls": 2, "share": 0.25}),
    ({"expect": "rows", "min": 8, "max": 8}, True, {"rows": 8}),
    ({"expect": "rows", "min": 9}, False, {"rows": 8}),
    ({"expect": "rows", "max": 7}, False, {"rows": 8}),
    ({"expect": "fresh", "column": "t", "within": "2d", "of": "2024-01-10"}, True, {"newest": "2024-01-08T00:00:00"}),
    ({"expect": "fresh", "column": "t", "within": "47h", "of": "2024-01-10T00:00:00Z"}, False,
     {"newest": "2024-01-08T00:00:00"}),
    ({"expect": "fresh", "column": "t", "within": "1d"}, False, {"newest": "2024-01-08T00:00:00"}),
    ({"expect": "fresh", "column": "never", "within": "1d", "of": "1970-01-01"}, False, {"newest": None}),
]  # fmt: skip


def eight(folder: Path) -> Path:
    frame = pd.DataFrame(
        {
            "a": [1.0, None, 2.0, 3.0, 4.0, None, 5.0, 6.0],
            "t": START + pd.to_timedelta(np.arange(8), unit="D"),
            "never": pd.Series([pd.NaT] * 8, dtype="datetime64[us]"),
            "large": [2**62 + 1, *range(7)],
        }
    )
    frame.to_parquet(folder / "eight.parquet", row_group_size=3)
    return folder / "eight.parquet"


@pytest.mark.parametrize("partitions", [1, 3])
def test_expectations_on_the_whole_input(client: Client, folder: Path, partitions: int) -> None:
    expectations = [{**e, "otherwise": "warn"} for e, _, _ in ON_INPUT]
    found, left, _ = held(client, folder, job_of(eight(folder), expectations, data={"partitions": partitions}))
    assert [(v.status == "passed", v.measured) for v in found.verdicts] == [(met, m) for _, met, m in ON_INPUT]
    assert {v.violations for v in found.verdicts} == {None}
    assert len(left) == 8
    assert len(found.warnings) == sum(not met for _, met, _ in ON_INPUT)
    assert "contract.4 (rows): at least 9 rows: rows 8" in found.warnings


def test_whole_numbers_are_not_rounded(client: Client, folder: Path) -> None:
    bounds = [2**62, 2**62 + 1, 2.0**62]
    expectations = [{"expect": "range", "column": "large", "max": n, "otherwise": "warn"} for n in bounds]
    found, _, _ = held(client, folder, job_of(eight(folder), expectations))
    assert [v.violations for v in found.verdicts] == [1, 0, 1]
    assert found.verdicts[0].measured == {"min": 0, "max": 2**62 + 1}


def test_all_that_must_hold_and_does_not_is_told_at_once(client: Client, folder: Path) -> None:
    path = eight(folder)
    expectations = [
        {"expect": "range", "column": "a", "max": 4, "otherwise": "quarantine"},
        {"expect": "not_null", "column": "a"},
        {"expect": "rows", "min": 7},
        {"expect": "rows", "max": 7},
        {"expect": "nulls", "column": "a", "at_most": 0, "otherwise": "warn"},
    ]
    job = job_of(path, expectations, data={"partitions": 2})
    with pytest.raises(ContractBroken) as caught:
        held(client, folder, job)
    lines = str(caught.value).splitlines()
    assert lines[0] == "The input breaks its contract, 2 of 5 expectations:"
    assert lines[1] == (
        f"  contract.1 (not_null): a not null: 2 of 8 rows, such as {path}, line 2: a = None; {path}, line 6: a = None"
    )
    assert lines[2] == "  contract.3 (rows): at most 7 rows: rows 8"
    assert [v["status"] for v in caught.value.verdicts] == ["quarantined", "failed", "passed", "failed", "warned"]
    assert not list((folder / "root" / "stages" / "contract-x").glob("*"))


def test_rows_of_text_files_are_found_again(client: Client, folder: Path) -> None:
    """By their number among the rows that could be read: the third line of the second file is broken."""
    (folder / "csv").mkdir()
    for name, values in (("a", [1, 2, 3]), ("b", [4, "x", 60, 7])):
        (folder / "csv" / f"{name}.csv").write_text("n\n" + "".join(f"{v}\n" for v in values))
    data = {"types": {"n": "int"}, "bad_rows": {"limit": 1}, "partitions": 2}
    expectation = {"expect": "range", "column": "n", "max": 6, "otherwise": "quarantine"}
    job = job_of(folder / "csv", [expectation], data=data)
    store, found = outcome(client, folder, job)
    aside = pd.concat([store.read_parquet(part.path).to_pandas() for part in found.source.quarantine])
    assert aside[["line", "text"]].to_numpy().tolist() == [[3, "x"], [2, '{"n": 60}'], [3, '{"n": 7}']]
    assert set(aside["file"]) == {str(folder / "csv" / "b.csv")}
    assert (found.source.bad_rows, found.set_aside, found.rows) == (1, 2, 6)
    assert [example.row for example in found.verdicts[0].examples] == [4, 5]


def test_both_sides_of_a_split_by_path_are_one_input(client: Client, folder: Path) -> None:
    for name, start in (("train", 0), ("test", 3)):
        pd.DataFrame({"n": range(start, start + 5), "y": 1.0}).to_parquet(folder / name)
    job = job_of(
        folder / "train",
        [{"expect": "unique", "columns": ["n"], "otherwise": "quarantine"}, {"expect": "rows", "min": 10}],
        data={"partitions": 2, "format": "parquet", "target": "y"},
        split={"kind": "path", "path": str(folder / "test")},
        models=["ridge"],
    )
    found, left, aside = held(client, folder, job)
    assert aside[["file", "line"]].to_numpy().tolist() == [[str(folder / "test"), 1], [str(folder / "test"), 2]]
    assert left["n"].tolist() == list(range(8))
    assert [partition[0].role for partition in found.source.partitions] == ["train", "train", "test", "test"]


def test_row_groups_that_a_filter_leaves_unread_change_nothing(client: Client, folder: Path) -> None:
    pd.DataFrame({"n": range(40)}).to_parquet(folder / "groups.parquet", row_group_size=4)
    rule = {"expect": "sql", "sql": "n % 7 <> 2", "otherwise": "quarantine"}
    job = job_of(folder / "groups.parquet", [rule], data={"partitions": 3})
    store, found = outcome(client, folder, job)
    step = Step(0, Filter(op="filter", sql="n >= 21"))
    program = Program(store, BACKEND, (("n", "int"),), None, (step,))
    frame = pd.concat([program.rows(partition) for partition in found.source.partitions])
    expected = [n for n in range(21, 40) if n % 7 != 2]
    assert frame["__id__"].tolist() == frame["n"].tolist() == expected


def test_a_column_that_is_left_out_for_its_type_is_named(folder: Path) -> None:
    pd.DataFrame({"n": [1, 2], "nested": [[1], [2]]}).to_parquet(folder / "nested.parquet")
    job = job_of(folder / "nested.parquet", [{"expect": "not_null", "column": "nested"}])
    with pytest.raises(DataError, match=r"contract.0 \(not_null\): column 'nested' of .* has type list"):
        pipeline.check(job, job_inputs.inspect(job), Store(str(folder / "root")))


def fingerprints(path: Path, *expectations: dict[str, Any]) -> dict[str, str]:
    job = job_of(path, expectations)
    return {stage.name: stage.fingerprint for stage in pipeline.stages_of(job, job_inputs.inspect(job))}


def test_only_a_contract_that_sets_rows_aside_makes_later_stages_anew(folder: Path) -> None:
    path = eight(folder)
    rule = {"expect": "not_null", "column": "a"}
    without, failing, warning = (
        fingerprints(path),
        fingerprints(path, rule),
        fingerprints(path, rule | {"otherwise": "warn"}),
    )
    aside = fingerprints(path, rule | {"otherwise": "quarantine"})
    assert list(without) == ["read", "etl", "publish"]
    assert list(failing) == ["read", "contract", "etl", "publish"]
    assert failing["contract"] != warning["contract"]
    assert without["etl"] == failing["etl"] == warning["etl"] != aside["etl"]


def test_the_content_of_a_table_of_keys_counts(folder: Path) -> None:
    path = eight(folder)
    rule = {"expect": "known", "columns": ["large"], "in": {"path": "KEYS"}}
    found = []
    for last in (5, 6, 5):
        pd.DataFrame({"large": [1, last]}).to_parquet(folder / "KEYS")
        found.append(fingerprints(path, rule)["contract"])
    assert found[0] == found[2] != found[1]


def test_what_is_fresh_by_the_clock_is_cached_until_it_is_no_more(client: Client, folder: Path) -> None:
    newest = datetime.now(UTC).replace(tzinfo=None) - timedelta(minutes=10)
    pd.DataFrame({"t": pd.Series([START, pd.Timestamp(newest)], dtype="datetime64[us]")}).to_parquet(folder / "fresh")
    rules = [
        {"expect": "fresh", "column": "t", "within": within, "otherwise": "warn", **of}
        for within, of in (("3h", {}), ("2h", {}), ("1min", {}), ("1h", {"of": "2024-01-01"}))
    ]
    job = job_of(folder / "fresh", rules, data={"format": "parquet"})
    found, _, _ = held(client, folder, job)
    assert [v.status for v in found.verdicts] == ["passed", "passed", "warned", "passed"]
    assert found.until == newest + timedelta(hours=2)
    store = Store(str(folder / "root"))
    (stage,) = [s for s in pipeline.stages_of(job, job_inputs.inspect(job)) if s.name == "contract"]
    for until, cached in ((found.until, True), (datetime(2024, 1, 1), False), (None, True)):
        outcome = found.model_copy(update={"until": until})
        store.write_json(f"{stage.folder}/stage.json", outcome.model_dump(mode="json"))
        assert cache.cached(store, stage) == (outcome if cached else None)


COLUMNS = {"n": "int", "x": "float", "word": "text", "t": "timestamp", "flag": "bool"}
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"expect": "rows", "min": 1, "otherwise": "quarantine"}, r"use warn or fail \(expectations on rows: \[range, v"),
    ({"expect": "rows"}, "rows: give min, max or both"),
    ({"expect": "rows", "min": 2, "max": 1}, "min is above max"),
    ({"expect": "range", "column": "n"}, "range: give min, max or both"),
    ({"expect": "range", "column": "n", "min": True}, "valid"),
    ({"expect": "range", "column": "n", "min": 5, "max": 4.5}, "min 5 is above max 4.5"),
    ({"expect": "range", "column": "word", "min": 1}, "column 'word' is text, and a range is one of numbers"),
    ({"expect": "range", "column": "x", "min": "1"}, "column 'x' is float, and '1' is not a number"),
    ({"expect": "range", "column": "t", "min": 1}, "column 't' is timestamp, and 1 is not a time"),
    ({"expect": "range", "column": "t", "min": "soon"}, "'soon' is not a time"),
    ({"expect": "range", "column": "wrod", "min": 1}, "Column 'wrod' was not found in the input of contract.0.*'word'"),
    ({"expect": "values", "column": "word", "allowed": [1]}, "1 is not a text, such as '1' in quotes"),
    ({"expect": "values", "column": "n", "allowed": [1, 1.5]}, "column 'n' is int, and 1.5 is not a whole number"),
    ({"expect": "values", "column": "n", "allowed": [True]}, "column 'n' is int, and true is not"),
    ({"expect": "values", "column": "flag", "allowed": [1]}, "column 'flag' is bool, and 1 is not true or false"),
    ({"expect": "values", "column": "n", "allowed": []}, "at least 1"),
    ({"expect": "matches", "column": "n", "like": "1%"}, "column 'n' is int, and a pattern is one of text"),
    ({"expect": "sql", "sql": "n >"}, "cannot be read"),
    ({"expect": "sql", "sql": "1 = 1"}, "looks at no column"),
    ({"expect": "sql", "sql": "n + 1"}, "is no condition"),
    ({"expect": "sql", "sql": "n > word"}, r"contract.0 \(sql\): In the expression"),
    ({"expect": "sql", "sql": "m > 1"}, "Column 'm' was not found"),
    ({"expect": "nulls", "column": "n", "at_most": 1.5}, "less than or equal to 1"),
    ({"expect": "fresh", "column": "n", "within": "1d"}, "only a timestamp is fresh"),
    ({"expect": "fresh", "column": "t", "within": "soon"}, "no span of time"),
    ({"expect": "fresh", "column": "t", "within": "1d", "of": "soon"}, "of: 'soon' is no time"),
    ({"expect": "unique", "columns": []}, "at least 1"),
    ({"expect": "type", "column": "n", "is": "number"}, "'int', 'float'"),
    ({"expect": "known", "columns": ["m"], "in": {"path": "KEYS"}}, "Column 'm' was not found"),
    ({"expect": "known", "columns": ["n"], "in": {"path": "KEYS"}}, "Column 'n' was not found in .*KEYS"),
    ({"expect": "known", "columns": ["x"], "in": {"path": "KEYS", "rename": {"large": "x"}}}, "float in the input"),
]  # fmt: skip


@pytest.mark.parametrize(("expectation", "message"), REFUSED, ids=[f"{i}" for i in range(len(REFUSED))])
def test_refusals(folder: Path, expectation: dict[str, Any], message: str) -> None:
    BACKEND.empty(COLUMNS).to_parquet(folder / "columns.parquet")
    pd.DataFrame({"large": [1]}).to_parquet(folder / "KEYS")

    def checked() -> None:
        job = job_of(folder / "columns.parquet", [expectation])
        inputs = job_inputs.inspect(job)
        contract.check(job, inputs.main, inputs.known)

    with pytest.raises((ValidationError, RequestError), match=message):
        checked()


def test_wrong_types_are_found_before_anything_runs(folder: Path) -> None:
    BACKEND.empty(COLUMNS).to_parquet(folder / "columns.parquet")
    rules = [
        {"expect": "type", "column": "n", "is": "text"},
        {"expect": "values", "column": "n", "allowed": ["fits once the type does"]},
        {"expect": "type", "column": "x", "is": "int"},
        {"expect": "type", "column": "word", "is": "int", "otherwise": "warn"},
    ]
    job = job_of(folder / "columns.parquet", rules)
    message = (
        r"2 of 4 expectations:\n  contract.0 \(type\): n is text: it is int\n  contract.2 \(type\): x is int: it is f"
    )
    with pytest.raises(ContractBroken, match=message):
        contract.check(job, job_inputs.inspect(job).main, {})


def test_a_value_that_an_expression_cannot_take_names_its_expectation(client: Client, folder: Path) -> None:
    pd.DataFrame({"word": ["1", "x"]}).to_parquet(folder / "words.parquet")
    job = job_of(folder / "words.parquet", [{"expect": "sql", "sql": "cast(word as integer) > 0"}])
    with pytest.raises(TreadleError, match=r"contract.0 \(sql\): cast\(word as integer\) > 0: .*'x'"):
        held(client, folder, job)
