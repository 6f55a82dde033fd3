"""Versions of published tables: listed, opened, compared, and made current again."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec
import pandas as pd
import pyarrow as pa
import pytest
from deltalake import DeltaTable
from typer.testing import CliRunner

import treadle
from tests.conftest import people_spec, write_people
from tests.engine.delta_tables import fingerprint, write
from treadle.engine.commits import commit_table
from treadle.engine.store import Store
from treadle.errors import RequestError, StorageError
from treadle.jobs.cli import app
from treadle.jobs.diff import diff, metric_changes
from treadle.jobs.rollback import rollback
from treadle.jobs.run import Run, list_runs, load_run
from treadle.jobs.tables import history, list_tables

NAMES = ("explanations", "features", "leaderboard", "predictions")


@dataclass
class Two:
    """Two runs of the job `people`; the second has fewer rows, another model and no weekdays."""

    root: Path
    specs: tuple[dict[str, Any], dict[str, Any]]
    runs: tuple[Run, Run]


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory, scheduler: str) -> Two:
    folder = tmp_path_factory.mktemp("versions")
    people = write_people(folder / "people.parquet", rows=300)
    root = folder / "artifacts"
    first = people_spec(people, root, scheduler, models=["xgboost", "decision_tree"])
    features = [{**one, "parts": ["month"]} if one["op"] == "date_parts" else one for one in first["features"]]
    tables = [*first["tables"], {"op": "filter", "sql": "age > 25"}]
    second = {**first, "models": ["logistic_regression", "decision_tree"], "features": features, "tables": tables}
    return Two(root, (first, second), (treadle.run(first), treadle.run(second)))


@pytest.fixture
def copy(two: Two, tmp_path: Path) -> str:
    """A root of one's own with the same."""
    shutil.copytree(two.root, tmp_path / "root")
    return str(tmp_path / "root")


def says(*command: object, status: int = 0) -> Any:
    result = CliRunner().invoke(app, [str(part) for part in command])
    assert result.exit_code == status, result.output
    return result


def commit_as(root: str, table: str, run: str, content: pa.Table, name: str) -> None:
    """A version as a driver makes it that is killed before it writes its manifest."""
    file = write(Path(root, "stages", f"{name}.parquet"), content)
    metadata = {"treadle.run": run, "treadle.spec": "0" * 16}
    fs = fsspec.filesystem("file")
    path = f"{root}/tables/{table}"
    commit_table(fs, path, [file], content.schema, fingerprint=fingerprint(name), metadata=metadata)


class TestTables:
    def test_listing(self, two: Two) -> None:
        rows = list_tables(str(two.root))
        assert [row["table"] for row in rows] == [f"people/{name}" for name in NAMES]
        for row in rows:
            theirs = DeltaTable(two.root / "tables" / row["table"])
            assert (row["version"], row["versions"], row["error"]) == (1, 2, None)
            assert row["rows"] == len(theirs.to_pandas())
            files = [two.root / "tables" / row["table"] / Path(uri).name for uri in theirs.file_uris()]
            assert (row["bytes"], row["files"]) == (sum(file.stat().st_size for file in files), len(files))
            assert row["run"] == two.runs[1].id
        assert json.loads(says("tables", "--root", two.root, "--json").stdout) == rows
        shown = says("tables", "--root", two.root).stdout
        assert all(f"people/{name}" in shown for name in NAMES)

    def test_history(self, two: Two) -> None:
        found = history(str(two.root), "people/features")
        newest, oldest = found["versions"]
        assert [row["version"] for row in (newest, oldest)] == [1, 0]
        for row, run in zip((oldest, newest), two.runs, strict=True):
            assert (row["run"], row["manifest"]) == (run.id, run.id)
            assert row["spec"] == run.manifest["spec_digest"]
            assert row["rows_added"] == run.table("features").rows
        assert oldest["time"] < newest["time"]
        assert (oldest["schema"], newest["schema"]) == ("created", "removed")
        assert newest["columns"]["removed"] == {"joined_weekday": "float"}
        assert "of 2 versions are not shown" in says("tables", "features", "--root", two.root, "--limit", 1).stdout
        only = json.loads(says("tables", f"features@{two.runs[0].id}", "--root", two.root, "--json").stdout)
        assert only["versions"] == [oldest]

    def test_a_version_that_a_killed_driver_left(self, copy: str, two: Two) -> None:
        commit_as(copy, "people/predictions", "people-killed", pa.table({"id": [1.5], "new": [1]}), "killed")
        newest = history(copy, "predictions", 1)["versions"][0]
        assert (newest["run"], newest["manifest"], newest["schema"]) == (
            "people-killed",
            None,
            "added, removed, retyped",
        )
        assert newest["columns"]["retyped"] == {"id": ("long", "double")}
        assert "no manifest" in says("tables", "predictions", "--root", copy).stdout
        # A later run that finds the version there, and names it.
        manifest = {**two.runs[1].manifest, "run": "people-later"}
        manifest["tables"] = [{**r, "version": 2} if r["name"] == "predictions" else r for r in manifest["tables"]]
        Store(copy).write_json("runs/people-later/manifest.json", manifest)
        assert history(copy, "predictions", 1)["versions"][0]["manifest"] == "people-later"

    def test_a_table_that_cannot_be_read_does_not_hide_the_others(self, copy: str) -> None:
        for log in Path(copy, "tables/people/features/_delta_log").iterdir():
            log.write_text("{")
        rows = {row["table"]: row for row in list_tables(copy)}
        assert "features" in rows["people/features"]["error"]
        assert rows["people/predictions"]["rows"] is not None
        assert "people/features" in says("tables", "--root", copy).stdout

    @pytest.mark.parametrize("name", NAMES)
    def test_a_version_opened_by_its_name_is_the_run_s(self, two: Two, name: str) -> None:
        for version, run in enumerate(two.runs):
            wanted = run.table(name)
            for text in (
                f"people/{name}@{version}",
                f"{name}@{version}",
                f"{name}@{run.id}",
                f"people/{name}@{run.id}",
            ):
                found = treadle.open_table(text, root=str(two.root))
                assert (found.version, found.rows, found.path) == (wanted.version, wanted.rows, wanted.path)
            assert found.to_arrow().equals(wanted.to_arrow())
        assert treadle.open_table(name, str(two.root)).version == 1

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("predictionz", r"no table 'predictionz' under .*people/predictions.*Did you mean 'predictions'"),
            ("people/predictionz", "Did you mean 'people/predictions'"),
            ("other/predictions", "no table 'other/predictions'"),
            ("predictions@7", "has no version 7; its versions are 0 to 1"),
            ("predictions@", "after the @ comes a version"),
            ("predictions@people-1999", "There is no run 'people-1999'"),
            ("etl@people-2", "2 runs start with 'people-2'|There is no"),
        ],
    )
    def test_what_is_not_there_is_refused(self, two: Two, text: str, words: str) -> None:
        with pytest.raises(RequestError, match=words):
            treadle.open_table(text, str(two.root))
        if text.endswith("@7"):
            assert "no version 7" in says("tables", text, "--root", two.root, status=2).stderr

    def test_a_run_of_another_job_and_tables_of_several(self, copy: str, two: Two) -> None:
        commit_as(copy, "others/predictions", "others-1", pa.table({"id": [1]}), "others")
        with pytest.raises(
            RequestError, match=r"Several jobs have a table .*\[others/predictions, people/predictions\]"
        ):
            treadle.open_table("predictions@0", copy)
        with pytest.raises(RequestError, match="is of job 'people', and not of 'others'"):
            treadle.open_table(f"others/predictions@{two.runs[0].id}", copy)
        with pytest.raises(RequestError, match="has no table 'etl'"):
            treadle.open_table(f"etl@{two.runs[0].id}", copy)
        assert treadle.open_table(f"predictions@{two.runs[0].id}", copy).version == 0

    def test_a_root_without_tables(self, tmp_path: Path) -> None:
        assert f"No tables under {tmp_path}" in says("tables", "--root", tmp_path).stdout
        assert json.loads(says("tables", "--root", tmp_path, "--json").stdout) == []


class TestDiff:
    def test_two_runs(self, two: Two) -> None:
        found = diff(two.runs[0].id, two.runs[1].id, str(two.root))
        assert {pair.name for pair in found.tables} == set(NAMES)
        assert not found.same
        pairs = {pair.name: pair for pair in found.tables}
        before, after = (run.table("predictions").to_pandas().set_index("id") for run in two.runs)
        scores = pairs["predictions"].diff
        both = before.index.intersection(after.index)
        assert (scores.only_left, scores.only_right) == (len(before) - len(both), len(after) - len(both))
        columns = {column.name: column for column in scores.columns}
        apart = (before.loc[both, "score"] - after.loc[both, "score"]).abs()
        assert columns["score"].changed == (apart > 0).sum()
        assert columns["score"].largest == apart.max()
        assert columns["class"].changed == (before.loc[both, "class"] != after.loc[both, "class"]).sum()
        assert columns["score"].examples[0].key == {"id": apart.idxmax()}
        assert set(pairs["features"].diff.schema.removed) == {"joined_weekday"}

    def test_metrics_of_models_on_both_leaderboards(self, two: Two) -> None:
        (pair,) = diff(f"leaderboard@{two.runs[0].id}", "people/leaderboard@1", str(two.root)).tables
        before, after = (run.leaderboard.set_index("model").loc["decision_tree"] for run in two.runs)
        assert {change.model for change in pair.metrics} == {"decision_tree"}
        assert {"auc", "log_loss", "brier", "accuracy"} <= {change.metric for change in pair.metrics}
        for change in pair.metrics:
            assert (change.old, change.new) == (before[change.metric], after[change.metric])
            lower = change.metric in ("log_loss", "brier")
            assert change.better == (None if change.new == change.old else (change.new < change.old) == lower)
        assert "train_seconds" in pair.diff.not_compared
        assert (pair.diff.only_left, pair.diff.only_right) == (1, 1)
        shown = says("diff", "leaderboard@0", "leaderboard@1", "--root", two.root).stdout
        assert re.search(r"decision_tree │ log_loss .*(better|worse)", shown)

    def test_metrics_that_are_as_they_were_are_neither(self) -> None:
        left = pa.table({"model": ["a", "b"], "rmse": [1.0, None], "auc": [0.5, float("nan")]})
        right = pa.table({"model": ["b", "a"], "rmse": [1.0, 1.0], "auc": [0.5, 0.25]})
        found = {(change.model, change.metric): change for change in metric_changes(left, right)}
        assert {key: change.better for key, change in found.items()} == {
            ("a", "rmse"): None, ("a", "auc"): False, ("b", "rmse"): None, ("b", "auc"): None,
        }  # fmt: skip
        assert (found["a", "auc"].difference, found["b", "rmse"].difference) == (-0.25, None)

    def test_exit_status(self, two: Two) -> None:
        one, other = "predictions@0", "predictions@1"
        assert "id" in says("diff", one, other, "--root", two.root).stdout
        says("diff", one, other, "--root", two.root, "--exit-code", status=1)
        same = says("diff", one, f"predictions@{two.runs[0].id}", "--root", two.root, "--exit-code").stdout
        assert f"the same, {two.runs[0].table('predictions').rows} rows" in same
        found = json.loads(says("diff", one, other, "--root", two.root, "--json", "--exit-code", status=1).stdout)
        assert (found["same"], found["tables"][0]["key"]) == (False, ["id"])

    def test_key_and_tolerance(self, two: Two) -> None:
        command = ("diff", "features@0", "features@1", "--root", two.root, "--json")
        (by_key,) = json.loads(says(*command, "--key", "id, split").stdout)["tables"]
        assert by_key["key"] == ["id", "split"]
        assert by_key["only_right"] > 0
        (within,) = json.loads(says(*command, "--tolerance", "1e9").stdout)["tables"]
        assert within["changed"] < by_key["changed"]
        assert "Column 'idd' was not found" in says(*command, "--key", "idd", status=2).stderr

    @pytest.mark.parametrize(
        ("left", "right", "words"),
        [
            ("predictions@0", "people-x", "'predictions@0' is a table and 'people-x' a run"),
            ("people-x", "people-y", "There is no run 'people-x'"),
            ("predictions@0", "features@people-x", "There is no run 'people-x'"),
        ],
    )
    def test_refusals(self, two: Two, left: str, right: str, words: str) -> None:
        assert words in says("diff", left, right, "--root", two.root, status=2).stderr

    def test_a_key_is_for_two_tables(self, two: Two) -> None:
        ids = [run.id for run in two.runs]
        assert "--key is for two tables" in says("diff", *ids, "--key", "id", "--root", two.root, status=2).stderr

    def test_tables_that_one_run_has_alone(self, copy: str, two: Two) -> None:
        manifest = {**two.runs[1].manifest, "run": "people-alone"}
        manifest["tables"] = [record for record in manifest["tables"] if record["name"] != "features"]
        Store(copy).write_json("runs/people-alone/manifest.json", manifest)
        found = diff(two.runs[1].id, "people-alone", copy)
        assert (found.only_left, found.only_right, found.same) == (("features",), (), False)
        assert all(pair.diff.same for pair in found.tables)
        assert "has: features" in says("diff", two.runs[1].id, "people-alone", "--root", copy).stdout


def contents(run: Run) -> dict[str, pa.Table]:
    return {name: table.to_arrow() for name, table in run.tables.items()}


def heads(root: str) -> dict[str, int]:
    return {name: DeltaTable(f"{root}/tables/people/{name}").version() for name in NAMES}


class TestRollback:
    def test_tables_and_model_are_current_again(self, copy: str, two: Two) -> None:
        old, raw = two.runs[0], pd.read_parquet(two.specs[0]["data"]["path"])
        done = rollback(old.id, copy)
        assert done.changed
        assert done.left == ()
        assert done.run is not None
        run = load_run(copy, done.run)
        assert run.manifest["rollback_of"] == old.id
        assert (run.status, run.manifest["model"], run.leaderboard.equals(old.leaderboard)) == (
            "succeeded",
            "people:3",
            True,
        )
        for name, table in contents(old).items():
            current = treadle.open_table(name, copy)
            assert (current.version, run.table(name).version) == (2, 2)
            assert current.to_arrow().equals(table)
            (newest,) = history(copy, name, 1)["versions"]
            assert (newest["run"], newest["manifest"]) == (run.id, run.id)
            assert newest["spec"] == old.manifest["spec_digest"]
        model, before = treadle.load_model("people", copy), old.model
        assert model.reference == "people:3"
        pd.testing.assert_frame_equal(model.predict(raw, explain=True), before.predict(raw, explain=True))
        assert model.document.run == run.id
        # It is current now, so that there is nothing to do again: neither for a rollback nor for the spec itself.
        for again in (old.id, run.id):
            assert not rollback(again, copy).changed
        anew = treadle.run({**two.specs[0], "artifacts": {"root": copy}})
        assert {table.version for table in anew.tables.values()} == {2}
        assert (anew.manifest["model"], set(heads(copy).values())) == ("people:3", {2})
        assert not diff(run.id, two.runs[1].id, copy).same
        assert diff(run.id, old.id, copy).same

    def test_command(self, copy: str, two: Two) -> None:
        done = json.loads(says("rollback", two.runs[0].id, "--root", copy, "--json").stdout)
        assert (done["changed"], done["rollback_of"]) == (True, two.runs[0].id)
        assert {row["table"]: (row["version"], row["before"], row["now"]) for row in done["tables"]} == {
            f"people/{name}": (0, 1, 2) for name in NAMES
        }
        assert done["model"] == {"version": "people:1", "now": "people:3"}
        assert "is current already" in says("rollback", two.runs[0].id, "--root", copy).stdout
        back = says("rollback", two.runs[1].id, "--root", copy).stdout
        assert f"what run {two.runs[1].id} published is current again" in back
        assert "a rollback: what run" in says("show", done["run"], "--root", copy).stdout
        listed = json.loads(says("runs", "--root", copy, "--json").stdout)
        assert [row["status"] for row in listed] == ["succeeded"] * 4

    def test_only_what_is_not_current_gets_a_version(self, copy: str, two: Two) -> None:
        commit_as(copy, "people/predictions", "people-killed", pa.table({"id": [1]}), "killed")
        done = rollback(two.runs[1].id, copy)
        assert heads(copy) == {"explanations": 1, "features": 1, "leaderboard": 1, "predictions": 3}
        assert done.run is not None
        assert done.model == {"version": "people:2", "now": "people:2"}
        assert contents(load_run(copy, done.run))["predictions"].equals(two.runs[1].table("predictions").to_arrow())

    def test_a_file_that_is_gone_stops_it_before_anything_changes(self, copy: str, two: Two) -> None:
        (name,) = treadle.open_table("predictions@0", copy).files()
        Path(name).unlink()
        before = heads(copy)
        error = says("rollback", two.runs[0].id, "--root", copy, status=1).stderr
        assert re.search("version 0 of table .*/predictions cannot be made current: its file .* is gone", error)
        assert heads(copy) == before
        assert len(Store(copy).list("runs")) == 2
        assert treadle.load_model("people", copy).reference == "people:2"

    @pytest.mark.parametrize("note", ["publication 3 of people has begun", "the files of", "features is", "all is"])
    def test_what_is_broken_off_is_taken_back_and_can_be_done_again(self, copy: str, two: Two, note: str) -> None:
        before = contents(two.runs[1])

        def listener(event: dict[str, Any]) -> None:
            if event["note"].startswith(note):
                raise StorageError("the listener's disk is full")

        with pytest.raises(StorageError, match="disk is full"):
            rollback(two.runs[0].id, copy, listener)
        assert all(treadle.open_table(name, copy).to_arrow().equals(table) for name, table in before.items())
        assert treadle.load_model("people", copy).reference == "people:2"
        (failed,) = [row for row in list_runs(copy) if row["status"] == "failed"]
        assert load_run(copy, failed["run"]).manifest["publication"] == 3
        done = rollback(two.runs[0].id, copy)
        assert done.run is not None
        run = load_run(copy, done.run)
        assert run.manifest["publication"] == 4
        assert all(found.equals(contents(two.runs[0])[name]) for name, found in contents(run).items())
        assert history(copy, "features", 1)["versions"][0]["manifest"] == run.id
        assert treadle.load_model("people", copy).document.run == run.id

    def test_runs_that_published_nothing_are_refused(self, copy: str, two: Two) -> None:
        failed = {**two.runs[0].manifest, "run": "people-failed", "status": "failed", "tables": [], "model": None}
        Store(copy).write_json("runs/people-failed/manifest.json", failed)
        assert "published nothing" in says("rollback", "people-failed", "--root", copy, status=2).stderr
        assert "There is no run 'people-none'" in says("rollback", "people-none", "--root", copy, status=2).stderr

    def test_a_model_that_is_refused_stops_it(self, copy: str, two: Two) -> None:
        path = Path(copy, "models/people/1/bundle.json")
        document = json.loads(path.read_text())
        document["features"] = [*document["features"][1:], document["features"][0]]
        path.write_text(json.dumps(document))
        assert "is refused" in says("rollback", two.runs[0].id, "--root", copy, status=1).stderr
        assert set(heads(copy).values()) == {1}
