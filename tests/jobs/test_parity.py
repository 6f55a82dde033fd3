"""`treadle parity`: a job's best model on the host and in Numba's CUDA simulator, or on a GPU where there is one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.conftest import people_spec
from treadle.errors import RequestError, TreadleError
from treadle.jobs import parity as module
from treadle.jobs import parity_job
from treadle.jobs.cli import app
from treadle.jobs.commands import console
from treadle.jobs.parity import parity
from treadle.jobs.spec import load_spec

SMALL = [{"name": "xgboost", "params": {"n_estimators": 3, "max_depth": 2}}]


@pytest.fixture
def spec(people: Path, tmp_path: Path, scheduler: str) -> Callable[..., dict[str, Any]]:
    def make(**changes: Any) -> dict[str, Any]:
        return people_spec(people, tmp_path / "artifacts", scheduler, **{"models": SMALL, **changes})

    return make


@pytest.mark.slow
def test_kernels_agree_and_what_was_not_covered_is_named(spec: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    (tmp_path / "spec.json").write_text(json.dumps(spec()))
    said = CliRunner().invoke(app, ["parity", str(tmp_path / "spec.json"), "--rows", "3", "--json"])
    assert said.exit_code == 0, said.output
    found = json.loads(said.stdout)
    stages = {line["stage"]: line for line in found["stages"]}
    for stage, values in (("explain", "contributions"), ("predict", "margins")):
        assert stages[stage]["right"] is True
        assert stages[stage]["difference"] < 1e-6
        assert stages[stage]["device_seconds"] > 0
        assert stages[stage]["said"].startswith(f"{values} of 3 rows")
    for stage in ("etl", "features"):
        assert stages[stage]["right"] is True
        assert stages[stage]["difference"] < 1e-6
        assert " raw rows as queries, by Polars in place of cuDF" in stages[stage]["said"]
        assert stages[stage]["fell_back"] == []
    for stage in ("read", "train:xgboost", "publish"):
        assert stages[stage]["right"] is None
        assert stages[stage]["said"] == "not covered"
    assert found["not_covered"].startswith("the whole job on a GPU (the cluster is not of this machine; ")
    assert found["device_run"] is None


@pytest.mark.slow
def test_a_difference_is_a_failure(spec: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    real = module._compared

    def worse(*args: Any) -> Any:
        return [[type(one)(**{**vars(one), "difference": 0.01}) for one in found] for found in real(*args)]

    monkeypatch.setattr(module, "_compared", worse)
    found = parity(spec(), rows=2)
    assert found.right is False
    assert {line.stage for line in found.lines if line.right is False} == {"etl", "features", "explain", "predict"}
    with console.out.capture() as printed:
        console.show_parity(found)
    rows = [line.split()[1] for line in printed.get().splitlines() if "1.0e-02" in line]
    assert rows == ["NO"] * 4
    assert "Not covered: the whole job on a GPU" in " ".join(printed.get().split())


def test_what_no_query_is_for_is_known_without_a_gpu(spec: Callable[..., dict[str, Any]]) -> None:
    """Before anybody has paid for one: each operation by its place, with the reason."""
    tables = [{"op": "derive", "name": "log_income", "sql": "log10(income)"}, {"op": "drop", "columns": ["income"]}]
    features = [
        {"op": "impute", "columns": ["log_income"]},
        {"op": "date_parts", "columns": ["joined"]},
        {"op": "hash_encode", "columns": ["city"], "buckets": 4},
    ]
    found = parity(spec(tables=tables, features=features), rows=2)
    lines = {line.stage: line for line in found.lines}
    assert lines["etl"].fell_back == ("tables.0 (derive): on the host, since log10()",)
    assert lines["features"].fell_back == (
        "features (hash_encode of city): on the host, since there is no query for it",
    )
    assert (lines["etl"].right, lines["features"].right) == (True, True)


@pytest.mark.slow
def test_a_linear_model_has_no_kernels(spec: Callable[..., dict[str, Any]]) -> None:
    found = parity(spec(models=["logistic_regression"]))
    assert found.right
    assert {line.stage for line in found.lines if line.right} == {"etl", "features"}
    assert "not covered: linear" in next(line.said for line in found.lines if line.stage == "explain")


def test_a_job_without_models(spec: Callable[..., dict[str, Any]]) -> None:
    with pytest.raises(RequestError, match="parity: job 'people' has no models, and without a GPU"):
        parity({k: v for k, v in spec(features=[], models=[]).items() if k not in ("split", "metric")})


def test_a_whole_job_cannot_go_on_from_an_earlier_model(spec: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    given = spec(models=[{"name": "xgboost", "continue_from": "people:1"}], cluster={"workers": 1})
    with pytest.raises(RequestError, match=r"parity: models.continue_from is not covered"):
        parity_job.run_both(load_spec(given), str(tmp_path), None)


@pytest.mark.slow
def test_kernels_that_fail(
    spec: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "numba.py").write_text("raise RuntimeError('no kernels today')\n")
    real = module._device
    monkeypatch.setattr(module, "_device", lambda: (real()[0], {**real()[1], "PYTHONPATH": str(tmp_path)}))
    with pytest.raises(TreadleError, match="the kernels or queries for devices failed: RuntimeError: no kernels today"):
        parity(spec())
