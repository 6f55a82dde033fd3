"""Fitted feature operations as queries make of a partition just what they make of it on the host."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engine.parts import Parts, by_path, fitted_on, job_of
from tests.engine.queries.test_steps import CUDA
from tests.engine.test_encoders import COLUMNS, FIRST, ROWS, frame_of
from treadle.engine.backend import Backend, kinds_of
from treadle.engine.encoders import Training, columns_for, to_matrix
from treadle.engine.encoders.columns import Columns, Indicator
from treadle.engine.operation import ROW_ID
from treadle.engine.preparing import apply_features
from treadle.engine.recipe import fit, inputs_of

CATEGORIES: list[dict[str, Any]] = [
    {"op": op, "columns": COLUMNS, **more}
    for op in ("one_hot", "ordinal")
    for more in ({}, {"missing": "none"}, {"missing": "other", "unseen": "other"}, {"min_count": 2, "unseen": "other"})
]
SECTIONS: list[list[dict[str, Any]]] = [
    *([section] for section in CATEGORIES),
    [{"op": "impute", "columns": ["i", "b", "f"], "method": "median", "indicator": True}],
    [{"op": "impute", "columns": COLUMNS, "method": "mode", "indicator": True}],
    [{"op": "clip", "columns": ["i", "b", "f"]}],
    [{"op": "scale", "columns": ["i", "b", "f"]}],
    [{"op": "scale", "columns": ["i", "f"], "method": "robust"}],
    [{"op": "bin", "columns": ["i", "b", "f"], "bins": 4}],
    [{"op": "bin", "columns": ["i", "f"], "method": "quantile", "bins": 3}],
    [{"op": "frequency", "columns": COLUMNS}],
    [{"op": "frequency", "columns": COLUMNS, "unseen": "ignore"}],
    [{"op": "target_encode", "columns": COLUMNS}],
    [{"op": "target_encode", "columns": ["c", "f"], "unseen": "ignore", "folds": 3}],
    [{"op": "date_parts", "columns": ["t"], "cyclic": True, "parts": ["year", "quarter", "month", "week", "day"]}],
    [{"op": "date_parts", "columns": ["t"], "parts": ["weekday", "dayofyear", "hour", "minute", "second"]}],
    [{"op": "interactions", "columns": ["i", "b", "f"], "degree": 3}],
    # Operations on what others have made.
    [
        {"op": "impute", "columns": ["i", "f"], "method": "mean"},
        {"op": "one_hot", "columns": ["c"]},
        {"op": "date_parts", "columns": ["t"], "parts": ["hour"]},
        {"op": "interactions", "columns": ["i", "f", "t_hour"]},
        {"op": "scale", "columns": ["f", "i*f"]},
        {"op": "bin", "columns": ["f"], "bins": 3},
    ],
    [{"op": "one_hot", "columns": ["i"]}, {"op": "impute", "columns": ["i=1"], "indicator": True}],
]


def title(sections: list[dict[str, Any]]) -> str:
    return " ".join(" ".join(str(v) for v in s.values() if not isinstance(v, (list, tuple))) for s in sections)


def encoded(
    backend: Backend, frame: pd.DataFrame, fitted: Any, inputs: Iterable[str], training: Training | None = None
) -> Columns:
    """The columns of a frame after fitted operations, by a backend."""
    return apply_features(backend, columns_for(frame, fitted, list(inputs)), fitted, training)


def same(expected: Any, found: Any) -> None:
    """Columns of features: equal values, to the last digits; of one_hot the same codes."""
    assert list(found) == list(expected)
    for name in expected:
        if isinstance(expected[name], pd.Series):
            pd.testing.assert_series_equal(found[name], expected[name], check_names=False)
        else:
            assert isinstance(found[name], Indicator) is isinstance(expected[name], Indicator)
            np.testing.assert_allclose(np.asarray(found[name]), np.asarray(expected[name]), rtol=1e-14)


@pytest.mark.parametrize("sections", SECTIONS, ids=title)
@settings(max_examples=8, deadline=None)
@given(rows=ROWS, others=ROWS, seed=st.integers(0, 99))
def test_queries_of_features(sections: list[dict[str, Any]], rows: list[Any], others: list[Any], seed: int) -> None:
    train, test = frame_of([FIRST, FIRST, *rows]), frame_of(others)
    y = np.random.default_rng(seed).integers(0, 2, len(train)).astype(float)
    job = job_of(sections)
    given_rows = train.assign(**{ROW_ID: np.arange(len(train)), "y": y})
    inputs = inputs_of(job, kinds_of(given_rows))
    fitted, _ = fit(Parts([given_rows], ["train"]), job, by_path(), inputs)  # type: ignore[arg-type]
    for frame, training in ((train, training_of(train, seed)), (test, None)):
        expected, found = (encoded(b, frame, fitted, inputs, training) for b in (Backend(), CUDA))
        same(expected, found)
        numbers = [name for name in expected if not isinstance(expected[name], pd.Series)]
        if numbers:
            matrices = [to_matrix(columns, numbers, len(frame)) for columns in (expected, found)]
            np.testing.assert_allclose(*matrices, rtol=1e-6)


def training_of(frame: pd.DataFrame, seed: int) -> Training:
    rng = np.random.default_rng(seed)
    return Training(rng.random(len(frame)) < 0.8, rng.integers(0, 2**63, len(frame)).astype(np.uint64))


@pytest.mark.parametrize(
    ("section", "named"),
    [
        ({"op": "hash_encode", "columns": ["c"], "buckets": 3}, "features (hash_encode of c)"),
        ({"op": "text", "columns": ["c"]}, "features (text of c)"),
        ({"op": "scale", "columns": ["f"], "method": "quantile"}, "features (scale of f)"),
        ({"op": "one_hot", "columns": ["c"], "unseen": "error"}, "features (one_hot of c)"),
    ],
)
def test_what_has_no_query_is_done_between_others_and_told(
    section: dict[str, Any], named: str, told: list[str]
) -> None:
    sections = [{"op": "impute", "columns": ["i", "f"]}, section, {"op": "clip", "columns": ["i"]}]
    frame = frame_of([FIRST, ("b", None, False, None, None), ("", 3, None, 1.0, None)])
    fitted, _, inputs = fitted_on(sections, frame)
    same(*(encoded(backend, frame, fitted, inputs) for backend in (Backend(), Backend("cuda"))))
    assert [text.split(":")[0] for text in told] == [named]
