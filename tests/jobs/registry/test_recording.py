"""What MLflow has of a run is what its manifest says, once, whatever happens in between."""

from __future__ import annotations

import shutil
import sqlite3
import threading
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

import treadle
from tests.conftest import people_spec
from tests.jobs.registry.conftest import Recorded
from treadle.engine.store import Store
from treadle.errors import TreadleError
from treadle.jobs.registry import figures
from treadle.jobs.registry.connection import Connection, Target
from treadle.jobs.registry.recorder import PENDING, catch_up, sync
from treadle.jobs.registry.recording import find_run, leaves, record_run
from treadle.jobs.registry.versions import aliases_of, registered

# SQLAlchemy's words to MLflow.
pytestmark = pytest.mark.filterwarnings("ignore")


def test_a_run_is_recorded_as_its_manifest_says(recorded: Recorded) -> None:
    run = recorded.runs[0]
    with recorded.connection().using() as client:
        found = find_run(client, Target(recorded.uri, "people"), run.id)
        assert found is not None
        artifacts = {file.path for file in client.list_artifacts(found.info.run_id)}
        children = client.search_runs(
            [found.info.experiment_id], f"tags.`mlflow.parentRunId` = '{found.info.run_id}'", max_results=10
        )
    evaluation = run.manifest["results"]["evaluate"]
    assert (found.info.status, found.info.run_name) == ("FINISHED", run.id)
    assert found.data.tags["treadle.best"] == evaluation["best"]
    assert found.data.params["split.test_size"] == "0.25"
    assert found.data.params["models.1.name"] == "decision_tree"
    assert found.data.params["tables.0.sql"] == "ln(income)"
    assert artifacts == {"manifest.json", "calibration.svg", "importance.svg"}
    board = run.leaderboard.set_index("model")
    assert {child.data.tags["treadle.model"] for child in children} == set(board.index)
    for child in [found, *children]:
        row = board.loc[child.data.tags.get("treadle.model", evaluation["best"])]
        assert child.data.metrics["auc"] == row["auc"]
        assert child.data.metrics["rows_used"] == row["rows_used"]
    (data,) = found.inputs.dataset_inputs
    assert data.dataset.digest == run.manifest["inputs"][0]["digest"]
    assert [(tag.key, tag.value) for tag in data.tags] == [("mlflow.data.context", "training")]


def test_bundles_are_versions_with_their_numbers(recorded: Recorded) -> None:
    with recorded.connection().using() as client:
        found = registered(client, "people")
    assert {number: (str(version.version), version.source) for number, version in found.items()} == {
        number: (str(number), f"{recorded.root}/models/people/{number}") for number in (1, 2)
    }


def test_nothing_is_told_to_anybody(recorded: Recorded) -> None:
    from mlflow.telemetry.client import get_telemetry_client

    with recorded.connection().using():
        assert get_telemetry_client() is None
    assert not [thread.name for thread in threading.enumerate() if "elemetry" in thread.name]


def test_recording_again_changes_nothing_and_goes_on_where_it_was_cut_off(recorded: Recorded, tmp_path: Path) -> None:
    copy, target = recorded.copied(tmp_path), Target(f"sqlite:///{tmp_path}/other.db", "people")
    shutil.copy(recorded.empty, tmp_path / "other.db")
    manifest = recorded.runs[0].manifest
    first = record_run(Connection(target), copy.store, manifest)

    def content() -> list[Any]:
        with sqlite3.connect(tmp_path / "other.db") as database:
            return [
                database.execute(f"select count(*) from {table}").fetchone()[0]
                for table in ("runs", "params", "metrics", "tags", "inputs", "model_versions")
            ]

    before = content()
    with Connection(target).using() as client:
        client.update_run(first, "RUNNING")  # as it is until the end
        (child, *_) = client.search_runs(["1"], "tags.`treadle.model` = 'decision_tree'")
        client.delete_run(child.info.run_id)
    assert record_run(Connection(target), copy.store, manifest) == first
    assert record_run(Connection(target), copy.store, manifest) == first
    after = content()
    assert after[0] == before[0] + 1  # the one that was deleted is still there, for MLflow to restore
    assert after[1] == before[1]
    assert after[5] == before[5]
    with Connection(target).using() as client:
        assert len(client.search_runs(["1"])) == 3


def test_a_run_does_not_fail_with_its_registry_and_is_recorded_later(
    recorded: Recorded, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    copy, place = recorded.copied(tmp_path), tmp_path / "place"
    place.write_text("a file where a folder should be")
    run = treadle.run(copy.spec(tracking={"uri": f"sqlite:///{place}/mlflow.db"}))
    assert run.status == "succeeded"
    assert f"run {run.id} is done, but not recorded in MLflow" in caplog.text
    assert copy.store.list(PENDING) == [run.id]
    place.unlink()
    place.mkdir()
    shutil.copy(recorded.empty, place / "mlflow.db")
    later = treadle.run(copy.spec(tracking={"uri": f"sqlite:///{place}/mlflow.db", "experiment": "all of it"}))
    assert copy.store.list(PENDING) == []
    with Connection(Target(f"sqlite:///{place}/mlflow.db", "")).using() as client:
        for one, experiment in ((run, "people"), (later, "all of it")):
            found = find_run(client, Target("", experiment), one.id)
            assert found is not None
            assert found.info.status == "FINISHED"


def test_a_lost_database_is_made_again_from_manifests_and_records(recorded: Recorded, tmp_path: Path) -> None:
    from treadle.jobs.registry.promotion import promote

    copy = recorded.copied(tmp_path)
    promote("people:1", "champion", copy.root)
    promote("people:2", "candidate", copy.root, force=True)
    shutil.copy(recorded.empty, f"{copy.root}/mlflow.db")
    done = list(sync(copy.store))
    assert [one["run"] for one in done if "run" in one] == [run.id for run in recorded.runs]
    with copy.connection().using() as client:
        assert aliases_of(client, "people") == {"champion": 1, "candidate": 2}
        assert sorted(registered(client, "people")) == [1, 2]
    assert list(sync(copy.store)) == []


def test_a_root_on_an_object_store_says_where_it_is_not_recorded(
    recorded: Recorded, caplog: pytest.LogCaptureFixture
) -> None:
    from treadle.jobs.registry.recorder import Recorder
    from treadle.jobs.registry.sections import Tracking

    Recorder(Tracking(), "people", Store("memory://bucket"))
    assert "is on an object store, which has no database of MLflow: name a server" in caplog.text
    caplog.clear()
    Recorder(Tracking(enabled=False), "people", Store("memory://bucket"))
    assert caplog.text == ""


def test_a_run_that_failed_is_recorded_as_one(recorded: Recorded, tmp_path: Path) -> None:
    copy = recorded.copied(tmp_path)
    with pytest.raises(TreadleError):
        treadle.run(copy.spec(contract=[{"expect": "rows", "min": 10_000}]))
    (run,) = sorted(set(copy.store.list("runs")) - {run.id for run in recorded.runs})
    with copy.connection().using() as client:
        found = find_run(client, Target(copy.uri, "people"), run)
    assert found is not None
    assert found.info.status == "FAILED"
    assert found.data.tags["treadle.error"] == copy.store.read_json(f"runs/{run}/manifest.json")["error"]


def test_leaves_of_a_spec() -> None:
    spec = {"a": {"b": [1, 2], "c": [{"d": None}, {"e": {}}]}, "f": []}
    assert list(leaves(spec)) == [("a.b", [1, 2]), ("a.c.0.d", None), ("a.c.1.e", {}), ("f", [])]


def test_figures_are_images_whatever_features_are_called() -> None:
    curve = [{"mean_score": 0.2, "positive_rate": 0.3}, {"mean_score": None, "positive_rate": None}]
    for text in (
        figures.importance({"a<b & \"c'": 2.0, "x" * 100: 0.0}),
        figures.importance({}),
        figures.calibration({"m<1>": curve, "other": curve}, "m<1>"),
    ):
        assert ElementTree.fromstring(text).tag == "{http://www.w3.org/2000/svg}svg"


def test_runs_that_are_left_for_later_are_recorded_by_who_asks(
    people: Path, tmp_path: Path, scheduler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As those of a service are: nothing of MLflow is touched before."""
    root = tmp_path / "artifacts"
    spec = people_spec(people, root, scheduler, explain={"rows": "none"})
    monkeypatch.setenv("TREADLE_TRACKING", "later")
    runs = [treadle.run({**spec, "seed": seed}) for seed in (1, 2)]
    assert not (root / "mlflow.db").exists()
    assert {path.name for path in (root / "unrecorded").iterdir()} == {run.id for run in runs}
    catch_up(Store(str(root)))
    assert not list((root / "unrecorded").iterdir())
    with Connection(Target(f"sqlite:///{root}/mlflow.db", "people")).using() as client:
        for run in runs:
            assert find_run(client, Target(f"sqlite:///{root}/mlflow.db", "people"), run.id) is not None
        assert sorted(registered(client, "people")) == [1, 2]
