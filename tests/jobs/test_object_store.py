"""What is done with runs after they have ended, where the artifacts root is on an object store."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pandas as pd
import pytest
from sklearn.datasets import load_iris
from typer.testing import CliRunner

import treadle
from tests.conftest import two_workers
from tests.jobs.service.served import small_spec
from tests.s3 import S3
from treadle.jobs.cli import app
from treadle.jobs.run import Run, list_runs, load_run

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # MLflow's
ROOT = "s3://lake/artifacts"


def said(*command: str) -> Any:
    """The JSON that a command prints."""
    result = CliRunner().invoke(app, [*command, "--root", ROOT, "--json"])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.fixture(scope="module")
def runs(s3: S3, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Run, ...]]:
    """Three of a job, which differ by their seed."""
    folder = tmp_path_factory.mktemp("s3")
    with two_workers(folder / "dask") as cluster:
        spec = small_spec(
            "iris",
            models=["decision_tree", "xgboost"],
            explain={"rows": "all"},
            predict={"rows": "all"},
            cluster={"profile": "address", "address": cluster.scheduler_address},
            tracking={"uri": f"sqlite:///{folder / 'mlflow.db'}"},
        )
        yield tuple(treadle.run({**spec, "seed": seed}, root=ROOT) for seed in (1, 2, 3))


def test_versions_are_listed_and_compared(runs: tuple[Run, ...]) -> None:
    listed = said("tables", "iris/predictions")
    assert [row["run"] for row in listed["versions"]] == [run.id for run in runs[::-1]]
    found = said("diff", "iris/predictions@0", "iris/predictions@1")
    pair = [run.table("predictions").to_pandas().set_index("id").sort_index() for run in runs[:2]]
    assert found["tables"][0]["changed"] == (pair[0] != pair[1]).any(axis=1).sum()


def test_a_prediction_leads_back_to_its_row(runs: tuple[Run, ...]) -> None:
    found = said("lineage", "17", "--job", "iris")
    assert found["run"] == runs[-1].id
    iris = load_iris()
    assert [*found["sources"][0]["values"].values()] == [*iris.data[17], iris.target_names[iris.target[17]]]


def test_a_run_repeats_to_the_bit(runs: tuple[Run, ...]) -> None:
    found = said("reproduce", runs[0].id, "--verify", "--quiet")
    assert {table["outcome"] for table in found["tables"]} == {"bit-equal"}
    assert sorted(table["table"] for table in found["tables"]) == sorted(runs[0].tables)


@pytest.fixture(scope="module")
def champion(runs: tuple[Run, ...]) -> str:
    """The second version was it for a while."""
    for version in ("1", "2"):
        said("promote", f"iris:{version}", "champion", "--why", "better")
    said("promote", "iris", "champion", "--rollback", "--why", "worse")
    return "iris:1"


def test_a_champion_is_found_and_read_by_mlflow(champion: str) -> None:
    import mlflow  # here, because it is Treadle that tells MLflow to report to nobody

    model = treadle.load_model("iris@champion", root=ROOT)
    assert model.reference == champion
    rows = load_iris(as_frame=True).frame.drop(columns="target")
    rows.columns = rows.columns.str.replace(" ", "_")
    found = mlflow.pyfunc.load_model(f"{ROOT}/models/iris/1").predict(rows)
    pd.testing.assert_frame_equal(found.reset_index(drop=True), model.predict(rows).reset_index(drop=True))


def test_what_is_forgotten_goes_and_what_is_kept_is_there(runs: tuple[Run, ...], champion: str) -> None:
    assert said("rollback", runs[0].id)["rollback_of"] == runs[0].id
    newest = load_run(ROOT, list_runs(ROOT)[0]["run"])
    expected = {name: table.to_arrow() for name, table in runs[0].tables.items()}
    removed = said("gc", "--grace", "0", "--keep-runs", "1")["removed"]
    assert {"run", "model", "files of a table", "outcome"} <= {one["what"] for one in removed}
    kept = [row["run"] for row in list_runs(ROOT)]
    assert kept[0] == newest.id
    assert runs[0].id in kept  # it made the champion
    assert runs[2].id not in kept
    assert newest.model.reference == "iris:4"
    assert newest.tables.keys() == expected.keys()
    for run in (newest, runs[0]):
        assert {name: table.to_arrow() for name, table in run.tables.items()} == expected
