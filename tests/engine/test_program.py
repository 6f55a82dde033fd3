"""Compiled operations: pruning and partitioning change nothing, and every Parquet type becomes the engine's."""

from __future__ import annotations

import itertools
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from tests.engine.parquet_types import TYPES
from tests.engine.relations import BACKEND
from treadle.engine.artifacts import Piece
from treadle.engine.backend import kinds_of
from treadle.engine.bundle import replayable
from treadle.engine.inputs import Inspected, cut
from treadle.engine.operation import ROW_ID, Operation
from treadle.engine.program import Program, Step
from treadle.engine.relational import TableOperation
from treadle.engine.relational.aggregate import Aggregate
from treadle.engine.store import Store
from treadle.engine.text_input import inspect
from treadle.errors import DataError, RequestError

KINDS = {"a": "int", "b": "float", "c": "text", "d": "timestamp", "k": "int"}
NAMES = ["a", "b", "c", "d", "k", "x", "y", "s", "t"]
ROWS = 12
OPERATIONS = ["filter", "derive", "rename", "select", "drop", "cast", "join", "aggregate", "local", "window", "dedupe"]


def operation(section: dict[str, Any]) -> Operation:
    adapter: TypeAdapter[Operation] = TypeAdapter(TableOperation)
    return adapter.validate_python(section)


def input_table() -> pa.Table:
    rng = np.random.default_rng(4)
    frame = pd.DataFrame(
        {
            "a": pd.array([None, *range(-5, 6)], dtype="Int64"),
            "b": np.where(rng.random(ROWS) < 0.2, np.nan, rng.normal(size=ROWS)),
            "c": pd.array([*"abcabcab", None, "", "z", "b"], dtype="str"),
            "d": pd.Timestamp("2024-01-01") + pd.to_timedelta(rng.integers(0, 90, ROWS), unit="D").as_unit("us"),
            "k": pd.array([None, 1, 2, 3, 1, 2, 3, 1, 2, 9, 0, 0], dtype="Int64"),
        }
    )
    return BACKEND.table(frame)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(str(tmp_path_factory.mktemp("root")))


class Maker:
    """Makes programs of operations that fit what is there; those that the engine refuses are left out."""

    def __init__(self, store: Store, draw: Any) -> None:
        self.store, self.draw = store, draw
        self.program = Program(store, BACKEND, tuple(KINDS.items()), None, ())
        self.frame = BACKEND.frame(input_table())
        self.frame.insert(0, ROW_ID, pd.array(range(ROWS), dtype="Int64"))

    def add(self, section: dict[str, Any], side: pd.DataFrame | None = None) -> None:
        step = Step(len(self.program.steps), operation(section))
        if side is not None:
            path = f"sides/{uuid.uuid4().hex}.parquet"
            self.store.write_parquet(path, BACKEND.table(side))
            multiplies = section["op"] == "join" and bool(side.dropna().duplicated(subset=section["on"]).any())
            step = Step(step.index, step.operation, path, tuple(kinds_of(side).items()), multiplies=multiplies)
        longer = Program(self.store, BACKEND, self.program.kinds, None, (*self.program.steps, step))
        try:
            longer.empty()
        except RequestError:
            return
        self.program = longer

    def step(self) -> None:
        kinds = self.program.output()
        names = sorted(kinds)
        one = self.draw(st.sampled_from(names))
        some = self.draw(st.lists(st.sampled_from(names), min_size=1, max_size=3, unique=True))
        new = self.draw(st.sampled_from(NAMES))
        match self.draw(st.sampled_from(OPERATIONS)):
            case "filter":
                self.add({"op": "filter", "sql": f"{one} is not null"})
            case "derive":
                self.add({"op": "derive", "name": new, "sql": f"case when {one} is null then null else {some[0]} end"})
            case "rename":
                self.add({"op": "rename", "columns": {one: new, some[0]: self.draw(st.sampled_from(NAMES))}})
            case "select":
                self.add({"op": "select", "columns": some})
            case "drop" if len(some) < len(names):
                self.add({"op": "drop", "columns": some})
            case "cast":
                self.add({"op": "cast", "columns": dict.fromkeys(some, "text")})
            case "join" if kinds.get("k") == "int":
                keys = self.draw(st.sampled_from([[0, 1, 2], [1, 1, 3]]))
                side = pd.DataFrame({"k": pd.array(keys, dtype="Int64"), new: ["p", "q", None]}).astype({new: "str"})
                how = self.draw(st.sampled_from(["left", "inner"]))
                if new != "k":
                    self.add({"op": "join", "with": {"path": "side.parquet"}, "on": ["k"], "how": how}, side)
            case "aggregate" if new not in some:
                outcome = {new: {"function": "max", "column": one}}
                section = {"op": "aggregate", "by": some, "broadcast": True, "aggregations": outcome}
                made = operation(section)
                assert isinstance(made, Aggregate)
                rows = self.program.pruned(made.gathers).apply(self.frame)
                self.add(section, made.finish(made.merge([made.partial(rows)])))
            case "local" if new not in some:
                outcome = {new: {"function": "nunique", "column": one}}
                self.add({"op": "aggregate", "by": some, "broadcast": True, "aggregations": outcome})
            case "window":
                outputs = {new: {"function": "lag", "column": one}, some[0]: {"function": "cum_count", "column": one}}
                self.add({"op": "window", "by": some, "outputs": outputs})
            case "dedupe":
                self.add({"op": "dedupe", "columns": some, "keep": "last"})


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_pruning_changes_nothing_that_is_wanted(store: Store, data: st.DataObject) -> None:
    maker = Maker(store, data.draw)
    for _ in range(data.draw(st.integers(1, 7))):
        maker.step()
    program, frame = maker.program, maker.frame
    whole = program.apply(frame)
    kinds = program.output()
    pd.testing.assert_series_equal(whole.dtypes, program.empty().dtypes)
    assert kinds_of(whole.drop(columns=ROW_ID)) == kinds
    wanted = data.draw(st.lists(st.sampled_from(sorted(kinds)), max_size=3, unique=True))
    pruned = program.pruned(wanted)
    given_columns = [name for name, _ in pruned.kinds]
    outcome = pruned.apply(frame[[ROW_ID, *given_columns]])
    pd.testing.assert_frame_equal(outcome[[ROW_ID, *wanted]], whole[[ROW_ID, *wanted]])
    assert {name: kind for name, kind in pruned.output().items() if name in wanted} == {n: kinds[n] for n in wanted}
    assert pruned.pruned(wanted).kinds == pruned.kinds
    # Every column that is read is used: without it a step misses it.
    for name in set(given_columns) - set(wanted):
        with pytest.raises(RequestError, match=f"Column '{name}' was not found in the input of tables"):
            pruned.apply(frame[[ROW_ID, *(c for c in given_columns if c != name)]])


def program_of(store: Store, *sections: dict[str, Any], id_column: str | None = None) -> Program:
    steps = tuple(Step(i, operation(section)) for i, section in enumerate(sections))
    return Program(store, BACKEND, tuple(KINDS.items()), id_column, steps)


@pytest.mark.parametrize(
    ("sections", "wanted", "reads"),
    [
        ([{"op": "derive", "name": "x", "sql": "a + k"}], ["b"], {"b"}),
        ([{"op": "derive", "name": "a", "sql": "b + 1"}], ["a"], {"b"}),
        ([{"op": "cast", "columns": {"a": "text", "b": "text"}}], ["a"], {"a"}),
        ([{"op": "rename", "columns": {"a": "x", "b": "y"}}], ["y"], {"b"}),
        ([{"op": "rename", "columns": {"a": "b", "b": "a"}}], ["a"], {"b"}),
        ([{"op": "filter", "sql": "k > 1"}, {"op": "drop", "columns": ["k"]}], ["a"], {"a", "k"}),
        ([{"op": "select", "columns": ["a", "b"]}], ["a"], {"a"}),
        ([{"op": "derive", "name": "x", "sql": "1"}], ["x"], set()),
    ],
)
def test_no_column_is_read_that_is_not_needed(
    store: Store, sections: list[dict[str, Any]], wanted: list[str], reads: set[str]
) -> None:
    assert {name for name, _ in program_of(store, *sections).pruned(wanted).kinds} == reads


def test_a_name_that_was_taken_away_is_free_again_after_pruning(store: Store) -> None:
    """The filter needs `a`, which is gone when another column is called so."""
    for away in ({"op": "drop", "columns": ["a"]}, {"op": "select", "columns": ["b"]}):
        program = program_of(store, {"op": "filter", "sql": "a > 0"}, away, {"op": "rename", "columns": {"b": "a"}})
        frame = BACKEND.frame(input_table()).assign(**{ROW_ID: 0})
        expected = frame["b"][frame["a"] > 0].tolist()
        assert program.pruned(["a"]).apply(frame)["a"].tolist() == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize(("keys", "stays"), [([1, 1, 2], True), ([1, 2, 3], False)])
def test_a_join_that_multiplies_rows_stays(store: Store, keys: list[int], stays: bool) -> None:
    store.write_parquet(
        f"side-{stays}.parquet", BACKEND.table(pd.DataFrame({"k": pd.array(keys, dtype="Int64"), "s": 1.0}))
    )
    join = operation({"op": "join", "with": {"path": "side.parquet"}, "on": ["k"]})
    step = Step(0, join, f"side-{stays}.parquet", (("k", "int"), ("s", "float")), multiplies=stays)
    program = Program(store, BACKEND, tuple(KINDS.items()), None, (step,))
    frame = BACKEND.frame(input_table()).assign(**{ROW_ID: range(ROWS)})
    assert {name for name, _ in program.pruned(["b"]).kinds} == ({"b", "k"} if stays else {"b"})
    assert program.pruned(["b"]).apply(frame)["b"].tolist() == pytest.approx(
        program.apply(frame)["b"].tolist(), nan_ok=True
    )


TARGETS: dict[str, list[dict[str, Any]]] = {
    "read": [{"op": "filter", "sql": "c is not null"}],
    "renamed": [{"op": "filter", "sql": "c <> 'z'"}, {"op": "rename", "columns": {"c": "y"}}],
    "derived": [{"op": "derive", "name": "y", "sql": "a + b"}, {"op": "filter", "sql": "y is not null"}],
    "deduped by": [{"op": "derive", "name": "y", "sql": "a + b"}, {"op": "dedupe", "columns": ["k", "y"]}],
    "ordered by": [{"op": "dedupe", "columns": ["k"], "order": "y"}],
}


@pytest.mark.parametrize("how", TARGETS)
def test_rows_are_replayed_without_what_leaves_them_out_by_the_target(store: Store, how: str) -> None:
    made = [{"op": "derive", "name": "y", "sql": "d"}] if how == "ordered by" else []
    program = program_of(
        store,
        {"op": "cast", "columns": {"c": "text", "a": "float"}},
        *made,
        *TARGETS[how],
        {"op": "rename", "columns": {"b": "x"}},
        {"op": "filter", "sql": "x is not null"},
        {"op": "filter", "sql": "a > 0"},
        {"op": "derive", "name": "z", "sql": "x + a"},
    )
    target = "c" if how == "read" else "y"
    replay, left_out = replayable(program, {"x": "number", "z": "number"}, target)
    assert [step.operation for step in left_out] == [
        operation(s) for s in TARGETS[how] if s["op"] in ("filter", "dedupe")
    ]
    assert {name for name, _ in replay.kinds} == {"a", "b"}
    frame = BACKEND.frame(input_table()).drop(columns="c").assign(**{ROW_ID: 0})
    expected = frame[frame["b"].notna() & (frame["a"] > 0)]
    assert replay.apply(frame)["z"].tolist() == pytest.approx((expected["a"] + expected["b"]).tolist())


@pytest.fixture(scope="module")
def files(store: Store) -> Inspected:
    table = pa.concat_tables([input_table()] * 4)
    borders = [0, 5, 5, 30, 48]
    paths = []
    for i, (low, high) in enumerate(itertools.pairwise(borders)):
        paths.append(store.path(f"part-{i}.parquet"))
        pq.write_table(table.slice(low, high - low), paths[-1], row_group_size=7)
    return inspect(paths)


@pytest.mark.parametrize("count", [1, 2, 3, 5, 11, 48, 100])
def test_the_partitioning_changes_neither_rows_nor_ids(store: Store, files: Inspected, count: int) -> None:
    whole = BACKEND.frame(pa.concat_tables([input_table()] * 4))
    partitions = cut(files.files, count)
    assert len(partitions) == min(count, 48)
    program = Program(store, BACKEND, tuple(files.kinds.items()), None, ())
    found = pd.concat([program.rows(partition) for partition in partitions], ignore_index=True)
    pd.testing.assert_frame_equal(found.drop(columns=ROW_ID), whole)
    assert found[ROW_ID].tolist() == list(range(48))
    filtered = program_of(store, {"op": "filter", "sql": "a > 2"})
    ids = [row for partition in partitions for row in filtered.rows(partition)[ROW_ID]]
    assert ids == [i for i, a in enumerate(whole["a"]) if a is not pd.NA and a > 2]


def test_rows_without_any_column_of_the_input(store: Store, files: Inspected) -> None:
    program = program_of(store, {"op": "derive", "name": "one", "sql": "1"}).pruned(["one"])
    assert program.kinds == ()
    (partition,) = cut(files.files, 1)
    found = program.rows(partition)
    assert found["one"].tolist() == [1] * 48
    assert found[ROW_ID].tolist() == list(range(48))


def test_the_id_column_names_the_rows_and_is_never_null(store: Store, files: Inspected) -> None:
    renamed = program_of(store, {"op": "rename", "columns": {"d": "x"}}, id_column="d")
    (partition,) = cut(files.files, 1)
    frame = renamed.rows(partition)
    pd.testing.assert_series_equal(frame[ROW_ID], frame["x"], check_names=False)
    assert list(renamed.pruned(["a"]).rows(partition).columns) == [ROW_ID, "a"]
    assert renamed.empty().dtypes.to_dict() == frame.dtypes.to_dict()
    with pytest.raises(DataError, match=r"The id column 'k' is null in 4 rows; fill it, or leave data.id out"):
        program_of(store, id_column="k").rows(partition)


@pytest.mark.parametrize(("type_", "values", "kind", "expected"), TYPES, ids=[str(case[0]) for case in TYPES])
def test_parquet_types(tmp_path: Path, type_: pa.DataType, values: list[Any], kind: str, expected: list[Any]) -> None:
    path = str(tmp_path / "t.parquet")
    pq.write_table(pa.table({"v": pa.array(values, type_)}), path)
    inspected = inspect([path])
    assert inspected.kinds == {"v": kind}
    program = Program(Store(str(tmp_path)), BACKEND, tuple(inspected.kinds.items()), None, ())
    frame = program.rows(cut(inspected.files, 1)[0])
    assert frame.dtypes.to_dict() == program.empty().dtypes.to_dict()
    pd.testing.assert_series_equal(frame["v"], pd.Series(expected, dtype=program.empty()["v"].dtype), check_names=False)


def test_a_value_beyond_64_bits_and_a_damaged_file_are_named(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"v": pa.array([2**63], pa.uint64())}), path)
    program = Program(Store(str(tmp_path)), BACKEND, (("v", "int"),), None, ())
    piece = Piece(path=str(path), own=False, start=0, stop=1, offset=0)
    with pytest.raises(DataError, match=r"Column 'v' of '.*t.parquet' \(uint64\) cannot become int64: .*9223372036854"):
        program.rows([piece])
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"'.*t.parquet' cannot be read: .* Replace it or leave it out"):
        program.rows([piece])


def test_errors_say_at_which_operation(store: Store) -> None:
    program = program_of(store, {"op": "drop", "columns": ["a"]}, {"op": "filter", "sql": "aa > 1"})
    with pytest.raises(
        RequestError, match=r"Column 'aa' was not found in the input of tables.1 \(filter\). Columns: \["
    ):
        program.empty()
    program = program_of(store, {"op": "filter", "sql": "true"}, {"op": "rename", "columns": {"a": "b"}})
    with pytest.raises(RequestError, match=r"tables.1 \(rename\): rename: two columns would be called 'b'"):
        program.empty()
