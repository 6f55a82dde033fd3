"""A driver that is killed at every step of a publication, and drivers that publish at once."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tests.conftest import people_spec, write_people
from tests.faults.forks import AFTER_MANIFEST, BEFORE_MANIFEST, KILLED, SUCCEEDED, Forks
from treadle.engine import delta
from treadle.engine.bundle import complete_versions, versions
from treadle.engine.commit_all import TAKES_BACK
from treadle.engine.publication import pending, versions_before
from treadle.engine.store import Store
from treadle.jobs.run import Run, list_runs, load_run

TABLES = ("features", "leaderboard", "predictions", "explanations")
EVENTS = 2 + 2 * len(TABLES) + 4
"""Of a publication: files checked and commits, four steps more, and the stage's start and end."""
POINTS = (*range(EVENTS), BEFORE_MANIFEST, AFTER_MANIFEST)
Spec = dict[str, Any]


@pytest.fixture(scope="module")
def forks() -> Iterator[Forks]:
    with Forks() as started:
        yield started


@pytest.fixture(scope="module")
def specs(scheduler: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Spec]:
    """Three jobs of one name: two that differ in every table, and one without explanations and predictions."""
    people = write_people(tmp_path_factory.mktemp("people") / "people.parquet")
    first = people_spec(people, "", scheduler)
    del first["artifacts"]
    second = {**first, "seed": 8, "models": [{"name": "xgboost", "params": {"n_estimators": 10}}]}
    return {
        "first": first,
        "second": second,
        "third": {**second, "explain": {"rows": "none"}, "predict": {"rows": "none"}},
    }


@pytest.fixture(scope="module")
def published(forks: Forks, specs: dict[str, Spec], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root where the first job is published, and everything of the second is made but not published."""
    root = tmp_path_factory.mktemp("published") / "artifacts"
    tasks = [{"spec": specs["first"], "root": str(root)}, {"spec": specs["second"], "root": str(root), "kill": 0}]
    assert forks.run(tasks) == [SUCCEEDED, KILLED]
    return root


@pytest.fixture(scope="module")
def contents(
    forks: Forks, published: Path, specs: dict[str, Spec], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, dict[str, pa.Table]]:
    """What each job's tables hold, by themselves."""
    found = {}
    for name, spec in specs.items():
        root = tmp_path_factory.mktemp(name) / "artifacts"
        shutil.copytree(published / "stages", root / "stages")
        assert forks.run([{"spec": spec, "root": str(root)}]) == [SUCCEEDED]
        found[name] = {table: version.to_arrow() for table, version in newest(root).tables.items()}
    return found


def newest(root: Path | str) -> Run:
    """The run that succeeded last."""
    return load_run(str(root), next(row["run"] for row in list_runs(str(root)) if row["status"] == "succeeded"))


def seen(root: Path | str) -> dict[str, pa.Table]:
    """What readers see of every table without a run's manifest: the newest version, if none is being published."""
    store = Store(str(root))
    before = versions_before(store, "people")
    found = {}
    for name in TABLES:
        if name not in before or before[name] is not None:
            path = store.path(f"tables/people/{name}")
            found[name] = delta.read_arrow(delta.open_table(store.fs, path, before.get(name)))
    return found


def equal(found: dict[str, pa.Table], expected: dict[str, pa.Table]) -> bool:
    return found.keys() == expected.keys() and all(table.equals(expected[name]) for name, table in found.items())


def timeless(tables: dict[str, pa.Table]) -> dict[str, pa.Table]:
    """Without what a model cost, which differs between runs."""
    measured = ["train_seconds", "predict_seconds", "peak_bytes"]
    return {
        name: table.drop_columns([c for c in measured if c in table.column_names]) for name, table in tables.items()
    }


def assert_sound(root: Path | str, contents: dict[str, dict[str, pa.Table]]) -> None:
    """Every version in every log is one job's table as a whole."""
    store = Store(str(root))
    whole = {name: [timeless(tables)[name] for tables in contents.values() if name in tables] for name in TABLES}
    for name in TABLES:
        path = store.path(f"tables/people/{name}")
        head = delta.open_table(store.fs, path)
        for version in range(head.version() + 1):
            found = timeless({name: delta.read_arrow(delta.open_table(store.fs, path, version))})[name]
            assert any(found.equals(table) for table in whole[name]), f"{name}@{version} is a mixture"


@pytest.mark.parametrize(
    ("points", "following"),
    [
        pytest.param((4, 6, 8, 11, BEFORE_MANIFEST, AFTER_MANIFEST), "second", id="some-second"),
        pytest.param(POINTS, "second", id="all-second", marks=pytest.mark.slow),
        pytest.param(POINTS, "third", id="all-third", marks=pytest.mark.slow),
    ],
)
def test_a_driver_killed_at_any_step(
    forks: Forks,
    specs: dict[str, Spec],
    published: Path,
    contents: dict[str, dict[str, pa.Table]],
    tmp_path: Path,
    points: tuple[int, ...],
    following: str,
) -> None:
    roots = {point: tmp_path / str(point) / "artifacts" for point in points}
    for root in roots.values():
        shutil.copytree(published, root)
    tasks = [{"spec": specs["second"], "root": str(root), "kill": point} for point, root in roots.items()]
    assert forks.run(tasks) == [KILLED] * len(points)
    for point, root in roots.items():
        store = Store(str(root))
        # The state is that from before, or the new one; the manifest decides, and nothing else.
        is_published = point == AFTER_MANIFEST
        expected = contents["second" if is_published else "first"]
        assert equal(timeless(seen(root)), timeless(expected)), point
        run = newest(root)
        assert equal(timeless({n: t.to_arrow() for n, t in run.tables.items()}), timeless(expected)), point
        assert run.model.reference == f"people:{versions(store, 'people')[-1]}" == f"people:{1 + is_published}"
        assert (pending(store, "people") is not None) == (point in range(6, EVENTS) or point == BEFORE_MANIFEST), point
    # The same job goes on, or another one that makes fewer tables is next: what was left is no part of it.
    statuses = forks.run([{"spec": specs[following], "root": str(root)} for root in roots.values()])
    assert statuses == [SUCCEEDED] * len(points)
    for point, root in roots.items():
        run = newest(root)
        tables = {n: t.to_arrow() for n, t in run.tables.items()}
        assert equal(timeless(tables), timeless(contents[following])), point
        earlier = contents["second" if point == AFTER_MANIFEST else "first"]
        assert equal(timeless(seen(root)), timeless({**earlier, **contents[following]})), point
        assert pending(Store(str(root)), "people") is None
        assert run.model.reference == f"people:{complete_versions(Store(str(root)), 'people')[-1]}"
        assert_sound(root, contents)


@pytest.mark.parametrize("last", ["second", "third"])
def test_a_driver_that_goes_on_is_killed_as_well(
    forks: Forks,
    specs: dict[str, Spec],
    published: Path,
    contents: dict[str, dict[str, pa.Table]],
    tmp_path: Path,
    last: str,
) -> None:
    """What the first one committed is the second one's, too, and is taken back when neither came to its end."""
    root = tmp_path / "artifacts"
    shutil.copytree(published, root)
    cut_off = {"spec": specs["second"], "root": str(root), "kill": "all is committed"}
    assert forks.run([cut_off, cut_off]) == [KILLED, KILLED]
    assert equal(timeless(seen(root)), timeless(contents["first"]))
    assert forks.run([{"spec": specs[last], "root": str(root)}]) == [SUCCEEDED]
    assert equal(timeless(seen(root)), timeless({**contents["first"], **contents[last]}))
    assert_sound(root, contents)


def test_a_driver_that_takes_back_is_killed_as_well(
    forks: Forks, specs: dict[str, Spec], published: Path, contents: dict[str, dict[str, pa.Table]], tmp_path: Path
) -> None:
    """It has claimed what was left, which the one after it then finishes taking back, tables and bundle."""
    root = tmp_path / "artifacts"
    shutil.copytree(published, root)
    fewer = {**specs["third"], "seed": 9}
    tasks = [
        {"spec": specs["second"], "root": str(root), "kill": "all is committed"},
        {"spec": fewer, "root": str(root), "kill": TAKES_BACK},
    ]
    assert forks.run(tasks) == [KILLED, KILLED]
    claim = pending(Store(str(root)), "people")
    assert claim is not None
    assert (claim.number, claim.before.keys(), claim.left_models) == (3, set(TABLES), ("people:2",))
    assert equal(timeless(seen(root)), timeless(contents["first"]))
    assert newest(root).model.reference == "people:1"
    assert forks.run([{"spec": specs["third"], "root": str(root)}]) == [SUCCEEDED]
    assert equal(timeless(seen(root)), timeless({**contents["first"], **contents["third"]}))
    assert pending(Store(str(root)), "people") is None
    assert complete_versions(Store(str(root)), "people") == [1, 4]
    assert newest(root).model.reference == "people:4"
    assert_sound(root, contents)


def test_drivers_that_publish_at_once(
    forks: Forks, specs: dict[str, Spec], published: Path, contents: dict[str, dict[str, pa.Table]], tmp_path: Path
) -> None:
    """They are ordered: every run has its own tables, and the last one's are the current ones of all tables."""
    root = tmp_path / "artifacts"
    shutil.copytree(published, root)
    before = {row["run"] for row in list_runs(str(root))}
    names = ["second", "first", "second", "first"]
    tasks = [
        {"spec": {**specs[name], "artifacts": {"sample": 4 + i}}, "root": str(root)} for i, name in enumerate(names)
    ]
    assert forks.run(tasks, together=True) == [SUCCEEDED] * len(names)
    runs = [load_run(str(root), row["run"]) for row in list_runs(str(root)) if row["run"] not in before]
    assert len(runs) == len(names)
    for run in runs:
        name = "first" if run.manifest["spec"].get("seed", 7) == 7 else "second"
        assert equal(timeless({n: t.to_arrow() for n, t in run.tables.items()}), timeless(contents[name]))
        assert run.model.document.run == run.id
    ordered = sorted(runs, key=lambda run: run.manifest["publication"])
    assert [run.manifest["publication"] for run in ordered] == [2, 3, 4, 5]
    assert [run.manifest["model"] for run in ordered] == [f"people:{version}" for version in (2, 3, 4, 5)]
    assert equal(seen(root), {n: t.to_arrow() for n, t in ordered[-1].tables.items()})
    assert_sound(root, contents)


def test_a_job_that_is_published_already_is_not_published_again(
    forks: Forks, specs: dict[str, Spec], published: Path, tmp_path: Path
) -> None:
    root = tmp_path / "artifacts"
    shutil.copytree(published, root)
    store, first = Store(str(root)), newest(root)
    before = {name: delta.open_table(store.fs, store.path(f"tables/people/{name}")).version() for name in TABLES}
    elsewhere = {**specs["first"], "device": "cpu"}  # the same but for where it runs
    assert forks.run([{"spec": elsewhere, "root": str(root)}] * 3, together=True) == [SUCCEEDED] * 3
    again = newest(root)
    assert again.manifest["tables"] == first.manifest["tables"]
    assert again.manifest["model"] == first.manifest["model"]
    assert again.manifest["publication"] is None
    assert {n: delta.open_table(store.fs, store.path(f"tables/people/{n}")).version() for n in TABLES} == before


def test_a_rollback_that_is_killed(
    forks: Forks, specs: dict[str, Spec], published: Path, contents: dict[str, dict[str, pa.Table]], tmp_path: Path
) -> None:
    both = tmp_path / "both" / "artifacts"
    shutil.copytree(published, both)
    first = newest(both).id
    assert forks.run([{"spec": specs["second"], "root": str(both)}]) == [SUCCEEDED]
    points = (1, 3, 3 + len(TABLES), BEFORE_MANIFEST, AFTER_MANIFEST)
    """Once it is claimed, after the first table and after all, and about the manifest."""
    roots = {point: tmp_path / str(point) / "artifacts" for point in points}
    for root in roots.values():
        shutil.copytree(both, root)
    tasks = [{"back": first, "root": str(root), "kill": point} for point, root in roots.items()]
    assert forks.run(tasks) == [KILLED] * len(points)
    for point, root in roots.items():
        expected = contents["first" if point == AFTER_MANIFEST else "second"]
        assert equal(timeless(seen(root)), timeless(expected)), point
        # Reads as a run of the one job or the other does, and is settled by whatever is next.
        assert newest(root).model.reference == f"people:{versions(Store(str(root)), 'people')[-1]}", point
        assert_sound(root, contents)
    assert forks.run([{"back": first, "root": str(root)} for root in roots.values()]) == [SUCCEEDED] * len(points)
    for point, root in roots.items():
        assert equal(timeless(seen(root)), timeless(contents["first"])), point
        run = newest(root)
        assert run.manifest["rollback_of"] == first
        assert equal(timeless({n: t.to_arrow() for n, t in run.tables.items()}), timeless(contents["first"])), point
        assert run.model.reference == f"people:{complete_versions(Store(str(root)), 'people')[-1]}"
        assert pending(Store(str(root)), "people") is None
        assert_sound(root, contents)
