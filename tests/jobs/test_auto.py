"""`treadle auto`: what it finds within a budget, and that its spec trains the same model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

import treadle
from treadle.errors import RequestError
from treadle.jobs.auto import RACED_FROM, auto, seconds_of
from treadle.jobs.cli import app


@pytest.fixture(scope="module")
def houses(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Numbers with nulls, a text and a price that a curve of them gives."""
    rng = np.random.default_rng(3)
    frame = pd.DataFrame({"rooms": rng.integers(1, 9, 400), "area": rng.gamma(4, 20, 400)})
    frame["town"] = rng.choice(["north", "south", "west"], 400)
    frame["price"] = frame.rooms * 9 + np.sqrt(frame.area) * 11 + (frame.town == "west") * 30 + rng.normal(size=400)
    frame.loc[::17, "area"] = None
    path = tmp_path_factory.mktemp("auto") / "houses.csv"
    frame.to_csv(path, index=False)
    return path


def test_a_search_and_the_spec_of_its_winner(
    houses: Path, tmp_path: Path, scheduler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "specs" / "found.yaml"
    out.parent.mkdir()
    cluster = ["--set", "cluster.profile=address", "--set", f"cluster.address={scheduler}"]
    root = ["--root", str(tmp_path / "root")]
    command = ["auto", str(houses), "--target", "price", "--budget", "8s", "--folds", "3", "--out", str(out), "--json"]
    done = CliRunner().invoke(app, [*command, *cluster, *root])
    assert done.exit_code == 0, done.output
    search = json.loads(done.stdout.splitlines()[-1])
    assert search["results"]["evaluate"]["metric"] == "rmse"
    found = treadle.load_spec(out)
    assert found.budget is None
    assert found.race is None
    assert found.tune is None
    assert [model.name for model in found.listed_models] == [m["name"] for m in search["results"]["refit"]["members"]]
    again = treadle.run(out, root=str(tmp_path / "root"))
    evaluated, before = again.manifest["results"]["evaluate"], search["results"]["evaluate"]
    assert evaluated["best"] == before["best"]
    assert evaluated["held_out"] == pytest.approx(before["held_out"], rel=1e-9)
    assert "explanations" in again.tables
    refused = CliRunner().invoke(app, [*command, *cluster, *root])
    assert refused.exit_code == 2
    assert "is there already" in refused.stderr


def test_what_cannot_be_predicted_is_refused(houses: Path, tmp_path: Path, scheduler: str) -> None:
    overrides = ["cluster.profile=address", f"cluster.address={scheduler}", f"artifacts.root={tmp_path}"]
    with pytest.raises(RequestError, match="Did you mean 'price'"):
        auto(str(houses), "prize", overrides=overrides)
    frame = pd.read_csv(houses)
    frame["price"] = 1.5
    path = tmp_path / "same.parquet"
    frame.to_parquet(path)
    with pytest.raises(RequestError, match="auto: 'price' cannot be predicted: it is float, and has 1 value"):
        auto(str(path), "price", overrides=overrides)


@pytest.mark.parametrize(
    ("options", "wrong"),
    [
        ({"metric": "rmsee"}, "--metric: 'rmsee' is not known.*Did you mean 'rmse'"),
        ({"folds": 1}, "--folds: 1 is not allowed; use 2 to 100"),
        ({"folds": 101}, "--folds: 101"),
        ({"seed": -1}, "--seed: -1 is not allowed"),
    ],
)
def test_options_are_refused_before_anything_is_read(options: dict[str, Any], wrong: str) -> None:
    with pytest.raises(RequestError, match=wrong):
        auto("nowhere.parquet", "price", **options)


@pytest.mark.parametrize(("budget", "seconds"), [("10m", 600), ("10min", 600), ("90s", 90), ("1.5h", 5400)])
def test_budgets(budget: str, seconds: float) -> None:
    assert seconds_of(budget) == seconds


@pytest.mark.parametrize("budget", ["", "soon", "10", "-5m", "0s"])
def test_what_is_no_budget(budget: str) -> None:
    with pytest.raises(RequestError, match="--budget: .* is no span of time"):
        seconds_of(budget)


@pytest.mark.slow
def test_large_inputs_are_raced(houses: Path, tmp_path: Path, scheduler: str) -> None:
    frame = pd.concat([pd.read_csv(houses)] * (RACED_FROM // 400 + 1))
    path = tmp_path / "many.parquet"
    frame.to_parquet(path)
    overrides = ["cluster.profile=address", f"cluster.address={scheduler}", f"artifacts.root={tmp_path}"]
    found = auto(str(path), "price", "1s", metric="mae", seed=5, overrides=overrides)
    assert found.run.table("race").path.startswith(str(tmp_path))
    assert found.run.table("race").rows > 0
    assert "metric: mae\nseed: 5\n" in found.spec
    assert found.run.manifest["seed"] == 5
