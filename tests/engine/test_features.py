"""Fitting goes in rounds, on the training rows only, and as if the operations were fitted one after the other."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engine.parts import Parts, applied, by_path, fitted_on, job_of
from treadle.engine.artifacts import SplitRule
from treadle.engine.backend import kinds_of
from treadle.engine.encoders import Fitted
from treadle.engine.operation import ROW_ID
from treadle.engine.recipe import Recipe, fit, inputs_of, make_block
from treadle.engine.rows import assign
from treadle.errors import RequestError


def people(rows: int, seed: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    city = rng.choice(np.array(["Ulm", "Bonn", "Köln", None], dtype=object), rows)
    return pd.DataFrame(
        {
            "age": pd.array(np.where(rng.random(rows) < 0.2, None, rng.integers(18, 80, rows)), dtype="Int64"),
            "pay": np.where(rng.random(rows) < 0.2, np.nan, rng.lognormal(3, 1, rows)),
            "city": pd.array(city, dtype="str"),
            "old": pd.array(rng.random(rows) < 0.4, dtype="boolean"),
            "member": pd.array(rng.random(rows) < 0.6, dtype="boolean"),
        }
    )


def one_after_the_other(train: pd.DataFrame, sections: list[dict[str, Any]], rows: pd.DataFrame) -> pd.DataFrame:
    """The reference: every operation is fitted on the training rows as the operations before it left them."""
    train, rows = train.copy(), rows.copy()
    for section in sections:
        for name in section["columns"]:
            known = train[name].dropna()
            made: dict[str, Any] = {}
            for frame in (train, rows):
                column = frame[name]
                match section:
                    case {"op": "impute", "method": method}:
                        values = known.astype("float64") if method in ("median", "mean") else known
                        value = values.mode().iloc[0] if method == "mode" else getattr(values, method)()
                        made = {
                            name: column.fillna(value) if isinstance(value, str) else column.astype(float).fillna(value)
                        }
                        if section.get("indicator"):
                            made[f"{name}_missing"] = column.isna().astype(float)
                    case {"op": "scale"}:
                        values = known.astype("float64")
                        made = {name: (column.astype("float64") - values.mean()) / (values.std(ddof=0) or 1.0)}
                    case {"op": "ordinal"}:
                        levels = sorted(known.unique())
                        made = {name: column.map({level: float(i) for i, level in enumerate(levels)}).astype("float64")}
                    case {"op": "one_hot"}:
                        levels = sorted(known.unique())
                        made = {
                            f"{name}={level}": (column == level).fillna(False).astype("float64") for level in levels
                        }
                        del frame[name]
                for title, values in made.items():
                    frame[title] = values
    return rows


IMPUTE = {"op": "impute", "method": "median", "columns": ["age", "pay"]}
MODE = {"op": "impute", "method": "mode", "columns": ["city", "age"]}
SCALE = {"op": "scale", "columns": ["pay", "age"]}
STEPS: list[dict[str, Any]] = [
    IMPUTE,
    {**IMPUTE, "method": "mean", "columns": ["pay"]},
    MODE,
    SCALE,
    {**SCALE, "columns": ["old"]},
    {"op": "ordinal", "columns": ["old"]},
]
LAST: list[dict[str, Any]] = [
    {"op": "one_hot", "columns": ["city"]},
    {"op": "ordinal", "columns": ["city", "age"]},
    {"op": "one_hot", "columns": ["member", "city"]},
    {"op": "scale", "columns": ["age"]},
]


@settings(max_examples=25, deadline=None)
@given(st.lists(st.sampled_from(STEPS), max_size=5), st.sampled_from(LAST), st.booleans())
def test_rounds_are_as_good_as_one_operation_at_a_time(
    steps: list[dict[str, Any]], last: dict[str, Any], indicator: bool
) -> None:
    first: list[dict[str, Any]] = [{**IMPUTE, "indicator": True}, {**SCALE, "columns": ["pay_missing"]}]
    sections = [*(first if indicator else []), *steps, last]
    train, test = people(60, 1), people(20, 2)
    fitted, kinds, inputs = fitted_on(sections, train[:25], train[25:25], train[25:], test=[test])
    assert len(fitted) == len(sections)
    found = applied(fitted, inputs, test)
    expected = one_after_the_other(train, sections, test)
    assert set(found) == set(kinds) == set(expected)
    pd.testing.assert_frame_equal(found, expected[list(found)], check_dtype=False, rtol=1e-9)


@pytest.mark.parametrize(
    ("sections", "passes"),
    [
        ([IMPUTE, {"op": "one_hot", "columns": ["city"]}, {**SCALE, "columns": ["old"]}], 1),
        ([IMPUTE, SCALE], 2),
        ([SCALE, {**MODE, "columns": ["city"]}, {"op": "one_hot", "columns": ["city"]}], 2),
        ([{**IMPUTE, "indicator": True}, {**SCALE, "columns": ["age_missing"]}], 2),
        ([IMPUTE, {"op": "scale", "columns": "numeric"}], 2),
        ([{"op": "impute", "columns": ["age"], "method": "constant", "value": 3}], 0),
    ],
)
def test_a_round_gathers_all_that_is_known(sections: list[dict[str, Any]], passes: int) -> None:
    job = job_of(sections)
    frame = people(30, 3).assign(y=0.0)
    rows = Counted([frame], ["train"])
    fit(rows, job, by_path(), inputs_of(job, kinds_of(frame)))  # type: ignore[arg-type]
    assert rows.passes == passes


class Counted(Parts):
    passes = 0

    def reduce(self, function: Any, merge: Any, *args: Any) -> Any:
        self.passes += 1
        return super().reduce(function, merge, *args)


EVERYTHING = [
    {**IMPUTE, "indicator": True},
    MODE,
    {"op": "one_hot", "columns": ["city"]},
    {"op": "scale", "columns": "numeric"},
]


def fitted_by(frame: pd.DataFrame, rule: SplitRule) -> list[Fitted]:
    job = job_of(EVERYTHING, split={"kind": "random"})
    halves = [frame[: len(frame) // 2], frame[len(frame) // 2 :]]
    return fit(Parts(halves, ["any", "any"]), job, rule, inputs_of(job, kinds_of(frame)))[0]  # type: ignore[arg-type]


def test_neither_test_rows_nor_rows_without_a_target_teach_anything() -> None:
    frame = people(200, 4).assign(**{ROW_ID: pd.array(range(200), dtype="Int64"), "y": np.arange(200.0)})
    frame.loc[5:15, "y"] = np.nan
    rule = SplitRule.model_validate({**by_path().model_dump(), "kind": "random", "bounds": (2**62,), "seed": 7})
    target, test = assign(frame, "any", job_of(split={"kind": "random"}), rule)
    assert 20 < test.sum() < 90
    wild = frame.copy()
    hidden = test | np.isnan(target)
    wild.loc[hidden, "pay"] = 1e12
    wild.loc[hidden, "age"] = -(10**9)
    wild.loc[hidden, "city"] = "Atlantis"
    wild.loc[hidden, "old"] = pd.NA
    assert fitted_by(wild, rule) == fitted_by(frame, rule)
    wild.loc[~hidden, "pay"] = 1.0
    assert fitted_by(wild, rule) != fitted_by(frame, rule)


def test_a_block_holds_the_rows_with_a_target_in_their_order() -> None:
    frame = people(50, 5).assign(**{ROW_ID: pd.array(range(100, 150), dtype="Int64")})
    frame["y"] = pd.array(["no", "yes", None, "yes", "no"] * 10, dtype="str")
    rule = by_path("binary", ("no", "yes"))
    job = job_of([IMPUTE, SCALE], data={"protected": ["city", "old"]})
    assert list(inputs_of(job, kinds_of(frame))) == ["age", "pay", "old", "member"]
    block = make_block(frame, "test", Recipe(job, rule, ("age", "old")), ("old", "age"))
    known = frame[frame["y"].notna()]
    assert block.ids.to_pylist() == known[ROW_ID].tolist()
    assert block.test.all()
    assert block.target.tolist() == (known["y"] == "yes").astype(float).tolist()
    np.testing.assert_array_equal(block.matrix, known[["old", "age"]].astype("float32").to_numpy())
    assert block.protected["city"].to_pylist() == [None if pd.isna(c) else c for c in known["city"]]
    assert block.protected["old"].to_pylist() == known["old"].tolist()


def test_what_features_are_made_of() -> None:
    kinds = {"id": "int", "y": "text", "when": "timestamp", "race": "text", "rich": "bool", "x": "float"}
    data = {"id": "id", "protected": ["race", "rich"]}
    split = {"kind": "time", "column": "when"}
    assert list(inputs_of(job_of(data=data, split=split), kinds)) == ["rich", "x"]
    named = [{"op": "one_hot", "columns": ["race"]}, {"op": "date_parts", "columns": ["when"]}]
    assert list(inputs_of(job_of(named, data=data, split=split), kinds)) == ["when", "race", "rich", "x"]
    with pytest.raises(RequestError, match="impute: there would be two features called 'age_missing'; rename a column"):
        fitted_on([{**IMPUTE, "indicator": True}], people(5, 1).assign(age_missing=1.0))
