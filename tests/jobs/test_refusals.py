"""A wrong request ends before anything runs, with exit status 2 and one message; what was published stays readable."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.jobs.published import (
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
    table,
)
from treadle.cluster import remote
from treadle.jobs import runner

TOWNS = pd.DataFrame({"city": ["Ulm", "Köln"], "size": [1.0, 2.0]})


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory, scheduler: str) -> Published:
    return Published(tmp_path_factory.mktemp("published"), scheduler)


def aggregate(by: str, function: str, column: str | None = None) -> dict[str, Any]:
    return table(op="aggregate", by=[by], aggregations={"m": {"function": function, "column": column}})


def table_of(section: dict[str, Any]) -> Callable[[Published], dict[str, Any]]:
    """A spec that joins a table of towns, which is at the path of the section."""
    return lambda p: table(op="join", on=["city"], **{"with": {**section, "path": p.file(section["path"], TOWNS)}})


INPUTS = [
    case("missing file", r"Input '.*peple.parquet' was not found. Did you mean 'people.parquet'\?",
         lambda p: {"data": p.data(path=str(p.folder / "peple.parquet"))}),
    case("missing relative file", "Input 'peple.parquet' was not found; looked in ",
         lambda p: {"data": p.data(path="peple.parquet")}),
    case("missing folder", "Input '.*/nowhere/x.parquet' was not found. The folder '.*/nowhere' does not exist",
         lambda p: {"data": p.data(path=str(p.folder / "nowhere" / "x.parquet"))}),
    case("glob of nothing", r"Nothing matches the glob '.*/none-\*.parquet'; look at the folder part and the ending",
         lambda p: {"data": p.data(path=str(p.folder / "none-*.parquet"))}),
    case("relative glob of nothing", r"Nothing matches the glob 'none-\*.parquet'; looked in ",
         lambda p: {"data": p.data(path="none-*.parquet")}),
    case("no path", "The input's path is empty; name a file, folder, glob or URL", lambda p: {"data": p.data(path="")}),
    case("no paths", "The input's path is empty", lambda p: {"data": p.data(path=[])}),
    case("folder without data", "The folder '.*notes' holds no Parquet, CSV or JSON lines file",
         lambda p: {"data": p.data(path=str(Path(p.file("notes/a.md", "x")).parent))}),
    case("unknown protocol", "'nope://x/y.parquet' cannot be opened: Protocol not known: nope",
         lambda p: {"data": p.data(path="nope://x/y.parquet")}),
    case("unknown ending", "The format of '.*people.dat' cannot be told from its name; set data.format",
         lambda p: {"data": p.data(path=p.file("people.dat", b"x"))}),
    case("mixed formats", r"The input mixes formats \(csv, parquet\); set data.format",
         lambda p: {"data": p.data(path=[p.file("a.csv", "x\n1\n"), str(p.people)])}),
    case("CSV type of no column", r"Column 'agee' was not found in data.types. .*Did you mean 'age'\?",
         lambda p: {"data": p.data(path=p.file("a.csv", p.raw), types={"agee": "int"})}),
    case("unknown encoding", "data.encoding 'utf-99' is no known text encoding",
         lambda p: {"data": p.data(path=p.file("a.csv", p.raw), encoding="utf-99")}),
    case("version of a file to join", r"tables.0.with.version is for Delta tables, and '.*side.parquet' is parquet",
         table_of({"path": "side.parquet", "version": 0})),
    case("version of a file of keys", r"contract.0.in.version is for Delta tables, and '.*side.parquet' is parquet",
         lambda p: {"contract": [{"expect": "known", "columns": ["city"],
                                  "in": {"path": p.file("side.parquet", TOWNS), "version": 0}}]}),
    case("format of a table to join",
         r"tables.0.with.format: 'parqet' is not allowed. Allowed: \[parquet, csv, jsonl, delta\]. Did you mean 'p",
         table_of({"path": "side.parquet", "format": "parqet"})),
    case("unknown ending of a table to join", "The format of '.*side.dat' cannot be told .*; set tables.0.with.format",
         table_of({"path": "side.dat"})),
    case("missing file to join", "Input '.*tows.parquet' was not found", join("tows.parquet")),
    case("test input of other columns", "Column 'age' was not found in the test input .*. Columns: ",
         lambda p: {"split": {"kind": "path", "path": p.file("test.parquet", p.raw.drop(columns="age"))}}),
    case("test input of other types", "'age' is int in .* and float in .*; the training and test inputs must agree",
         lambda p: {"split": {"kind": "path", "path": p.file("test.parquet", p.raw.assign(age=0.5))}}),
]  # fmt: skip
MISSING_COLUMNS = [
    case("filter", r"'agee' was not found in the input of tables.0 \(filter\). Columns: .*Did you mean 'age'\?",
         table(op="filter", sql="agee > 3")),
    case("derive", r"'agee' was not found in the input of tables.0 \(derive\).*Did you mean 'age'\?",
         table(op="derive", name="x", sql="agee + 1")),
    case("cast", r"'agee' was not found in the input of tables.0 \(cast\)", table(op="cast", columns={"agee": "int"})),
    case("rename", r"'agee' was not found in the input of tables.0 \(rename\)",
         table(op="rename", columns={"agee": "a"})),
    case("select", r"'agee' was not found in the input of tables.0 \(select\)", table(op="select", columns=["agee"])),
    case("drop", r"'agee' was not found in the input of tables.0 \(drop\)", table(op="drop", columns=["agee"])),
    case("aggregate key", r"'town' was not found in the input of tables.0 \(aggregate\)", aggregate("town", "count")),
    case("aggregated column", r"'agee' was not found in the input of tables.0 \(aggregate\).*Did you mean 'age'\?",
         aggregate("city", "mean", "agee")),
    case("join key here", r"'town' was not found in the input of tables.0 \(join\)",
         join(TOWNS.rename(columns={"city": "town"}), on="town")),
    case("join key there", r"'city' was not found in .*side.parquet. Columns: \[town, size\]",
         join(TOWNS.rename(columns={"city": "town"}))),
    case("one_hot", r"'town' was not found in the input of features.0 \(one_hot\)",
         feature(op="one_hot", columns=["town"])),
    case("impute", r"'incom' was not found in the input of features.0 \(impute\)",
         feature(op="impute", columns=["incom"])),
    case("target", r"'buy' was not found in the rows after tables.*Did you mean 'buys'\?",
         lambda p: {"data": p.data(target="buy")}),
    case("dropped target", "'buys' was not found in the rows after tables", table(op="drop", columns=["buys"])),
    case("renamed target", "'buys' was not found in the rows after tables. Columns: .*bought",
         table(op="rename", columns={"buys": "bought"})),
    case("aggregated target", r"'buys' was not found in the rows after tables. Columns: \[city, m\]",
         aggregate("city", "count")),
    case("id", r"'kee' was not found in the input \(data.id\).*Did you mean 'key'\?",
         lambda p: {"data": p.data(id="kee")}),
    case("protected", r"'citi' was not found in the rows after tables.*Did you mean 'city'\?",
         lambda p: {"data": p.data(protected=["citi"])}),
    case("weight", r"'agee' was not found in the rows after tables.*Did you mean 'age'\?",
         lambda p: {"data": p.data(weight="agee")}),
    case("split column", r"'join' was not found in the rows after tables.*Did you mean 'joined'\?",
         {"split": {"kind": "time", "column": "join"}}),
    case("feature of a removed column", r"'city' was not found in the input of features.1 \(impute\)",
         {"features": [CITY, {"op": "impute", "columns": ["city"], "method": "mode"}]}),
    case("target as a feature", "'buys' was not found in the input of features.0",
         feature(op="one_hot", columns=["buys"])),
]  # fmt: skip
TYPES = [
    case("text that nothing encodes", r"no feature operation encodes city \(text\); add \{op: one_hot, columns: \[city",
         {"tables": [NO_TIMES], "features": []}),
    case("time that nothing encodes", r"no feature operation encodes joined \(timestamp\); add \{op: date_parts",
         {"tables": [], "features": [CITY]}),
    case("filter by a number", r'tables.0 \(filter\): In the expression "age".*a filter needs a condition',
         table(op="filter", sql="age")),
    case("comparison of types", "the comparison > mixes TEXT and INTEGER", table(op="filter", sql="city > 3")),
    case("mean of text", "aggregate 'm': mean needs numbers, and column 'city' is", aggregate("age", "mean", "city")),
    case("scale of text", r"features.0 \(scale\): column 'city' is a text; it works on indicator, number",
         feature(op="scale", columns=["city"])),
    case("date parts of a number", r"features.0 \(date_parts\): column 'age' is a number; it works on timestamp",
         feature(op="date_parts", columns=["age"])),
    case("join keys of two types", "key 'age' is .* here and .* there; cast one of them before the join",
         join(pd.DataFrame({"age": ["30"], "size": [1]}), on="age")),
    case("weight of text", r"data.weight: column 'city' is text, and what rows count are numbers, 0 or more; add "
         r"\{op: cast, columns: \{city: float\}\} to tables", lambda p: {"data": p.data(weight="city")}),
    case("weight of truths", "data.weight: column 'member' is bool", lambda p: {"data": p.data(weight="member")}),
    case("weight of times", "data.weight: column 'joined' is timestamp, .*op: derive",
         lambda p: {"data": p.data(weight="joined")}),
    case("split by text", "split: column 'city' is text; kind: time orders the rows by a timestamp or a number",
         {"split": {"kind": "time", "column": "city"}}),
]  # fmt: skip
NAMES = [
    case("column on both sides of a join", "both tables have a column 'age'; rename or drop yours before the join",
         join(TOWNS.assign(age=1))),
    case("rename onto a column", "two columns would be called 'income'; drop one of them first",
         table(op="rename", columns={"age": "income"})),
    case("target as id", "id and target are both 'buys'", lambda p: {"data": p.data(id="buys")}),
    case("target as weight", "weight and target are both 'buys'; name the column of what rows count in training, or",
         lambda p: {"data": p.data(weight="buys")}),
    case("id as weight", "weight and id are both 'key'", lambda p: {"data": p.data(weight="key")}),
    case("weight misspelt", r"data.wieght: unknown key 'wieght'. .*Did you mean 'weight'\?",
         lambda p: {"data": p.data(wieght="age")}),
    *(case(f"feature {name}", f"A feature is called '{name}', a name that the tables use themselves; rename the column",
           {"tables": [{"op": "derive", "name": name, "sql": "age"}, NO_TIMES], "features": [CITY]})
      for name in ("id", "bias", "class", "split", "ID")),
    *(case(f"target {name}", f"The target is called '{name}', a name that the table `features` uses itself; rename it",
           {"data": {"target": name}, "tables": [{"op": "rename", "columns": {"buys": name}}, NO_TIMES],
            "features": [CITY]})
      for name in ("id", "split")),
    case("input __id__", "the input: '__id__' is a name that the engine uses for columns of its own; choose another",
         lambda p: {"data": p.data(path=p.raw.assign(__id__=1))}),
    case("derived __id__", r"tables.0 \(derive\): '__id__' is a name that the engine uses",
         table(op="derive", name="__id__", sql="1")),
    case("dropped __id__", r"tables.0 \(drop\): '__id__' is a name that the engine uses",
         table(op="drop", columns=["__id__"])),
    case("level made twice", r"one_hot: there would be two features called 'city=\?'; rename a column in tables",
         {"tables": [NO_TIMES, {"op": "derive", "name": "city=?", "sql": "1"}], "features": [CITY]}),
    case("indicator made twice", "impute: there would be two features called 'income_missing'",
         {"tables": [{"op": "derive", "name": "income_missing", "sql": "1"}],
          **feature(op="impute", columns=["income"], method="constant", value=0, indicator=True)}),
    case("date part made twice", "date_parts: there would be two features called 'joined_hour'",
         {"tables": [{"op": "derive", "name": "joined_hour", "sql": "1"}],
          **feature(op="date_parts", columns=["joined"])}),
]  # fmt: skip
FOLDS = [
    case("preset misspelt", r"models: 'al' is neither a list of models nor one of \[all, fast\]. Did you mean 'all'\?",
         {**SIMPLE, "models": "al"}),
    case("folds without models", "compare: there are no models to compare; name some in models",
         {**SIMPLE, "models": [], "compare": {"folds": 3}}),
    case("one fold", "compare.folds: 1 is not allowed; it must be 2 or more", {**SIMPLE, "compare": {"folds": 1}}),
    case("folds by what is not known", r"compare.by: 'groups' is not allowed.*Did you mean 'group'\?",
         {**SIMPLE, "compare": {"by": "groups"}}),
    case("groups of no column", "compare.column: missing; by: group needs the column that it goes by",
         {**SIMPLE, "compare": {"by": "group"}}),
    case("column of no group", "compare.column is for by: group or by: time; leave one of them out",
         {**SIMPLE, "compare": {"column": "city"}}),
    case("column of folds", r"'cty' was not found in the rows after tables.*Did you mean 'city'\?",
         {"compare": {"by": "group", "column": "cty"}}),
    case("folds by the order of text", "compare: column 'city' is text; by: time orders the rows by a timestamp or a",
         {"compare": {"by": "time", "column": "city"}}),
    case("folds twice", "compare: split: {kind: folds} has the folds already; leave folds, by and column out",
         {**SIMPLE, "split": {"kind": "folds", "column": "city"}, "compare": {"folds": 3}}),
    case("time limit that is none", "compare.time_limit: 'soon' is no span of time; write a number and one of",
         {**SIMPLE, "compare": {"time_limit": "soon"}}),
    case("early stopping in folds", "early_stopping of xgboost: models that are compared by folds are trained without",
         {**SIMPLE, "models": [{"name": "xgboost", "early_stopping": {"rounds": 5}}], "compare": {"folds": 3}}),
    case("decision without folds", r"decision.threshold: .* needs folds. Add compare: {folds: 10}, or leave it out",
         {**SIMPLE, "decision": {"threshold": "f1"}}),
]  # fmt: skip
MODELS = [
    case("metric of numbers for classes", r"metric: 'rmse' is not for classification, .*; use one of \[accuracy, auc,",
         {"metric": "rmse", **SIMPLE}),
    case("metric of classes for numbers",
         r"'income' is float, and metric: auc is for classes, .*; add \{op: cast, columns: \{income: int\}\} to tables",
         {**INCOME, "metric": "auc"}),
    case("classes of floats", "'income' is float, and task: classification is for classes",
         {**INCOME, "data": {"target": "income", "task": "classification"}}),
    case("numbers of text", "The target 'buys' is text; task: regression needs numbers",
         {**SIMPLE, "data": {"target": "buys", "task": "regression"}, "metric": None}),
    case("time as target", "The target 'joined' is timestamp; models predict classes or numbers, so derive one",
         {"data": {"target": "joined"}}),
    case("regression model for classes",
         r"'lasso' does not do classification, which the target 'buys' asks for. Models that do: \[xgboost,",
         {**SIMPLE, "models": ["xgboost", "lasso"]}),
    case("classifier for numbers",
         r"'logistic_regression' does not do regression, which the target 'income' asks for. Models that do: \[xgboost",
         {**INCOME, "models": ["logistic_regression"]}),
    case("unknown parameter", r"parameter 'max_dept' of xgboost is not known to it. .*Did you mean 'max_depth'\?",
         {**SIMPLE, "models": [{"name": "xgboost", "params": {"max_dept": 3}}]}),
    case("parameter of the engine", "parameter 'objective' of xgboost is set by the engine. Allowed: ",
         {**SIMPLE, "models": [{"name": "xgboost", "params": {"objective": "x"}}]}),
    case("solver that is not ours", r"parameter 'solver' of logistic_regression has no meaning: .* Newton steps",
         {**SIMPLE, "models": [{"name": "logistic_regression", "params": {"solver": "lbfgs"}}]}),
    case("negative penalty", "alpha of ridge is -1; it should be greater than or equal to 0",
         {**SIMPLE, "models": [{"name": "ridge", "params": {"alpha": -1}}]}),
    case("class weight of no kind", "class_weight of ridge is 'even'; it should be a valid dictionary, or should be 'b",
         {**SIMPLE, "models": [{"name": "ridge", "params": {"class_weight": "even"}}]}),
    case("shrinkage without its solver", "shrinkage of lda is for the solver lsqr or eigen, and it has svd",
         {**SIMPLE, "models": [{"name": "lda", "params": {"shrinkage": 0.5}}]}),
    case("no trees", "n_estimators of xgboost is 0; it is a whole number, 1 or more",
         {**SIMPLE, "models": [{"name": "xgboost", "params": {"n_estimators": 0}}]}),
    case("neighbours with weights", "models: 'k_neighbours' takes no weights, and data.weight is 'age': scikit-learn",
         lambda p: {**SIMPLE, "data": p.data(weight="age"), "models": ["k_neighbours"]}),
    case("feature made from the target", "Features are made from the target 'buys', which rows to predict do not have",
         {**SIMPLE, "tables": [{"op": "derive", "name": "leak", "sql": "buys = 'yes'"},
                               {"op": "select", "columns": ["buys", "leak"]}]}),
    case("no feature", "No column is left to make features of", {**SIMPLE, **table(op="select", columns=["buys"])}),
]  # fmt: skip
PLACES = [
    case("no GPU", "device: cuda cannot be used: .*. Set device: auto or cpu",
         {"device": "cuda", "cluster": {"profile": "local"}}),
    case("no GPU for a profile", "cluster.profile: local-cuda with GPUs cannot be used: .*. Set device: auto or cpu",
         {"cluster": {"profile": "local-cuda"}}),
    case("memory for no worker", r"may use 48 MiB \(cluster.memory\), and needs [0-9]+ MiB before it has read a row",
         {"cluster": {"profile": "local", "memory": "50MB"}}),
    case("root that is a file", "people.parquet is a file; name a folder to write into",
         lambda p: {"artifacts": {"root": str(p.people)}}),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "words"), [*INPUTS, *MISSING_COLUMNS, *TYPES, *NAMES, *FOLDS, *MODELS, *PLACES])
def test_a_wrong_request_is_refused_before_anything_runs(
    people: Published, monkeypatch: pytest.MonkeyPatch, changes: Changes, words: str
) -> None:
    def started(*_: object, **__: object) -> None:
        raise AssertionError("a cluster was started")

    monkeypatch.setattr(runner, "open_cluster", started)
    people.refuses(2, words, **changed(changes, people))


def test_a_job_that_does_not_fit_the_memory_is_refused_by_the_plan(people: Published) -> None:
    zeros = pa.array(np.zeros(8_000_000, dtype=np.int8))
    path = people.folder / "many.parquet"
    pq.write_table(pa.table(dict.fromkeys(["a", "b", "c", "d", "buys"], zeros)), path)
    needed = r"The job does not fit: a worker would need about [0-9]+ MiB \(8000000 rows in 3 partitions, 1 features\)"
    people.refuses(
        2,
        f"{needed}, and may use 572 MiB; leave data.partitions out, or set it to 12 or more, or raise cluster.memory",
        data={"path": str(path), "target": "buys", "partitions": 3},
        tables=[{"op": "select", "columns": ["a", "buys"]}],
        features=[],
        cluster={"profile": "local", "workers": 1, "memory": "600MB"},
    )


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:9", "nonsense", "foo://127.0.0.1:9"])
def test_an_address_where_nothing_listens(people: Published, monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setattr(remote, "ATTACH_TIMEOUT", "1s")
    words = rf"No Dask scheduler answers at {address} \(cluster.address\): .* Start it, or use profile: local"
    people.refuses(2, words, cluster={"profile": "address", "address": address})


def test_all_mistakes_of_a_spec_are_told_at_once_with_their_lines(people: Published) -> None:
    spec = people.file(
        "mistakes.yaml",
        """apiVersion: treadle/v1
name: people
dta: {}
data: {path: people.parquet, target: buys, foramt: csv}
tables:
  - {op: fliter, sql: "age > 1"}
  - {op: filter, sql: "age >"}
models: [xgbost, {name: xgboost, params: 3}]
metric: aucc
cluster: {profile: locl}
""",
    )
    said = people.fails(2, "mistakes.yaml: 8 problems", "run", spec)
    for line in (
        "line 3, dta: unknown key 'dta'. Allowed: .* Did you mean 'data'",
        "line 4, data.foramt: unknown key 'foramt'. Allowed: .* Did you mean 'format'",
        r"line 6, tables.0.op: 'fliter' is not an operation. Allowed: .* Did you mean 'filter'\?",
        'line 7, tables.1.sql: In the expression "age >", character 5: it cannot be read',
        r"line 8, models.0: 'xgbost' is not in the catalogue of models. Allowed: .* Did you mean 'xgboost'\?",
        "line 8, models.1.params: expected a mapping, got the number 3",
        r"line 9, metric: 'aucc' is not allowed.* Did you mean 'auc'\?",
        r"line 10, cluster.profile: 'locl' is not a profile. Allowed: \[local, .*\]. Did you mean 'local'\?",
    ):
        assert re.search(line, said)
    assert len(said.splitlines()) == 9


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("data.x.y=3", r"data.x: unknown key 'x'. Allowed: .* \(from --set\)"),
        (
            "models.7.name=x",
            r"models.7.name: the list 'models' has the items 0 to 0; it has no item '7' \(from --set\)",
        ),
        ("nonsense", "--set 'nonsense' is not of the form path=value, such as data.path=other.parquet"),
        ("seed=many", r"seed: expected a whole number, got text 'many' \(from --set\)"),
        ("data.path=none-*.parquet", r"Nothing matches the glob 'none-\*.parquet'"),
    ],
)
def test_set_of_what_cannot_be_set(people: Published, given: str, words: str) -> None:
    people.refuses(2, words, "--set", given)


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("run nowhere.yaml", "Spec file 'nowhere.yaml' was not found in "),
        ("run spec.toml", "Spec file 'spec.toml' must be named .yaml, .yml or .json"),
        ("show peple", r"There is no run 'peple' under .*. Newest: \[people-"),
        ("predict --model peple --input x.parquet --output o",
         r"There is no model 'peple' under .*. Models: \[people\]. Did you mean 'people'\?"),
        ("predict --model people:9 --input x.parquet --output o", r"Model 'people' has no version 9. Versions: \[1\]"),
        ("predict --model people:new --input x --output o", "the version after the colon is a whole number"),
        ("predict --model people --input no.parquet --output o", "Input 'no.parquet' was not found"),
        ("predict --model people --input no*.parquet --output o", r"Nothing matches the glob 'no\*.parquet'"),
        ("predict --model people --input x --output o --format arrow", "--format: 'arrow' is not known"),
    ],
)  # fmt: skip
def test_names_of_what_is_not_there(people: Published, command: str, words: str) -> None:
    people.fails(2, words, *command.split(), "--root", people.root)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("transactions", "--rows", "many"), "--rows: 'many' is no whole number; write 1000000 or 1e6"),
        (("transactions", "--rows", "1.5"), "--rows: '1.5' is no whole number"),
        (("transactions", "--rows", "nan"), "--rows: 'nan' is no whole number"),
        (("transactions", "--rows", "1e999"), "--rows: '1e999' is no whole number"),
        (("transactions", "--rows", "0"), "make-data: rows is 0; ask for at least 1"),
        (("transaction",), r"make-data: 'transaction' is not known. Allowed: \[transactions\]"),
    ],
)
def test_data_that_cannot_be_made(people: Published, options: tuple[str, ...], words: str) -> None:
    people.fails(2, words, "make-data", *options, "--out", str(people.folder / "made"))
    assert not (people.folder / "made").exists()
