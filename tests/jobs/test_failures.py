"""A job or a prediction that fails on its data says why, with exit status 1, and loses nothing."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

import treadle
from tests.jobs.published import (
    CITIES,
    CITY,
    INCOME,
    NO_TIMES,
    SIMPLE,
    Changes,
    Published,
    case,
    changed,
    feature,
    join,
)
from treadle.engine.bundle import Bundle
from treadle.errors import DataError, RequestError, StorageError
from treadle.jobs import runner
from treadle.jobs.cli import app
from treadle.jobs.run import list_runs, load_run


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory, scheduler: str) -> Published:
    return Published(tmp_path_factory.mktemp("published"), scheduler)


def damaged(people: Published) -> bytes:
    """The file with a hole in its first column; its footer is whole."""
    raw = bytearray(people.people.read_bytes())
    raw[200:3000] = b"\xff" * 2800
    return bytes(raw)


def files(name: str, change: Callable[[pd.DataFrame], pd.DataFrame]) -> Callable[[Published], dict[str, Any]]:
    """A folder of two files, the second of them changed."""

    def sections(people: Published) -> dict[str, Any]:
        first = people.file(f"{name}/0.parquet", people.raw)
        people.file(f"{name}/1.parquet", change(people.raw))
        return {"data": people.data(path=str(Path(first).parent))}

    return sections


def lower(frame: pd.DataFrame) -> pd.DataFrame:
    """Ulm is written in two ways."""
    return frame.assign(city=frame["city"].where(frame["age"] > 40, "ulm"))


FILES = [
    case("truncated", "'.*cut.parquet' is no readable Parquet file: .*[^.][.] Replace it or leave it out",
         lambda p: {"data": p.data(path=p.file("cut.parquet", p.people.read_bytes()[:-100]))}),
    case("no Parquet", "'.*text.parquet' is no readable Parquet file: Parquet magic bytes not found",
         lambda p: {"data": p.data(path=p.file("text.parquet", "not at all " * 20))}),
    case("empty", "'.*void.parquet' is no readable Parquet file: Parquet file size is 0 bytes",
         lambda p: {"data": p.data(path=p.file("void.parquet", b""))}),
    case("damaged inside", "'.*holed.parquet' cannot be read: .* Replace it or leave it out",
         lambda p: {**SIMPLE, "data": p.data(path=p.file("holed.parquet", damaged(p)))}),
    case("file to join", "'.*text.parquet' is no readable Parquet file", join("text.parquet")),
    case("column missing", "files differ: '.*/lack/1.parquet' has no column 'age', which '.*/lack/0.parquet' has",
         files("lack", lambda frame: frame.drop(columns="age"))),
    case("column too many", "files differ: '.*/more/0.parquet' has no column 'extra', which '.*/more/1.parquet' has",
         files("more", lambda frame: frame.assign(extra=1))),
    case("CSV files that differ", "files differ: '.*b.csv' has no column 'b', which '.*a.csv' has",
         lambda p: {"data": p.data(path=[p.file("a.csv", "a,b\n1,2\n"), p.file("b.csv", "a\n1\n")])}),
    case("two types", "types differ: column 'age' is int in '.*/types/0.parquet' and text in '.*/types/1.parquet'. Wri",
         files("types", lambda frame: frame.assign(age=frame["age"].astype(str)))),
    case("nested column", r"features.0 \(impute\): column 'age' of '.*' has type list<.*>, .* not take; flatten",
         lambda p: {"data": p.data(path=p.raw.assign(age=[[1]] * len(p.raw))),
                    "features": [{"op": "impute", "columns": ["age"]}]}),
    case("empty CSV", "'.*void.csv' is empty: it has no header and no rows",
         lambda p: {"data": p.data(path=p.file("void.csv", ""))}),
    case("CSV without rows", "The input .*head.csv has no rows",
         lambda p: {"data": p.data(path=p.file("head.csv", "key,age,buys\n"))}),
    case("no gzip", "'.*a.csv.gz' cannot be decompressed as gzip",
         lambda p: {"data": p.data(path=p.file("a.csv.gz", "a"))}),
]  # fmt: skip
ROWS = [
    case("none", "The input .*changed.parquet has no rows", lambda p: {**SIMPLE, "data": p.data(path=p.raw.head(0))}),
    case("one", "The target 'buys' has one class only, '(yes|no)'; a model needs two",
         lambda p: {**SIMPLE, "data": p.data(path=p.raw.head(1))}),
    case("one, for numbers", "split: kind 'random' puts 0 of 1 rows into the test set; both sides need rows",
         lambda p: {**INCOME, "data": p.data(path=p.raw.head(1), target="income", positive_class=None)}),
    case("two, one a class", "split: kind 'stratified' puts 0 of 2 rows into the test set",
         lambda p: {**SIMPLE, "data": p.data(path=p.raw.drop_duplicates("buys"))}),
    case("none left", "No row is left after tables; look at the filters and inner joins there",
         {**SIMPLE, "tables": [{"op": "filter", "sql": "age > 1000"}, *SIMPLE["tables"]]}),
    case("none left to group", r"tables.1 \(aggregate\): no row is left to group; look at the filters before it",
         {"tables": [{"op": "filter", "sql": "age > 1000"},
                     {"op": "aggregate", "by": ["buys"], "aggregations": {"n": {"function": "count"}}}],
          "features": []}),
    case("id with nulls", "The id column 'city' is null in [0-9]+ rows; fill it, or leave data.id out",
         lambda p: {"data": p.data(id="city"), "tables": [NO_TIMES], "features": []}),
    case("time with nulls", "split: column 'income' is null in [0-9]+ rows; filter them out",
         {"split": {"kind": "time", "column": "income"}, "tables": [NO_TIMES], "features": [CITY]}),
    case("all in one group", "split: kind 'group' puts 0 of 300 rows into the test set; .*another test_size or kind",
         {"split": {"kind": "group", "column": "one"}, "features": [],
          "tables": [*SIMPLE["tables"], {"op": "derive", "name": "one", "sql": "1"}]}),
]  # fmt: skip
TARGETS = [
    case("one class", "The target 'buys' has one class only, 'yes'; a model needs two. Look at the filters",
         {**SIMPLE, "tables": [{"op": "filter", "sql": "buys = 'yes'"}, *SIMPLE["tables"]]}),
    case("all null", "The target 'buys' is null in all 300 rows; there is nothing to learn",
         lambda p: {**SIMPLE, "data": p.data(path=p.raw.assign(buys=pd.Series([None] * 300, dtype="str")))}),
    case("unknown positive class",
         r"positive_class: 'Yes!' is no value of 'buys'. Values: \['no', 'yes'\]. Did you mean 'yes'\?",
         lambda p: {**SIMPLE, "data": p.data(positive_class="Yes!")}),
    case("positive class of four", r"positive_class is for two classes, and 'city' has 4: \['Bonn', 'Köln'",
         lambda p: {**CITIES, "data": p.data(target="city", positive_class="Ulm")}),
    case("too many classes", "The target 'key' has 300 classes, more than 100; set data.task: regression",
         {**CITIES, "data": {"target": "key", "task": "classification"},
          "tables": [{"op": "select", "columns": ["key", "age"]}]}),
    case("infinite", "The target 'income' has infinite values; filter them in tables",
         lambda p: {**INCOME, "data": p.data(path=p.raw.assign(income=np.inf), target="income", positive_class=None)}),
    case("classes that differ in case", "Classes '[Uu]lm' and '[Uu]lm' of 'city' differ in case only, .*lower",
         lambda p: {**CITIES, "data": p.data(path=lower(p.raw), target="city", positive_class=None)}),
]  # fmt: skip
VALUES = [
    case("cast", r"tables.0 \(cast\): cast: [0-9]+ values of column 'city' are no int, e.g. '",
         {"tables": [{"op": "cast", "columns": {"city": "int"}}, NO_TIMES], "features": []}),
    case("nothing to impute from", "impute: column 'income' is null in every training row, .*; drop it",
         lambda p: {"data": p.data(path=p.raw.assign(income=np.nan)), "tables": [NO_TIMES],
                    "features": [CITY, {"op": "impute", "columns": ["income"]}]}),
    case("infinite feature", "Feature 'x' is infinite or beyond 3.4e.38 in [0-9]+ rows, which no model takes; filter",
         {**SIMPLE, "tables": [{"op": "derive", "name": "x", "sql": "age * 1e300"},
                               {"op": "select", "columns": ["x", "buys"]}]}),
    case("levels that differ in case", "Features 'city=Ulm' and 'city=ulm' differ in case only.*lower",
         lambda p: {"data": p.data(path=lower(p.raw)), "tables": [NO_TIMES], "features": [CITY]}),
    case("too many levels", "one_hot: column 'name' has [0-9]+ levels, more than 1000; use ordinal or hash",
         lambda p: {"data": p.data(path=pd.concat([p.raw] * 5).assign(name=[f"n{i}" for i in range(1500)])),
                    "tables": [{"op": "select", "columns": ["name", "buys"]}],
                    **feature(op="one_hot", columns=["name"])}),
    case("nulls for a linear model",
         r"No model could be trained: logistic_regression: features have nulls, .*\{op: impute, columns: \[income\]\}",
         {"models": ["logistic_regression"], "tables": [NO_TIMES], "features": [CITY]}),
    case("class without training rows", "random_forest: no training row is of class 'late'; choose another split",
         {"models": ["random_forest"], "split": {"kind": "time", "column": "joined", "test_size": 0.1}, "metric": None,
          "data": {"target": "when"}, "features": [],
          "tables": [{"op": "derive", "name": "when",
                      "sql": "CASE WHEN joined > '2025-01-28' THEN 'late' ELSE buys END"},
                     {"op": "select", "columns": ["joined", "age", "when"]}]}),
    case("value of a parameter", "No model could be trained: decision_tree: .*The 'max_depth' parameter of Decision",
         {**SIMPLE, "models": [{"name": "decision_tree", "params": {"max_depth": "deep"}}]}),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "words"), [*FILES, *ROWS, *TARGETS, *VALUES])
def test_a_job_that_fails_on_its_data_says_so(people: Published, changes: Changes, words: str) -> None:
    people.refuses(1, words, **changed(changes, people))


def test_broken_lines_of_a_csv_file(people: Published) -> None:
    lines = people.raw[["key", "age", "buys"]].to_csv(index=False).splitlines()
    lines.insert(250, "1,2")
    lines.insert(280, "many,30,yes")
    lines.append('9,"30,yes')
    path = people.file("broken.csv", "\n".join(lines))
    words = "3 rows cannot be read, more than data.bad_rows.limit = 2:.*Mend them, or raise the limit to set them aside"
    said = people.refuses(
        1,
        f"(?s){words}",
        data=people.data(path=path, types={"key": "int"}, bad_rows={"limit": 2}),
        tables=[],
        features=[],
    )
    assert f"{path}, line 251: 2 fields where 3 are expected" in said
    assert re.search(r"line 281: column 'key': 'many' is not an int.*\n .*line 304: ", said)

    data = people.data(path=path, types={"key": "int"}, bad_rows={"limit": 3})
    run = treadle.run(people.spec(name="broken", data=data, tables=[], features=[]))
    assert run.manifest["warnings"] == ["3 broken rows were set aside in the table `quarantine`"]
    aside = run.table("quarantine").to_pandas()
    assert list(aside["file"]) == [path] * 3
    assert list(aside["line"]) == [251, 281, 304]
    assert list(aside["text"]) == ["1,2", "many,30,yes", '9,"30,yes']
    assert aside["reason"].str.len().min() > 5
    assert run.table("features").rows == 300


def test_a_failed_run_is_on_record_and_a_mended_one_goes_on(people: Published) -> None:
    broken = {"models": ["decision_tree"], "features": [CITY], "tables": [NO_TIMES], "name": "mended"}
    said = people.refuses(1, "positive_class: 'Yes'", data=people.data(positive_class="Yes"), **broken)
    newest = list_runs(people.root)[0]
    assert (newest["job"], newest["status"]) == ("mended", "failed")
    assert load_run(people.root, newest["run"]).manifest["error"] == said.removeprefix("treadle: ").strip()
    events = Path(people.root, "runs", newest["run"], "events.jsonl").read_text().splitlines()
    assert [e["stage"] for e in map(json.loads, events) if e["event"] == "failed"] == ["split"]
    assert not Path(people.root, "tables", "mended").exists()
    run = treadle.run(people.spec(**broken))
    assert {r["stage"]: r["status"] for r in run.manifest["stages"]}["etl"] == "cached"


def test_an_input_that_changes_during_a_run_is_not_published(people: Published) -> None:
    """What was made may be of both: of what was there before, and of what is there now."""
    rows = people.raw
    path = people.file("written-to.parquet", rows)
    spec = people.spec(name="moving", data={**people.data(), "path": path}, models=["decision_tree"])

    def listener(event: dict[str, Any]) -> None:
        if (event["stage"], event["event"]) == ("evaluate", "finished"):
            rows.iloc[::-1].to_parquet(path)

    with pytest.raises(DataError, match=rf"input {re.escape(path)} was changed while the run was reading it"):
        treadle.run(spec, listener=listener)
    assert not Path(people.root, "tables", "moving").exists()
    assert treadle.run(spec).status == "succeeded"


@pytest.mark.parametrize(
    ("seed", "damage", "words"),
    [
        (11, lambda file: file.write_bytes(file.read_bytes()[:-7]), "it is not readable as Parquet"),
        (12, lambda file: file.unlink(), "it is not there any more"),
        (13, lambda file: retyped(file), r"its columns, \[.*score: string.*\], are not those that were written"),
    ],
    ids=["truncated", "missing", "wrongly typed"],
)
def test_a_damaged_file_is_found_before_anything_is_published(
    people: Published, seed: int, damage: Callable[[Path], object], words: str
) -> None:
    """The others of the run are as they should be, and are not published either."""
    spec = people.spec(name="damaged", models=["decision_tree"], explain={"rows": "none"})
    first = treadle.run(spec)
    damaged: list[str] = []

    def listener(event: dict[str, Any]) -> None:
        if (event["stage"], event["event"]) == ("publish", "started"):
            newest = max(Path(people.root, "stages").glob("predict-*"), key=lambda folder: folder.stat().st_mtime)
            damaged.append(str(newest / "part-00000.parquet"))
            damage(Path(damaged[0]))

    with pytest.raises(StorageError, match=words) as caught:
        treadle.run({**spec, "seed": seed}, listener=listener)
    assert str(caught.value).startswith(f"{damaged[0]} cannot be published: ")
    assert first.is_current
    assert treadle.run({**spec, "seed": seed}, fresh=True).is_current
    treadle.run(spec, fresh=True)


def retyped(file: Path) -> None:
    """The same file with its scores as text, and as long as it was told to be."""
    size = file.stat().st_size
    table = pq.read_table(file)
    table = table.set_column(table.column_names.index("score"), "score", table["score"].cast(pa.string()))
    pq.write_table(table.slice(0, 1), file)
    body = file.read_bytes()
    assert len(body) <= size
    # A Parquet file begins and ends with its magic; what lies between is found from the end.
    file.write_bytes(body[:4] + bytes(size - len(body)) + body[4:])


def test_a_run_after_all_of_this_is_cached(people: Published) -> None:
    run = treadle.run(people.spec(explain={"rows": "all"}))
    assert run.reused
    assert {name: t.version for name, t in run.tables.items()} == dict.fromkeys(people.before, 0)
    people.is_intact()


@pytest.mark.parametrize("status", [1, 2])
def test_debug_shows_the_traceback(people: Published, status: int) -> None:
    bad = people.data(positive_class="Yes!") if status == 1 else people.data(target="buy")
    spec = people.file("bad.json", json.dumps(people.spec(data=bad)))
    result = CliRunner().invoke(app, ["run", spec, "--quiet", "--debug"])
    assert result.exit_code == status
    assert "Traceback (most recent call last)" in result.stderr
    assert "Did you mean" in result.stderr


def test_a_bug_is_called_a_bug(people: Published, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise KeyError("oh")

    monkeypatch.setattr(runner, "run", broken)
    result = CliRunner().invoke(app, ["run", "spec.yaml"])
    assert result.exit_code == 1
    assert result.stderr == "treadle: KeyError: 'oh'\nThis is a bug in Treadle; --debug shows where.\n"
    assert "Traceback" in CliRunner().invoke(app, ["run", "spec.yaml", "--debug"]).stderr


# Prediction.


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda f: f.drop(columns="age"), r"Missing in the input: 'age', which the model was trained on. Columns: "),
        (lambda f: f.rename(columns={"age": "Age"}), r"Missing in the input: 'age'.*Did you mean 'Age'\?"),
        (lambda f: f.assign(age="old"), r"'age' of the input is text \(str\), but the model was trained on int; give"),
        (lambda f: f.assign(age=f["age"] + 0.5), r"is float \(float64\), .* on int, and not all of its values can be"),
        (lambda f: f.assign(city=3), r"'city' of the input is int \(int64\), but the model was trained on text"),
        (lambda f: f.assign(joined=f["joined"].astype(str)), "'joined' of the input is text .* trained on timestamp"),
        (lambda f: f.assign(member=0.5), "'member' of the input is float .* trained on bool, and not all of its"),
        (lambda f: f.assign(age=[[1]] * len(f)), "'age' of the input holds mixed objects; give it one plain type"),
        (lambda f: pd.concat([f, f[["age"]]], axis=1), "Two columns of the input are called 'age'; drop or rename one"),
        (lambda f: f["age"], "predict takes a pandas DataFrame of raw rows, not Series"),
    ],
)  # fmt: skip
def test_rows_to_predict_that_do_not_fit_the_model(
    people: Published, change: Callable[[pd.DataFrame], Any], words: str
) -> None:
    with pytest.raises(RequestError, match=words):
        people.run.model.predict(change(people.raw.drop(columns="buys")))


def test_rows_to_predict_in_other_clothes(people: Published) -> None:
    raw = people.raw.drop(columns="buys")
    expected = people.run.model.predict(raw)
    dressed = {
        "narrow": raw.assign(age=raw["age"].astype("int8"), member=raw["member"].astype(int)),
        "categories": raw.assign(city=raw["city"].astype("category")),
        "nullable": raw.convert_dtypes(),
        "arrow": raw.convert_dtypes(dtype_backend="pyarrow"),
        "zoned": raw.assign(joined=raw["joined"].dt.tz_localize("UTC").dt.tz_convert("Asia/Tokyo")),
        "objects": raw.assign(member=raw["member"].astype(object), city=raw["city"].astype(object)),
        "with the target": people.raw,
        "another order": raw[raw.columns[::-1]],
    }
    for frame in dressed.values():
        pd.testing.assert_frame_equal(people.run.model.predict(frame), expected)
    assert people.run.model.predict(raw.head(0)).columns.tolist() == expected.columns.tolist()
    nothing = raw.assign(age=None, income=np.nan, city=None, member=None, joined=pd.NaT)
    assert people.run.model.predict(nothing)["score"].notna().all()


def test_nulls_for_a_linear_model_at_prediction(people: Published) -> None:
    model = treadle.run(people.spec(name="linear", models=["logistic_regression"], **SIMPLE)).model
    with pytest.raises(DataError, match="1 rows have nulls, which a linear model cannot predict from; fill them"):
        model.predict(pd.DataFrame({"key": [1, 2], "age": [30.0, None]}))


@pytest.fixture(scope="module")
def encoded(people: Published) -> Callable[[str, str], Bundle]:
    """The model of an encoder with a policy for unseen values."""

    def model(op: str, unseen: str) -> Bundle:
        features = [{"op": op, "columns": ["city"], "missing": "?", "unseen": unseen}]
        tables = [{"op": "select", "columns": ["city", "age", "buys"]}]
        return treadle.run(
            people.spec(name=f"{op}-{unseen}", models=["decision_tree"], tables=tables, features=features)
        ).model

    return model


@pytest.mark.parametrize("op", ["one_hot", "ordinal"])
def test_an_unseen_category_at_prediction(people: Published, encoded: Callable[[str, str], Bundle], op: str) -> None:
    rows = people.raw.head(3).assign(city=["Ulm", "Paris", "Rom"])
    words = (
        r"Column 'city' has values that the training rows did not have: 'Paris', 'Rom' \(2 rows\). Known: \[Bonn, Köl"
    )
    with pytest.raises(DataError, match=f"{words}.*Set unseen: ignore or unseen: other"):
        encoded(op, "error").predict(rows)
    ignored = encoded(op, "ignore").predict(rows, explain=True)
    other = encoded(op, "other").predict(rows, explain=True)
    assert len(ignored) == len(other) == 3
    assert ("city=other" in other.columns) == (op == "one_hot")
    assert "city=other" not in ignored.columns
    known = encoded(op, "error").predict(people.raw)
    pd.testing.assert_frame_equal(known, encoded(op, "ignore").predict(people.raw))


@pytest.mark.slow
def test_batch_prediction_of_what_does_not_fit(
    people: Published, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    raw, out = people.raw.drop(columns="buys"), tmp_path / "out"

    def fails(status: int, words: str, source: str, model: str = "people", *more: str, to: Path = out) -> None:
        command = ["predict", "--model", model, "--input", source, "--output", str(to), "--root", people.root]
        people.fails(status, words, *command, "--workers", "1", "--quiet", *more)

    lacking, text = people.file("p1.parquet", raw.drop(columns="age")), people.file("p2.parquet", raw.assign(age="x"))
    with monkeypatch.context() as patch:
        patch.setattr("treadle.jobs.predict.open_cluster", lambda *_: pytest.fail("a cluster was started"))
        fails(2, "Missing in the input: 'age', which the model was trained on", lacking)
        fails(2, r"Column 'age' of the input is text \(str\), but the model was trained on int", text)
        fails(1, "'.*text.parquet' is no readable Parquet file", people.file("text.parquet", "not at all"))
        full = Path(people.file("full/a.txt", "x")).parent
        fails(
            2, "The output folder .*full is not empty; name another, or use --format delta", str(people.people), to=full
        )
        fails(2, "The output folder .*full holds files and is no Delta table; name", str(people.people), "people",
              "--format", "delta", to=full)  # fmt: skip
        people.file("beside-explanations/a.txt", "x")
        fails(2, "The output folder .*beside-explanations is not empty", str(people.people), "people", "--explain",
              to=full.with_name("beside"))  # fmt: skip
        fails(2, "a.txt is a file; name a folder to write into", str(people.people), to=full / "a.txt")
    unseen = people.file("p3.parquet", raw.assign(city="Paris"))
    treadle.run(people.spec(name="strict", features=[{**CITY, "missing": "?", "unseen": "error"}], tables=[NO_TIMES]))
    fails(1, "Column 'city' has values that the training rows did not have: 'Paris' .300 rows.", unseen, "strict")
    assert not list(tmp_path.iterdir()), "something of the failed prediction is left"


def test_batch_prediction_of_no_rows(people: Published, tmp_path: Path) -> None:
    path = people.file("none.parquet", people.raw.head(0))
    command = [
        "predict",
        "--model",
        "people",
        "--input",
        path,
        "--output",
        str(tmp_path / "out"),
        "--root",
        people.root,
    ]
    people.fails(1, "The input .*none.parquet has no rows; there is nothing to predict", *command, "--workers", "1")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("bundle.json", "{", "bundle.json is damaged: .* Run again with --fresh"),
        ("bundle.json", '{"format": 1}', "bundle.json is no bundle of this version of Treadle"),
        ("bundle.json", '{"format": 9}', "written in bundle format 9, and this Treadle reads 1"),
        ("model.arrow", "{", "model.arrow is no readable model: .* Run the job again with --fresh"),
        ("model.arrow", None, "model.arrow is no readable model: .*No such file"),
    ],
)
def test_a_damaged_model_is_named_and_a_new_run_replaces_it(
    people: Published, file: str, content: str | None, words: str
) -> None:
    spec = people.spec(name=f"damaged-{abs(hash(words))}", **SIMPLE)
    run = treadle.run(spec)
    path = Path(people.root, "models", run.job, "1", file)
    if content is None:
        path.unlink()
    else:
        path.write_text(content)
    with pytest.raises(treadle.errors.TreadleError, match=words):
        treadle.load_model(run.job, root=people.root).predict(people.raw)
    again = treadle.run(spec)
    assert again.model.reference == f"{run.job}:2"
    assert len(again.model.predict(people.raw)) == 300
