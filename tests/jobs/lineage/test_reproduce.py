"""Runs made again from their manifests: what is equal to the bit, what is told, and what is refused before it runs."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pandas as pd
import pytest
from distributed import Client, LocalCluster
from typer.testing import CliRunner, Result

import treadle
from tests.conftest import people_spec, write_people
from treadle.engine import digests
from treadle.engine.sections.outputs import COSTS
from treadle.errors import RequestError
from treadle.jobs.cli import app
from treadle.jobs.lineage.inputs_now import stale_inputs, unsure_inputs
from treadle.jobs.lineage.reproduce import Reproduction, _notes, pinned, reproduce
from treadle.jobs.plan import make_plan
from treadle.jobs.run import Run, list_runs, load_run
from treadle.jobs.runner import execute
from treadle.jobs.spec import load_spec

EXAMPLE = Path(__file__).parents[3] / "jobs" / "examples" / "breast-cancer.yaml"


@pytest.fixture(scope="module")
def one_worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    with (
        LocalCluster(
            n_workers=1,
            threads_per_worker=1,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
            local_directory=str(tmp_path_factory.mktemp("one")),
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client


@pytest.fixture(scope="module")
def two_workers(scheduler: str) -> Iterator[Client]:
    with Client(scheduler) as client:
        yield client


def outcomes(found: Reproduction) -> dict[str, str]:
    assert found.model is not None
    return {**{table.name: table.outcome for table in found.tables}, "model": found.model.outcome}


def equal(found: Reproduction) -> set[str]:
    """The outcomes of all that was compared; everything that a job with models makes is there."""
    found_ = outcomes(found)
    assert found_.keys() == {"features", "leaderboard", "predictions", "explanations", "model"}
    return set(found_.values())


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory, one_worker: Client) -> Run:
    """The example on one worker, with fewer trees and without the forest: a worker loads its library for seconds."""
    fewer = ["models=[{name: xgboost, params: {n_estimators: 10, max_depth: 4}}, logistic_regression]"]
    root = str(tmp_path_factory.mktemp("example"))
    return execute(make_plan(load_spec(EXAMPLE, fewer), root), client=one_worker)


def test_the_example_repeats_to_the_bit_with_one_worker(example: Run, one_worker: Client) -> None:
    root = example.store.url
    found = reproduce(root, example.id, client=one_worker)
    assert equal(found) == {"bit-equal"}
    assert found.right
    assert found.differences == ()
    assert found.notes == ()
    leaderboard = next(table.comparison for table in found.tables if table.name == "leaderboard")
    assert leaderboard is not None
    assert set(leaderboard.left_out) == set(COSTS) - {"seconds"}
    assert not Path(root, "reproductions").exists(), "it is removed"
    assert [one["run"] for one in list_runs(root)] == [example.id]


def test_the_example_repeats_with_two_workers_and_its_data_made_anew(example: Run, two_workers: Client) -> None:
    root = Path(example.store.url)
    data = root / "inputs" / "sklearn-breast_cancer.parquet"
    data.unlink()
    found = reproduce(str(root), example.id, client=two_workers, keep=True, out=str(root.parent / "kept"))
    assert equal(found) <= {"bit-equal", "equal"}
    (note,) = found.notes
    assert note.startswith("it was made on 2 workers, and the run on 1")
    assert not data.exists(), "the run's own root is left alone"
    kept = load_run(str(root.parent / "kept"), found.reproduction)
    assert kept.manifest["plan"]["partitions_read"] == example.manifest["plan"]["partitions_read"]
    pd.testing.assert_frame_equal(
        kept.table("predictions").to_pandas(), example.table("predictions").to_pandas(), atol=1e-6
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("reproduce")


@pytest.fixture(scope="module")
def people(folder: Path, scheduler: str) -> Run:
    """A run on two files, on the session's cluster of two workers."""
    (folder / "in").mkdir()
    write_people(folder / "in" / "1.parquet", rows=200)
    write_people(folder / "in" / "2.parquet", rows=100, seed=4)
    return treadle.run(people_spec(folder / "in", folder / "a", scheduler))


def command(*words: str, status: int) -> Result:
    result = CliRunner().invoke(app, ["reproduce", *words])
    assert result.exit_code == status, result.output
    return result


def test_the_command_says_what_is_equal(people: Run, folder: Path) -> None:
    shown = command(people.id, "--root", str(folder / "a"), "--quiet", "--verify", status=0).stdout
    for name in ("features", "predictions", "explanations", "leaderboard", "model"):
        assert re.search(rf"{name} +│ (bit-equal|equal within 1e-06) ", shown), shown
    assert "Not compared, for they are measured: peak_bytes, predict_seconds, train_seconds" in shown
    assert "Kept" not in shown


def test_a_run_that_does_not_repeat_is_told_and_fails_a_check(people: Run, folder: Path) -> None:
    path = folder / "a" / "runs" / people.id / "manifest.json"
    recorded = path.read_text()
    manifest = json.loads(recorded)
    manifest["spec"]["models"][0]["params"]["n_estimators"] = 19
    manifest["environment"]["distributions"]["xgboost"] = "0.1"
    try:
        path.write_text(json.dumps(manifest))
        result = command(people.id, "--root", str(folder / "a"), "--json", "--verify", status=1)
        path.write_text(json.dumps({**manifest, "spec": {**manifest["spec"], "explain": {"rows": "none"}}}))
        shown = command(people.id, "--root", str(folder / "a"), "--quiet", status=0).stdout
    finally:
        path.write_text(recorded)
    found = json.loads(result.stdout)
    assert found["right"] is False
    assert found["differences"] == [f"xgboost: {people.manifest['libraries']['xgboost']}, and was 0.1"]
    assert found["not_compared"] == list(COSTS)
    tables = {table["table"]: table for table in found["tables"]}
    assert tables["features"]["outcome"] == "bit-equal"
    assert tables["predictions"]["outcome"] == "different"
    before = people.table("predictions").to_pandas()
    first = tables["predictions"]["first"]
    assert first["then"] == before.loc[first["row"], first["column"]] != first["now"]
    assert tables["predictions"]["counts"]["margin"] > 0.9 * len(before)
    assert found["model"]["outcome"] == "different"
    assert re.match(
        "model.arrow, model.json, model.ubj differ; compared by margins of the \\d+ rows of the sample",
        found["model"]["said"],
    )
    largest = max(tables["predictions"]["largest"], found["model"]["largest"])
    assert found["model"]["largest"] <= largest < 1
    assert "one of the two did not make it" in shown
    assert "columns differ: " in shown
    assert "other: xgboost" in shown


@pytest.fixture
def changed(people: Run, folder: Path) -> Iterator[Path]:
    """The second file of the input, put back afterwards."""
    path = folder / "in" / "2.parquet"
    content = path.read_bytes()
    yield path
    path.write_bytes(content)


CHANGES: list[tuple[str, Callable[[Path], Any], str]] = [
    (
        "changed",
        lambda path: path.write_bytes(path.read_bytes()[:-1] + b"x"),
        r"2.parquet' \(data\) has changed: digest",
    ),
    (
        "longer",
        lambda path: path.write_bytes(path.read_bytes() + b"x"),
        r"2.parquet' \(data\) has changed: [\d,]+ bytes",
    ),
    ("gone", lambda path: path.unlink(), r"2.parquet' \(data\) is missing. Put them back"),
]


@pytest.mark.parametrize(("change", "words"), [one[1:] for one in CHANGES], ids=[one[0] for one in CHANGES])
def test_nothing_runs_on_another_input(
    people: Run, folder: Path, changed: Path, change: Callable[[Path], Any], words: str
) -> None:
    change(changed)
    said = command(people.id, "--root", str(folder / "a"), "--quiet", status=2).stderr
    assert re.search(words, said), said
    assert str(changed) in said
    assert not (folder / "a" / "reproductions").exists()


def test_a_file_that_came_is_another_input(people: Run, folder: Path) -> None:
    more = write_people(folder / "in" / "3.parquet", rows=20)
    try:
        with pytest.raises(RequestError, match=rf"its input data is another one now \(3 files, and 2 .*{more}"):
            reproduce(str(folder / "a"), people.id)
    finally:
        more.unlink()
    assert not (folder / "a" / "reproductions").exists()


def test_what_cannot_be_reproduced_is_refused(people: Run, folder: Path, scheduler: str) -> None:
    with pytest.raises(RequestError, match="is not empty; name another folder with --out"):
        reproduce(str(folder / "a"), people.id, out=str(folder / "in"))
    with pytest.raises(treadle.errors.TreadleError):
        treadle.run(people_spec(folder / "in", folder / "f", scheduler, contract=[{"expect": "rows", "min": 1000}]))
    (failed,) = list_runs(str(folder / "f"))
    with pytest.raises(RequestError, match="failed; only a run that succeeded can be reproduced"):
        reproduce(str(folder / "f"), failed["run"])


def test_training_goes_on_from_the_model_that_the_run_went_on_from(people: Run, folder: Path, scheduler: str) -> None:
    models = [
        {"name": "xgboost", "continue_from": people.manifest["model"], "params": {"n_estimators": 3, "max_depth": 3}}
    ]
    root = folder / "a"
    run = treadle.run(people_spec(folder / "in", root, scheduler, name="more", models=models))
    assert equal(reproduce(str(root), run.id)) <= {"bit-equal", "equal"}
    earlier = root / "models" / "people" / "1"
    earlier.rename(earlier.with_name("hidden"))
    try:
        with pytest.raises(RequestError, match="model people:1, which it went on from, is gone"):
            reproduce(str(root), run.id)
    finally:
        earlier.with_name("hidden").rename(earlier)


def recorded(spec: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """The part of a manifest that pins go by."""
    files = [{"path": "/x.parquet"}]
    inputs = [{"section": section, "version": version, "files": files} for section, version in changes.pop("inputs")]
    plan = {"partitions": 7, **changes.pop("plan", {})}
    return {"spec": spec, "inputs": inputs, "plan": plan, "started": "2026-01-02T03:04:05+00:00", **changes}


def test_what_a_spec_left_open_is_as_it_was_in_the_run() -> None:
    spec = {
        "data": {"path": "/x"},
        "tables": [{"op": "drop"}, {"op": "join", "with": {"path": "/y"}}],
        "contract": [{"expect": "fresh"}, {"expect": "fresh", "of": "2020-01-01"}, {"expect": "known", "in": {}}],
        "artifacts": {"root": "/a", "sample": 3},
    }
    versions = [("data", 5), ("tables.1", 2), ("contract.2", None)]
    read = {"partitions_read": {"data": 3, "split": None}}
    found = pinned(recorded(spec, inputs=versions, plan=read, cluster={"workers": 3, "threads": 2}))
    assert found["data"] == {"path": "/x", "version": 5, "partitions": 3}
    assert found["tables"][1]["with"]["version"] == 2
    assert [one.get("of") for one in found["contract"]] == ["2026-01-02T03:04:05+00:00", "2020-01-01", None]
    assert "version" not in found["contract"][2]["in"]
    assert found["artifacts"] == {"sample": 3}
    assert found["cluster"] == {"profile": "local", "workers": 3, "threads": 2}
    assert "partitions" not in spec["data"], "the manifest stays as it is"


@pytest.mark.parametrize(
    ("data", "plan", "expected"),
    [
        ({"partitions": 9}, {"partitions_read": {"data": 3, "split": None}}, 9),
        ({}, {"partitions_read": {"data": 3, "split": 3}}, 3),
        ({}, {"partitions_read": {"data": 3, "split": 2}}, None),
        ({}, {}, 7),
    ],
)
def test_partitions_are_pinned_where_one_number_says_them(
    data: dict[str, Any], plan: dict[str, Any], expected: int | None
) -> None:
    found = pinned(recorded({"data": {"path": "/x", **data}}, inputs=[("data", None)], plan=plan))
    assert found["data"].get("partitions") == expected


@pytest.mark.parametrize(
    ("cluster", "workers", "expected"),
    [
        ({"workers": 1, "memory": "1GB"}, None, {"profile": "local", "workers": 1, "threads": 2, "memory": "1GB"}),
        ({"workers": 1, "memory": "1GB"}, 4, {"profile": "local", "workers": 4, "memory": "1GB"}),
        ({"profile": "address", "address": "tcp://a"}, None, {"profile": "address", "address": "tcp://a"}),
        ({"profile": "address", "address": "tcp://a"}, 2, {"profile": "local", "workers": 2}),
    ],
)
def test_the_cluster_is_the_recorded_one_or_local_workers(
    cluster: dict[str, Any], workers: int | None, expected: dict[str, Any]
) -> None:
    spec = {"data": {"path": "/x"}, "cluster": cluster}
    manifest = recorded(spec, inputs=[("data", None)], cluster={"workers": 3, "threads": 2})
    assert pinned(manifest, workers)["cluster"] == expected


def test_limits_of_time_are_no_promise() -> None:
    spec = {"budget": "10m", "compare": {"time_limit": "5s"}, "tune": {"budget": "1m"}, "models": "all"}
    now = {
        "plan": {"partitions_read": {"data": 1, "split": None}},
        "cluster": {"workers": 1, "threads": 1},
        "inputs": [],
    }
    found = list(_notes({**now, "spec": spec}, now))
    assert [text.partition(" is ")[0] for text in found] == ["budget", "compare.time_limit", "tune.budget"]
    assert all(text.endswith("what is done within a time is not promised to repeat") for text in found)
    own = {"models": [{"name": "a", "estimator": "pkg.mod:Own"}]}
    assert list(_notes({**now, "spec": own}, now)) == ["pkg.mod:Own is code of your own, whose version no manifest has"]


def test_a_large_file_with_another_time_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only its ends are looked at, as in the run."""
    monkeypatch.setattr(digests, "HASHED_WHOLE", 100)
    path = tmp_path / "large"
    path.write_bytes(bytes(3 * digests.END))
    found = digests.identify(fsspec.filesystem("file"), str(path))
    file = {"path": str(path), "bytes": found.bytes, "digest": found.digest, "whole": False, "stamp": found.stamp}
    manifest = {"inputs": [{"section": "data", "files": [file]}]}
    assert not [*stale_inputs(manifest), *unsure_inputs(manifest)]
    content = bytearray(path.read_bytes())
    content[len(content) // 2] = 1
    path.write_bytes(content)
    os.utime(path, ns=(1, 1))
    assert list(unsure_inputs(manifest)) == [str(path)]
    assert not list(stale_inputs(manifest))
    content[0] = 1
    path.write_bytes(content)
    assert [one.said.partition(":")[0] for one in stale_inputs(manifest)] == ["has changed"]


@pytest.mark.slow
def test_the_whole_example_repeats(tmp_path: Path) -> None:
    run = treadle.run(EXAMPLE, root=str(tmp_path), overrides=["cluster.workers=1"])
    assert equal(reproduce(str(tmp_path), run.id)) == {"bit-equal"}
    assert equal(reproduce(str(tmp_path), run.id, workers=2)) <= {"bit-equal", "equal"}


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_adult_repeats(shared_data: Path, tmp_path: Path, workers: int) -> None:
    """To the bit with one worker; with two what XGBoost sums over them is within the tolerance."""
    from tests.jobs.test_adult import adult_spec

    spec = adult_spec(shared_data, tmp_path, "", explain={"rows": "test"})
    spec["cluster"] = {"profile": "local", "workers": workers}
    run = treadle.run(spec)
    found = reproduce(str(tmp_path), run.id)
    assert found.differences == ()
    assert equal(found) <= ({"bit-equal"} if workers == 1 else {"bit-equal", "equal"})
