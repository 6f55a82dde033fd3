"""Proposed specs: accepted as they stand whatever the table holds, and what they do with each column."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

import treadle
from tests.engine.test_profile import frame_of, profile_of
from treadle.engine.backend import Backend
from treadle.engine.job import Data
from treadle.engine.operation import ROW_ID
from treadle.errors import DataError
from treadle.jobs.check import check_spec
from treadle.jobs.proposal import propose
from treadle.jobs.yaml_text import flow_list, flow_map, scalar

values = (
    st.text(max_size=12) | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.booleans() | st.none()
)
words = st.sampled_from(
    ["true", "No", "null", "1", "1.5", "0x1f", "~", "a b", "a: b", "#a", "- a", "{a}", "\u0085", "'", "2024-01-01", ""]
)


@given(st.lists(values | words, max_size=12), st.dictionaries(st.text(max_size=6) | words, values | words, max_size=6))
@settings(deadline=None)
def test_yaml_reads_back_what_was_written(items: list[Any], mapping: dict[str, Any]) -> None:
    text = f"list: {flow_list(items * 3)}\nmap: {flow_map(mapping)}\none: {scalar(items[0] if items else None)}\n"
    read = YAML(typ="safe").load(text)
    assert read == {"list": items * 3, "map": mapping, "one": items[0] if items else None}
    assert [type(item) for item in read["list"]] == [type(item) for item in items * 3]


def written(frame: pd.DataFrame, kinds: dict[str, str], target: str | None, folder: Path) -> Path:
    """The proposal for a table that is written beside it."""
    table = Backend().table(frame.drop(columns=ROW_ID))
    pq.write_table(table, folder / "table.parquet")
    data = {"path": str(folder / "table.parquet"), "format": "parquet"}
    profile = profile_of([frame], kinds, target).model_copy(update={"path": data["path"]})
    spec = folder / "spec.yaml"
    spec.write_text(propose(profile, Data.model_validate(data), folder), encoding="utf-8")
    return spec


NAMES = (
    "id",
    "Class",
    "split",
    "x",
    "X",
    "x_missing",
    "t",
    "t=a",
    "ts",
    "ts_year",
    "a b",
    'q"',
    "null",
    "#c: d",
    "bias",
    "0",
)
CELLS = {
    "int": st.none() | st.integers(-3, 30),
    "float": st.none() | st.integers(-4, 4).map(lambda n: n / 2) | st.sampled_from([math.inf, 1e300]),
    "bool": st.none() | st.booleans(),
    "text": st.none() | st.sampled_from(["a", "A", "b", "", "7", "2024-03-01", "05/06/2024", "Other", "?"]),
    "timestamp": st.none() | st.integers(0, 900).map(lambda n: pd.Timestamp("2024-01-01") + pd.Timedelta(hours=7 * n)),
}


@st.composite
def tables(draw: st.DrawFn) -> tuple[pd.DataFrame, dict[str, str], str | None]:
    names = draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=6, unique=True))
    kinds = {name: draw(st.sampled_from(sorted(CELLS))) for name in names}
    nulls = {name: draw(st.booleans()) for name in names}
    cells = [
        CELLS[kind] if nulls[name] else CELLS[kind].filter(lambda v: v is not None) for name, kind in kinds.items()
    ]
    rows = draw(st.lists(st.tuples(*cells), min_size=1, max_size=60))
    return frame_of(rows, kinds), kinds, draw(st.sampled_from([None, *names]))


@given(tables())
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_proposal_is_accepted_whatever_the_table_holds(
    folder: Path, made: tuple[pd.DataFrame, dict[str, str], str | None]
) -> None:
    frame, kinds, target = made
    spec = written(frame, kinds, target, folder)
    try:
        found = check_spec(spec, str(folder / "root"))
    except DataError as error:
        learnable = target is None or frame[target].nunique() > 1
        if learnable or ("nothing to learn" not in str(error) and "one class only" not in str(error)):
            raise
        return
    assert found["rows"] == len(frame)
    assert found["features"] == [] or target is not None


def messy(rows: int = 300) -> tuple[pd.DataFrame, dict[str, str]]:
    """All that a proposal has to mend: names, nulls, infinities, texts that are numbers or dates, leaks, constants."""
    rng = np.random.default_rng(11)
    day = pd.Timestamp("2023-05-01") + pd.to_timedelta(rng.integers(0, 500, rows), unit="D")
    label = np.where(rng.random(rows) < 0.3, "bad", "good")
    some = rng.random(rows) < 0.2
    columns: dict[str, tuple[str, Any]] = {
        "order_id": ("text", [f"o{i}" for i in range(rows)]),
        "Class": ("float", np.where(some, math.nan, rng.normal(size=rows) + (label == "bad"))),
        "class_missing": ("int", rng.integers(0, 9, rows)),
        "size": ("text", [str(n) for n in rng.integers(0, 40, rows)]),
        "day": ("text", [f"{d:%d.%m.%Y}" for d in day]),
        "ts": ("timestamp", np.where(some, np.datetime64("NaT"), day.to_numpy() + np.timedelta64(90, "m"))),
        "ts_hour": ("int", rng.integers(0, 24, rows)),
        "colour": ("text", rng.choice(np.array(["red", "Other", "blue", None], dtype=object), rows)),
        "street": ("text", [f"{n} Main St" for n in rng.integers(0, 120, rows)]),
        "ratio": ("float", np.where(rng.random(rows) < 0.05, math.inf, rng.normal(size=rows))),
        "flag": ("bool", rng.choice(np.array([True, False, None], dtype=object), rows)),
        "same": ("int", [7] * rows),
        "void": ("float", [math.nan] * rows),
        "rare": ("float", [1.0, 2.0, 3.0] + [math.nan] * (rows - 3)),
        "note": ("text", [f"note {i}" for i in rng.integers(0, 10**9, rows)]),
        "state": ("text", np.where(label == "bad", "failed", "passed")),
        "code": ("text", [f"{n:04d}" for n in rng.integers(0, 30, rows)]),
        "label": ("text", label),
    }
    kinds = {name: kind for name, (kind, _) in columns.items()}
    lists = [[None if pd.isna(value) else value for value in column] for _, column in columns.values()]
    return frame_of(list(zip(*lists, strict=True)), kinds), kinds


QUICK = ("models.0.params.n_estimators=20", "explain.rows=none", "predict.rows=none")


def test_a_messy_table_becomes_a_job_that_runs(tmp_path: Path, scheduler: str) -> None:
    frame, kinds = messy()
    spec = written(frame, kinds, "label", tmp_path)
    document = YAML(typ="safe").load(spec.read_text())
    assert document["data"]["id"] == "order_id"
    assert document["data"]["positive_class"] == "bad"
    tables = {operation["op"]: operation for operation in document["tables"]}
    assert set(tables["drop"]["columns"]) == {"same", "void", "rare", "note", "state"}
    casts = [operation for operation in document["tables"] if operation["op"] == "cast"]
    assert {"op": "cast", "columns": {"size": "int"}} in casts
    assert {"op": "cast", "columns": {"day": "timestamp"}, "formats": ["%d.%m.%Y"]} in casts
    assert len(casts) == 2, "codes with leading zeros stay text"
    assert tables["derive"]["name"] == "ratio"
    assert tables["rename"]["columns"] == {
        "Class": "Class_1",
        "class_missing": "class_missing_1",
        "ts_hour": "ts_hour_1",
    }
    encoded = {
        op: {name for operation in document["features"] if operation["op"] == op for name in operation["columns"]}
        for op in ("one_hot", "ordinal", "date_parts")
    }
    assert encoded == {"one_hot": {"code", "colour"}, "ordinal": {"street"}, "date_parts": {"day", "ts"}}

    overrides = [f"artifacts.root={tmp_path / 'root'}", "cluster.profile=address", f"cluster.address={scheduler}"]
    check_spec(spec, None, overrides)
    run = treadle.run(spec, overrides=[*overrides, *QUICK])
    board = run.leaderboard
    assert set(board["model"]) == {"xgboost", "logistic_regression"}
    assert board["error"].isna().all(), "nulls, infinities and unseen levels are dealt with"


def test_without_a_target_it_is_an_etl_job(tmp_path: Path, scheduler: str) -> None:
    frame, kinds = messy(60)
    spec = written(frame, kinds, None, tmp_path)
    document = YAML(typ="safe").load(spec.read_text())
    assert not {"models", "features", "split"} & set(document)
    assert "--target COLUMN" in spec.read_text()
    overrides = [f"artifacts.root={tmp_path / 'root'}", "cluster.profile=address", f"cluster.address={scheduler}"]
    etl = treadle.run(spec, overrides=overrides).table("etl").to_pandas()
    assert len(etl) == len(frame)
    assert etl["day"].dtype.kind == "M"
    assert "void" not in etl
    assert "note" in etl, "a text that does not repeat is dropped for models only"


def test_a_table_of_constants_keeps_its_columns(tmp_path: Path) -> None:
    frame = frame_of([(1, None)] * 30, {"a": "int", "b": "text"})
    spec = written(frame, {"a": "int", "b": "text"}, None, tmp_path)
    assert check_spec(spec, str(tmp_path / "root"))["rows_after_tables"] == {"a": "int", "b": "text"}


@pytest.mark.parametrize(
    ("values", "kind", "task", "positive"),
    [
        ([0, 1, 1], "int", "logistic_regression", 0),
        ([0.0, 1.0, 1.0], "float", "logistic_regression", None),
        (["1", "2", "3"], "text", "logistic_regression", None),
        ([str(i) for i in range(30)], "text", "ridge", None),
        (list(range(30)), "int", "ridge", None),
        ([i / 7 for i in range(30)], "float", "ridge", None),
        ([True, True, False], "bool", "logistic_regression", False),
        (["Yes", "yes", "no"], "text", "logistic_regression", None),
        ([f"w{i}" for i in range(300)], "text", None, None),
        (["a"], "text", None, None),
    ],
)
def test_the_target_decides_the_models(
    values: list[Any], kind: str, task: str | None, positive: Any, tmp_path: Path
) -> None:
    rows = [(value, float(i % 11)) for i, value in enumerate(values * (600 // len(values)))]
    frame = frame_of(rows, {"y": kind, "x": "float"})
    spec = written(frame, {"y": kind, "x": "float"}, "y", tmp_path)
    document = YAML(typ="safe").load(spec.read_text())
    assert document.get("models", [None])[-1] == task
    assert document["data"].get("positive_class") == positive
    check_spec(spec, str(tmp_path / "root"))
