"""The command `treadle profile`: what it prints and writes, and whether the specs it proposes for real data run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from ruamel.yaml import YAML
from typer.testing import CliRunner, Result

import treadle
from tests.conftest import write_people
from tests.jobs.test_proposal import QUICK
from treadle.engine.profile.document import Profile
from treadle.jobs.check import check_spec
from treadle.jobs.cli import app
from treadle.jobs.commands.profile_console import bars
from treadle.jobs.profile import Profiled, profile_input


@pytest.fixture
def profiled(scheduler: str, tmp_path: Path) -> Any:
    """`treadle profile ARGUMENTS` on the session's cluster."""
    attached = ["--set", "cluster.profile=address", "--set", f"cluster.address={scheduler}"]

    def command(*arguments: str | Path, status: int = 0) -> Result:
        environment = {"TREADLE_ROOT": str(tmp_path / "root")}
        result = CliRunner().invoke(app, ["profile", *map(str, arguments), *attached], env=environment)
        assert result.exit_code == status, result.output
        return result

    return command


def on(scheduler: str, paths: Sequence[str | Path], root: Path, **options: Any) -> Profiled:
    overrides = ["cluster.profile=address", f"cluster.address={scheduler}", f"artifacts.root={root}"]
    return profile_input([str(path) for path in paths], overrides=[*overrides, *options.pop("set", ())], **options)


def test_the_profile_is_printed_and_written(profiled: Any, people: Path, tmp_path: Path) -> None:
    out, spec = tmp_path / "profile.json", tmp_path / "spec.yaml"
    result = profiled(people, "--target", "buys", "--out", out, "--spec", spec)
    said = result.stdout
    assert f"{people}: 600 rows, 7 columns (1 file, parquet)" in said
    for title in ("Numbers", "Texts and truth values", "Times", "What tells buys", "Findings"):
        assert title in said
    assert "'key' names every row" in said
    assert "▁" in said
    assert f"Spec: {spec}" in said
    assert result.stderr.splitlines()[-1].startswith("profile  ")
    document = json.loads(out.read_text())
    assert document.pop("spec") == spec.read_text()
    assert document.pop("broken") == []
    profile = Profile.model_validate(document)
    frame = pd.read_parquet(people)
    income = profile.column("income")
    assert income.nulls == frame["income"].isna().sum()
    assert income.number is not None
    assert income.number.mean == pytest.approx(frame["income"].mean())
    assert {top.value: top.count for top in profile.column("city").top} == frame["city"].value_counts().to_dict()
    assert check_spec(spec)["target"]["column"] == "buys"

    again = profiled(people, "--spec", spec, status=2)
    assert "is there already; name another file" in again.stderr
    assert not (tmp_path / "root").exists() or not list((tmp_path / "root").iterdir()), "scratch files are removed"


def test_json_is_one_document_and_nothing_else(profiled: Any, people: Path) -> None:
    result = profiled(people, "--json")
    assert result.stderr == ""
    (line,) = result.stdout.splitlines()
    found = json.loads(line)
    assert found["rows"] == 600
    assert found["target"] is None
    assert "--target COLUMN" in found["spec"]


def test_files_are_one_table_and_partitions_change_nothing(scheduler: str, tmp_path: Path) -> None:
    frame = pd.read_parquet(write_people(tmp_path / "all.parquet", 500))
    for i, part in enumerate(np.array_split(np.arange(len(frame)), 3)):
        frame.iloc[part].to_parquet(tmp_path / f"part-{i}.parquet", row_group_size=50)
    parts = sorted(tmp_path.glob("part-*.parquet"))
    whole = on(scheduler, [tmp_path / "all.parquet"], tmp_path / "root", target="buys").profile
    for given, partitions in (([tmp_path / "part-*.parquet"], 1), (parts, 11)):
        found = on(scheduler, given, tmp_path / "root", target="buys", set=[f"data.partitions={partitions}"]).profile
        exact = {"path", "files", "bytes", "columns", "correlations", "target"}
        assert found.model_dump(exclude=exact) == whole.model_dump(exclude=exact)
        for one, other in zip(whole.columns, found.columns, strict=True):
            assert other.model_dump(exclude={"number"}) == one.model_dump(exclude={"number"})
            if one.number is not None and other.number is not None:
                assert other.number.mean == pytest.approx(one.number.mean, rel=1e-12)
                assert other.number.quantiles == one.number.quantiles
                assert other.number.histogram == one.number.histogram


def test_broken_rows_are_told_and_the_spec_makes_room_for_them(profiled: Any, tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_text("a;b\n" + "".join(f"{i};{i % 7},5\n" for i in range(50)) + "1;2;3\n4\n", encoding="utf-8")
    spec = tmp_path / "spec.yaml"
    said = profiled(path, "--spec", spec, "--target", "b").stdout
    assert "2 broken rows are left out of this profile" in said
    assert "line 52: 3 fields where 2 are expected" in said
    data = YAML(typ="safe").load(spec.read_text())["data"]
    assert data["bad_rows"] == {"limit": 2}
    assert (data["delimiter"], data["decimal"]) == (";", ",")
    assert check_spec(spec, str(tmp_path / "root"))["columns"] == {"a": "int", "b": "float"}
    # What is asked for is not guessed.
    told = profiled(path, "--json", "--set", "data.decimal=.").stdout
    assert [column["kind"] for column in json.loads(told)["columns"]] == ["int", "text"]


def test_requests_that_cannot_be_served(profiled: Any, people: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty.parquet"
    pd.read_parquet(people).iloc[:0].to_parquet(empty)
    cases = [
        ((people, "--target", "by"), 2, "Column 'by' was not found in the input (--target)"),
        ((people, "--format", "parket"), 2, "--format: 'parket' is not known. Allowed: [parquet, csv"),
        ((tmp_path / "people.parket",), 2, "was not found"),
        ((people, "--set", "models=[xgboost]"), 2, "a profile has the sections data, cluster, artifacts only"),
        ((people, "--set", "data.delimter=;"), 2, "Did you mean 'delimiter'?"),
        ((empty,), 1, "has no rows"),
    ]
    for arguments, status, words in cases:
        assert words in profiled(*arguments, status=status).stderr
    taken = tmp_path / "taken.yaml"
    taken.write_text("mine")
    profiled(people, "--spec", taken, status=2)
    assert taken.read_text() == "mine"


def test_a_data_set_of_scikit_learn(scheduler: str, tmp_path: Path) -> None:
    found = on(scheduler, ["sklearn://wine"], tmp_path, target="target")
    assert 'path: "sklearn://wine"' in found.spec
    assert "name: wine" in found.spec
    assert found.profile.rows == 178
    (tmp_path / "spec.yaml").write_text(found.spec)
    check_spec(tmp_path / "spec.yaml", str(tmp_path / "root"))


REAL = [
    ("adult/adult_train.parquet", "income", "logistic_regression", "auc", 0.85),
    ("housing/housing.csv", "median_house_value", "ridge", "r2", 0.55),
    ("compas/compas_two_years.parquet", "two_year_recid", "logistic_regression", "auc", 0.65),
    ("diabetes/diabetes.csv", "Class variable", "logistic_regression", "auc", 0.75),
]


@pytest.mark.parametrize(("path", "target", "linear", "metric", "least"), REAL, ids=[case[0] for case in REAL])
def test_specs_proposed_for_real_data_run(
    path: str, target: str, linear: str, metric: str, least: float, shared_data: Path, scheduler: str, tmp_path: Path
) -> None:
    found = on(scheduler, [shared_data / path], tmp_path / "root", target=target)
    spec = tmp_path / "spec.yaml"
    spec.write_text(found.spec, encoding="utf-8")
    overrides = [f"artifacts.root={tmp_path / 'root'}", "cluster.profile=address", f"cluster.address={scheduler}"]
    check_spec(spec, None, overrides)
    run = treadle.run(spec, overrides=[*overrides, *QUICK])
    verdicts = run.manifest["results"]["contract"]["verdicts"]
    assert len(verdicts) >= 9, "the rows that it was made from keep the contract"
    assert {verdict["status"] for verdict in verdicts} == {"passed"}
    board = run.leaderboard.set_index("model")
    assert set(board.index) == {"xgboost", linear}
    assert board["error"].isna().all()
    assert (board[metric] > least).all()
    if "compas" in path:
        dropped = next(o["columns"] for o in YAML(typ="safe").load(found.spec)["tables"] if o["op"] == "drop")
        assert {"r_case_number", "r_charge_degree", "decile_score.1", "violent_recid", "type_of_assessment"} <= set(
            dropped
        )
        assert board["auc"].max() < 1.0


def test_histograms_of_one_line() -> None:
    assert bars([0, 1, 100, 50]) == " ▁█▄"
    assert bars([]) == bars([0, 0]) == ""
    assert len(bars([1] * 60)) == 20
    assert bars([1] * 60) == "█" * 20
