"""Whole jobs with a contract: rows set aside are as if they had been filtered, and every outcome is told."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from typer.testing import CliRunner

from tests.conftest import people_spec
from treadle.cluster.launch import open_cluster
from treadle.cluster.profiles import Attached
from treadle.jobs.cli import app
from treadle.jobs.run import Run, list_runs, load_run
from treadle.jobs.spec import load_spec

ASIDE = [
    {"expect": "range", "column": "age", "max": 70, "otherwise": "quarantine"},
    {"expect": "values", "column": "city", "allowed": ["Ulm", "Köln", "Bonn"], "otherwise": "quarantine"},
]
SAME = {"op": "filter", "sql": "age <= 70 and (city is null or city in ('Ulm', 'Köln', 'Bonn'))"}
TABLES: list[dict[str, Any]] = [
    {"op": "window", "by": ["city"], "order": "joined", "outputs": {"before": {"function": "lag", "column": "age"}}},
    {"op": "drop", "columns": ["key", "member"]},
]


def says(*command: str | Path, status: int = 0) -> str:
    result = CliRunner().invoke(app, [str(part) for part in command])
    assert result.exit_code == status, result.output
    return result.output


def test_rows_set_aside_are_as_if_filtered(
    run_people: Callable[..., Run], people: Path, scheduler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is no id column, so that rows are named by their numbers."""
    data = {"path": str(people), "target": "buys", "positive_class": "yes", "partitions": 4}
    features = [{"op": "one_hot", "columns": ["city"]}, {"op": "date_parts", "columns": ["joined"]}]
    changes = {"models": ["decision_tree"], "explain": {"rows": "none"}, "features": features, "data": data}
    filtered = run_people(**changes, tables=[SAME, *TABLES])
    run = run_people(**changes, tables=TABLES, contract=ASIDE)
    for name in ("features", "predictions"):
        pd.testing.assert_frame_equal(run.table(name).to_pandas(), filtered.table(name).to_pandas())
    raw = pd.read_parquet(people)
    old, elsewhere = raw["age"] > 70, raw["city"].eq("Trier").fillna(False)
    aside = run.table("quarantine").to_pandas()
    assert aside["line"].tolist() == (raw.index[old | elsewhere] + 1).tolist()
    assert set(aside["file"]) == {str(people)}
    assert (
        aside["reason"].str.contains("contract.0 (range): age at most 70", regex=False).tolist()
        == old[old | elsewhere].tolist()
    )
    assert pd.DataFrame(map(json.loads, aside["text"]))["key"].tolist() == raw["key"][old | elsewhere].tolist()
    verdicts = run.manifest["results"]["contract"]["verdicts"]
    assert [verdict["violations"] for verdict in verdicts] == [old.sum(), elsewhere.sum()]
    assert run.manifest["results"]["contract"]["set_aside"] == len(aside)
    assert (
        f"{len(aside)} rows break the contract and were set aside in the table `quarantine`" in run.manifest["warnings"]
    )

    # What the model's own inputs allow is checked again when it predicts; no row is left out.
    monkeypatch.setattr(
        "treadle.jobs.predict.open_cluster", lambda _: open_cluster(Attached(profile="address", address=scheduler))
    )
    command = ("predict", "--model", "people", "--root", people.parent / "artifacts", "--input", people)
    done = json.loads(says(*command, "--output", people.parent / "out", "--json"))
    assert done["rows_predicted"] == len(raw)
    assert done["contract"] == {verdict["name"]: verdict["violations"] for verdict in verdicts}
    said = says(*command, "--output", people.parent / "again")
    assert f"warning: {old.sum()} of 600 rows break contract.0 (range): age at most 70\n" in said


def test_what_is_told_of_a_contract(people: Path, tmp_path: Path, scheduler: str) -> None:
    rules = [
        {"expect": "type", "column": "age", "is": "int"},
        {"expect": "nulls", "column": "income", "at_most": 0.01, "otherwise": "warn"},
        {"expect": "unique", "columns": ["key"]},
        {"expect": "not_null", "column": "city", "otherwise": "warn"},
        {"expect": "fresh", "column": "joined", "within": "1d", "otherwise": "warn"},
    ]
    spec = people_spec(people, tmp_path / "artifacts", scheduler, models=["decision_tree"], contract=rules)
    path, root = tmp_path / "spec.json", tmp_path / "artifacts"
    path.write_text(json.dumps(spec))
    assert json.loads(says("check", path, "--json"))["contract"][2] == "contract.2 (unique): key unique"
    assert "Contract: 5 expectations" in says("check", path)
    shown = says("run", path)
    assert "Contract: 2 of 5 expectations are met" in shown
    assert "contract.2 (unique): key unique" not in shown
    assert "warning: contract.1 (nulls): at most 0.01 of income null: nulls" in shown
    (run,) = list_runs(str(root))
    assert "contract.2 (unique): key unique" in says("show", run["run"], "--root", root)
    manifest = load_run(str(root), run["run"]).manifest
    statuses = [verdict["status"] for verdict in manifest["results"]["contract"]["verdicts"]]
    assert statuses == ["passed", "warned", "passed", "warned", "warned"]
    assert "quarantine" not in {table["name"] for table in manifest["tables"]}
    # Nothing is set aside, so that another contract makes no later stage anew.
    again = says("plan", path, "--set", "contract.3.otherwise=fail")
    assert [line.split()[5] for line in again.splitlines() if line.startswith(("│ read", "│ contract", "│ etl"))] == [
        "cached",
        "to",
        "cached",
    ]

    said = says("run", path, "--set", "contract.3.otherwise=fail", "--set", "contract.4.otherwise=fail", status=1)
    assert "The input breaks its contract, 2 of 5 expectations:\n  contract.3 (not_null): city not null: " in said
    failed = list_runs(str(root))[0]
    assert failed["status"] == "failed"
    manifest = load_run(str(root), failed["run"]).manifest
    statuses = [verdict["status"] for verdict in manifest["results"]["contract"]["verdicts"]]
    assert statuses == ["passed", "warned", "passed", "failed", "failed"]
    assert "failed" in says("show", failed["run"], "--root", root)


def test_a_wrong_type_ends_before_anything_runs(people: Path, tmp_path: Path, scheduler: str) -> None:
    rule = {"expect": "type", "column": "age", "is": "text"}
    path = tmp_path / "spec.json"
    path.write_text(json.dumps(people_spec(people, tmp_path / "artifacts", scheduler, contract=[rule])))
    for command in ("check", "plan", "run"):
        assert "contract.0 (type): age is text: it is int" in says(command, path, status=1)
    assert list_runs(str(tmp_path / "artifacts")) == []


def test_a_relative_path_of_keys_is_one_beside_the_spec(people: Path, tmp_path: Path, scheduler: str) -> None:
    pd.DataFrame({"city": ["Ulm", "Köln", "Bonn", "Trier"]}).to_parquet(tmp_path / "cities.parquet")
    rule = {"expect": "known", "columns": ["city"], "in": {"path": "cities.parquet"}}
    path = tmp_path / "spec.json"
    path.write_text(
        json.dumps(people_spec(people, tmp_path / "artifacts", scheduler, contract=[rule], models=[], features=[]))
    )
    (expectation,) = load_spec(path).contract
    assert expectation.in_.path == str(tmp_path / "cities.parquet")  # type: ignore[union-attr]
