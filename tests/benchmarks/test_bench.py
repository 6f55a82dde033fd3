"""`treadle bench` for real, on its smallest model: what the result holds, what is refused, what is left out."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner, Result

from treadle.benchmarks import timing
from treadle.benchmarks.models import CASES, Case, chosen, made_data, trained
from treadle.benchmarks.peers.contributions import EXPLAINERS
from treadle.benchmarks.peers.margins import PREDICTORS
from treadle.benchmarks.sides import Side, left_out
from treadle.jobs.cli import app

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"


def treadle_says(*command: str | Path, status: int = 0) -> Result:
    result = CliRunner().invoke(app, [str(part) for part in command])
    assert result.exit_code == status, result.output
    return result


@pytest.fixture(scope="module", autouse=True)
def results_are_left_alone() -> Iterator[None]:
    """A run of some models is not a result of the project."""
    before = {path: path.read_bytes() for path in RESULTS.iterdir()}
    yield
    assert {path: path.read_bytes() for path in RESULTS.iterdir()} == before


def numbers(value: Any) -> Iterator[float]:
    """All seconds, rows and rates within a result."""
    for item in value.values() if isinstance(value, dict) else []:
        if isinstance(item, dict):
            yield from numbers(item)
        else:
            yield item


@pytest.mark.slow
def test_treeshap_measures_every_library_that_is_installed(tmp_path: Path) -> None:
    out = tmp_path / "new" / "result.json"
    said = treadle_says("bench", "treeshap", "--model", "tiny", "--repeats", "1", "--json", "--out", out)
    assert said.stderr == ""
    result = json.loads(said.stdout)
    assert result == json.loads(out.read_text())
    assert result["hardware"]["cores"] >= 1
    assert result["hardware"]["memory_bytes"] > 0
    missing = left_out(EXPLAINERS)
    assert set(missing) <= {"woodelf"}, "make installs the others"
    assert result["left_out"] == missing
    assert all(result["versions"][name] for name in ("treadle", "numba", "xgboost", "lightgbm", "shap"))
    (model,) = result["models"]
    assert model["model"] == "tiny, depth 3, 8 features"
    assert model["errors"] == {}
    wanted = {kind.name for kind in EXPLAINERS if not set(kind.modules) & set(missing)}
    batches = model["contributions"]
    assert {rows: set(sides) for rows, sides in batches.items()} == {
        "1": {"treadle", "xgboost"},
        "100": {"treadle", "xgboost"},
        "10000": wanted,
        "200000": {"treadle"},
    }
    assert set(model["interactions"]["figures"]) == set(model["cold"]) == {"treadle", "xgboost"}
    for figures in (batches, model["interactions"]["figures"], model["cold"], model["two_threads"] or {}):
        assert all(number > 0 for number in numbers(figures))
    assert [batches[rows]["treadle"]["rows"] for rows in ("1", "100", "10000", "200000")] == [20, 100, 10_000, 200_000]
    assert set(model["largest_error"]) == wanted - {"shap", "lightgbm"}
    assert max(model["largest_error"].values()) < 2e-5
    assert model["interactions"]["largest_difference"] < 2e-5
    assert model["leaves_a_tree"] == 8


def test_predict_measures_every_library_that_is_installed() -> None:
    result = json.loads(treadle_says("bench", "predict", "--model", "tiny", "--repeats", "1", "--json").stdout)
    assert left_out(PREDICTORS) == result["left_out"] == {}
    (model,) = result["models"]
    assert model["errors"] == {}
    wanted = {kind.name for kind in PREDICTORS if kind.libraries != ("sklearn",)}
    assert {rows: set(sides) for rows, sides in model["margins"].items()} == dict.fromkeys(
        ("1", "100", "10000", "200000"), wanted
    )
    assert all(number > 0 for number in numbers(model["margins"]))
    assert set(model["largest_difference"]) == wanted - {"xgboost", "lightgbm"}
    assert max(model["largest_difference"].values()) < 2e-5


@pytest.mark.slow
def test_a_missing_library_is_named_and_the_others_are_measured(tmp_path: Path) -> None:
    blocking = (
        "import sys; sys.modules.update(dict.fromkeys(('shap', 'lightgbm', 'woodelf')))\n"
        "from treadle.__main__ import main; main()"
    )
    out = tmp_path / "result.json"
    command = ["bench", "treeshap", "--model", "tiny", "--repeats", "1", "--out", str(out)]
    done = subprocess.run(
        [sys.executable, "-c", blocking, *command], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    result = json.loads(out.read_text())
    assert set(result["left_out"]) == {"shap", "lightgbm", "woodelf"}
    for module in result["left_out"]:
        assert f"{module} is left out; not installed: pip install 'treadle[bench]'" in done.stdout
    (model,) = result["models"]
    assert set(model["contributions"]["10000"]) == {"treadle", "xgboost"}
    assert model["largest_error"] == {}, "nothing is there to hold the values against"
    assert model["errors"] == {}
    assert "\ntiny, depth 3, 8 features " in done.stdout


def test_fraud_needs_polars(tmp_path: Path) -> None:
    blocking = "import sys; sys.modules['polars'] = None\nfrom treadle.__main__ import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", blocking, "bench", "fraud", "--rows", "1e3"],
        capture_output=True, text=True, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr == "treadle: bench fraud: polars is not installed: pip install 'treadle[bench]'.\n"


@pytest.mark.slow
def test_exact_models_are_measured_beside_scikit_learns(tmp_path: Path) -> None:
    out = tmp_path / "exact.json"
    said = treadle_says("bench", "exact", "--rows", "8e3", "--fitting", "3e3", "--out", out).stdout
    found = json.loads(out.read_text())
    assert (found["treadle"]["rows"], found["treadle"]["features"], found["scikit-learn"]["rows"]) == (6000, 30, 3000)
    passes = {name: one["passes"] for name, one in found["treadle"]["models"].items()}
    assert passes.pop("logistic_regression") > 1
    # One gathers for all of them; of a single partition the look for nulls counts, too.
    assert sum(passes.values()) <= 2
    for name, one in found["treadle"]["models"].items():
        assert one["auc"] == pytest.approx(found["scikit-learn"]["models"][name]["auc"], abs=0.1)
        assert name in said


@pytest.mark.slow
def test_a_leaderboard_is_measured_beside_scikit_learns_loop(tmp_path: Path) -> None:
    out = tmp_path / "board.json"
    models = ["--models", "lda", "--models", "naive_bayes"]
    treadle_says(
        "bench", "leaderboard", "--repeats", "1", "--folds", "3", *models, "--data-set", "diabetes", "--out", out
    )
    found = json.loads(out.read_text())
    assert [row["side"] for row in found["table"]] == ["treadle", "sklearn"]
    for turn in (found["turns"]["treadle"][0], found["turns"]["sklearn"][0]):
        assert sorted(turn["models"]) == ["lda", "naive_bayes"]
        assert all(len(model["fit_seconds"]) == 3 for model in turn["models"].values())


@pytest.mark.slow
def test_a_service_is_measured_and_every_job_ends_as_it_should(tmp_path: Path) -> None:
    out = tmp_path / "service.json"
    sizes = ["--table", "5", "--submissions", "4", "--burst", "3", "--many", "10", "--workers", "1"]
    said = treadle_says("bench", "service", *sizes, "--out", out).stdout
    found = json.loads(out.read_text())
    ours = found["treadle"]
    assert found["ray"] is None
    assert ours["submissions"]["jobs_in_the_table"] == 5
    for connection in ("kept_connection_ms", "new_connection_ms"):
        timed = ours["submissions"][connection]
        assert timed["count"] == 4
        assert 0 < timed["median"] <= timed["p95"]
    assert ours["burst"]["succeeded"] == 3
    assert 0 < ours["burst"]["submitted_seconds"] < ours["burst"]["wall_seconds"]
    mixed = ours["mixed"]
    assert mixed["states"] == {"succeeded": 8, "failed": 1, "cancelled": 1}
    assert (mixed["right"], mixed["acknowledged"], mixed["runs_of_those_that_succeeded"]) == (10, 10, 8)
    assert mixed["lost"] == mixed["unknown"] == mixed["attempted_twice"] == 0
    killed = ours["killed"]
    assert killed["remembered"] == killed["acknowledged"] == 4
    assert killed["ended"] == {"succeeded": 4}
    for held in (ours["idle"]["service"], ours["after_jobs"]["service"], ours["after_jobs"]["nursery"]):
        assert 0 < held["uss"] <= held["pss"] <= held["rss"]
    assert "nursery" not in ours["idle"]
    assert "4 of 4 remembered" in said


def test_an_interpreter_of_a_peer_that_is_not_there_is_told(tmp_path: Path) -> None:
    said = treadle_says("bench", "service", "--peer-python", tmp_path / "python", status=2).stderr
    assert f"--peer-python: there is no {tmp_path / 'python'}" in said


@pytest.mark.slow
def test_fraud_runs_the_job_and_its_peer(tmp_path: Path) -> None:
    out = tmp_path / "fraud.json"
    said = treadle_says("bench", "fraud", "--rows", "2e4", "--repeats", "1", "--out", out).stdout
    result = json.loads(out.read_text())
    assert result["rows"] == 20_000
    assert all(number > 0 for row in result["table"] for key, number in row.items() if key != "step")
    assert all(min(areas) > 0.6 for areas in result["auc"].values())
    assert "whole process" in said
    assert f"written to {out}" in said


@pytest.mark.parametrize("command", ["treeshap", "predict"])
def test_an_unknown_model_is_refused_with_the_nearest(command: str) -> None:
    said = treadle_says("bench", command, "--model", "tiny", "--model", "dept 6", status=2).stderr
    assert said.startswith("treadle: --model: no name contains 'dept 6'. Models: [tiny, depth 3, 8 features; depth 6,")
    assert said.endswith("Did you mean 'depth 6'?\n")


def test_a_result_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    out = tmp_path / "file" / "result.json"
    said = treadle_says("bench", "predict", "--model", "tiny", "--repeats", "1", "--out", out, status=1).stderr
    assert f"cannot be written to {out}" in said


def test_models_are_chosen_by_parts_of_their_names() -> None:
    assert chosen(()) == CASES
    assert [case.depth for case in chosen(("depth 8", "7 classes"))] == [6, 8]


class Sleeper(Side):
    """Takes a millisecond a row, and fails on more than `most`."""

    name, modules, libraries, most = "sleeper", (), ("xgboost",), 10**9

    def call(self, x: NDArray[Any]) -> Any:
        if len(x) > self.most:
            raise ValueError("too\nmany")
        return lambda: (time.sleep(len(x) / 1000), x)[1]

    def values(self, result: NDArray[Any]) -> NDArray[Any]:
        return result


class Whole(Sleeper):
    name, whole = "whole", True


class Failing(Sleeper):
    name, most = "failing", 10


class SlowAtFirst(Sleeper):
    """Few rows and many go different ways, and each has to get ready."""

    name = "slow at first"

    def __init__(self, model: Any, case: Case) -> None:
        super().__init__(model, case)
        self.ready: set[bool] = set()

    def call(self, x: NDArray[Any]) -> Any:
        def work() -> NDArray[Any]:
            if (len(x) > 100) not in self.ready:
                time.sleep(0.2)
                self.ready.add(len(x) > 100)
            return x

        return work


def test_getting_ready_does_not_count_against_a_side() -> None:
    sides = {SlowAtFirst.name: SlowAtFirst(None, CASES[0])}
    figures, _, _ = timing.contest(sides, np.zeros((4000, 2)), repeats=1, seconds=0.1)
    assert figures[SlowAtFirst.name]["rows"] == 4000


def test_a_side_gets_the_rows_that_fit_and_one_that_fails_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "LONGEST", 0.5)
    x = np.zeros((400, 2))
    sides = {kind.name: kind(None, CASES[0]) for kind in (Sleeper, Whole, Failing)}
    figures, values, errors = timing.contest(sides, x, repeats=3, seconds=0.1)
    assert errors == {"failing": "ValueError: too many"}
    assert 1 < figures["sleeper"]["rows"] <= 100
    assert figures["sleeper"]["repeats"] == 3
    assert figures["sleeper"]["wall_seconds"] >= figures["sleeper"]["rows"] / 1000
    assert figures["sleeper"]["cpu_seconds"] < figures["sleeper"]["wall_seconds"] / 2
    assert (figures["whole"]["rows"], figures["whole"]["repeats"]) == (400, 1)
    assert {name: len(kept) for name, kept in values.items()} == {
        "sleeper": figures["sleeper"]["rows"],
        "whole": 400,
    }


def test_a_call_on_a_whole_batch_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "LONGEST", 0.05)
    _, _, errors = timing.contest({"whole": Whole(None, CASES[0])}, np.zeros((400, 2)), repeats=1, seconds=0.1)
    assert errors == {"whole": "TimeoutError: not done after 0 s"}


@pytest.mark.parametrize("kind", EXPLAINERS, ids=lambda kind: kind.name)
@pytest.mark.parametrize("classes", [1, 3])
def test_values_of_all_libraries_have_one_form(kind: Any, classes: int) -> None:
    if left_out([kind]):
        pytest.skip(f"{kind.modules} is not installed")
    case = Case("small", "xgboost", trees=5, depth=3, features=5, classes=classes)
    models = trained(case)
    x, y = made_data(case, 50, seed=3)
    assert set(y) == {0, 1, 2} or classes == 1
    side = kind(models.models[kind.libraries[0]], case)
    values = side.values(side.call(x)())
    assert values.shape == (50, classes, 5)
    margin = next(other for other in PREDICTORS if other.libraries[0] == kind.libraries[0])
    other = margin(models.models[kind.libraries[0]], case)
    # What is left of the margin is the bias, the same for every row.
    left = other.values(other.call(x)()) - values.sum(axis=2)
    np.testing.assert_allclose(left, np.broadcast_to(left[0], left.shape), atol=1e-5)
