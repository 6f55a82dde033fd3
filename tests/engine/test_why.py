"""Why a stage is made again: the key that was changed is named, and only what depends on it is made again."""

from __future__ import annotations

import copy
import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import people_spec, write_people
from treadle.engine import cache, job_inputs, pipeline
from treadle.engine.artifacts import Artifact
from treadle.engine.chain import Stage
from treadle.engine.differences import ABSENT, changed_keys
from treadle.engine.job import Job
from treadle.engine.store import Store
from treadle.jobs.spec import load_spec

Spec = dict[str, Any]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("why")
    write_people(path / "people.parquet", rows=40)
    return path


def spec_of(folder: Path) -> Spec:
    spec = people_spec(folder / "people.parquet", folder / "root", "tcp://127.0.0.1:1")
    spec["models"] = [{"name": "xgboost", "params": {"max_depth": 3}}, {"name": "dummy"}]
    return spec


def job_of(spec: Spec) -> Job:
    return load_spec(spec).job


def stages_of(spec: Spec) -> tuple[Stage, ...]:
    job = job_of(spec)
    return pipeline.stages_of(job, job_inputs.inspect(job))


def made(store: Store, job: str, stages: Sequence[Stage]) -> None:
    """Notes stages as a run does that made all of them."""
    with cache.Cache(store, job, stages).noting({stage.name: Artifact() for stage in stages}, ()):
        pass


SHARES = st.floats(0.05, 0.9).filter(lambda share: share != 0.25)
CHANGES: dict[str, tuple[st.SearchStrategy[Any], set[str]]] = {
    "data.partitions": (st.integers(1, 9), {"read"}),
    "data.bad_rows.limit": (st.integers(1, 9), {"read"}),
    "data.id": (st.just("age"), {"etl"}),
    "tables.0.sql": (st.sampled_from(["ln(age)", "sqrt(income)"]), {"etl"}),
    "tables.1.columns.0": (st.just("age"), {"etl"}),
    "data.positive_class": (st.just("no"), {"split"}),
    "data.task": (st.just("classification"), {"split"}),
    "split.test_size": (SHARES, {"split"}),
    "metric": (st.sampled_from(["accuracy", "f1"]), {"split", "evaluate"}),
    "seed": (st.integers(8, 99), {"split", "train:xgboost", "train:dummy"}),
    "features.0.method": (st.just("mean"), {"features"}),
    "features.1.parts.1": (st.just("hour"), {"features"}),
    "data.weight": (st.just("age"), {"features"}),
    "data.protected.0": (st.just("city"), {"features", "evaluate"}),
    "models.xgboost.params.max_depth": (st.integers(4, 9), {"train:xgboost"}),
    "models.xgboost.params.eta": (SHARES, {"train:xgboost"}),
    "explain.rows": (st.just("all"), {"explain"}),
    "explain.top_k": (st.integers(1, 5), {"explain"}),
    "explain.dtype": (st.just("float64"), {"explain"}),
    "predict.rows": (st.just("all"), {"predict"}),
}
"""Key -> values, and the stages that depend on it by themselves."""


def with_value(spec: Spec, key: str, value: Any) -> Spec:
    changed = copy.deepcopy(spec)
    place: Any = changed
    *before, last = key.replace("models.xgboost", "models.0").replace("protected.0", "protected").split(".")
    for part in before:
        place = place[int(part)] if isinstance(place, list) else place.setdefault(part, {})
    if isinstance(place, list):
        place[int(last)] = value
    else:
        place[last] = [value] if last == "protected" else value
    return changed


def downstream(stages: Sequence[Stage], owners: set[str]) -> set[str]:
    found = set(owners)
    for stage in stages:
        if found & set(stage.needs):
            found.add(stage.name)
    return found


@settings(max_examples=60)
@given(change=st.sampled_from(sorted(CHANGES)).flatmap(lambda key: st.tuples(st.just(key), CHANGES[key][0])))
def test_the_key_that_was_changed_is_named_and_only_what_depends_on_it_is_made_again(
    folder: Path, change: tuple[str, Any]
) -> None:
    key, value = change
    owners = CHANGES[key][1]
    spec, store = spec_of(folder), Store(str(folder / "root"))
    stages = stages_of(spec)
    before = {stage.name: stage.fingerprint for stage in stages}
    made(store, "people", stages)
    after = stages_of(with_value(spec, key, value))
    anew = {stage.name for stage in after if before[stage.name] != stage.fingerprint}
    assert anew == downstream(after, owners)
    whys = cache.Cache(store, "people", after).whys
    for name in anew - {"publish"}:
        said = re.search(r"the spec changed: ([\w.]+): .* -> [^,;]+(?:; |$)", whys[name])
        assert (said is not None) == (name in owners), whys[name]
        assert said is None or said[1] == key
        (stage,) = [stage for stage in after if stage.name == name]
        assert ("made again" in whys[name]) == bool(anew & set(stage.needs))
    assert {whys[name] for name in set(before) - anew - {"publish"}} <= {"its outcome is gone"}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from("abc"),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from("xyz"), inner, max_size=3),
    max_leaves=12,
)


@given(JSON, JSON)
def test_values_differ_exactly_where_a_change_is_told(one: Any, other: Any) -> None:
    same = json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
    changes = list(changed_keys(one, other))
    # Python takes true for 1, and false for 0; the keys of a fingerprint have one type each.
    assert not changes if same else changes or one == other
    assert all(old is not new for _, old, new in changes)
    if isinstance(one, list) and isinstance(other, list) and changes and len(one) != len(other):
        assert any(ABSENT in (old, new) for _, old, new in changes) or len(changes) > 1


def test_an_operation_that_is_put_in_is_named_alone(folder: Path) -> None:
    spec, store = spec_of(folder), Store(str(folder / "inserted"))
    made(store, "people", stages_of(spec))
    spec["tables"].insert(1, {"op": "filter", "sql": "age > 20"})
    whys = cache.Cache(store, "people", stages_of(spec)).whys
    assert whys["etl"].startswith("the spec changed: tables.1: (absent) -> {")
    assert "tables.2" not in whys["etl"]
    assert whys["features"] == "etl, split are made again"


@pytest.mark.parametrize("ending", ["parquet", "csv"])
def test_files_of_the_input_are_named(tmp_path: Path, ending: str) -> None:
    data = tmp_path / "data"
    data.mkdir()

    def write(name: str, *values: int) -> None:
        frame = pd.DataFrame({"x": values})
        path = data / f"{name}.{ending}"
        _ = frame.to_parquet(path) if ending == "parquet" else frame.to_csv(path, index=False)

    for name in ("kept", "changed", "gone"):
        write(name, 1, 2)
    spec = {"apiVersion": "treadle/v1", "name": "rows", "data": {"path": str(data)}}
    store = Store(str(tmp_path / "root"))
    made(store, "rows", stages_of(spec))
    write("changed", 3)
    write("new", 4)
    (data / f"gone.{ending}").unlink()
    why = cache.Cache(store, "rows", stages_of(spec)).whys["read"]
    found = re.fullmatch(r"the input changed: data \(new (\S+); gone (\S+); changed (\S+)\)", why)
    assert found, why
    assert [Path(path).stem for path in found.groups()] == ["new", "gone", "changed"]


def test_a_joined_table_is_named(folder: Path) -> None:
    side = folder / "side.csv"
    side.write_text("city,people\nUlm,1\n")
    spec, store = spec_of(folder), Store(str(folder / "joined"))
    spec["tables"].insert(0, {"op": "join", "with": {"path": str(side)}, "on": ["city"]})
    made(store, "people", stages_of(spec))
    side.write_text("city,people\nUlm,2\n")
    assert cache.Cache(store, "people", stages_of(spec)).whys["etl"] == (
        f"the input changed: tables.0.with (changed {str(side) if len(str(side)) <= 72 else f'...{str(side)[-69:]}'})"
    )


def test_versions_and_revisions_are_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec, store = spec_of(folder), Store(str(folder / "versions"))
    made(store, "people", stages_of(spec))
    monkeypatch.setattr("treadle.engine.models.catalogue.version_of", lambda library: "99")
    monkeypatch.setattr("treadle.engine.evaluate.REVISION", 77)
    whys = cache.Cache(store, "people", stages_of(spec)).whys
    assert re.fullmatch(r"a library has another version: xgboost \S+ -> 99", whys["train:xgboost"])
    assert re.fullmatch(
        r"Treadle's code of it changed \(revision \d+ -> 77\); train:xgboost, train:dummy are made again",
        whys["evaluate"],
    )


def test_no_stage_but_publish_knows_the_name_of_its_job(folder: Path) -> None:
    spec = spec_of(folder)
    one, other = stages_of(spec), stages_of({**spec, "name": "other"})
    differing = {a.name for a, b in zip(one, other, strict=True) if a.fingerprint != b.fingerprint}
    assert differing == {"publish"}
    store = Store(str(folder / "names"))
    made(store, "people", one)
    whys = cache.Cache(store, "other", stages_of({**spec, "name": "other", "explain": {"rows": "all"}})).whys
    assert whys["explain"] == "unlike job people: the spec changed: explain.rows: test -> all"
    shutil.rmtree(folder / "names")
    assert set(cache.Cache(store, "other", other).whys.values()) == {cache.NEVER, cache.ALWAYS}
