"""An artifacts root on an object store: a job from end to end, killed drivers, and drivers that publish at once.

Needs moto, see docs/developing.md.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import duckdb
import pandas as pd
import polars
import pyarrow as pa
import pytest
from deltalake import write_deltalake
from typer.testing import CliRunner

import treadle
from tests.conftest import people_spec, two_workers, write_people
from tests.faults.forks import KILLED, SUCCEEDED, Forks
from tests.faults.test_publication_killed import TABLES, assert_sound, equal, newest, seen, timeless
from tests.s3 import S3
from treadle.engine import delta
from treadle.engine.bundle import complete_versions
from treadle.engine.object_store import delta_options
from treadle.engine.publication import Claim, Turn, pending
from treadle.engine.store import Store
from treadle.errors import RequestError
from treadle.jobs.cli import app
from treadle.jobs.predict import predict_files
from treadle.jobs.run import Run, list_runs, load_run

pytestmark = pytest.mark.slow
ROOT = "s3://lake/artifacts"
Contents = dict[str, dict[str, pa.Table]]


@pytest.fixture(scope="module")
def workers(s3: S3, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a cluster whose workers have the variables of the server."""
    with two_workers(tmp_path_factory.mktemp("dask")) as cluster:
        yield cluster.scheduler_address


@pytest.fixture(scope="module")
def people(s3: S3, tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """The rows of a Delta table at s3://lake/people."""
    rows = pd.read_parquet(write_people(tmp_path_factory.mktemp("people") / "people.parquet", rows=300))
    write_deltalake("s3://lake/people", pa.Table.from_pandas(rows), storage_options=delta_options(s3.fs))
    return rows


@pytest.fixture(scope="module")
def spec(people: pd.DataFrame, workers: str) -> dict[str, Any]:
    return people_spec("s3://lake/people", ROOT, workers, explain={"rows": "all"}, predict={"rows": "all"})


@pytest.fixture(scope="module")
def run(spec: dict[str, Any]) -> Run:
    return treadle.run(spec)


def tables_of(run: Run) -> dict[str, pa.Table]:
    return timeless({name: table.to_arrow() for name, table in run.tables.items()})


class TestAJob:
    def test_it_makes_what_it_makes_on_a_disk(
        self, run: Run, spec: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        local = treadle.run(spec, root=str(tmp_path_factory.mktemp("local")))
        assert equal(tables_of(run), tables_of(local))
        assert sorted(TABLES) == sorted(run.tables)
        assert run.model.document.features_fingerprint == local.model.document.features_fingerprint

    def test_its_tables_are_read_by_others(self, s3: S3, run: Run) -> None:
        table = run.table("predictions")
        expected = table.to_pandas().sort_values("id", ignore_index=True)
        assert table.path == f"{ROOT}/tables/people/predictions"
        read = polars.read_delta(table.path, storage_options=delta_options(s3.fs), version=table.version)
        pd.testing.assert_frame_equal(read.sort("id").to_pandas(), expected, check_dtype=False)
        files = table.files()
        assert all(file.startswith(f"{ROOT}/tables/people/predictions/part-") for file in files)
        with duckdb.connect() as connection:
            connection.register_filesystem(s3.fs)
            found = connection.sql(f"select * from read_parquet({files}) order by id").df()
        pd.testing.assert_frame_equal(found, expected, check_dtype=False)

    def test_again_everything_is_cached(self, run: Run, spec: dict[str, Any]) -> None:
        assert treadle.run(spec).id == run.id
        again = treadle.run({**spec, "explain": {"rows": "none"}})
        assert {s["status"] for s in again.manifest["stages"] if s["stage"] != "publish"} == {"cached"}
        assert again.manifest["tables"] == [t for t in run.manifest["tables"] if t["name"] != "explanations"]
        assert again.model.reference == "people:2"  # of another spec, so with a card of its own

    def test_the_command_line_shows_it(self, run: Run) -> None:
        shown = CliRunner().invoke(app, ["show", run.id, "--root", ROOT, "--json"])
        assert json.loads(shown.stdout) == load_run(ROOT, run.id).manifest
        listed = CliRunner().invoke(app, ["runs", "--root", ROOT, "--json"])
        assert run.id in [row["run"] for row in json.loads(listed.stdout)]

    @pytest.mark.parametrize("format_", ["parquet", "delta"])
    def test_a_batch_is_predicted_there(self, s3: S3, run: Run, people: pd.DataFrame, format_: str) -> None:
        output = f"s3://lake/scored {format_}"
        said = predict_files(
            "people", ["s3://lake/people"], output, explain=True, format_=format_, root=ROOT, workers=1
        )
        assert [written["path"] for written in said["written"]] == [output, f"{output}-explanations"]
        for name, path in (("predictions", output), ("explanations", f"{output}-explanations")):
            expected = run.table(name).to_pandas().sort_values("id", ignore_index=True)
            if format_ == "delta":
                found = delta.read_arrow(delta.open_table(s3.fs, path)).to_pandas()
            else:
                (file,) = s3.fs.ls(path)
                with s3.fs.open(file) as opened:
                    found = pd.read_parquet(opened)
            pd.testing.assert_frame_equal(found.sort_values("id", ignore_index=True), expected)
        assert not [path for path in s3.fs.ls("lake") if path.endswith(".tmp")]
        if format_ == "parquet":
            with pytest.raises(RequestError, match=f"The output folder {output} is not empty"):
                predict_files("people", ["s3://lake/people"], output, root=ROOT, workers=1)


@pytest.fixture(scope="module")
def forks(s3: S3) -> Iterator[Forks]:
    with Forks() as started:
        yield started


@pytest.fixture(scope="module")
def specs(spec: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Two jobs of one name that differ in every table."""
    first = {name: section for name, section in spec.items() if name != "artifacts"}
    return {"first": first, "second": {**first, "seed": 8, "models": [{"name": "xgboost", "params": {"max_depth": 2}}]}}


@pytest.fixture(scope="module")
def published(forks: Forks, specs: dict[str, dict[str, Any]]) -> str:
    """A root where the first job is published, and everything of the second is made but not published."""
    root = "s3://lake/published"
    tasks = [{"spec": specs["first"], "root": root}, {"spec": specs["second"], "root": root, "kill": 0}]
    assert forks.run(tasks) == [SUCCEEDED, KILLED]
    return root


@pytest.fixture(scope="module")
def contents(s3: S3, forks: Forks, published: str, specs: dict[str, dict[str, Any]]) -> Contents:
    """What each job's tables hold, by themselves."""
    root = copied(s3, published, "both")
    assert forks.run([{"spec": specs["second"], "root": root}]) == [SUCCEEDED]
    return {"first": tables_of(newest(published)), "second": tables_of(newest(root))}


def copied(s3: S3, root: str, name: str) -> str:
    for path in s3.fs.find(root):
        s3.fs.cp_file(path, f"lake/{name}/{path.removeprefix(root.removeprefix('s3://') + '/')}")
    return f"s3://lake/{name}"


def test_a_run_that_was_killed_is_seen_and_goes_on(s3: S3, forks: Forks, published: str, contents: Contents) -> None:
    assert [row["status"] for row in list_runs(published)] == ["succeeded", "unfinished"]
    after = newest(copied(s3, "s3://lake/both", "gone-on"))
    done = {stage["stage"]: stage["status"] for stage in after.manifest["stages"]}
    assert {status for stage, status in done.items() if stage != "publish"} == {"cached"}


def test_a_driver_killed_while_it_publishes(
    s3: S3, forks: Forks, specs: dict[str, dict[str, Any]], published: str, contents: Contents
) -> None:
    # Some tables are committed and the others are not; all are, and the manifest is not there.
    for point in ("leaderboard is committed", "all is committed"):
        root = copied(s3, published, point)
        assert forks.run([{"spec": specs["second"], "root": root, "kill": point}]) == [KILLED]
        store = Store(root)
        assert pending(store, "people") is not None
        versions = [delta.open_table(store.fs, store.path(f"tables/people/{name}")).version() for name in TABLES]
        assert versions == ([1, 1, 0, 0] if point.startswith("leaderboard") else [1, 1, 1, 1])
        assert equal(timeless(seen(root)), contents["first"])
        assert equal(tables_of(newest(root)), contents["first"])
        # Its claim is another driver's, which sees that it is gone.
        assert forks.run([{"spec": specs["second"], "root": root}]) == [SUCCEEDED]
        assert equal(timeless(seen(root)), contents["second"])
        assert pending(store, "people") is None
        assert newest(root).model.reference == f"people:{complete_versions(store, 'people')[-1]}"
        assert_sound(root, contents)


def test_drivers_that_publish_at_once(
    s3: S3, forks: Forks, specs: dict[str, dict[str, Any]], published: str, contents: Contents
) -> None:
    """They are ordered: every run has its own tables and its own model."""
    root = copied(s3, published, "at-once")
    before = {row["run"] for row in list_runs(root)}
    names = ["second", "first", "second"]
    tasks = [{"spec": {**specs[name], "artifacts": {"sample": 4 + i}}, "root": root} for i, name in enumerate(names)]
    assert forks.run(tasks, together=True) == [SUCCEEDED] * len(names)
    runs = [load_run(root, row["run"]) for row in list_runs(root) if row["run"] not in before]
    for found in runs:
        name = "second" if found.manifest["spec"].get("seed") == 8 else "first"
        assert equal(tables_of(found), contents[name])
        assert found.model.document.run == found.id
    ordered = sorted(runs, key=lambda found: found.manifest["publication"])
    assert [found.manifest["publication"] for found in ordered] == [2, 3, 4]
    assert [found.manifest["model"] for found in ordered] == ["people:2", "people:3", "people:4"]
    assert equal(timeless(seen(root)), tables_of(ordered[-1]))
    assert_sound(root, contents)


def test_a_driver_that_comes_second_takes_nothing_back(
    forks: Forks, s3: S3, specs: dict[str, dict[str, Any]], published: str, contents: Contents
) -> None:
    """Two find what a killed one left; one of them keeps it as its own before the other has claimed its turn."""
    root = copied(s3, published, "second")
    assert forks.run([{"spec": specs["second"], "root": root, "kill": "all is committed"}]) == [KILLED]
    claim, first = Turn.claim, []

    def late(turn: Turn, *what: Any) -> Claim | None:
        if not first:
            first.append(turn.left)
            assert forks.run([{"spec": specs["second"], "root": root}]) == [SUCCEEDED]
        return claim(turn, *what)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Turn, "claim", late)
        run = treadle.run(specs["first"], root=root)
    assert first[0] is not None
    other = newest(root)  # which began later
    assert (other.manifest["publication"], run.manifest["publication"]) == (3, 4)
    assert equal(tables_of(other), contents["second"])
    assert equal(tables_of(run), contents["first"])
    assert [other.model.reference, run.model.reference] == ["people:2", "people:3"]
    assert complete_versions(Store(root), "people") == [1, 2, 3]
    assert equal(timeless(seen(root)), contents["first"])
    assert_sound(root, contents)
