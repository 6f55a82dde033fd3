"""What cuDF computes on a GPU equals the host's, for everything that has a query."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.engine.parts import Parts, by_path, job_of
from tests.engine.queries import test_expressions, test_features, test_groups, test_steps, test_windows
from tests.engine.relations import POOLS, operation
from tests.engine.sql_cases import edge_rows, make_frame
from tests.engine.test_encoders import FIRST, frame_of
from tests.engine.test_window import KINDS as WINDOW_KINDS
from tests.engine.test_window import TIMES
from treadle.cluster.probe import ProbeFailed, ask
from treadle.engine.backend import DTYPES, Backend, kinds_of
from treadle.engine.operation import ROW_ID
from treadle.engine.preparing import apply_steps, contribution
from treadle.engine.program import Step
from treadle.engine.recipe import fit, inputs_of
from treadle.errors import DataError

pytestmark = pytest.mark.gpu
CPU, CUDA = test_steps.CPU, test_steps.CUDA
ROWS = 3000


@pytest.fixture(autouse=True)
def _a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU that computes, and cuDF; queries go to it, and not to Polars' own engine."""
    pytest.importorskip("cudf_polars", reason="cudf-polars is not installed: the extra gpu")
    monkeypatch.delenv("NUMBA_ENABLE_CUDASIM", raising=False)
    if (problem := _problem()) is not None:
        pytest.skip(f"no GPU: {problem}")


@functools.cache
def _problem() -> str | None:
    try:
        ask("device")
    except ProbeFailed as error:
        return str(error)
    return None


def rows_of(kinds: dict[str, str], pools: dict[str, list[Any]]) -> pd.DataFrame:
    """Many rows of the pools' values, so that there are several blocks of threads."""
    rng = np.random.default_rng(1)
    values = {name: pools.get(name, POOLS[kind]) for name, kind in kinds.items()}
    return pd.DataFrame(
        {
            name: pd.Series([pool[i] for i in rng.integers(0, len(pool), ROWS)], dtype=DTYPES[kinds[name]])
            for name, pool in values.items()
        }
    )


@pytest.mark.parametrize("text", test_expressions.WITH_QUERY)
def test_expressions(text: str) -> None:
    frame = make_frame(edge_rows(ROWS)).assign(**{ROW_ID: pd.array(range(ROWS), dtype="Int64")})
    steps = [(Step(0, operation(op="derive", name="outcome", sql=text)), None)]
    expected, found = (outcome(backend, steps, frame) for backend in (CPU, CUDA))
    if isinstance(expected, str):
        assert found == expected
    else:
        pd.testing.assert_frame_equal(found, expected, rtol=1e-13, atol=0)


def outcome(backend: Backend, steps: Any, frame: pd.DataFrame) -> Any:
    """The rows, or the words in which a value is refused."""
    try:
        return apply_steps(backend, steps, frame)
    except DataError as error:
        return str(error)


@pytest.mark.parametrize("section", test_steps.OPERATIONS, ids=str)
def test_operations(section: dict[str, Any]) -> None:
    frame = rows_of(test_steps.KINDS, {**test_steps.KEYS, ROW_ID: list(range(ROWS))})
    expected, found = test_steps.both(Step(0, operation(**section)), frame)
    pd.testing.assert_frame_equal(found, expected)


@pytest.mark.parametrize("how", ["left", "inner", "semi", "anti"])
@pytest.mark.parametrize("on", [["k"], ["k", "w"]])
def test_joins(how: str, on: list[str]) -> None:
    frame = rows_of(test_steps.KINDS, test_steps.KEYS)
    side = rows_of(test_steps.SIDE, test_steps.KEYS).head(40)
    side = side if len(on) == 2 else side.drop(columns="w")
    join = operation(op="join", on=on, how=how, **{"with": {"path": "side"}})
    expected, found = test_steps.both(Step(0, join), frame, side)
    pd.testing.assert_frame_equal(found, expected)


@pytest.mark.parametrize("by", [["k"], ["w", "p"], ["x"], ["t", "k"]], ids=str)
def test_what_is_gathered(by: list[str]) -> None:
    frame = rows_of(test_groups.KINDS, test_groups.POOLS)
    wanted = test_groups.aggregate(by)
    expected = wanted.finish(wanted.partial(frame))
    pd.testing.assert_frame_equal(wanted.finish(contribution(CUDA, wanted, frame, "here")), expected, rtol=1e-9)
    step = Step(0, wanted, side="side")
    pd.testing.assert_frame_equal(*test_steps.both(step, frame, expected))


@pytest.mark.parametrize("sections", test_features.SECTIONS, ids=test_features.title)
def test_feature_operations(sections: list[dict[str, Any]]) -> None:
    pools = {"c": [None, "", "1", "a", "A", "other"], "i": [None, 0, 1, -7, 9], "f": [None, 0.0, 1.0, 2.5, -1e7]}
    kinds = {"c": "text", "i": "int", "b": "bool", "f": "float", "t": "timestamp"}
    frame = pd.concat([frame_of([FIRST]), rows_of(kinds, pools)], ignore_index=True)
    y = np.random.default_rng(2).integers(0, 2, len(frame)).astype(float)
    rows = frame.assign(**{ROW_ID: np.arange(len(frame)), "y": y})
    job = job_of(sections)
    inputs = list(inputs_of(job, kinds_of(rows)))
    fitted, _ = fit(Parts([rows], ["train"]), job, by_path(), inputs_of(job, kinds_of(rows)))  # type: ignore[arg-type]
    training = test_features.training_of(frame, 3)
    test_features.same(*(test_features.encoded(backend, frame, fitted, inputs, training) for backend in (CPU, CUDA)))


@pytest.mark.parametrize("shape", test_windows.SHAPES)
@pytest.mark.parametrize("order", [None, "ts"])
def test_outputs_of_windows(shape: str, order: str | None) -> None:
    pools = {"x": [None, 0.25, -1.5, 3.0, 2.0], "i": [None, 0, 3, -2, 2**53 + 1], "ts": TIMES, "f": [None, 1.0, 0.5]}
    frame = rows_of(WINDOW_KINDS, pools)
    outputs = test_windows.outputs_of(shape)
    if order is not None:
        outputs |= {function: {"function": function} for function in test_windows.OF_ORDER}
    step = Step(0, operation(op="window", by=["k", "w"], order=order, outputs=outputs))
    expected, found = test_steps.both(step, frame)
    pd.testing.assert_frame_equal(found, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("order", "span"), [("ts", "3s"), ("ts", "2d"), ("n", 3)])
@pytest.mark.parametrize("by", [[], ["k"], ["w", "b"]], ids=str)
def test_spans_of_windows(order: str, span: Any, by: list[str]) -> None:
    pools = {"x": [None, 0.25, -1.5, 3.0, 2.0], "i": [None, 0, 3, -2], "ts": TIMES, "f": [None, 1.0, 0.5]}
    frame = rows_of({**WINDOW_KINDS, "n": "int"}, {**pools, "n": list(range(0, 900, 2))})
    outputs = {name: {**output, "span": span} for name, output in test_windows.SPANS.items()}
    expected, found = test_steps.both(Step(0, operation(op="window", by=by, order=order, outputs=outputs)), frame)
    pd.testing.assert_frame_equal(found, expected, rtol=1e-9, atol=1e-9)
