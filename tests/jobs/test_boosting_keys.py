"""Keys of a model that XGBoost alone has, in whole jobs: `early_stopping` and `continue_from`."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xgboost
from sklearn.metrics import log_loss, mean_squared_error

import treadle
from tests.conftest import people_spec, write_people
from treadle.engine.relational.keys import hash_keys
from treadle.engine.shards import HELD_BACK
from treadle.errors import RequestError
from treadle.jobs.run import Run
from treadle.kernels.hashing import uniform

SHARE = 0.2
QUICK: dict[str, Any] = {"n_estimators": 20, "max_depth": 3}
TWO: dict[str, Any] = {
    "tables": [{"op": "select", "columns": ["age", "income", "buys"]}],
    "features": [{"op": "scale", "columns": ["age"]}],
}
"""Two features, of which one is scaled by the mean of the rows."""


def boosted(params: dict[str, Any], **keys: Any) -> list[dict[str, Any]]:
    return [{"name": "xgboost", "params": params, **keys}]


def held_back(table: pd.DataFrame, seed: int) -> np.ndarray:
    """Of the table of features, the rows to stop by."""
    return (table["split"] == "train").to_numpy() & (uniform(hash_keys(table["id"], seed + HELD_BACK)) < SHARE)


def booster_of(run: Run) -> xgboost.Booster:
    return xgboost.Booster(model_file=run._store.path(f"{run.model.folder}/model.ubj"))


@pytest.mark.parametrize("target", ["buys", "age"])
def test_early_stopping_keeps_the_rounds_with_the_least_loss_on_rows_that_it_does_not_learn_from(
    run_people: Callable[..., Run], people: Path, target: str
) -> None:
    """On two workers; the loss after every round that is kept is worked out from the published model."""
    classes = target == "buys"
    run = run_people(
        data={"path": str(people), "target": target, "id": "key"},
        tables=[{"op": "select", "columns": ["age", "income", "city", "buys"]}],
        features=[{"op": "one_hot", "columns": ["city"] if classes else ["city", "buys"], "missing": "?"}],
        split={"kind": "random", "test_size": 0.25},
        metric=None,
        seed=4,
        models=boosted({"n_estimators": 400}, early_stopping={"rounds": 7, "share": SHARE}),
        predict={"rows": "all"},
    )
    table = run.table("features").to_pandas()
    held, train = held_back(table, 4), (table["split"] == "train").to_numpy()
    (note,) = run.manifest["warnings"]
    said = re.fullmatch(
        r"xgboost: kept (\d+) of (\d+) rounds, by the least loss: (\w+) ([\d.e-]+) on (\d+) rows held back", note
    )
    assert said is not None
    kept, done = int(said[1]), int(said[2])
    assert (kept + 7, held.sum()) == (done, int(said[5]))
    assert run.leaderboard["rows_used"].tolist() == [train.sum() - held.sum()]
    booster = booster_of(run)
    assert booster.num_boosted_rounds() == kept < 100

    data = xgboost.DMatrix(table.loc[held, list(run.model.document.features)].to_numpy(np.float32))
    values = (table.loc[held, target] == "yes") if classes else table.loc[held, target]

    def loss(rounds: int) -> float:
        found = booster.predict(data, iteration_range=(0, rounds))
        return float(log_loss(values, found) if classes else np.sqrt(mean_squared_error(values, found)))

    assert said[3] == ("logloss" if classes else "rmse")
    assert loss(kept) == pytest.approx(float(said[4]), rel=1e-5)
    assert loss(kept) == min(loss(rounds) for rounds in range(1, kept + 1))
    scores = run.table("predictions").to_pandas().set_index("id").loc[table.loc[held, "id"], "score"]
    np.testing.assert_allclose(scores, booster.predict(data), rtol=1e-5)


def test_continued_training_adds_rounds_to_a_published_model(run_people: Callable[..., Run], tmp_path: Path) -> None:
    """Over several segments, of other rows: statistics of features are others, and the run says so."""
    first = run_people(models=boosted(QUICK), **TWO)
    other = write_people(tmp_path / "later.parquet", 500, seed=4)
    data = {"path": str(other), "target": "buys", "positive_class": "yes", "id": "key"}
    second = {**TWO, "models": boosted({**QUICK, "n_estimators": 60}, continue_from="people:1"), "data": data}
    run = run_people(**second)
    assert run.manifest["warnings"] == [
        "xgboost: continues people:1, of 20 rounds, whose trees were made for features with other statistics: [scale] "
        "learned other values or levels from these rows"
    ]
    before, after = booster_of(first), booster_of(run)
    assert (before.num_boosted_rounds(), after.num_boosted_rounds()) == (20, 80)
    assert after.get_dump(with_stats=True)[:20] == before.get_dump(with_stats=True)
    again = run_people(**second, device="cpu")
    statuses = {record["stage"]: record["status"] for record in again.manifest["stages"]}
    assert statuses["train:xgboost"] == "cached"
    same = run_people(**TWO, models=boosted(QUICK, continue_from="people:1", early_stopping={"rounds": 3}))
    continued, kept = same.manifest["warnings"]
    assert continued == "xgboost: continues people:1, of 20 rounds"
    assert booster_of(same).num_boosted_rounds() == 20 + int(re.findall(r"kept (\d+) of", kept)[0])
    assert not list((tmp_path / "artifacts" / "stages").glob("checkpoints-*"))


@pytest.mark.slow
def test_a_fingerprint_is_of_the_trees_that_training_begins_with(people: Path, tmp_path: Path, scheduler: str) -> None:
    """Not of their name: under another root it stands for another model."""

    def fingerprint(learning_rate: float) -> Any:
        root = tmp_path / str(learning_rate)
        for models in (
            boosted({**QUICK, "learning_rate": learning_rate}),
            boosted(QUICK, continue_from="people:1"),
        ):
            run = treadle.run(people_spec(people, root, scheduler, **TWO, models=models))
        return next(r["fingerprint"] for r in run.manifest["stages"] if r["stage"] == "train:xgboost")

    assert fingerprint(0.1) != fingerprint(0.2)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory, scheduler: str) -> tuple[Path, Path]:
    """Rows, and a root with models: people (trees), linear (no trees), forest, trios (three trees a round)."""
    folder = tmp_path_factory.mktemp("published")
    rows = write_people(folder / "people.parquet")
    models: dict[str, list[Any]] = {
        "people": boosted(QUICK),
        "linear": boosted({"booster": "gblinear"}),
        "dummy": [{"name": "dummy"}],
        "trios": boosted({**QUICK, "num_parallel_tree": 3}),
    }
    for name, listed in models.items():
        treadle.run(people_spec(rows, folder / "root", scheduler, **TWO, name=name, models=listed))
    return rows, folder / "root"


def refused(published: tuple[Path, Path], scheduler: str, words: str, changes: dict[str, Any]) -> None:
    """The job is refused, and nothing of it has run."""
    rows, root = published
    before = sorted((root / "stages").iterdir())
    changes = {**TWO, **changes}
    if "data" in changes:
        changes["data"] = {"path": str(rows), **changes["data"]}
    with pytest.raises(RequestError, match=words):
        treadle.run(people_spec(rows, root, scheduler, **changes))
    assert sorted((root / "stages").iterdir()) == before


WITHOUT = r"[Tt]rain without continue_from, or name another version\.$"
FROM = r"^models: continue_from of xgboost is \w+:\d: "
REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "unknown name": ("peopel:1", {}, rf"{FROM}There is no model 'peopel' under .*Did you mean 'people'\?"),
    "unknown version": ("people:7", {}, rf"{FROM}Model 'people' has no version 7\. Versions: \[1\]\."),
    "no version": ("people", {}, r"'people' is no version of a model; it is name:version, .* e\.g\. people:1"),
    "no trees": (
        "linear:1",
        {},
        rf"{FROM}its booster has no trees \(gblinear\), and cannot be continued\. {WITHOUT}",
    ),
    "another model": (
        "dummy:1",
        {},
        rf"{FROM}it is a model of dummy; only xgboost's can be continued\. {WITHOUT}",
    ),
    "trees a round": ("trios:1", {}, rf"{FROM}num_parallel_tree is 1, and it has 3 .* num_parallel_tree: 3\.$"),
    "other features": (
        "people:1",
        {"tables": [{"op": "select", "columns": ["age", "member", "buys"]}]},
        rf"{FROM}its features are others: there is no \[income\], and it does not know \[member\]; {WITHOUT}",
    ),
    "another order": (
        "people:1",
        {"tables": [{"op": "select", "columns": ["income", "age", "buys"]}]},
        rf"{FROM}its features have another order: \[age, income\]; {WITHOUT}",
    ),
    "another task": (
        "people:1",
        {
            "data": {"target": "income", "id": "key"},
            "tables": [{"op": "select", "columns": ["age", "income"]}],
            "split": None,
            "metric": None,
        },
        rf"{FROM}it is for classification, and the target 'income' asks for regression; {WITHOUT}",
    ),
    "folds": ("people:1", {"compare": {"folds": 3}}, r"continue_from of xgboost: .* by folds are trained without it"),
}


@pytest.mark.parametrize(("reference", "changes", "words"), REFUSED.values(), ids=list(REFUSED))
def test_what_cannot_be_continued_is_refused_before_anything_runs(
    published: tuple[Path, Path], scheduler: str, reference: str, changes: dict[str, Any], words: str
) -> None:
    refused(published, scheduler, words, {"models": boosted(QUICK, continue_from=reference), **changes})


@pytest.mark.parametrize(
    ("params", "keys", "words"),
    [
        ({"rate_drop": 0.1}, {"continue_from": "people:1"}, r"it was not trained with dropout .* give it the same\."),
        ({"booster": "gblinear"}, {"continue_from": "people:1"}, r"gblinear has no trees; choose gbtree, or leave con"),
        ({"booster": "gblinear"}, {"early_stopping": {}}, r"gblinear has no trees; choose gbtree, or leave early"),
        ({"one_drop": True}, {"early_stopping": {}}, r"early_stopping of xgboost: with dropout .* of the two out"),
        ({}, {"early_stopping": {"round": 5}}, r"Did you mean 'rounds'"),
        ({}, {"early_stopping": {"share": 1}}, r"early_stopping\.share"),
        ({"early_stopping_rounds": 5}, {}, r"parameter 'early_stopping_rounds' of xgboost is set by the engine"),
    ],
    ids=str,
)
def test_keys_that_do_not_go_with_the_params_are_refused(
    published: tuple[Path, Path], scheduler: str, params: dict[str, Any], keys: dict[str, Any], words: str
) -> None:
    known = {} if params.get("booster") == "gblinear" else QUICK
    refused(published, scheduler, words, {"models": boosted({**known, **params}, **keys)})


def test_other_classes_are_found_once_the_rows_are_read(published: tuple[Path, Path], scheduler: str) -> None:
    """The model is a line of the leaderboard with its error, beside one that is trained."""
    rows, root = published
    other = pd.read_parquet(rows).assign(buys=lambda frame: frame["buys"].replace("yes", "si"))
    path = root.parent / "other.parquet"
    other.to_parquet(path)
    spec = people_spec(path, root, scheduler, **TWO, name="other")
    spec["data"]["positive_class"] = "si"
    spec["models"] = [*boosted(QUICK, continue_from="people:1"), {"name": "dummy"}]
    error = treadle.run(spec).leaderboard.set_index("model").loc["xgboost", "error"]
    assert re.search(r"it tells binary \['no', 'yes'\], and the target is binary \['no', 'si'\]; the classes", error)


def test_too_few_rows_to_hold_some_back(run_people: Callable[..., Run], tmp_path: Path) -> None:
    run = run_people(**TWO, models=[*boosted(QUICK, early_stopping={"share": 1e-6}), {"name": "dummy"}])
    error = run.leaderboard.set_index("model").loc["xgboost", "error"]
    assert "of 450 training rows, the share 1e-06 holds back 0 and leaves 450 to train on; raise it" in error
    events = (tmp_path / "artifacts" / "runs" / run.id / "events.jsonl").read_text().splitlines()
    assert all(event["event"] != "failed" for event in map(json.loads, events))
