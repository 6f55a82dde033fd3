"""cuDF takes every query: asked of cudf-polars itself, which needs no GPU to say so.

Without the extra `gpu` these tests skip: docs/developing.md says how to run them. What cuDF computes, only a GPU shows:
`tests/engine/queries/test_on_gpu.py`.
"""

from __future__ import annotations

import contextlib
from typing import Any

import pandas as pd
import polars as pl
import pytest

from tests.engine.parts import Parts, by_path, job_of
from tests.engine.queries import test_expressions, test_features, test_groups, test_running, test_steps, test_windows
from tests.engine.relations import frame_of as engine_frame
from tests.engine.relations import operation
from tests.engine.sql_cases import edge_rows, make_frame
from tests.engine.test_encoders import FIRST, frame_of
from treadle.cluster.probe import ProbeFailed, ask
from treadle.engine.backend import Backend, kinds_of
from treadle.engine.operation import ROW_ID
from treadle.engine.preparing import apply_steps, contribution
from treadle.engine.program import Step
from treadle.engine.queries import features, groups, running
from treadle.engine.queries.engine import first_line
from treadle.engine.recipe import fit, inputs_of

translate = pytest.importorskip("cudf_polars.dsl.translate", reason="cudf-polars is not installed: the extra gpu")
CUDA = test_steps.Strict("cuda")


def refused(lazy: pl.LazyFrame) -> list[str]:
    """What cuDF does not take of a query."""
    engine = pl.GPUEngine(executor="in-memory", raise_on_fail=True)
    translator = translate.Translator(lazy._ldf.visit(), engine)
    translator.translate_ir()
    return [str(error) for error in translator.errors]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[pl.LazyFrame]:
    """Queries are given to cudf-polars to translate, and then computed by Polars on the host."""
    real, asked = running.collected, []

    def collected(lazy: pl.LazyFrame, engine: Any) -> pl.DataFrame:
        assert refused(lazy) == []
        asked.append(lazy)
        return real(lazy, engine)

    for module in (running, groups, features):
        monkeypatch.setattr(module, "collected", collected)
    return asked


@pytest.mark.parametrize("text", test_expressions.WITH_QUERY)
def test_expressions(text: str, asked: list[pl.LazyFrame]) -> None:
    frame = make_frame(edge_rows()).assign(**{ROW_ID: 0})
    derive = operation(op="derive", name="outcome", sql=text.replace("CAST", "TRY_CAST").replace("TRY_TRY_", "TRY_"))
    apply_steps(CUDA, [(Step(0, derive), None)], frame)
    assert len(asked) == 1


FRAME = engine_frame(
    test_steps.KINDS, [(1, 1, "a", 0.5, True, pd.Timestamp("2024-01-01")), (2, None, None, None, None, None)]
)


@pytest.mark.parametrize("section", test_steps.OPERATIONS, ids=str)
def test_operations(section: dict[str, Any], asked: list[pl.LazyFrame]) -> None:
    apply_steps(CUDA, [(Step(0, operation(**section)), None)], FRAME)
    assert len(asked) == 1


@pytest.mark.parametrize("how", ["left", "inner", "semi", "anti"])
def test_joins(how: str, asked: list[pl.LazyFrame]) -> None:
    side = engine_frame({"k": "int", "w": "text", "z": "float"}, [(1, "a", 2.0), (None, "b", None)])
    join = operation(op="join", on=["k", "w"], how=how, **{"with": {"path": "side"}})
    apply_steps(CUDA, [(Step(0, join), side)], FRAME)
    assert len(asked) == 1


def test_groups_beside_the_rows(asked: list[pl.LazyFrame]) -> None:
    aggregate: Any = operation(op="aggregate", by=["k", "w"], broadcast=True, aggregations={"n": {"function": "count"}})
    table = aggregate.finish(aggregate.partial(FRAME))
    apply_steps(CUDA, [(Step(0, aggregate, side="side"), table)], FRAME)
    assert len(asked) == 1


def test_what_is_gathered(asked: list[pl.LazyFrame]) -> None:
    frame = engine_frame(
        test_groups.KINDS, [(1, "a", 0.5, True, pd.Timestamp("2024-01-01"), 3, 1), (None, None, None, None, None, 4, 2)]
    )
    contribution(CUDA, test_groups.aggregate(["w", "p"]), frame, "here")
    # The groups; of each column its ends, and its distinct values.
    assert len(asked) == 1 + 2 * len(test_groups.FUNCTIONS)


@pytest.mark.parametrize("sections", test_features.SECTIONS, ids=test_features.title)
def test_feature_operations(sections: list[dict[str, Any]], asked: list[pl.LazyFrame]) -> None:
    frame = frame_of([FIRST, FIRST, ("b", None, False, None, None), ("", 3, None, 1.0, None)])
    rows = frame.assign(**{ROW_ID: range(4), "y": [0.0, 1.0, 1.0, 0.0]})
    job = job_of(sections)
    inputs = inputs_of(job, kinds_of(rows))
    fitted, _ = fit(Parts([rows], ["train"]), job, by_path(), inputs)  # type: ignore[arg-type]
    test_features.encoded(CUDA, frame, fitted, inputs, test_features.training_of(frame, 1))
    assert len(asked) == 1


def test_without_a_gpu_the_host_does_all_of_it_and_says_why(monkeypatch: pytest.MonkeyPatch, told: list[str]) -> None:
    """With the real libraries, and no stand-in."""
    monkeypatch.delenv("NUMBA_ENABLE_CUDASIM", raising=False)
    with contextlib.suppress(ProbeFailed):
        ask("device")
        pytest.skip("a GPU computes here")
    found = apply_steps(Backend("cuda"), test_running.STEPS, test_running.FRAME)
    pd.testing.assert_frame_equal(found, apply_steps(Backend(), test_running.STEPS, test_running.FRAME))
    assert len(told) == len(test_running.STEPS)
    assert sum("cuDF" in text and "river" in text for text in told) == len(test_running.STEPS) - 1


@pytest.mark.parametrize("shape", test_windows.SHAPES)
def test_outputs_of_windows(shape: str, asked: list[pl.LazyFrame]) -> None:
    kinds = {"k": "int", "x": "float", "i": "int", "b": "bool", "w": "text", "t": "timestamp", "f": "float"}
    frame = engine_frame(kinds, [(1, 0.5, 3, True, "a", pd.Timestamp("2024-01-01"), 1.0), (None,) * 7])
    outputs = test_windows.outputs_of(shape)
    window = operation(op="window", by=["k"], outputs={**outputs, "before": {"function": "lag", "column": "x"}})
    apply_steps(CUDA, [(Step(0, window), None)], frame)
    assert len(asked) == 1


@pytest.mark.parametrize(("order", "span"), [("t", "2d"), ("i", 3)])
@pytest.mark.parametrize("by", [[], ["k"]])
def test_spans(order: str, span: Any, by: list[str], asked: list[pl.LazyFrame]) -> None:
    kinds = {"k": "int", "x": "float", "i": "int", "b": "bool", "w": "text", "t": "timestamp", "f": "float"}
    frame = engine_frame(kinds, [(1, 0.5, 3, True, "a", pd.Timestamp("2024-01-01"), 1.0)])
    outputs = {name: {**output, "span": span} for name, output in test_windows.SPANS.items()}
    apply_steps(CUDA, [(Step(0, operation(op="window", by=by, order=order, outputs=outputs)), None)], frame)
    assert len(asked) == 1


@pytest.mark.parametrize("order", ["t", "f"])
def test_places_in_an_order(order: str, asked: list[pl.LazyFrame]) -> None:
    frame = engine_frame({"k": "int", "t": "timestamp", "f": "float"}, [(1, pd.Timestamp("2024-01-01"), 1.0)])
    outputs = {function: {"function": function} for function in test_windows.OF_ORDER}
    apply_steps(CUDA, [(Step(0, operation(op="window", by=["k"], order=order, outputs=outputs)), None)], frame)
    assert len(asked) == 1


def test_the_reason_why_cudf_does_not_take_a_query_is_found_in_what_it_says() -> None:
    month = pl.LazyFrame({"t": [pd.Timestamp("2024-01-01")]}).with_columns(pl.col("t").dt.truncate("1mo"))
    with pytest.raises(pl.exceptions.ComputeError) as told:
        month.collect(engine=pl.GPUEngine(executor="in-memory", raise_on_fail=True))
    assert first_line(told.value) == "NotImplementedError: Unsupported bucket: '1mo'"
