"""`treadle gc`: whatever its options are, what a manifest or a running job needs stays, and what stays works."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec
import pandas as pd
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

import treadle
from tests.conftest import people_spec, write_people
from treadle.cluster.locks import locked
from treadle.engine import commits
from treadle.engine.cache import ALWAYS
from treadle.engine.delta_files import DataFile, table_schema
from treadle.engine.processes import boot
from treadle.engine.publication import turn
from treadle.engine.store import Store
from treadle.errors import RequestError, StorageError
from treadle.jobs.cli import app
from treadle.jobs.gc import holding
from treadle.jobs.gc.collect import Report, collect
from treadle.jobs.gc.rules import Rules
from treadle.jobs.plan import make_plan
from treadle.jobs.run import Run, load_run
from treadle.jobs.runner import execute
from treadle.jobs.spec import load_spec

DAY = 86_400.0
EVERYTHING = Rules(older_than=0.0, grace=0.0, keep_runs=1, max_size=0)


@dataclass
class Root:
    """A root with the runs of three jobs, and a copy of it to begin anew from."""

    path: Path
    runs: dict[str, Run]
    specs: dict[str, dict[str, Any]]

    def reset(self) -> None:
        shutil.rmtree(self.path)
        subprocess.run(["cp", "-a", f"{self.path}.copy", str(self.path)], check=True)

    def gc(self, rules: Rules, protected: Collection[str] = (), later: float = 10 * DAY, **how: Any) -> Report:
        """As if so many seconds had passed since everything was made."""
        return collect(str(self.path), rules, protected=lambda: protected, now=time.time() + later, **how)

    def kept(self) -> dict[str, Run]:
        return {
            name: run for name, run in self.runs.items() if (self.path / "runs" / run.id / "manifest.json").exists()
        }

    def disk(self) -> int:
        """Bytes of all files, each once however many names it has."""
        found = [path.stat() for path in self.path.rglob("*") if path.is_file()]
        return sum({one.st_ino: one.st_size for one in found}.values())

    def names(self) -> set[str]:
        return {str(path.relative_to(self.path)) for path in self.path.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, scheduler: str) -> Root:
    folder = tmp_path_factory.mktemp("gc")
    people = write_people(folder / "people.parquet", rows=150)
    path = folder / "artifacts"
    small = {"models": [{"name": "xgboost", "params": {"n_estimators": 3, "max_depth": 2}}]}
    base = people_spec(people, path, scheduler, **small)
    derived = {
        **{key: base[key] for key in ("apiVersion", "artifacts", "cluster")},
        "name": "derived",
        "data": {"path": str(path / "tables/people/features"), "version": 0},
        "tables": [{"op": "filter", "sql": "age > 0"}],
    }
    specs = {
        "first": base,
        "seeded": {**base, "seed": 11},
        "explained": {**base, "seed": 11, "explain": {"rows": "all"}},
        "other": {**base, "name": "other"},
        "derived": derived,
        "last": {**base, "features": base["features"][1:3], "tables": [{"op": "drop", "columns": ["income"]}]},
    }
    runs = {name: treadle.run(spec) for name, spec in specs.items()}
    _plant(path)
    subprocess.run(["cp", "-a", str(path), f"{path}.copy"], check=True)
    return Root(path, runs, specs)


def _plant(path: Path) -> None:
    """What crashed runs leave behind."""
    store = Store(str(path))
    frame = pd.DataFrame({"x": range(10)})
    file = path / "stages/features-00000000deadbeef/part-00000.parquet"
    file.parent.mkdir()
    frame.to_parquet(file)
    size = file.stat().st_size
    for number, fingerprint in enumerate(("a" * 16, "b" * 16)):  # one version that nobody names, and the current one
        commits.commit_table(
            store.fs,
            str(path / "tables/crashed/etl"),
            [DataFile(str(file), 10, size)],
            table_schema(pq.read_schema(file)),
            fingerprint=fingerprint,
            metadata={"treadle.run": f"crashed-{number}"},
        )
    os.link(file, path / "tables/people/features/part-00000-0123456789ab.parquet")
    for name in ("stages/checkpoints-00000000deadbeef/rounds-50.ubj", "models/people/99/model.json"):
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text("{}")
    (path / "runs/people-20200101-000000-abcdef").mkdir()
    (path / "runs/people-20200101-000000-abcdef/events.jsonl").write_text("{}")
    (path / "models/people/1/model.ubj.crashed12345678.tmp").write_text("half")


def assert_all_is_there(root: Root) -> None:
    """Every version that a kept manifest names reads back by deltalake alone, and every model loads and predicts."""
    for run in root.kept().values():
        manifest = json.loads((root.path / "runs" / run.id / "manifest.json").read_text())
        for table in manifest["tables"]:
            rows = DeltaTable(str(root.path / table["path"]), version=table["version"]).to_pyarrow_table().num_rows
            assert rows == table["rows"]
        for found in manifest["inputs"]:
            assert all(Path(file["path"]).exists() for file in found["files"])
        if manifest["model"]:
            treadle.load_model(manifest["model"], root=str(root.path)).verify()
    for log in root.path.glob("tables/*/*/_delta_log"):
        DeltaTable(str(log.parent)).to_pyarrow_table()


def test_a_change_makes_only_what_depends_on_it_and_says_why(root: Root) -> None:
    root.reset()
    stages = {name: {one["stage"]: one for one in run.manifest["stages"]} for name, run in root.runs.items()}
    made = {name: [one["stage"] for one in of.values() if one["status"] == "finished"] for name, of in stages.items()}
    whys = {name: {one["stage"]: one["why"] for one in of.values()} for name, of in stages.items()}
    assert made["explained"] == ["explain", "publish"]
    assert whys["explained"]["explain"] == "the spec changed: explain.rows: test -> all"
    assert {why for stage, why in whys["explained"].items() if stage not in made["explained"]} == {None}
    assert made["seeded"] == ["split", "features", "train:xgboost", "evaluate", "explain", "predict", "publish"]
    assert whys["seeded"]["split"] == "the spec changed: seed: 7 -> 11"
    assert whys["seeded"]["predict"] == "features, split, evaluate are made again"
    assert made["other"] == ["publish"]  # another job with the same config shares all stages
    assert set(whys["first"].values()) == {"never made under this root", ALWAYS}
    run = root.runs["explained"]
    events = [json.loads(line) for line in Path(run.path(f"runs/{run.id}/events.jsonl")).read_text().splitlines()]
    told = {event["stage"]: event["why"] for event in events if event["event"] == "started" and "why" in event}
    assert told == {stage: whys["explained"][stage] for stage in made["explained"]}
    planned = {one["stage"]: one["why"] for one in run.manifest["plan"]["stages"]}
    assert planned == whys["explained"]


def test_what_became_of_an_outcome_is_told(root: Root) -> None:
    root.reset()
    last = {one["stage"]: one["fingerprint"] for one in root.runs["last"].manifest["stages"]}
    (root.path / f"stages/features-{last['features']}/part-00000.parquet").write_text("short")
    (root.path / f"stages/split-{last['split']}/stage.json").write_text("{}")
    shutil.rmtree(root.path / f"stages/explain-{last['explain']}")
    spec = root.path.parent / "last.json"
    spec.write_text(json.dumps(root.specs["last"]))
    said = CliRunner().invoke(app, ["plan", str(spec), "--json"])
    whys = {one["stage"]: one["why"] for one in json.loads(said.stdout)["stages"] if one["status"] == "to run"}
    part = f"stages/features-{last['features']}/part-00000.parquet"
    assert whys == {
        "features": f"files of its outcome are gone or have another size: {part}",
        "split": "its outcome is damaged, or another version of Treadle wrote it",
        "explain": "its outcome is gone",
        "publish": ALWAYS,
    }
    shown = CliRunner().invoke(app, ["plan", str(spec)]).stdout
    assert all(why[:30] in shown for why in whys.values())
    fresh = CliRunner().invoke(app, ["plan", str(spec), "--fresh", "--json"])
    assert {one["why"] for one in json.loads(fresh.stdout)["stages"]} == {"asked for by --fresh"}


SPANS = st.sampled_from([None, 0.0, 5 * DAY, 20 * DAY])


@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    older_than=SPANS,
    max_size=st.sampled_from([None, 0, 20_000, 10**9]),
    grace=st.sampled_from([0.0, DAY, 30 * DAY]),
    keep_runs=st.sampled_from([None, 1, 2]),
    runs_older_than=SPANS,
    protected=st.sets(st.sampled_from(["people:1", "people:2", "other:1"])),
)
def test_what_kept_manifests_name_stays_whatever_the_rules_are(
    root: Root,
    older_than: float | None,
    max_size: int | None,
    grace: float,
    keep_runs: int | None,
    runs_older_than: float | None,
    protected: set[str],
) -> None:
    root.reset()
    rules = Rules(older_than, max_size, grace, keep_runs, runs_older_than)
    before, names = root.disk(), root.names()
    told = root.gc(rules, protected, dry_run=True)
    assert root.names() == names
    report = root.gc(rules, protected)
    assert [(one.what, one.path, one.files) for one in report.removals] == [
        (one.what, one.path, one.files) for one in told.removals
    ]
    assert before - root.disk() == report.freed <= report.bytes
    kept = root.kept()
    assert {"last", "other", "derived"} <= kept.keys()  # the newest of each job
    assert protected <= {run.manifest["model"] for run in kept.values()}
    if keep_runs is None and runs_older_than is None:
        assert kept.keys() == root.runs.keys()
    if grace > 10 * DAY:
        assert root.names() >= names
    assert_all_is_there(root)
    assert root.gc(rules, protected).removals == ()


def test_only_what_is_needed_is_left(root: Root) -> None:
    root.reset()
    root.gc(EVERYTHING)
    assert set(root.kept()) == {"last", "other", "derived"}
    kept = [run.manifest for run in root.kept().values()]
    needed = {
        path
        for manifest in kept
        for table in manifest["tables"]
        for path in DeltaTable(str(root.path / table["path"]), version=table["version"]).file_uris()
    }
    for log in root.path.glob("tables/*/*/_delta_log"):
        needed |= set(DeltaTable(str(log.parent)).file_uris())
    needed |= {file["path"] for manifest in kept for one in manifest["inputs"] for file in one["files"]}
    there = {str(path) for path in root.path.glob("tables/*/*/*.parquet")}
    assert there == {path.removeprefix("file://") for path in needed} & {str(p) for p in root.path.rglob("*.parquet")}
    assert not [path for path in root.path.glob("stages/*") if path.is_dir() and path.name != "made"]
    assert not list(root.path.rglob("*.tmp"))
    assert not (root.path / "models/people/99").exists()
    assert len(list((root.path / "runs").iterdir())) == 3
    # Nothing of the log goes: versions keep their numbers, and a run that makes nothing new publishes nothing.
    again = treadle.run(root.specs["last"])
    assert {record["status"] for record in again.manifest["stages"]} == {"finished"}
    assert again.manifest["stages"][0]["why"] == "its outcome is gone"
    assert again.manifest["tables"] == root.runs["last"].manifest["tables"]
    assert again.manifest["model"] == root.runs["last"].manifest["model"]
    assert treadle.run(root.specs["derived"]).manifest["tables"] == root.runs["derived"].manifest["tables"]


def test_the_least_recently_used_goes_first_and_tables_keep_what_they_hold(root: Root) -> None:
    root.reset()
    store = Store(str(root.path))
    last = {record["stage"]: record["fingerprint"] for record in root.runs["last"].manifest["stages"]}
    sizes = [report.freed for report in (root.gc(Rules(max_size=size), dry_run=True) for size in (10**9, 30_000, 0))]
    assert sizes[0] < sizes[1] < sizes[2]
    root.gc(Rules(max_size=30_000))
    kept = store.list("stages")
    assert f"train-xgboost-{last['train:xgboost']}" in kept
    first = {record["stage"]: record["fingerprint"] for record in root.runs["seeded"].manifest["stages"]}
    assert f"train-xgboost-{first['train:xgboost']}" not in kept
    assert_all_is_there(root)
    (record,) = [
        one for one in treadle.run(root.specs["last"], fresh=False).manifest["stages"] if one["stage"] == "read"
    ]
    assert record["status"] == "cached"


def test_what_a_job_uses_that_has_nothing_to_do_is_used(root: Root) -> None:
    root.reset()
    time.sleep(1.0)
    assert treadle.run(root.specs["last"]).id == root.runs["last"].id
    root.gc(Rules(older_than=1.0, grace=0.0), later=0.0)
    there = {path.name for path in root.path.glob("stages/*")}
    last = {one["stage"]: one["fingerprint"] for one in root.runs["last"].manifest["stages"]}
    first = {one["stage"]: one["fingerprint"] for one in root.runs["first"].manifest["stages"]}
    assert {f"features-{last['features']}", f"read-{last['read']}"} <= there
    assert f"features-{first['features']}" not in there


def test_a_run_is_spared_whatever_gc_does_beside_it(root: Root) -> None:
    """A gc without any grace at each event of runs that make all, use the cache, or read a version of a table."""
    root.reset()
    told: list[Report] = []

    def listener(event: dict[str, Any]) -> None:
        if event["event"] in ("started", "cached"):
            told.append(root.gc(EVERYTHING))

    for name in ("first", "derived", "last"):
        run = treadle.run(root.specs[name], listener=listener)
        for table in run.tables.values():
            assert table.to_arrow().num_rows == table.rows
        if run.manifest["model"]:
            run.model.verify()
        assert not (root.path / "runs" / run.id / holding.RUNNING).exists()
    assert any(report.live for report in told)
    assert any(report.removals for report in told)


def test_one_gc_at_a_time_and_errors_say_what_to_do(root: Root, tmp_path: Path) -> None:
    root.reset()
    with pytest.raises(RequestError, match="There is nothing at .*; name the artifacts root with --root"):
        collect(str(tmp_path / "absent"), Rules())
    from treadle.jobs.gc.collect import _alone

    with _alone(Store(str(root.path))), pytest.raises(StorageError, match="Another treadle gc is at work"):
        root.gc(Rules())
    manifest = root.path / "runs" / root.runs["first"].id / "manifest.json"
    manifest.write_text("{}")
    with pytest.raises(StorageError, match="what it names is not known. Restore it, or remove the folder"):
        root.gc(Rules())


def test_the_command(root: Root) -> None:
    root.reset()

    def says(*options: str, status: int = 0) -> str:
        result = CliRunner().invoke(app, ["gc", "--root", str(root.path), *options])
        assert result.exit_code == status, result.output
        return result.stdout if status == 0 else result.stderr

    assert "Nothing to remove" in says()
    names = root.names()
    document = json.loads(says("--dry-run", "--json", "--grace", "0", "--keep-runs", "1", "--max-size", "1kB"))
    assert root.names() == names
    assert {"model", "run", "outcome", "files of a table"} <= {one["what"] for one in document["removed"]}
    assert 0 < document["freed_bytes"] < document["bytes"]
    assert "would go" in says("--dry-run", "--grace", "0")
    zeros = json.loads(says("--dry-run", "--json", "--grace", "0s", "--older-than", "0d"))
    assert "outcome" in {one["what"] for one in zeros["removed"]}
    assert "removed, " in says("--grace", "0", "--keep-runs", "1", "--older-than", "1s")
    assert load_run(str(root.path), root.runs["last"].id).table("features").to_arrow().num_rows == 150
    assert "--grace: 'soon' is no span of time; write a number and one of" in says("--grace", "soon", status=2)
    assert "--max-size: 'big' is no size; write a number and a unit" in says("--max-size", "big", status=2)


def test_a_publication_that_was_cut_off_is_left_to_the_jobs_next_run(root: Root) -> None:
    root.reset()
    store = Store(str(root.path))
    with turn(store, "people", lambda: None) as mine:
        mine.claim("people-killed", {"features": 0})
    report = root.gc(EVERYTHING)
    assert not [one for one in report.removals if one.path.startswith(("tables/people", "models/people"))]
    assert "cut off; the job's next run ends it" in report.skipped["tables/people/features"]
    assert [one for one in report.removals if one.path.startswith("tables/crashed")]
    assert treadle.run(root.specs["last"]).status == "succeeded"
    assert root.gc(EVERYTHING).skipped == {}
    assert_all_is_there(root)


def test_files_that_a_plan_counts_on_are_looked_at_when_the_run_begins(root: Root) -> None:
    root.reset()
    spec = load_spec(root.specs["derived"])
    plan = make_plan(spec, spec.root())
    for path in (root.path / "tables/people/features").glob("*.parquet"):
        path.unlink()
    with pytest.raises(StorageError, match=r"1 files of the input under .* were removed since the run was planned"):
        execute(plan)
    assert not list(root.path.glob(f"runs/*/{holding.RUNNING}"))


def test_whether_a_run_lives_is_told_by_its_lock_or_by_what_it_writes(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    path = tmp_path / "runs/people-1" / holding.RUNNING
    path.parent.mkdir(parents=True)
    said = holding.Running(
        run="people-1", job="people", host="here", boot=boot(), pid=1, started="", stages={"read": "0" * 16}
    )

    def lives(since: float) -> bool:
        return [run.run for run in holding.live_runs(store, time.time() + since)] == ["people-1"]

    path.write_text(said.model_dump_json())
    assert not lives(-60)
    with locked(path):
        assert lives(60)
    path.write_text(said.model_copy(update={"boot": "elsewhere"}).model_dump_json())
    assert lives(-60)
    assert not lives(60)
    with locked(path):
        assert lives(60)
        path.write_text("{}")
        with pytest.raises(StorageError, match="Run people-1 is going on, and .* does not say what it needs"):
            lives(60)


def test_a_root_without_locks_and_links(root: Root) -> None:
    """The same goes there as here, but for tables, which deltalake cannot read in fsspec's memory."""
    root.reset()
    fs = fsspec.filesystem("memory")
    fs.put(f"{root.path}/", "/gc/", recursive=True)
    rules = Rules(older_than=0.0, grace=DAY, keep_runs=1)
    here = {(one.what, one.path) for one in root.gc(rules, dry_run=True).removals if one.what != "files of a table"}
    report = collect("memory://gc", rules, now=time.time() + 10 * DAY)
    assert {(one.what, one.path) for one in report.removals} == here
    assert report.freed == report.bytes
    assert set(report.skipped) == {
        str(log.parent.relative_to(root.path)) for log in root.path.glob("tables/*/*/_delta_log")
    }
    left = {path.removeprefix("/gc/") for path in fs.find("/gc")}
    assert not {one for _, one in here} & {path.rpartition("/")[0] for path in left}
    for run in root.runs.values():
        kept = f"runs/{run.id}/manifest.json" in left
        assert kept == (run.id in {root.runs[name].id for name in ("last", "other", "derived")})
    fs.rm("/gc", recursive=True)
