"""The card of a published model: every number in it is the run's, and what was not measured is said to be so."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from markdown_it import MarkdownIt
from ruamel.yaml import YAML
from typer.testing import CliRunner

import treadle
from tests.conftest import people_spec, write_people
from tests.engine.test_card import Page, cells, plain
from treadle.engine.bundle import Bundle
from treadle.errors import RequestError
from treadle.jobs.cli import app
from treadle.jobs.run import Run
from treadle.kernels.metrics import expected_calibration_error, score_table

SCRIPT, PIPE = "<script>alert(1)</script>", "a|b `c` [d](http://e.org)"
MEMBER = "mem|ber<b>"
BOOSTED = {"name": "xgboost", "params": {"n_estimators": 10, "max_depth": 3}}
ABOUT = {
    "intended_use": ["Tells who buys.\n\n# Not a heading", SCRIPT],
    "owners": "Ann, Bo",
    "licence": "Apache-2.0",
    "references": ["https://example.org/paper", "javascript:alert(1)"],
}


class Published:
    """The jobs whose cards are looked at."""

    def __init__(self, folder: Path, scheduler: str) -> None:
        self.people = write_people(folder / "people.parquet")
        frame = pd.read_parquet(self.people).rename(columns={"member": MEMBER})
        frame["city"] = frame["city"].replace({"Ulm": SCRIPT, "Köln": PIPE})
        frame.to_parquet(self.people)
        self.frame = frame
        self.root, self.scheduler = folder / "artifacts", scheduler
        self.run = self.job(about=ABOUT)

    def job(self, **changes: Any) -> Run:
        data = {"target": "buys", "positive_class": "yes", "id": "key", "protected": ["city", MEMBER]}
        base = {
            "features": [{"op": "one_hot", "columns": ["city"], "missing": "?"}],
            "tables": [{"op": "drop", "columns": ["joined", "income"]}],
            "models": [BOOSTED, "logistic_regression"],
            "data": {**data, "path": str(self.people)},
        }
        return treadle.run(people_spec(self.people, self.root, self.scheduler, **{**base, **changes}))


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory, scheduler: str) -> Published:
    return Published(tmp_path_factory.mktemp("cards"), scheduler)


@pytest.fixture(scope="module")
def card(published: Published) -> Card:
    return Card(published.run.model)


class Card:
    """A card, taken apart by parsers."""

    def __init__(self, bundle: Bundle) -> None:
        self.text = bundle.card
        _, front, rest = self.text.split("---\n", 2)
        self.front = YAML(typ="safe", pure=True).load(front)
        self.tokens = MarkdownIt("commonmark").enable("table").parse(rest)
        self.page = Page(bundle.card_as("html"))

    def tables(self) -> dict[str, list[list[str]]]:
        """Rows of every table, the head first, by the caption above it."""
        found = {}
        for place, token in enumerate(self.tokens):
            if token.type == "table_open":
                strong = [child for child in self.tokens[place - 2].children or [] if child.type.startswith("text")]
                found["".join(child.content for child in strong)] = cells(self.tokens[place:])
        return found

    def table(self, start: str) -> list[list[str]]:
        (rows,) = [rows for caption, rows in self.tables().items() if caption.startswith(start)]
        return rows

    def says(self, words: str) -> bool:
        return any(re.search(words, text) for text in self.sentences())

    def sentences(self) -> list[str]:
        strong = ("strong_open", "link_open")
        return [
            plain(token)
            for token in self.tokens
            if token.type == "inline" and not any(child.type in strong for child in token.children or [])
        ]


def test_numbers_are_those_of_the_run(published: Published, card: Card) -> None:
    manifest = published.run.manifest
    evaluation = manifest["results"]["evaluate"]
    head, *rows = card.table("Leaderboard, on 150 test rows")
    assert [row[0] for row in rows] == [row["model"] for row in evaluation["rows"]]
    for row, found in zip(evaluation["rows"], rows, strict=True):
        for name in ("auc", "accuracy", "log_loss", "mcc"):
            assert float(found[head.index(name)]) == pytest.approx(row[name], abs=5e-5)
    counts = dict(card.table("Rows")[1:])
    assert counts["training rows"] == str(manifest["results"]["split"]["train_rows"])
    assert counts["rows that repeat others"] == "not measured"
    assert card.table("Inputs")[1][-1] == manifest["inputs"][0]["digest"]
    assert [row[:3] for row in card.table("Tables published")[1:]] == [
        [record["name"], str(record["version"]), str(record["rows"])] for record in manifest["tables"]
    ]
    lineage = dict(card.table("What it was made from")[1:])
    assert lineage["run"] == published.run.id
    assert lineage["digest of the spec"] == manifest["spec_digest"]
    stages = {record["stage"]: record["fingerprint"] for record in manifest["stages"]}
    assert lineage["fingerprint of the model"] == stages["publish"] == published.run.model.document.fingerprint
    assert lineage["stage train:xgboost"] == stages["train:xgboost"]
    features = card.table("Features by mean |contribution|")
    assert [row[0] for row in features[1:]] == list(published.run.importance)
    assert str(published.people.parent) not in card.text


def test_groups_and_calibration_are_those_of_the_predictions(published: Published, card: Card) -> None:
    scores = published.run.table("predictions").to_pandas()
    rows = scores.merge(published.frame, left_on="id", right_on="key")
    rows["city"] = rows["city"].fillna("null")
    rates = {}
    head, *found = card.table("Test rows by city")
    assert head[:4] == ["city", "rows", "selection_rate", "tpr"]
    assert {row[0] for row in found} == set(rows["city"])
    for value, count, selection, tpr, fpr, accuracy, size in found:
        own = rows[rows["city"] == value]
        rates[value] = (own["class"] == "yes").mean()
        assert count == str(len(own))
        assert float(selection) == pytest.approx(rates[value], abs=5e-5)
        assert float(accuracy) == pytest.approx((own["class"] == own["buys"]).mean(), abs=5e-5)
        for shown, label in ((tpr, "yes"), (fpr, "no")):
            of = own[own["buys"] == label]
            expected = "undefined" if of.empty else (of["class"] == "yes").mean()
            assert shown == expected or float(shown) == pytest.approx(expected, abs=5e-5)
        assert size == ("small" if len(own) < 100 else "enough")
    gap = next(row for row in card.table("Largest differences by city") if row[0] == "selection_rate")
    assert float(gap[1]) == pytest.approx(max(rates.values()) - min(rates.values()), abs=5e-5)
    assert rates[gap[3]] == min(rates.values())
    assert rates[gap[5]] == max(rates.values())
    labels = np.asarray(rows["buys"] == "yes", dtype=np.int64)
    error = expected_calibration_error(score_table(rows["score"].to_numpy(), labels))
    assert card.says(f"of 150 test rows {labels.sum()} are positive.* by {error:.4f} in the mean")
    assert card.says("Results by several protected columns together were not measured")
    assert card.says(r"Groups of fewer than 100 test rows.*city = null \(\d+\)")


def test_texts_of_others_stay_texts(card: Card) -> None:
    assert card.says("^Tells who buys. # Not a heading$")
    assert card.says(f"^{re.escape(SCRIPT)}$")
    assert card.table("Columns of a row")[0] == ["column", "kind"]
    assert [MEMBER, "bool"] in card.table("Columns of a row")
    assert {row[0] for row in card.table("Test rows by city")} >= {SCRIPT, PIPE}
    assert "script" not in {tag for tag, _ in card.page.elements}
    assert SCRIPT in card.page.of("th")
    links = [attributes["href"] or "" for attributes in card.page.attributes("a")]
    assert [link for link in links if not link.startswith("#")] == [
        "https://example.org/paper",
        "https://doi.org/10.1145/3287560.3287596",
    ]
    assert len(card.page.attributes("svg")) == 5


def test_the_front_matter_is_what_a_hub_reads(published: Published, card: Card) -> None:
    row = published.run.manifest["results"]["evaluate"]["rows"][0]
    assert card.front["license"] == "apache-2.0"
    assert card.front["pipeline_tag"] == "tabular-classification"
    (model,) = card.front["model-index"]
    (result,) = model["results"]
    assert result["task"] == {"type": "tabular-classification"}
    assert result["dataset"]["name"] == "people.parquet"
    values = {metric["type"]: metric["value"] for metric in result["metrics"]}
    assert values["roc_auc"] == row["auc"]
    assert values["matthews_correlation"] == row["mcc"]


def test_what_is_said_anew_makes_a_version_and_trains_nothing(published: Published, card: Card) -> None:
    again = published.job(about=ABOUT)
    assert again.manifest["model"] == published.run.manifest["model"]
    said = published.job(about={**ABOUT, "limitations": "Of one town."})
    assert said.manifest["model"] != published.run.manifest["model"]
    assert {r["stage"] for r in said.manifest["stages"] if r["status"] == "finished"} == {"publish"}
    assert said.manifest["tables"] == published.run.manifest["tables"]
    before, after = set(card.text.splitlines()), set(said.model.card.splitlines())
    changed = {re.split(r" \| ", line)[0].strip("|- ") for line in before ^ after}
    assert changed <= {
        "# Model card: people:1", f"# Model card: people:{said.model.document.version}", "version", "published", "run",
        "name: people:1", f"name: people:{said.model.document.version}", "digest of the spec", "Of one town.",
        "fingerprint of the model", *[line for line in changed if published.run.id in line or said.id in line],
    }  # fmt: skip
    assert "Of one town." in changed


def test_folds_calibration_and_threshold(published: Published) -> None:
    run = published.job(
        name="folds",
        models=["logistic_regression", "naive_bayes", "lda", "dummy"],
        compare={"folds": 3},
        race={"rows": 100, "keep": 2},
        tune={"models": ["logistic_regression"], "trials": 2},
        ensemble={"kind": "blend"},
        decision={"calibrate": "sigmoid", "threshold": "f1"},
        explain={"rows": "none"},
        data={"path": str(published.people), "target": "buys", "id": "key", "protected": [], "duplicates": "count"},
    )
    found = Card(run.model)
    evaluation = run.manifest["results"]["evaluate"]
    row = evaluation["rows"][0]
    overall = {line[0]: line[1:] for line in found.table(f"{evaluation['best']} on 150 test rows, and on 450")}
    assert overall["metric"] == ["test", "mean of folds", "standard deviation"]
    expected = (evaluation["held_out"]["auc"], row["auc"], row["auc_std"])
    assert [float(value) for value in overall["auc"]] == pytest.approx(expected, abs=5e-5)
    folds = run.table("folds").to_pandas()
    own = folds[folds["model"] == evaluation["best"]]
    assert [float(line[1]) for line in found.table(f"{evaluation['best']}, fold by fold")[1:]] == pytest.approx(
        own["auc"].tolist(), abs=5e-5
    )
    threshold = evaluation["thresholds"][evaluation["best"]]
    assert found.says(f"above a score of {threshold:.4g}: chosen on out-of-fold scores by f1")
    assert found.says(r"calibrated \(sigmoid\)")
    assert found.says("Results by group: not measured, since no protected columns are named")
    assert found.says(r"Not measured: the spec asks for none \(explain.rows\)")
    assert found.says("Metrics of folds had a part in choosing the model")
    assert found.says("Intended use: not said in the spec")
    assert dict(found.table("Rows")[1:])["rows that repeat others"] == "0"
    (result,) = found.front["model-index"][0]["results"]
    assert result["metrics"][0]["value"] == evaluation["held_out"]["auc"]
    assert "license" not in found.front
    race = run.table("race").to_pandas()
    lost = race.loc[~race["kept"], "model"].unique()
    assert "dummy" in lost
    assert found.says(f"heats on .* rows left out {', '.join(lost)}, which no fold has measured")
    assert found.says(f"looked for in {run.table('trials').rows} trials by the same folds")
    mixture = next(r["ensemble"] for n, r in run.manifest["results"].items() if n == "ensemble")
    told = ", ".join(f"{n} {w:.3f}" for n, w in zip(mixture["members"], mixture["weights"], strict=True))
    assert found.says(rf"An ensemble \(blend\) was compared, too: {told}\.")
    assert {line[0] for line in found.table("Leaderboard, means over the folds")[1:]} >= {
        "ensemble",
        evaluation["best"],
    }


@pytest.mark.parametrize("target", ["city", "age"])
def test_several_classes_and_numbers(published: Published, target: str) -> None:
    run = published.job(
        name=target,
        data={"path": str(published.people), "target": target, "protected": [MEMBER]},
        tables=[
            {"op": "select", "columns": [*{target, "age"}, MEMBER, "buys"]},
            {"op": "filter", "sql": f"{target} IS NOT NULL"},
        ],
        artifacts={"root": str(published.root), "sample": 0},
        features=[{"op": "one_hot", "columns": ["buys"], "unseen": "error"}],
        models=["logistic_regression" if target == "city" else "ridge"],
        split=None,
        metric=None,
    )
    found = Card(run.model)
    regression = target == "age"
    assert found.says("Results by group: not measured; they are for two classes")
    assert found.says("Calibration: not measured; it is for two classes") is not regression
    assert found.says("most probable class is predicted") is not regression
    assert found.says("One model was trained; there was none to compare it with")
    assert found.says(r"Not replayed on rows to predict, for they need the target: tables\[?.?1")
    assert found.says("predicted as in training is not checked when the model is loaded: ")
    assert found.says("Values that training rows did not have are refused: buys")
    rows = run.manifest["results"]["split"]["test_rows"]
    assert found.says(f"Contributions to the margin of {rows} test rows")
    assert found.front["pipeline_tag"] == f"tabular-{'regression' if regression else 'classification'}"


def test_the_command_prints_and_writes_a_card(published: Published, tmp_path: Path) -> None:
    def command(*words: str) -> Any:
        return CliRunner().invoke(app, ["card", *words, "--root", str(published.root)])

    first = treadle.load_model("people:1", root=str(published.root))
    assert command("people:1").stdout == first.card
    page = tmp_path / "card.html"
    assert command("people:1", "--out", str(page)).stdout == ""
    assert page.read_text(encoding="utf-8") == first.card_as("html")
    assert command("people:1", "--format", "md", "--out", str(page)).exit_code == 0
    assert page.read_text(encoding="utf-8") == first.card
    assert "no version 99" in command("people:99").stderr
    refused = command("people:1", "--format", "pdf")
    assert refused.exit_code == 2
    assert re.search(r"'pdf' is not known. Allowed: \[md, html\]", refused.stderr)


def test_a_model_from_before_there_were_cards(published: Published) -> None:
    bundle = treadle.load_model("people:1", root=str(published.root))
    path = published.root / "models" / "people" / "1" / "card.md"
    text = path.read_bytes()
    path.unlink()
    try:
        with pytest.raises(RequestError, match="has no card: .*run the job again"):
            _ = bundle.card
    finally:
        path.write_bytes(text)


def test_about_refuses_what_it_does_not_know(published: Published) -> None:
    with pytest.raises(RequestError, match="about.license.*Did you mean 'licence'"):
        published.job(about={"license": "mit"})
    with pytest.raises(RequestError, match="about.contact"):
        published.job(about={"contact": ""})
