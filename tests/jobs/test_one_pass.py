"""Predictions and contributions come from one pass over the rows, and are cached apart all the same."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import treadle
from tests.conftest import people_spec
from treadle.jobs.predict import predict_files
from treadle.jobs.run import Run

MODELS: dict[str, list[Any]] = {
    "xgboost": [{"name": "xgboost", "params": {"n_estimators": 20, "max_depth": 3}}],
    "gblinear": [{"name": "xgboost", "params": {"n_estimators": 20, "booster": "gblinear"}}],
    "linear": ["logistic_regression"],
    "forest": ["random_forest"],
}
EXACT = [
    {"op": "impute", "columns": ["log_income"], "method": "median"},
    {"op": "one_hot", "columns": ["city"], "missing": "?"},
    {"op": "date_parts", "columns": ["joined"], "parts": ["month"]},
]
"""Operations whose outcome is the same to the last bit for every partitioning."""
TABLES = ("predictions", "explanations")


class Killed(Exception):
    """Stands for whatever ends a run at a moment of our choosing."""


def events_of(run: Run, root: Path) -> list[dict[str, Any]]:
    lines = (root / "runs" / run.id / "events.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def made(run: Run) -> set[str]:
    """The stages that were not cached."""
    return {record["stage"] for record in run.manifest["stages"] if record["status"] == "finished"}


def assert_same_tables(run: Run, other: Run, sort: bool = False) -> None:
    """Bit for bit, in the same order, or by id."""
    for name in TABLES:
        found, expected = run.table(name).to_arrow(), other.table(name).to_arrow()
        if sort:
            found, expected = found.sort_by("id"), expected.sort_by("id")
        assert found.equals(expected), name
        assert found.num_rows


@pytest.mark.parametrize(
    ("model", "explain", "predict"),
    [
        ("xgboost", "test", "test"),
        pytest.param("xgboost", "test", "all", marks=pytest.mark.slow),
        pytest.param("xgboost", "all", "test", marks=pytest.mark.slow),
        ("xgboost", "all", "all"),
        ("gblinear", "test", "all"),
        pytest.param("linear", "all", "test", marks=pytest.mark.slow),
        pytest.param("forest", "test", "all", marks=pytest.mark.slow),
    ],
)
def test_one_pass_makes_the_tables_that_two_runs_make(
    run_people: Callable[..., Run], tmp_path: Path, people: Path, scheduler: str, model: str, explain: str, predict: str
) -> None:
    spec = people_spec(people, tmp_path / "apart", scheduler, models=MODELS[model])
    first = treadle.run({**spec, "explain": {"rows": explain}, "predict": {"rows": "none"}})
    assert set(first.tables) == {"features", "leaderboard", "explanations"}
    apart = treadle.run({**spec, "explain": {"rows": explain}, "predict": {"rows": predict}})
    assert made(apart) == {"predict", "publish"}
    together = run_people(models=MODELS[model], explain={"rows": explain}, predict={"rows": predict})
    assert {"explain", "predict"} <= made(together)
    assert_same_tables(together, apart)
    assert together.importance == first.importance == apart.importance
    error = [run.manifest["results"]["explain"]["additivity_error"] for run in (together, apart)]
    assert error[0] == error[1] < 1e-5
    assert together.table("explanations").rows == (600 if explain == "all" else 150)
    assert together.table("predictions").rows == (600 if predict == "all" else 150)
    sums = together.table("explanations").to_pandas().set_index("id").sum(axis=1)
    margins = together.table("predictions").to_pandas().set_index("id")["margin"]
    both = sums.index.intersection(margins.index)
    assert len(both) == (600 if explain == predict == "all" else 150)
    np.testing.assert_allclose(sums[both], margins[both], atol=1e-4)


def test_the_first_of_the_two_stages_passes_over_the_rows(run_people: Callable[..., Run], tmp_path: Path) -> None:
    """The pass tells of its rows once; each stage has its events, its folder and its outcome."""
    run = run_people(explain={"rows": "test"}, predict={"rows": "all"})
    events = events_of(run, tmp_path / "artifacts")
    told = [(e["stage"], e["event"]) for e in events if e["stage"] in ("explain", "predict")]
    assert [pair for pair in told if pair[1] != "progress"] == [
        ("explain", "started"), ("explain", "finished"), ("predict", "started"), ("predict", "finished"),
    ]  # fmt: skip
    progress = [e for e in events if e["event"] == "progress" and e["stage"] in ("explain", "predict")]
    assert {e["stage"] for e in progress} == {"explain"}
    assert max(e["rows"] for e in progress) == 600
    for name, table in (("explain", "explanations"), ("predict", "predictions")):
        (folder,) = (tmp_path / "artifacts" / "stages").glob(f"{name}-*")
        parts = json.loads((folder / "stage.json").read_text())["table"]
        assert {f"{folder.name}/{path.name}" for path in folder.glob("part-*")} == {
            part["path"].removeprefix("stages/") for part in parts
        }
        assert sum(part["rows"] for part in parts) == run.table(table).rows


@pytest.mark.slow
def test_each_table_is_cached_by_itself(run_people: Callable[..., Run]) -> None:
    first = run_people()
    assert made(run_people(device="cpu")) == {"publish"}
    assert made(run_people(explain={"rows": "all"})) == {"explain", "publish"}
    assert made(run_people(explain={"top_k": 2})) == {"explain", "publish"}
    assert made(run_people(predict={"rows": "all"})) == {"predict", "publish"}
    assert made(run_people(predict={"rows": "none"})) == {"publish"}
    assert made(run_people(explain={"rows": "all"}, predict={"rows": "all"})) == {"publish"}
    fresh = run_people(fresh=True)
    assert {"explain", "predict"} <= made(fresh)
    assert_same_tables(fresh, first)


def test_double_precision_is_a_matter_of_the_explanations_alone(run_people: Callable[..., Run]) -> None:
    single = run_people()
    run = run_people(explain={"dtype": "float64"})
    assert made(run) == {"explain", "publish"}
    table, rounded = run.table("explanations").to_arrow(), single.table("explanations").to_arrow()
    assert {str(field.type) for field in table.schema if field.name != "id"} == {"double"}
    assert table.cast(rounded.schema, safe=False).equals(rounded)
    margins = run.table("predictions").to_pandas().set_index("id")["margin"]
    sums = table.to_pandas().set_index("id").sum(axis=1)
    np.testing.assert_allclose(sums, margins[sums.index], atol=2e-6)
    assert run_people(explain={"dtype": "float32"}).table("explanations").version == 2


@pytest.mark.parametrize("model", [pytest.param(m, marks=[] if m == "xgboost" else pytest.mark.slow) for m in MODELS])
def test_tables_do_not_depend_on_the_partitioning(people: Path, tmp_path: Path, scheduler: str, model: str) -> None:
    runs = []
    for partitions in (1, 7):
        spec = people_spec(people, tmp_path / str(partitions), scheduler, models=MODELS[model], features=EXACT)
        spec["data"]["partitions"] = partitions
        runs.append(treadle.run({**spec, "explain": {"rows": "all"}}))
        assert len(runs[-1].table("explanations").files()) == partitions
    if model != "linear":
        assert_same_tables(*runs, sort=True)
        return
    # It is solved from sums over the partitions, which agree to rounding.
    for name in TABLES:
        found, expected = (run.table(name).to_pandas().sort_values("id", ignore_index=True) for run in runs)
        pd.testing.assert_frame_equal(found, expected, rtol=1e-6 if name == "explanations" else 1e-9, atol=1e-9)


@pytest.mark.parametrize("fresh", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("moment", "again"),
    [
        (("explain", "progress"), {"explain", "predict", "publish"}),
        (("explain", "finished"), {"predict", "publish"}),
        (("predict", "started"), {"predict", "publish"}),
        (("predict", "finished"), {"publish"}),
    ],
    ids=lambda names: " ".join(sorted(names)),
)
def test_a_run_that_ends_between_the_two_goes_on_there(
    people: Path, tmp_path: Path, scheduler: str, fresh: bool, moment: tuple[str, str], again: set[str]
) -> None:
    """Also when an outcome of before is being made anew: it no longer counts as soon as the pass begins."""
    root = tmp_path / "artifacts"
    spec = people_spec(people, root, scheduler, explain={"rows": "all"})
    spec["data"]["partitions"] = 3
    expected = treadle.run({**spec, "artifacts": {"root": str(tmp_path / "undisturbed")}})
    if fresh:
        treadle.run(spec)

    def strike(event: dict[str, Any]) -> None:
        if (event["stage"], event["event"]) == moment:
            raise Killed

    with pytest.raises(Killed):
        treadle.run(spec, fresh=fresh, listener=strike)
    outcomes = {path.parent.name.partition("-")[0] for path in root.glob("stages/*/stage.json")}
    assert {"explain", "predict"} - outcomes == again - {"publish"}
    run = treadle.run(spec)
    if fresh and again == {"publish"}:
        assert run.reused  # what was made anew is what is published already
    else:
        assert made(run) == again
    assert_same_tables(run, expected)
    assert not list(root.rglob("*.tmp"))


STRUCK = """
import json, os, signal, sys, treadle

def strike(event):
    if (event["stage"], event["event"]) == ("predict", "started"):
        os.kill(os.getpid(), signal.SIGKILL)

treadle.run(json.load(open(sys.argv[1])), listener=strike)
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="SIGKILL is of POSIX")
def test_a_driver_killed_between_the_two(people: Path, tmp_path: Path, scheduler: str) -> None:
    spec = people_spec(people, tmp_path / "artifacts", scheduler)
    path = tmp_path / "spec.json"
    path.write_text(json.dumps(spec))
    done = subprocess.run([sys.executable, "-c", STRUCK, str(path)], capture_output=True, text=True, timeout=90)
    assert done.returncode == -signal.SIGKILL, done.stderr
    files = {path.parent.name.partition("-")[0] for path in tmp_path.glob("artifacts/stages/*/part-*.parquet")}
    assert {"explain", "predict"} <= files
    run = treadle.run(spec)
    assert made(run) == {"predict", "publish"}
    assert_same_tables(run, treadle.run({**spec, "artifacts": {"root": str(tmp_path / "undisturbed")}}))


@pytest.mark.parametrize("model", ["xgboost", pytest.param("gblinear", marks=pytest.mark.slow)])
def test_batch_prediction_explains_as_the_run_did(
    run_people: Callable[..., Run], people: Path, tmp_path: Path, model: str
) -> None:
    run = run_people(models=MODELS[model], explain={"rows": "all"}, predict={"rows": "all"})
    root = run._store.url
    done = predict_files("people", [str(people)], str(tmp_path / "out"), explain=True, root=root, workers=1)
    assert done["rows_predicted"] == 600
    alone = predict_files("people", [str(people)], str(tmp_path / "alone"), root=root, workers=1)
    assert [Path(table["path"]).name for table in alone["written"]] == ["alone"]
    for folder, name in (("out", "predictions"), ("out-explanations", "explanations"), ("alone", "predictions")):
        found = pd.read_parquet(tmp_path / folder).sort_values("id", ignore_index=True)
        expected = run.table(name).to_pandas().sort_values("id", ignore_index=True)
        pd.testing.assert_frame_equal(found, expected, check_exact=True)
