"""Queries where they are computed: what falls back to the host, with which words, and what does not."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pandas as pd
import polars as pl
import pytest

from tests.engine.parts import fitted_on
from tests.engine.queries.test_features import encoded, same
from tests.engine.relations import operation
from treadle.engine import preparing, queries
from treadle.engine.backend import Backend
from treadle.engine.encoders import FeatureOperation
from treadle.engine.operation import ROW_ID
from treadle.engine.preparing import apply_steps, contribution
from treadle.engine.program import Step
from treadle.engine.queries import features, groups, running
from treadle.engine.queries.engine import HOST_ENGINE
from treadle.engine.queries.functions import _FUNCTIONS as functions_with_query
from treadle.engine.queries.functions import PARTS
from treadle.engine.sql.functions import FUNCTIONS as SQL_FUNCTIONS
from treadle.errors import DataError, RequestError

CPU, CUDA = Backend(), Backend("cuda")
ROWS = 5000
FRAME = pd.DataFrame(
    {
        ROW_ID: pd.array(range(ROWS), dtype="Int64"),
        "k": pd.array([n % 7 for n in range(ROWS)], dtype="Int64"),
        "x": [n / 8 for n in range(ROWS)],
        "w": pd.Series([f"w{n % 3}" for n in range(ROWS)], dtype="str"),
    }
)
DERIVE = Step(0, operation(op="derive", name="y", sql="x * 2 + k"))
FILTER = Step(1, operation(op="filter", sql="y > 100"))
SAMPLE = Step(2, operation(op="sample", fraction=0.5))
DEDUPE = Step(3, operation(op="dedupe", columns=["k", "w"]))
RENAME = Step(4, operation(op="rename", columns={"y": "z"}))
STEPS = [(step, None) for step in (DERIVE, FILTER, SAMPLE, RENAME)]
MEANS: Any = operation(op="aggregate", by=["k"], aggregations={"m": {"function": "mean", "column": "x"}})

Collect = Callable[[pl.LazyFrame, Any], pl.DataFrame]


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Callable[[Collect], None]:
    """Puts a function in the place of the one that has a GPU compute queries."""

    def put(collect: Collect) -> None:
        real = running.collected

        def collected(lazy: pl.LazyFrame, engine: Any) -> pl.DataFrame:
            return real(lazy, engine) if engine == HOST_ENGINE else collect(lazy, HOST_ENGINE)

        for module in (running, groups, features):
            monkeypatch.setattr(module, "collected", collected)
        monkeypatch.setattr(Backend, "engine", lambda self: "a device")

    return put


def small(most: int) -> tuple[Collect, list[int]]:
    """A device that has memory for outcomes of so many rows, and the rows of those that it had."""
    given: list[int] = []

    def collect(lazy: pl.LazyFrame, engine: Any) -> pl.DataFrame:
        found = lazy.collect(engine=engine)
        if found.height > most:
            raise MemoryError("std::bad_alloc: out_of_memory: CUDA error")
        given.append(found.height)
        return found

    return collect, given


def test_only_the_step_without_a_query_is_done_on_the_host(told: list[str]) -> None:
    found = apply_steps(CUDA, STEPS, FRAME)
    pd.testing.assert_frame_equal(found, apply_steps(CPU, STEPS, FRAME))
    assert told == ["tables.2 (sample): on the host, since its hash of ids is the host's"]


def test_rows_that_a_device_has_no_memory_for_are_halved_until_they_fit(
    device: Callable[[Collect], None], told: list[str]
) -> None:
    collect, given = small(1300)
    device(collect)
    found = apply_steps(CUDA, [(DERIVE, None), (RENAME, None)], FRAME)
    pd.testing.assert_frame_equal(found, apply_steps(CPU, [(DERIVE, None), (RENAME, None)], FRAME))
    assert given == [0, 0, 1250, 1250, 1250, 1250]  # first each step was tried without rows
    assert told == []


def test_what_never_fits_is_done_on_the_host_and_its_size_is_told(
    device: Callable[[Collect], None], told: list[str]
) -> None:
    device(small(400)[0])
    found = apply_steps(CUDA, [(DERIVE, None), (RENAME, None)], FRAME)
    pd.testing.assert_frame_equal(found, apply_steps(CPU, [(DERIVE, None), (RENAME, None)], FRAME))
    (text,) = told
    assert text.startswith("tables.0 (derive), tables.4 (rename): 5000 rows of a partition of 5000 (0 MiB) on the host")
    assert text.endswith("for want of memory on the GPU; more data.partitions make smaller ones")


def test_rows_that_depend_on_each_other_are_never_halved(device: Callable[[Collect], None], told: list[str]) -> None:
    """The 21 rows that are left would fit, but nobody can know them by halves."""
    device(small(20)[0])
    pd.testing.assert_frame_equal(apply_steps(CUDA, [(DEDUPE, None)], FRAME), apply_steps(CPU, [(DEDUPE, None)], FRAME))
    assert told[0].startswith("tables.3 (dedupe): 5000 rows of a partition of 5000")


def test_halves_of_what_is_gathered_merge(device: Callable[[Collect], None], told: list[str]) -> None:
    device(small(0)[0])
    partial = contribution(CUDA, MEANS, FRAME, "tables.5 (aggregate)")
    expected = MEANS.finish(MEANS.partial(FRAME))
    pd.testing.assert_frame_equal(MEANS.finish(partial), expected, rtol=1e-12)
    assert told[0].startswith("tables.5 (aggregate): 5000 rows of a partition of 5000")


def test_what_a_device_cannot_compute_the_host_does_and_the_reason_is_told(
    device: Callable[[Collect], None], told: list[str]
) -> None:
    def broken(lazy: pl.LazyFrame, engine: Any) -> pl.DataFrame:
        if lazy.collect(engine=engine).height:
            raise RuntimeError("CUDF failure at: table.cu:7\nmore")
        return lazy.collect(engine=engine)

    device(broken)
    pd.testing.assert_frame_equal(apply_steps(CUDA, STEPS[:2], FRAME), apply_steps(CPU, STEPS[:2], FRAME))
    assert told == [
        "tables.0 (derive), tables.1 (filter): on the host, since cuDF failed: "
        "RuntimeError: CUDF failure at: table.cu:7"
    ]
    told.clear()
    contribution(CUDA, MEANS, FRAME, "tables.5 (aggregate)")
    assert told == ["tables.5 (aggregate): on the host, since cuDF failed: RuntimeError: CUDF failure at: table.cu:7"]


def test_what_cudf_does_not_take_is_asked_once_and_told_by_its_operation(
    device: Callable[[Collect], None], told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "_TAKEN", {})
    asked: list[int] = []

    def without_filters(lazy: pl.LazyFrame, engine: Any) -> pl.DataFrame:
        found = lazy.collect(engine=engine)
        if "FILTER" in lazy.explain(optimized=False):
            asked.append(found.height)
            raise NotImplementedError("no filters")
        return found

    device(without_filters)
    for _ in range(2):
        pd.testing.assert_frame_equal(apply_steps(CUDA, STEPS[:2], FRAME), apply_steps(CPU, STEPS[:2], FRAME))
    assert asked == [0]
    assert set(told) == {"tables.1 (filter): on the host, since cuDF does not take it: NotImplementedError: no filters"}


REFUSED = [
    (operation(op="derive", name="n", sql="CAST(x * 1e20 AS BIGINT)"), "tables.0 .derive.: .*CAST cannot make"),
    (operation(op="cast", columns={"x": "int"}), r"tables.0 .cast.: cast: \d+ values of column 'x' are no int, e.g."),
]


@pytest.mark.parametrize(("wanted", "message"), REFUSED)
def test_values_that_are_refused_are_refused_in_the_host_s_words(wanted: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        apply_steps(CUDA, [(Step(0, wanted), None), (FILTER, None)], FRAME.assign(y=1.0))
    whole = FRAME.assign(x=2.0, y=1000.0)
    steps = [(Step(0, wanted), None), (FILTER, None)]
    if "derive" not in message:
        pd.testing.assert_frame_equal(apply_steps(CUDA, steps, whole), apply_steps(CPU, steps, whole))


def test_requests_that_are_refused_are_refused_in_the_host_s_words() -> None:
    twice = Step(0, operation(op="rename", columns={"k": "x"}))
    with pytest.raises(RequestError, match="tables.0 .rename.: rename: two columns would be called 'x'"):
        apply_steps(CUDA, [(twice, None)], FRAME)
    with pytest.raises(RequestError, match="'nix'.*the input of tables.7 .drop."):
        apply_steps(CUDA, [(Step(7, operation(op="drop", columns=["nix"])), None)], FRAME)


def test_a_small_table_is_made_ready_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    real = running.table_of
    monkeypatch.setattr(running, "table_of", lambda frame: made.append(len(frame)) or real(frame))
    side = pd.DataFrame({"k": pd.array([1, 2], dtype="Int64"), "z": [1.0, 2.0]})
    join = Step(0, operation(op="join", on=["k"], **{"with": {"path": "side"}}))
    for _ in range(3):
        apply_steps(CUDA, [(join, side)], FRAME)
    assert made.count(2) == 1
    del side


def test_features_of_a_device_without_memory(device: Callable[[Collect], None], told: list[str]) -> None:
    device(small(1300)[0])
    fitted, _, inputs = fitted_on([{"op": "scale", "columns": ["x"]}, {"op": "one_hot", "columns": ["w"]}], FRAME)
    expected = encoded(CPU, FRAME, fitted, inputs)
    same(expected, encoded(CUDA, FRAME, fitted, inputs))
    assert told == []
    device(small(10)[0])
    same(expected, encoded(CUDA, FRAME, fitted, inputs))
    assert told[0].startswith("features: 5000 rows of a partition of 5000")


def test_polars_is_imported_by_jobs_on_gpus_only() -> None:
    """It is no dependency of the others."""
    code = (
        "import sys\nimport treadle.engine.pipeline, treadle.engine.queries\n"
        "assert 'polars' not in sys.modules, 'imported'"
    )
    assert queries.__doc__
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_page_on_gpus_names_what_has_no_query() -> None:
    page = (Path(__file__).parents[3] / "docs" / "gpus.md").read_text(encoding="utf-8")
    lines = {line.split("|")[1].strip(): line.split("|") for line in page.splitlines() if line.startswith("| `")}
    functions = set(SQL_FUNCTIONS) - set(functions_with_query) - set(PARTS) - {"epoch"}
    on_host = lines["`filter`, `derive`"][-2]
    assert all(f"`{name}`" in on_host for name in functions)
    encoders = {name_of(entry): f"`{name_of(entry)}`" for entry in get_args(get_args(FeatureOperation)[0])}
    queried, left = lines["`features`"][-3:-1]
    with_query = {name_of(fitted) for fitted in features._EFFECTS} | {"interactions", "one_hot", "ordinal"}
    for name, named in encoders.items():
        assert (named in queried) is (name in with_query), name
        assert named in (left if name not in with_query else queried)


def name_of(entry: type[Any]) -> str:
    """As a spec calls it; of a fitted operation that serves several the first."""
    return str(get_args(entry.model_fields["op"].annotation)[0])


@pytest.mark.parametrize(("missing", "simulated"), [("polars", True), ("cudf_polars", False), ("rmm", False)])
def test_without_a_library_the_host_prepares_all(
    missing: str, simulated: bool, monkeypatch: pytest.MonkeyPatch, told: list[str]
) -> None:
    monkeypatch.setattr(preparing.importlib.util, "find_spec", lambda name: None if name == missing else name)
    if not simulated:
        monkeypatch.delenv("NUMBA_ENABLE_CUDASIM")
    pd.testing.assert_frame_equal(apply_steps(CUDA, STEPS, FRAME), apply_steps(CPU, STEPS, FRAME))
    contribution(CUDA, MEANS, FRAME, "tables.5 (aggregate)")
    assert set(told) == {f"rows and features: prepared on the host, since {missing} is not installed"}
