"""The command line: what each command prints, where, and with which exit status."""

from __future__ import annotations

import json
import os
import re
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import typer
from ruamel.yaml import YAML
from typer.testing import CliRunner, Result

import treadle
from tests.conftest import people_spec, write_people
from treadle.cluster.launch import open_cluster
from treadle.cluster.profiles import Attached
from treadle.engine.job import MODEL_NAMES
from treadle.jobs import runner
from treadle.jobs.cli import app
from treadle.jobs.commands.options import messages
from treadle.jobs.spec import JobSpec

EXAMPLES = sorted((Path(__file__).parents[2] / "jobs" / "examples").glob("*.yaml"))
COMMANDS = (
    "run",
    "check",
    "plan",
    "predict",
    "auto",
    "profile",
    "runs",
    "show",
    "gc",
    "lineage",
    "reproduce",
    "openlineage",
    "schema",
    "doctor",
    "parity",
    "warmup",
    "make-data",
    "tables",
    "diff",
    "rollback",
    "bench",
    "submit",
    "status",
    "list",
    "logs",
    "wait",
    "cancel",
    "retry",
    "result",
    "schedule",
    "up",
    "down",
    "tokens",
    "certs",
    "models",
    "promote",
    "card",
    "dvc",
)
GROUPS = ("bench", "schedule", "tokens", "dvc")
IN_GROUPS = (
    *("bench treeshap", "bench predict", "bench fraud"),
    *("schedule put", "schedule list", "schedule remove"),
    *("tokens add", "tokens list", "tokens remove"),
    *("dvc export", "dvc metrics"),
)
HEAVY = (
    "pandas",
    "numpy",
    "pyarrow",
    "dask",
    "distributed",
    "xgboost",
    "sklearn",
    "numba",
    "deltalake",
    "pydantic",
    "mlflow",
)


def treadle_says(*command: str | Path, status: int = 0) -> Result:
    result = CliRunner().invoke(app, [str(part) for part in command])
    assert result.exit_code == status, result.output
    return result


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory, scheduler: str) -> Path:
    """A spec that was never run, and a good one beside it that was; filters leave rows out."""
    folder = tmp_path_factory.mktemp("cli")
    people = write_people(folder / "people.parquet", rows=300)
    tables = [
        {"op": "filter", "sql": "age >= 25"},
        {"op": "filter", "sql": "buys IS NOT NULL"},
        {"op": "derive", "name": "log_income", "sql": "ln(income)"},
        {"op": "drop", "columns": ["income"]},
    ]
    spec = people_spec(people, folder / "artifacts", scheduler, tables=tables, predict={"rows": "all"})
    path = folder / "people.json"
    path.write_text(json.dumps(spec))
    return path


@pytest.fixture
def attached(scheduler: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Batch prediction runs on the session's cluster, which is there already."""
    profile = Attached(profile="address", address=scheduler)
    monkeypatch.setattr("treadle.jobs.predict.open_cluster", lambda _: open_cluster(profile))


@pytest.fixture(scope="module")
def ran(job: Path) -> dict[str, Any]:
    """The manifest that `treadle run --json` prints."""
    result = treadle_says("run", job, "--json")
    assert result.stderr == ""
    assert len(result.stdout.splitlines()) == 1
    manifest: dict[str, Any] = json.loads(result.stdout)
    return manifest


def test_help_lists_the_commands_at_once() -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-X", "importtime", "-m", "treadle", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    listed = re.findall(r"^  ([a-z-]+)  +[A-Z]", done.stdout.partition("Commands:")[2], flags=re.MULTILINE)
    assert sorted(listed) == sorted(COMMANDS)
    imported = {line.rsplit("|", 1)[-1].strip() for line in done.stderr.splitlines()}
    assert "typer" in imported
    assert not imported.intersection(HEAVY)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert seconds < 0.5, f"{seconds:.2f} s of CPU"


@pytest.mark.parametrize("command", [*(name for name in COMMANDS if name not in GROUPS), *IN_GROUPS])
def test_every_command_has_help(command: str) -> None:
    said = treadle_says(*command.split(), "--help").stdout
    assert f"Usage: treadle {command}" in said
    assert "--debug" in said


def test_plan_shows_what_will_run_and_what_is_cached(job: Path) -> None:
    fresh_root = job.parent / "planned"
    spec = treadle_says("plan", job, "--root", fresh_root).stdout
    assert "Job people, on cpu" in spec
    assert "300 rows in 1 partitions" in spec
    assert spec.count("to run") == len(
        re.findall("│ (read|etl|split|features|train|evaluate|explain|predict|publish)", spec)
    )
    assert "cached" not in spec
    assert not fresh_root.exists(), "a plan writes nothing"

    treadle_says("run", job, "--root", fresh_root, "--quiet")
    planned = json.loads(treadle_says("plan", job, "--root", fresh_root, "--json").stdout)
    statuses = {stage["stage"]: stage["status"] for stage in planned["stages"]}
    assert statuses.pop("publish") == "to run"
    assert set(statuses.values()) == {"cached"}
    again = json.loads(treadle_says("plan", job, "--root", fresh_root, "--json", "--fresh").stdout)
    assert {stage["status"] for stage in again["stages"]} == {"to run"}
    changed = ("plan", job, "--root", fresh_root, "--json", "--set", "models.0.params.max_depth=2")
    statuses = {s["stage"]: s["status"] for s in json.loads(treadle_says(*changed).stdout)["stages"]}
    assert [name for name, status in statuses.items() if status == "to run"] == [
        "train:xgboost", "evaluate", "explain", "predict", "publish",
    ]  # fmt: skip


def test_check_tells_columns_and_target_and_writes_nothing(job: Path, tmp_path: Path) -> None:
    said = treadle_says("check", job, "--root", tmp_path / "root").stdout
    assert "people: the spec fits its input (1 parquet files, 300 rows)" in said
    assert re.search(r"│ joined +│ timestamp +│ timestamp", said)
    assert re.search(r"│ income +│ float +│ +│", said), "a column that is dropped has no kind after tables"
    found = json.loads(treadle_says("check", job, "--json").stdout)
    assert found["rows"] == 300
    assert found["target"]["column"] == "buys"
    assert sum(found["target"]["classes"].values()) == 300
    assert not (tmp_path / "root").exists()


def test_run_prints_one_json_document(job: Path, ran: dict[str, Any]) -> None:
    assert ran["status"] == "succeeded"
    assert {table["name"] for table in ran["tables"]} == {"features", "leaderboard", "predictions", "explanations"}
    assert ran["spec"]["name"] == "people"
    failed = treadle_says("run", job, "--json", "--set", "data.positive_class=no!", status=1)
    assert len(failed.stdout.splitlines()) == 1
    error = json.loads(failed.stdout)
    assert error["status"] == "error"
    assert failed.stderr == f"treadle: {error['error']}\n"


def test_run_tells_its_progress_on_stderr_and_its_outcome_on_stdout(job: Path, ran: dict[str, Any]) -> None:
    told = treadle_says("run", job, "--set", "artifacts.sample=31")
    stages = [line.split()[0] for line in told.stderr.splitlines()]
    assert stages == ["cluster", *(record["stage"] for record in ran["stages"])]
    assert re.search(r"^read +cached$", told.stderr, flags=re.MULTILINE)
    # Where it runs and why is said once.
    assert re.search(r"^cluster +ready on the CPU \(auto: \w.*\); dashboard http", told.stderr, flags=re.MULTILINE)
    assert told.stderr.count("auto: ") == 1
    assert "Leaderboard by auc" in told.stdout
    assert "Top features of xgboost" in told.stdout
    for table in ran["tables"]:
        assert table["path"] in told.stdout
    again = treadle_says("run", job, "--set", "artifacts.sample=31")
    assert re.fullmatch(r"Nothing has changed since people-\S+, which is shown; --fresh runs .*\n", again.stderr)
    assert again.stdout == told.stdout
    quiet = treadle_says("run", job, "--quiet")
    assert quiet.stderr == ""
    assert "Leaderboard by auc" in quiet.stdout


def test_runs_and_show(job: Path, ran: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    root = job.parent / "artifacts"
    listed = json.loads(treadle_says("runs", "--root", root, "--json").stdout)
    assert {"run": ran["run"], "status": "succeeded", "model": "people:1"}.items() <= {
        row["run"]: row for row in listed
    }[ran["run"]].items()
    assert ran["run"] in treadle_says("runs", "--root", root).stdout
    shown = treadle_says("show", ran["run"], "--root", root).stdout
    for words in ("Leaderboard by auc", "Stages", "train:xgboost", "Written", "explanations", "Model people:1"):
        assert words in shown
    assert json.loads(treadle_says("show", ran["run"][:-2], "--root", root, "--json").stdout) == ran
    monkeypatch.setenv("TREADLE_ROOT", str(root))
    assert json.loads(treadle_says("show", ran["run"], "--json").stdout) == ran
    assert "No runs under" in treadle_says("runs", "--root", job.parent / "empty").stdout


def valid(value: Any, schema: dict[str, Any], root: dict[str, Any]) -> bool:
    """The part of JSON Schema that ours uses, read from the standard and slow."""
    if "$ref" in schema:
        return valid(value, root["$defs"][schema["$ref"].rsplit("/", 1)[-1]], root)
    if "anyOf" in schema:
        return any(valid(value, option, root) for option in schema["anyOf"])
    if "oneOf" in schema:
        return sum(valid(value, option, root) for option in schema["oneOf"]) == 1
    if "enum" in schema and value not in schema["enum"]:
        return False
    if "const" in schema and value != schema["const"]:
        return False
    kinds = {
        "object": dict, "array": list, "string": str, "boolean": bool, "null": type(None), "integer": int,
        "number": (int, float),
    }  # fmt: skip
    if "type" in schema and (
        not isinstance(value, kinds[schema["type"]])
        or (isinstance(value, bool) and schema["type"] in ("integer", "number"))
    ):
        return False
    if isinstance(value, dict):
        known, more = schema.get("properties", {}), schema.get("additionalProperties", True)
        return set(schema.get("required", ())) <= set(value) and all(
            valid(item, known[key], root) if key in known else more is True or (more and valid(item, more, root))
            for key, item in value.items()
        )
    if isinstance(value, list):
        return len(value) >= schema.get("minItems", 0) and all(valid(v, schema.get("items", {}), root) for v in value)
    if isinstance(value, str):
        return re.search(schema.get("pattern", ""), value) is not None and len(value) >= schema.get("minLength", 0)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return schema.get("minimum", -np.inf) <= value <= schema.get("maximum", np.inf)
    return True


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(treadle_says("schema").stdout)
    return found


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_schema_takes_the_examples_and_the_spec_of_these_tests(
    path: Path, job: Path, schema: dict[str, Any]
) -> None:
    assert set(schema["properties"]) == set(JobSpec.model_fields)
    for spec in (YAML(typ="safe").load(path), json.loads(job.read_text())):
        assert valid(spec, schema, schema)
        for wrong in (
            {**spec, "modles": []},
            {**spec, "apiVersion": "treadle/v2"},
            {**spec, "models": ["xgbost"]},
            {**spec, "models": [{"name": "xgbost"}]},
            {**spec, "features": [{"op": "scale", "columns": "numbers"}]},
            {**spec, "split": {"kind": "stratified", "test_size": "half"}},
            {key: value for key, value in spec.items() if key != "data"},
        ):
            assert not valid(wrong, schema, schema), wrong
    assert valid({**spec, "models": list(MODEL_NAMES)}, schema, schema)
    assert valid({**spec, "models": [{"name": "mine", "estimator": "package.module:Class"}]}, schema, schema)
    assert not valid({**spec, "models": [{"name": "mine", "estimator": "package.module.Class"}]}, schema, schema)


@pytest.mark.parametrize("format_", ["parquet", "delta"])
def test_predict_writes_what_the_run_predicted(
    job: Path, ran: dict[str, Any], format_: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if format_ == "delta":  # once with a cluster of its own is enough
        request.getfixturevalue("attached")
    root = job.parent / "artifacts"
    raw = pd.read_parquet(job.parent / "people.parquet").drop(columns="buys")
    halves = [tmp_path / f"half-{i}.parquet" for i in (0, 1)]
    raw.head(140).to_parquet(halves[0])
    raw.tail(160).to_parquet(halves[1], row_group_size=50)
    out = tmp_path / "out" / "scored"
    command = ("predict", "--model", "people", "--input", halves[0], "--input", halves[1], "--output", out,
               "--root", root, "--workers", "1", "--explain", "--format", format_)  # fmt: skip
    done = json.loads(treadle_says(*command, "--json").stdout)
    kept = int((raw["age"] >= 25).sum())
    assert (done["rows_read"], done["rows_predicted"]) == (300, kept)
    assert done["left_out"] == ["tables.1 (filter)"]
    predictions = read(out, format_)
    explanations = read(Path(f"{out}-explanations"), format_)
    assert list(predictions["id"]) == list(explanations["id"]) == list(raw.loc[raw["age"] >= 25, "key"])

    expected = treadle.load_run(str(root), ran["run"]).table("predictions").to_pandas().set_index("id")
    found = predictions.set_index("id").loc[expected.index]
    np.testing.assert_allclose(found["score"], expected["score"], atol=1e-6)
    np.testing.assert_allclose(found["margin"], expected["margin"], atol=1e-6)
    assert (found["class"] == expected["class"]).all()
    sums = explanations.drop(columns="id").sum(axis=1)
    np.testing.assert_allclose(sums, predictions["margin"], atol=1e-4)
    assert sorted(path.name for path in tmp_path.joinpath("out").iterdir()) == ["scored", "scored-explanations"]
    if format_ == "delta":
        again = treadle_says(*command, "--quiet")
        assert again.stdout == again.stderr == ""
        assert read(out, format_, version=1).equals(predictions)
    else:
        assert "is not empty" in treadle_says(*command, "--quiet", status=2).stderr


def read(folder: Path, format_: str, version: int | None = None) -> pd.DataFrame:
    if format_ == "parquet":
        return pd.concat([pd.read_parquet(path) for path in sorted(folder.glob("*.parquet"))], ignore_index=True)
    from deltalake import DeltaTable

    frame: pd.DataFrame = DeltaTable(folder, version=version).to_pandas()
    return frame.sort_values("id", ignore_index=True)


@pytest.mark.usefixtures("attached", "ran")
def test_predict_tells_what_it_wrote(job: Path, tmp_path: Path) -> None:
    csv = tmp_path / "raw.csv"
    raw = pd.read_parquet(job.parent / "people.parquet").drop(columns="buys")
    raw.to_csv(csv, index=False)
    told = treadle_says("predict", "--model", "people:1", "--input", csv, "--output", tmp_path / "scores",
                        "--root", job.parent / "artifacts", "--workers", "1")  # fmt: skip
    assert f"people:1: {(raw['age'] >= 25).sum()} of 300 rows predicted" in told.stdout
    assert "left out, because it needs the target: tables.1 (filter)" in told.stdout
    assert str(tmp_path / "scores") in told.stdout
    expected = treadle.load_model("people", root=str(job.parent / "artifacts")).predict(raw)
    np.testing.assert_allclose(read(tmp_path / "scores", "parquet")["score"], expected["score"], atol=1e-12)


def test_make_data_writes_and_says_what(tmp_path: Path) -> None:
    command = ("make-data", "transactions", "--rows", "1e3", "--partitions", "2", "--out", tmp_path / "data")
    made = json.loads(treadle_says(*command).stdout)
    assert (made["rows"], made["partitions"]) == (1000, 2)
    assert len(pd.read_parquet(tmp_path / "data" / "transactions")) == 1000
    assert len(list((tmp_path / "data" / "transactions").glob("*.parquet"))) == 2
    assert treadle_says(*command, "--quiet").stdout == ""


def test_names_with_brackets_are_shown_as_they_are(scheduler: str, tmp_path: Path) -> None:
    people = write_people(tmp_path / "people.parquet", rows=200)
    raw = pd.read_parquet(people).rename(columns={"age": "[/age]", "income": "[bold]:smile:"})
    raw[["[/age]", "[bold]:smile:", "buys"]].to_parquet(people)
    spec = people_spec(
        people, tmp_path / "root", scheduler, data={"path": str(people), "target": "buys"}, tables=[], features=[]
    )
    path = tmp_path / "odd.json"
    path.write_text(json.dumps(spec))
    assert "│ [/age] " in treadle_says("check", path).stdout
    assert "│ [bold]:smile: " in treadle_says("run", path, "--quiet").stdout


def test_ctrl_c_is_told_in_a_line(job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(runner, "run", interrupted)
    assert treadle_says("run", job, status=130).stderr == "treadle: cancelled; nothing was published\n"


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("", "Usage: treadle"),
        ("rn spec.yaml", "No such command 'rn'. Did you mean 'run'"),
        ("run", "Missing argument 'spec'"),
        ("run spec.yaml --frsh", "No such option: --frsh .*--fresh"),
        ("predict --model m --output o", "Missing option '--input'"),
        ("predict --model m --input i --output o --workers 0", "Invalid value for '--workers'"),
        ("bench", "Usage: treadle bench"),
        ("bench tresahp", "No such command 'tresahp'. Did you mean 'treeshap'"),
        ("bench treeshap --repeats 0", "Invalid value for '--repeats'"),
        ("make-data transactions --partitions many --out o", "Invalid value for '--partitions'"),
    ],
)
def test_a_command_that_cannot_be_read_shows_how(command: str, words: str) -> None:
    result = treadle_says(*command.split(), status=2)
    assert re.search(words, result.stderr + result.stdout)
    assert "Traceback" not in result.stderr


def test_python_m_treadle_exits_with_the_status(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "treadle", "show", "nothing", "--root", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "NO_COLOR": "1"}, check=False)
    assert done.returncode == 2
    assert done.stderr == f"treadle: There is no run 'nothing' under {tmp_path}. Newest: [].\n"
    assert done.stdout == ""


def test_a_reader_that_has_read_enough_is_no_error() -> None:
    command = f"{sys.executable} -m treadle schema | head -1"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True)
    assert done.stdout == "{\n"
    assert done.stderr == ""


def test_an_object_store_that_cannot_be_asked_is_no_bug(capsys: pytest.CaptureFixture[str]) -> None:
    exceptions = pytest.importorskip("botocore.exceptions")
    with pytest.raises(typer.Exit) as ended, messages(debug=False):
        raise exceptions.NoCredentialsError()
    assert ended.value.exit_code == 1
    said = capsys.readouterr().err
    assert said.startswith("treadle: An object store cannot be reached: Unable to locate credentials. Look at the cred")
    assert "bug" not in said
