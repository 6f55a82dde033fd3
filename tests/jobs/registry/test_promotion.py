"""Promotion: gates measure what they say, refusals say what was measured, and every change of an alias is on record."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score
from typer.testing import CliRunner

import treadle
from tests.jobs.registry.conftest import STUMP, Recorded
from treadle.errors import RequestError
from treadle.jobs.cli import app
from treadle.jobs.registry.gates import Candidate
from treadle.jobs.registry.promotion import PromotionRefused, promote, read_records, stack
from treadle.jobs.registry.sections import Promotion
from treadle.jobs.registry.versions import aliases_of, list_models, manifest_of, split_reference
from treadle.jobs.spec import load_spec

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def promoted(recorded: Recorded, tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    """A copy in which version 1 is the champion."""
    copy = recorded.copied(tmp_path_factory.mktemp("promoted"))
    promote("people:1", "champion", copy.root, who="ada", why="the first")
    return copy


def judged(of: Recorded, version: int, *gates: dict[str, Any], champion: int = 1) -> list[Any]:
    bundle = treadle.load_model(f"people:{version}", root=of.root)
    manifest = manifest_of(of.store, "people", version)
    candidate = Candidate(of.store, bundle, manifest, {"champion": champion})
    return candidate.judge(Promotion.model_validate({"gates": gates}).gates, "champion")


def aliases(of: Recorded) -> dict[str, int]:
    with of.connection().using() as client:
        return aliases_of(client, "people")


def test_both_versions_are_measured_on_the_same_test_rows(recorded: Recorded) -> None:
    """The candidate's value is its leaderboard's; the champion's that of scikit-learn from what Treadle predicts."""
    (verdict,) = judged(recorded, 2, {"gate": "not_worse"})
    test = recorded.runs[1].table("features").to_pandas(["id", "split", "buys"]).query("split == 'test'")
    scores = treadle.load_model("people:1", root=recorded.root).predict(recorded.raw).set_index("id").score
    assert not verdict.passed
    assert verdict.values["value"] == recorded.runs[1].leaderboard.auc[0]
    assert verdict.values["other"] == pytest.approx(roc_auc_score(test.buys == "yes", scores[test.id]), abs=1e-12)
    assert verdict.values["rows"] == verdict.values["test_rows"] == len(test)
    (fewer,) = judged(recorded, 2, {"gate": "not_worse", "rows": 50, "tolerance": 1})
    assert fewer.passed
    assert fewer.values["rows"] == 50


def test_rows_that_the_champion_learned_from_are_left_out(recorded: Recorded, tmp_path: Path) -> None:
    copy = recorded.copied(tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TREADLE_TRACKING", "off")
        other = treadle.run(copy.spec(seed=8, models=["decision_tree"]))
    (verdict,) = judged(copy, 3, {"gate": "not_worse", "tolerance": 1})
    theirs, ours = (
        run.table("features").to_pandas(["id", "split"]).set_index("id").split for run in (recorded.runs[0], other)
    )
    both = (theirs == "test") & (ours.reindex(theirs.index) == "test")
    assert 0 < verdict.values["rows"] == both.sum() < verdict.values["test_rows"]


def test_gates_measure_what_the_run_predicted(recorded: Recorded) -> None:
    """Differences between groups and calibration, from the run's own predictions by pandas."""
    run = recorded.runs[0]
    rows = run.table("features").to_pandas(["id", "split", "buys", "protected.city"]).query("split == 'test'")
    rows = rows.merge(run.table("predictions").to_pandas(), on="id")
    true, said = rows.buys == "yes", rows["class"] == "yes"
    city = rows["protected.city"].fillna("null")
    for rate, chosen in (("selection_rate", true | ~true), ("tpr", true), ("fpr", ~true)):
        by_city = said[chosen].groupby(city[chosen]).mean()[city.value_counts() >= 10]
        (verdict,) = judged(
            recorded, 1, {"gate": "fairness", "column": "city", "rate": rate, "max_difference": 1e-9, "min_rows": 10}
        )
        assert verdict.values["rates"] == pytest.approx(by_city.to_dict())
        assert verdict.values["difference"] == pytest.approx(by_city.max() - by_city.min())
        assert not verdict.passed
    bins = np.minimum((rows.score * 10).astype(int), 9)
    apart = (true.groupby(bins).mean() - rows.score.groupby(bins).mean()).abs() * bins.value_counts()
    (verdict,) = judged(recorded, 1, {"gate": "calibration", "max_error": 1e-9})
    assert verdict.values["error"] == pytest.approx(apart.sum() / len(rows))
    assert "Calibrate the model" not in verdict.measured
    (verdict,) = judged(recorded, 1, {"gate": "latency", "p50_ms": 1e-6, "calls": 10, "batch": 7})
    assert not verdict.passed
    assert 0 < verdict.values["p50_ms"] <= verdict.values["p95_ms"]


def test_gates_that_are_changed_guard_from_the_next_run_on(recorded: Recorded, tmp_path: Path) -> None:
    """It makes a new version of the same model, whose files are those of before."""
    copy = recorded.copied(tmp_path)
    spec = copy.spec(models=STUMP, promotion={"gates": [{"gate": "bound", "min": 1.1}]})
    spec["data"] = recorded.spec()["data"]
    assert promote("people:2", "staging", copy.root, force=True)["to"] == 2
    run = treadle.run(spec)
    assert {stage["status"] for stage in run.manifest["stages"] if stage["stage"] != "publish"} == {"cached"}
    assert run.model.reference == "people:3"
    with pytest.raises(PromotionRefused, match=r"people:3 does not become 'staging'.*\n.*allowed: at least 1.1"):
        promote("people", "staging", copy.root)
    assert run.model.predict(copy.raw).equals(treadle.load_model("people:2", root=copy.root).predict(copy.raw))
    assert treadle.run(spec).id == run.id


def test_what_cannot_be_measured_is_not_met(recorded: Recorded, tmp_path: Path) -> None:
    copy = recorded.copied(tmp_path)
    verdicts = judged(
        copy,
        2,
        {"gate": "fairness", "column": "sex", "max_difference": 0.1},
        {"gate": "fairness", "column": "city", "max_difference": 0.1, "min_rows": 10_000},
        {"gate": "bound", "metric": "rmse", "max": 1},
        {"gate": "not_worse", "metric": "rmse"},
        {"gate": "not_worse", "than": "nobody"},
        {"gate": "bound", "min": 2, "aliases": ["other"]},
    )
    assert [verdict.passed for verdict in verdicts] == [False, False, False, False, True]
    assert "no rates by 'sex'; it has those by [city]" in verdicts[0].measured
    assert "name 'sex' in data.protected" in verdicts[0].remedy
    assert "fewer than two values of 'city' have 10000 test rows" in verdicts[1].measured
    assert "the run has no rmse" in verdicts[2].measured
    assert "no version is 'nobody' yet" in verdicts[4].measured
    # The rows are those of then, or none.
    manifest = manifest_of(copy.store, "people", 2)
    manifest["spec"]["data"]["path"] = str(copy.folder / "people.parquet")
    copy.raw.head(300).to_parquet(copy.folder / "people.parquet")
    copy.store.write_json(f"runs/{manifest['run']}/manifest.json", manifest)
    (verdict,) = judged(copy, 2, {"gate": "not_worse"})
    assert "has changed since the run" in verdict.measured


def test_a_version_that_is_worse_is_refused_unless_somebody_forces_it(promoted: Recorded, tmp_path: Path) -> None:
    copy = promoted.copied(tmp_path)
    said = CliRunner().invoke(app, ["promote", "people:2", "champion", "--root", copy.root])
    assert said.exit_code == 1
    assert "people:2 does not become 'champion': 1 gate is not met" in said.stderr
    assert "promotion.gates.0 (not_worse): auc is 0." in said.stderr
    assert "on the same 100 of 100 test rows" in said.stderr
    assert "allowed: not worse than that of 'champion', or by 0.001 at most. Train a better model" in said.stderr
    assert aliases(copy) == {"champion": 1}
    assert len(read_records(copy.store, "people")) == 1
    dry = promote("people:2", "champion", copy.root, force=True, dry_run=True)
    assert (dry["from"], dry["to"], dry["forced"]) == (1, 2, True)
    assert aliases(copy) == {"champion": 1}
    record = promote("people:2", "champion", copy.root, who="bob", why="we need it", force=True)
    assert aliases(copy) == {"champion": 2}
    assert read_records(copy.store, "people")[-1] == json.loads(json.dumps(record))
    assert [gate["passed"] for gate in record["gates"]] == [False, True, True, True, True]
    with copy.connection().using() as client:
        tags = client.get_model_version_by_alias("people", "champion").tags
    assert (tags["treadle.champion.who"], tags["treadle.champion.why"]) == ("bob", "we need it")
    assert (tags["treadle.champion.forced"], tags["treadle.champion.from"]) == ("true", "1")
    assert tags["treadle.champion.record"] == "models/people/promotions/2.json"
    back = promote("people", "champion", copy.root, rollback=True)
    assert (back["to"], back["rollback"], aliases(copy)) == (1, True, {"champion": 1})
    with pytest.raises(RequestError, match="nothing to go back to: version 1 is the first that had it"):
        promote("people", "champion", copy.root, rollback=True)


def test_an_alias_is_a_model(promoted: Recorded, tmp_path: Path) -> None:
    import mlflow.pyfunc

    assert treadle.load_model("people@champion", root=promoted.root).reference == "people:1"
    with pytest.raises(RequestError, match=r"alias 'champoin' .*\[champion \(version 1\)\]. Did you mean 'champion'"):
        treadle.load_model("people@champoin", root=promoted.root)
    with pytest.raises(RequestError, match="There is no model 'peopl'.*Did you mean 'people'"):
        treadle.load_model("peopl@champion", root=promoted.root)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", promoted.uri)
        loaded = mlflow.pyfunc.load_model("models:/people@champion")
    rows = promoted.raw.head(30)
    expected = treadle.load_model("people:1", root=promoted.root).predict(rows)
    pd.testing.assert_frame_equal(loaded.predict(rows), expected, check_exact=True)


def test_models_are_listed_with_their_aliases(promoted: Recorded) -> None:
    def listed(*options: str) -> list[dict[str, Any]]:
        said = CliRunner().invoke(app, ["models", *options, "--root", promoted.root, "--json"])
        assert said.exit_code == 0, said.output
        models: list[dict[str, Any]] = json.loads(said.stdout)["models"]
        return models

    assert [(row["model"], row["version"], row["aliases"]) for row in listed()] == [("people", 2, {"champion": 1})]
    rows = listed("people")
    assert [(row["version"], row["aliases"]) for row in rows] == [(2, {}), (1, {"champion": 1})]
    assert [row["run"] for row in rows] == [run.id for run in promoted.runs[::-1]]
    assert rows[0]["metrics"]["auc"] == promoted.runs[1].leaderboard.auc[0]
    said = CliRunner().invoke(app, ["models", "people", "--root", promoted.root])
    assert "champion" in said.stdout


def test_promotions_at_once_come_one_after_the_other(promoted: Recorded, tmp_path: Path) -> None:
    copy = promoted.copied(tmp_path)
    errors: list[BaseException] = []

    def one(version: int) -> None:
        try:
            promote(f"people:{version}", "champion", copy.root, force=True)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=one, args=(version,)) for version in (2, 1, 2, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    records = read_records(copy.store, "people")
    assert [record["promotion"] for record in records] == [1, 2, 3, 4, 5]
    assert [record["from"] for record in records[1:]] == [record["to"] for record in records[:-1]]
    assert aliases(copy) == {"champion": records[-1]["to"]}


def test_gc_leaves_what_an_alias_leads_to_and_went_back_to(promoted: Recorded, tmp_path: Path) -> None:
    copy = promoted.copied(tmp_path)
    promote("people:2", "champion", copy.root, force=True)
    promote("people", "champion", copy.root, rollback=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TREADLE_TRACKING", "off")
        for seed in (8, 9):
            treadle.run(copy.spec(seed=seed, models=STUMP, explain={"rows": "none"}))
    said = CliRunner().invoke(app, ["gc", "--keep-runs", "1", "--grace", "0", "--root", copy.root, "--json"])
    assert said.exit_code == 0, said.output
    assert [row["version"] for row in list_models(copy.store, "people")[0]] == [4, 1]
    assert treadle.load_model("people@champion", root=copy.root).reference == "people:1"
    assert len(read_records(copy.store, "people")) == 3
    promote("people@champion", "other", copy.root, force=True)  # the run that made it is there, too


@given(st.lists(st.sampled_from([1, 2, 3, None]), max_size=12))
def test_going_back_undoes_what_was_given_last(steps: list[int | None]) -> None:
    """None is a rollback, where there is something to go back to; the reference keeps all that there was."""
    history: list[int] = []
    records: list[dict[str, Any]] = []
    for step in steps:
        if step is None and len(history) < 2:
            continue
        now = history[-1] if history else None
        if step is None:
            history.pop()
        elif step != now:
            history.append(step)
        records.append({"alias": "a", "from": now, "to": history[-1], "rollback": step is None})
        records.append({"alias": "other", "from": None, "to": 9, "rollback": False})
    assert stack(records, "a") == history


@pytest.mark.parametrize(
    ("reference", "found"),
    [("a", ("a", None, None)), ("a:3", ("a", 3, None)), ("a@best", ("a", None, "best"))],
)
def test_references(reference: str, found: tuple[str, int | None, str | None]) -> None:
    assert split_reference(reference) == found


@pytest.mark.parametrize("reference", ["a:x", "a@", "@b", "a:-1", "a@1", "a:1@b"])
def test_references_that_are_none(reference: str) -> None:
    with pytest.raises(RequestError, match="^Model '"):
        split_reference(reference)


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ({"tracking": {"uri": "mlflow.db"}}, "'mlflow.db' is no address of MLflow"),
        ({"tracking": {"uri": "htp://a"}}, "Did you mean 'http'"),
        ({"tracking": {"uri": "sqlite:///mlflow.db"}}, "give an absolute path"),
        ({"tracking": {"uri": "http://me:secret@a"}}, "the address has a password in it"),
        ({"promotion": {"gates": [{"gate": "bound"}]}}, "min or max is needed"),
        ({"promotion": {"gates": [{"gate": "latency"}]}}, "p50_ms or p95_ms is needed"),
        ({"promotion": {"gates": [{"gate": "calibraton", "max_error": 1}]}}, "calibration"),
    ],
)
def test_what_a_spec_says_wrong(recorded: Recorded, sections: dict[str, Any], words: str) -> None:
    with pytest.raises(RequestError, match=words):
        load_spec(recorded.spec(**sections))


def test_a_refusal_carries_what_would_be_recorded(promoted: Recorded) -> None:
    with pytest.raises(PromotionRefused) as caught:
        promote("people:2", "champion", promoted.root)
    assert caught.value.record["to"] == 2
    with pytest.raises(RequestError, match="Alias 'latest'"):
        promote("people:2", "latest", promoted.root)
    with pytest.raises(RequestError, match="name the model alone, people"):
        promote("people:2", "champion", promoted.root, rollback=True)
