"""A row followed back from its prediction: held against the tables as they are read whole, and the raw files."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from typer.testing import CliRunner

import treadle
from tests.conftest import people_spec, write_people
from treadle.errors import RequestError
from treadle.jobs.cli import app
from treadle.jobs.client.remote_run import RemoteRun
from treadle.jobs.inputs_now import stale_inputs
from treadle.jobs.lineage import MOST, find_run
from treadle.jobs.provenance import provenance
from treadle.jobs.reproduce import reproduce
from treadle.jobs.run import Run, load_run
from treadle.jobs.runner import run as run_job

REPEATED = 1099
"""An id that several rows have, which are test rows all."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("lineage")


@pytest.fixture(scope="module")
def raw(folder: Path) -> pd.DataFrame:
    """300 people, of whom some have the same key."""
    write_people(folder / "people.parquet", rows=300)
    rows = pd.read_parquet(folder / "people.parquet")
    rows.loc[np.arange(19, 300, 40), "key"] = REPEATED
    rows.to_parquet(folder / "people.parquet", row_group_size=50)
    return rows


@pytest.fixture(scope="module")
def run(folder: Path, raw: pd.DataFrame, scheduler: str) -> Run:
    """Everything is explained, and the test rows are predicted."""
    spec = people_spec(folder / "people.parquet", folder / "a", scheduler, explain={"rows": "all"})
    return treadle.run(spec)


def said(*command: str, status: int = 0) -> str:
    result = CliRunner().invoke(app, list(command))
    assert result.exit_code == status, result.output
    return result.stdout if status == 0 else result.stderr


def test_a_row_is_what_the_tables_and_the_file_have(run: Run, raw: pd.DataFrame) -> None:
    tables = {name: run.table(name).to_pandas().set_index("id") for name in ("features", "predictions", "explanations")}
    for key in tables["predictions"].index.drop(REPEATED, errors="ignore")[[0, 20, -1]]:
        found = run.lineage(int(key))
        assert (found.id, found.count, found.said) == (key, 1, "")
        (row,) = found.rows
        assert row.side == "test"
        assert row.prediction == tables["predictions"].loc[key].to_dict()
        assert row.columns["buys"] == raw.set_index("key").loc[key, "buys"]
        own = tables["features"].loc[key].drop(["split", "buys"]).astype(float)
        pd.testing.assert_series_equal(pd.Series(row.features, dtype=float), own, check_names=False)
        (explained,) = row.explained
        expected = tables["explanations"].loc[key]
        assert {one.feature: one.contribution for one in explained.contributions} == expected.drop("bias").to_dict()
        sizes = [abs(one.contribution) for one in explained.contributions]
        assert sizes == sorted(sizes, reverse=True)
        assert all(one.value == row.features[one.feature] for one in explained.contributions)
        total = sum(one.contribution for one in explained.contributions) + explained.bias
        assert total == pytest.approx(row.prediction["margin"], abs=1e-4)
        (source,) = found.sources
        assert raw.iloc[source.row - 1]["key"] == key
        assert source.values is not None
        there = pd.Series(source.values).dropna().to_dict()
        assert there == raw.iloc[source.row - 1].dropna().to_dict()


def test_a_row_that_was_not_predicted_is_found_where_it_is(run: Run) -> None:
    features = run.table("features").to_pandas()
    key = int(features.loc[(features["split"] == "train") & (features["id"] != REPEATED), "id"].iloc[5])
    with pytest.raises(RequestError, match=f"No row of predictions@0 .* has the id {key}. Table 'explanations' has it"):
        run.lineage(key)
    (row,) = run.lineage(key, table="features").rows
    assert (row.side, row.prediction) == ("train", {})
    assert len(row.explained[0].contributions) == len(row.features) > 5


def test_ids_that_repeat_are_told_apart_by_the_order_of_their_rows(run: Run, raw: pd.DataFrame) -> None:
    features = run.table("features").to_pandas()
    features = features[features["id"] == REPEATED]
    found = run.lineage(REPEATED, table="features")
    assert found.count == len(features) == 8
    assert len(found.rows) == MOST
    explanations = run.table("explanations").to_pandas()
    explanations = explanations[explanations["id"] == REPEATED]
    predictions = run.table("predictions").to_pandas()
    margins = iter(predictions.loc[predictions["id"] == REPEATED, "margin"])
    for row, (_, own), bias in zip(found.rows, features.iterrows(), explanations["age"], strict=False):
        assert row.side == own["split"]
        assert row.features["age"] == own["age"]
        assert {one.feature: one.contribution for one in row.explained[0].contributions}["age"] == bias
        assert row.prediction.get("margin") == (next(margins) if row.side == "test" else None)
    assert [source.row - 1 for source in found.sources] == np.flatnonzero(raw["key"] == REPEATED)[:MOST].tolist()
    assert found.said == f"there are more than {MOST} such rows in the input"
    tested = run.lineage(REPEATED)
    assert tested.count == (features["split"] == "test").sum()
    assert all(row.side == "test" and row.prediction for row in tested.rows)


def test_what_cannot_be_looked_up_is_refused(run: Run, folder: Path, raw: pd.DataFrame) -> None:
    for row_id, table, words in (
        ("x", None, "Ids of run people.* are of type int64, and 'x' is no such value"),
        (77, None, "No row of predictions@0 of run people.* has the id 77.$"),
        (1, "leaderboard", "cannot be looked for in 'leaderboard'. Allowed: .predictions, explanations, features, etl"),
        (1, "etl", "has no table 'etl'"),
    ):
        with pytest.raises(RequestError, match=words):
            run.lineage(row_id, table)
    root = str(folder / "a")
    assert find_run(root).id == run.id
    assert find_run(root, run.id[:12], "people").id == run.id
    with pytest.raises(RequestError, match="No run of job 'peopel' .* Did you mean 'people'"):
        find_run(root, None, "peopel")
    with pytest.raises(RequestError, match="is of job 'people', not of 'other'"):
        find_run(root, run.id, "other")
    with pytest.raises(RequestError, match="has succeeded yet"):
        find_run(str(folder / "nothing"))


def test_the_command_shows_and_prints_it(run: Run, folder: Path) -> None:
    root = str(folder / "a")
    predictions = run.table("predictions").to_pandas()
    key = str(predictions.loc[predictions["id"] != REPEATED, "id"].iloc[1])
    shown = said("lineage", key, "--root", root)
    assert re.search(rf"Id {key} in predictions@0 of run {run.id}", shown)
    for words in ("Predicted: score", "Contributions", "bias", "people.parquet, row ", f"key {key}", "<- environment"):
        assert words in shown
    found = json.loads(said("lineage", key, "--run", run.id, "--root", root, "--json"))
    assert found["id"] == int(key)
    assert found["rows"][0]["prediction"]["margin"] == predictions.set_index("id").loc[int(key), "margin"]
    assert [link["kind"] for link in found["provenance"]["links"]] == [
        "table", "model", "features", "data", "spec", "code", "environment"
    ]  # fmt: skip
    assert "is no such value" in said("lineage", "x", "--root", root, status=2)


@pytest.fixture(scope="module")
def cities(folder: Path, raw: pd.DataFrame, scheduler: str) -> tuple[Run, pd.DataFrame]:
    """Three classes, the two largest contributions, and row numbers of two text files as ids."""
    rows = raw[raw["city"].isin(["Ulm", "Köln", "Bonn"])].reset_index(drop=True)
    (folder / "cities").mkdir()
    rows[:100].to_csv(folder / "cities" / "1.csv", index=False)
    rows[100:].to_csv(folder / "cities" / "2.csv", index=False)
    spec = people_spec(
        folder / "cities",
        folder / "b",
        scheduler,
        name="cities",
        data={"path": str(folder / "cities"), "target": "city"},
        tables=[{"op": "filter", "sql": "age > 20"}, {"op": "select", "columns": ["age", "member", "city"]}],
        features=[{"op": "scale", "columns": ["age"]}],
        metric="log_loss",
        models=[{"name": "xgboost", "params": {"n_estimators": 3, "max_depth": 2}}],
        explain={"rows": "all", "top_k": 1},
        predict={"rows": "all"},
    )
    return run_job(spec), rows


def test_rows_of_text_files_are_found_by_their_numbers(cities: tuple[Run, pd.DataFrame], folder: Path) -> None:
    run, rows = cities
    for number in run.table("predictions").to_arrow(["id"]).column(0).to_pylist()[::40]:
        found = run.lineage(number)
        (source,) = found.sources
        assert source.file == str(folder / "cities" / ("1.csv" if number < 100 else "2.csv"))
        assert source.row == (number if number < 100 else number - 100) + 1
        assert source.values is not None
        assert source.values["key"] == rows.loc[number, "key"]
        (row,) = found.rows
        assert [one.class_ for one in row.explained] == ["Bonn", "Köln", "Ulm"]
        for explained in row.explained:
            total = explained.bias + (explained.others or 0.0) + sum(c.contribution for c in explained.contributions)
            assert total == pytest.approx(row.prediction[f"margin_{explained.class_}"], abs=1e-4)
            assert len(explained.contributions) == 1
        shown = said("lineage", str(number), "--root", str(folder / "b"))
        assert f"Contributions to the margin of {row.prediction['class']}" in shown
        assert "others" in shown


def test_without_its_converted_rows_a_text_file_is_only_named(cities: tuple[Run, pd.DataFrame], folder: Path) -> None:
    run, _ = cities
    record = next(one for one in run.manifest["stages"] if one["stage"] == "read")
    hidden = folder / "b" / "stages" / f"read-{record['fingerprint']}"
    hidden.rename(hidden.with_name("hidden"))
    try:
        number = run.table("predictions").to_arrow(["id"]).column(0)[0]
        found = run.lineage(number)
    finally:
        hidden.with_name("hidden").rename(hidden)
    assert found.sources == ()
    assert re.search(r"how many rows '.*/1.csv' has is not known: it is text", found.said)
    assert found.rows[0].prediction


def test_a_run_on_text_files_repeats(cities: tuple[Run, pd.DataFrame], folder: Path) -> None:
    run, _ = cities
    assert run.manifest["plan"]["partitions"] is None, "not known before the files were read"
    assert run.manifest["plan"]["partitions_read"] == {"data": 1, "split": None}
    found = reproduce(str(folder / "b"), run.id)
    assert found.right
    assert found.notes == ()


@pytest.fixture(scope="module")
def joined(folder: Path, raw: pd.DataFrame, scheduler: str) -> tuple[Run, pd.DataFrame]:
    """Rows of another table come in by a union; features only, and row numbers as ids."""
    more = raw[:40].rename(columns={"age": "years"}).assign(income=1.0)
    more.to_parquet(folder / "more.parquet")
    side = {"path": str(folder / "more.parquet"), "rename": {"years": "age"}}
    spec = people_spec(
        folder / "people.parquet", folder / "c", scheduler, name="joined",
        data={"path": str(folder / "people.parquet")},
        tables=[{"op": "union", "with": side}, {"op": "select", "columns": ["age", "income"]}],
        features=[{"op": "impute", "columns": ["income"]}],
    )  # fmt: skip
    for key in ("models", "split", "metric"):
        del spec[key]
    return run_job(spec), more


def test_rows_that_came_in_by_a_union_are_those_of_their_file(
    joined: tuple[Run, pd.DataFrame], folder: Path, raw: pd.DataFrame
) -> None:
    run, more = joined
    (source,) = run.lineage(305).sources
    assert (source.section, source.file, source.row) == ("tables.0", str(folder / "more.parquet"), 6)
    assert source.values is not None
    assert source.values["years"] == more.loc[5, "years"]
    (row,) = run.lineage(305).rows
    assert (row.side, row.features["income"]) == (None, 1.0)
    (source,) = run.lineage(299).sources
    assert (source.section, source.row) == ("data", 300)
    with pytest.raises(RequestError, match="has the id 340"):
        run.lineage(340)


def test_groups_are_no_rows_of_the_input(folder: Path, raw: pd.DataFrame, scheduler: str) -> None:
    raw.dropna(subset=["city"]).to_parquet(folder / "known.parquet")
    counts = {"op": "aggregate", "by": ["city"], "aggregations": {"n": {"function": "count"}}}
    spec = people_spec(
        folder / "people.parquet", folder / "d", scheduler, name="groups",
        data={"path": str(folder / "known.parquet"), "id": "city"}, tables=[counts],
    )  # fmt: skip
    for key in ("models", "split", "metric", "features"):
        del spec[key]
    run = run_job(spec)
    found = run.lineage("Ulm")
    assert found.rows[0].columns == {"city": "Ulm", "n": (raw["city"] == "Ulm").sum()}
    assert found.said == "the rows were made by tables.0 (aggregate), each of several rows of the input"
    without = Run(run.store, {**run.manifest, "spec": {**run.manifest["spec"], "data": {"path": "x"}}})
    with pytest.raises(RequestError, match="Table etl@0 of run groups.* has no ids to look for: name the column"):
        without.lineage("Ulm")


def test_show_walks_back_and_tells_what_is_gone(run: Run, folder: Path, raw: pd.DataFrame) -> None:
    root = folder / "a"
    shown = said("show", run.id, "--root", str(root))
    walk = re.findall(r"^  (?:  |<-) (\w+) +(.*)$", shown, re.MULTILINE)
    assert [kind for kind, _ in walk] == ["table", "model", "features", "data", "spec", "code", "environment"]
    texts = dict(walk)
    assert texts["table"].startswith("predictions@0, explanations@0, leaderboard@0 (")
    assert texts["model"].startswith("people:1 (xgboost, ")
    assert texts["features"] == "features@0 (300 rows, operations: 2 of tables, 4 of features)"
    assert texts["data"] == f"people.parquet (digest {run.manifest['inputs'][0]['digest'][:12]}, 300 rows)"
    assert texts["spec"] == f"{run.manifest['spec_digest']} (job people, seed 7)"
    assert f"sources {run.manifest['code']['sources'][:12]}" in texts["code"]
    assert f"xgboost {run.manifest['libraries']['xgboost']}" in texts["environment"]
    assert "warning" not in shown
    assert provenance(run).changed == ()

    people, model = folder / "people.parquet", root / "models" / "people" / "1"
    table = next(Path(run.table("predictions").path).glob("part-*"))
    content = people.read_bytes()
    predictions = run.table("predictions").to_pandas()
    key = predictions.loc[predictions["id"] != REPEATED, "id"].iloc[0]
    try:
        table.rename(table.with_name("hidden"))
        model.rename(model.with_name("hidden"))
        people.write_bytes(content[:-1] + b"x")
        gone = provenance(load_run(str(root), run.id)).gone
        assert len(gone) == 3
        assert re.fullmatch(r"table predictions@0 cannot be read: .*part-00000.*parquet is missing", gone[0])
        assert re.match(r"model people:1 cannot be read: There is no model 'people'", gone[1])
        assert re.match(rf"input '{people}' \(data\) has changed: digest \w+, and {stamp(run)} before", gone[2])
        assert "warning: input" in said("show", run.id, "--root", str(root))
        table.with_name("hidden").rename(table)
        found = run.lineage(int(key))
        assert found.sources == ()
        assert re.match(rf"'{people}' was not looked into: it has changed", found.said)
        people.write_bytes(content + b"x")
        (stale,) = stale_inputs(run.manifest)
        assert stale.said == f"has changed: {len(content) + 1:,} bytes, and {len(content):,} before"
        people.unlink()
        assert [one.said for one in stale_inputs(run.manifest)] == ["is missing"]
        people.write_bytes(content[:-1] + b"x")
        assert list(stale_inputs(run.manifest, most=0)) == [], "beyond what is read sizes count"
    finally:
        people.write_bytes(content)
        for path in (table, model):
            if path.with_name("hidden").exists():
                path.with_name("hidden").rename(path)


def stamp(run: Run) -> str:
    return str(run.manifest["inputs"][0]["files"][0]["digest"][:12])


def test_runs_from_before_code_was_recorded_are_shown(run: Run) -> None:
    old: dict[str, Any] = {k: v for k, v in run.manifest.items() if k not in ("code", "environment", "cluster")}
    found = provenance(Run(run.store, old))
    assert found.links[-2].said == "not recorded"
    assert "numpy" in found.links[-1].said
    assert found.changed == ("the run did not record its code", "the run did not record its environment")


def test_rows_of_a_run_that_is_elsewhere_are_looked_up_there(run: Run) -> None:
    def fetch(name: str, columns: list[str] | None) -> bytes:
        rows, sink = run.table(name).to_arrow(columns), pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, rows.schema) as writer:
            writer.write_table(rows)
        return sink.getvalue().to_pybytes()

    far = RemoteRun(fetch, "/elsewhere", run.manifest)
    near = run.table("predictions")
    assert pa.Table.from_batches(list(far.table("predictions").batches())).equals(near.to_arrow())
    key = near.to_arrow(["id"]).column(0)[3]
    assert far.table("predictions").where("id", key).equals(near.where("id", key))
    assert far.table("predictions").schema.equals(near.to_arrow().schema)
    with pytest.raises(RequestError, match="are not here, but where its service runs, under /elsewhere; ask there"):
        far.lineage(1)
