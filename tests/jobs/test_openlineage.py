"""Runs as OpenLineage events: what they say is what the manifest and the tables have, and a server gets them."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, ClassVar
from uuid import UUID

import pandas as pd
import pytest
from typer.testing import CliRunner, Result

import treadle
from tests.conftest import people_spec, write_people
from treadle.errors import ContractBroken
from treadle.jobs.cli import app
from treadle.jobs.column_lineage import column_lineage
from treadle.jobs.dataset_names import of_path, without_secrets
from treadle.jobs.run import Run, list_runs

pytest.importorskip("openlineage.client", reason="openlineage-python is not installed: the extra `lineage`")

TABLES = [
    {"op": "filter", "sql": "age > 20"},
    {"op": "derive", "name": "pay", "sql": "ln(income) + rate"},
    {"op": "rename", "columns": {"age": "years"}},
    {
        "op": "aggregate", "by": ["city"], "broadcast": True,
        "aggregations": {"of_city": {"function": "mean", "column": "pay"}, "n": {"function": "count"}},
    },
    {"op": "filter", "sql": "buys is not null"},
    {"op": "drop", "columns": ["income", "joined", "rate"]},
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("openlineage")


@pytest.fixture(scope="module")
def run(folder: Path, scheduler: str) -> Run:
    write_people(folder / "people.parquet", rows=300)
    rates = pd.DataFrame({"town": ["Ulm", "Bonn", "Köln"], "rate": [1.0, 2.0, 3.0], "unused": ["a", "b", "c"]})
    rates.to_parquet(folder / "rates.parquet")
    side = {"path": str(folder / "rates.parquet"), "rename": {"town": "city"}, "columns": ["town", "rate"]}
    join = {"op": "join", "with": side, "on": ["city"], "how": "inner"}
    features = [
        {"op": "impute", "columns": ["pay", "of_city"], "indicator": True},
        {"op": "one_hot", "columns": ["city"]},
        {"op": "scale", "columns": "numeric"},
    ]
    spec = people_spec(folder / "people.parquet", folder / "a", scheduler, tables=[join, *TABLES], features=features)
    spec["data"]["protected"] = ["city"]
    return treadle.run(spec)


def command(*words: str | Path, status: int = 0, **environment: str) -> Result:
    result = CliRunner().invoke(app, ["openlineage", *map(str, words)], env=environment)
    assert result.exit_code == status, result.output
    return result


@pytest.fixture(scope="module")
def events(run: Run) -> list[dict[str, Any]]:
    return [json.loads(line) for line in command(run.id, "--root", run.store.url).stdout.splitlines()]


def test_a_run_starts_and_completes_once(run: Run, events: list[dict[str, Any]]) -> None:
    assert [event["eventType"] for event in events] == ["START", "COMPLETE"]
    start, end = (pd.Timestamp(event["eventTime"]) for event in events)
    assert start == pd.Timestamp(run.manifest["started"])
    assert (end - start).total_seconds() == pytest.approx(run.manifest["seconds"], abs=1e-3)
    assert {event["run"]["runId"] for event in events} == {str(UUID(events[0]["run"]["runId"]))}
    again = [json.loads(line) for line in command(run.id, "--root", run.store.url).stdout.splitlines()]
    assert again == events, "who sends them twice tells of one run"
    for event in events:
        assert event["schemaURL"].endswith("#/$defs/RunEvent")
        assert event["producer"] == "urn:treadle:0.1.0"
        assert (event["job"]["namespace"], event["job"]["name"]) == ("treadle", "people")
        facets = event["job"]["facets"]
        assert json.loads(facets["sourceCode"]["sourceCode"]) == run.manifest["spec"]
        assert (facets["jobType"]["processingType"], facets["jobType"]["integration"]) == ("BATCH", "TREADLE")
        assert event["run"]["facets"]["processing_engine"]["version"] == "0.1.0"
        tags = {tag["key"]: tag["value"] for tag in event["run"]["facets"]["tags"]["tags"]}
        assert tags == {
            "treadle.run": run.id,
            "treadle.spec": run.manifest["spec_digest"],
            "treadle.seed": "7",
            "treadle.sources": run.manifest["code"]["sources"],
        }


def test_inputs_and_outputs_are_those_of_the_manifest(run: Run, folder: Path, events: list[dict[str, Any]]) -> None:
    start, end = events
    assert start["outputs"] == []
    assert start["inputs"] == end["inputs"]
    people, rates = end["inputs"]
    assert (people["namespace"], people["name"]) == ("file", str(folder / "people.parquet"))
    assert rates["name"] == str(folder / "rates.parquet")
    assert people["facets"]["version"]["datasetVersion"] == run.manifest["inputs"][0]["digest"]
    fields = {field["name"]: field["type"] for field in people["facets"]["schema"]["fields"]}
    assert fields == run.manifest["results"]["read"]["kinds"]
    statistics = people["inputFacets"]["inputStatistics"]
    size = (folder / "people.parquet").stat().st_size
    assert (statistics["rowCount"], statistics["size"], statistics["fileCount"]) == (300, size, 1)
    outputs = {Path(output["name"]).name: output for output in end["outputs"]}
    assert outputs.keys() == {*run.tables, "people"}
    for name, table in run.tables.items():
        facets = outputs[name]["facets"]
        assert outputs[name]["name"] == table.path
        assert facets["version"]["datasetVersion"] == str(table.version)
        assert facets["storage"]["storageLayer"] == "delta"
        assert outputs[name]["outputFacets"]["outputStatistics"]["rowCount"] == table.rows
        assert [field["name"] for field in facets["schema"]["fields"]] == table.to_arrow().column_names
    assert outputs["people"]["facets"]["datasetType"]["datasetType"] == "MODEL"
    assert outputs["people"]["facets"]["version"]["datasetVersion"] == "1"


def test_columns_are_made_from_what_the_spec_makes_them_from(run: Run, events: list[dict[str, Any]]) -> None:
    """By hand, from the operations above; `of_city` is a mean of `pay`, and so made from all that makes that."""
    outputs = {Path(output["name"]).name: output["facets"].get("columnLineage") for output in events[1]["outputs"]}
    assert outputs["leaderboard"] is None
    assert outputs["people"] is None

    def inputs(fields: list[dict[str, Any]]) -> set[str]:
        return {f"{Path(one['name']).stem}.{one['field']}" for one in fields}

    features = {name: inputs(field["inputFields"]) for name, field in outputs["features"]["fields"].items()}
    pay = {"people.income", "people.city", "rates.rate"}
    expected = {
        "id": {"people.key"},
        "years": {"people.age"},
        "member": {"people.member"},
        "pay": pay,
        "pay_missing": pay,
        "of_city": pay,
        "of_city_missing": pay,
        "n": {"people.city"},
        "city=Ulm": {"people.city"},
        "protected.city": {"people.city"},
        "buys": {"people.buys"},
    }
    assert {name: found for name, found in features.items() if name in expected} == expected
    every = set().union(*(found for name, found in features.items() if name not in ("id", "buys")))
    for table in ("predictions", "explanations"):
        fields = {name: inputs(field["inputFields"]) for name, field in outputs[table]["fields"].items()}
        assert fields.pop("id") == {"people.key"}
        assert set(map(frozenset, fields.values())) == {frozenset(every)}
        assert inputs(outputs[table]["dataset"]) == {"people.age", "people.buys", "people.city", "rates.town"}
    kinds = {(t["type"], t["subtype"]) for one in outputs["features"]["dataset"] for t in one["transformations"]}
    assert kinds == {("INDIRECT", "FILTER")}


def test_nothing_is_said_of_columns_when_an_input_is_gone_or_another(run: Run, folder: Path) -> None:
    path = folder / "rates.parquet"
    assert column_lineage(run, "features", ["years"]) is not None
    path.rename(folder / "hidden")
    try:
        assert column_lineage(run, "features", ["years"]) is None
    finally:
        (folder / "hidden").rename(path)
    read = {**run.manifest["results"]["read"], "kinds": {"key": "int"}}
    other = Run(run.store, {**run.manifest, "results": {**run.manifest["results"], "read": read}})
    assert column_lineage(other, "features", ["years"]) is None


def test_groups_that_take_the_place_of_rows(folder: Path, run: Run, scheduler: str) -> None:
    spec = people_spec(
        folder / "people.parquet", folder / "b", scheduler, name="groups",
        data={"path": str(folder / "people.parquet")},
        tables=[
            {"op": "derive", "name": "double", "sql": "age * 2"},
            {"op": "aggregate", "by": ["city"], "aggregations": {"old": {"function": "max", "column": "double"}}},
            {"op": "derive", "name": "older", "sql": "old + 1"},
        ],
    )  # fmt: skip
    for key in ("models", "split", "metric", "features"):
        del spec[key]
    made = treadle.run(spec)
    found = column_lineage(made, "etl", ["city", "old", "older"])
    assert found is not None
    of_age = {("data", "age"), ("data", "city")}
    assert found.columns == {"city": {("data", "city")}, "old": of_age, "older": of_age}


def test_a_run_that_failed_tells_why(folder: Path, run: Run, scheduler: str) -> None:
    broken = [{"expect": "rows", "min": 1000}]
    with pytest.raises(ContractBroken):
        treadle.run(people_spec(folder / "people.parquet", folder / "f", scheduler, contract=broken))
    (failed,) = list_runs(str(folder / "f"))
    lines = command(failed["run"], "--root", folder / "f", "--namespace", "mine").stdout.splitlines()
    start, end = map(json.loads, lines)
    assert (start["eventType"], end["eventType"]) == ("START", "FAIL")
    assert "errorMessage" not in start["run"]["facets"]
    assert end["run"]["facets"]["errorMessage"]["message"].startswith("The input breaks its contract")
    assert end["outputs"] == []
    assert [one["name"] for one in end["inputs"]] == [str(folder / "people.parquet")]
    assert end["job"]["namespace"] == "mine"


class Receiver(BaseHTTPRequestHandler):
    """A server of OpenLineage: takes events, unless it is told to refuse them."""

    got: ClassVar[list[tuple[str, str | None, dict[str, Any]]]] = []
    status: ClassVar[int] = 201

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        Receiver.got.append((self.path, self.headers.get("Authorization"), json.loads(body)))
        self.send_response(Receiver.status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Receiver) as http:
        Receiver.got.clear()
        Receiver.status = 201
        thread = threading.Thread(target=http.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{http.server_port}"
        http.shutdown()
        thread.join()


def test_a_server_gets_the_events(run: Run, folder: Path, events: list[dict[str, Any]], server: str) -> None:
    out = folder / "events.jsonl"
    told = command(run.id, "--root", run.store.url, "--to", server, "--out", out, OPENLINEAGE_API_KEY="k3y")
    assert told.stderr == f"2 events: {out} and {server}\n"
    assert told.stdout == ""
    assert [json.loads(line) for line in out.read_text().splitlines()] == events
    assert [(path, key) for path, key, _ in Receiver.got] == [("/api/v1/lineage", "Bearer k3y")] * 2
    assert [event for _, _, event in Receiver.got] == events
    Receiver.got.clear()
    command(run.id, "--root", run.store.url, "--quiet", OPENLINEAGE_URL=server)
    assert [(key, event["eventType"]) for _, key, event in Receiver.got] == [(None, "START"), (None, "COMPLETE")]


def test_a_server_that_does_not_take_them_is_one_message(run: Run, folder: Path, server: str) -> None:
    Receiver.status = 400
    said = command(run.id, "--root", run.store.url, "--to", server, status=1).stderr
    assert said.startswith(f"treadle: {server} did not accept an event of OpenLineage (0 of 2 events were sent): 400")
    Receiver.status = 201
    assert "is no URL of a server" in command(run.id, "--root", run.store.url, "--to", "ftp://x", status=2).stderr
    nowhere = command(run.id, "--root", run.store.url, "--out", folder / "no" / "x.jsonl", status=2).stderr
    assert "there is no folder" in nowhere


def test_a_server_that_is_not_there_is_one_message(run: Run, server: str) -> None:
    port = int(server.rpartition(":")[2])
    closed = f"http://127.0.0.1:{port - 1 if port > 1025 else port + 1}"
    said = command(run.id, "--root", run.store.url, "--to", closed, status=1).stderr
    assert said.startswith(f"treadle: {closed} did not accept an event of OpenLineage (0 of 2 events were sent)")
    assert "Traceback" not in said


def test_without_the_library_the_message_says_what_to_install(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openlineage.client", None)
    said = command(run.id, "--root", run.store.url, status=2).stderr
    assert said == (
        "treadle: The library openlineage-python is not installed, which makes and sends the events: "
        "pip install 'treadle[lineage]'.\n"
    )


@pytest.mark.parametrize(
    ("path", "namespace", "name"),
    [
        ("/data/a b.parquet", "file", "/data/a b.parquet"),
        ("file:///data/a.parquet", "file", "/data/a.parquet"),
        ("s3://bucket/folder/a.parquet", "s3://bucket", "folder/a.parquet"),
        ("https://me:secret@example.org/a.csv?token=1", "https://example.org", "a.csv"),
    ],
)
def test_datasets_are_called_as_openlineage_calls_them(path: str, namespace: str, name: str) -> None:
    found = of_path(path)
    assert (found.namespace, found.name) == (namespace, name)
    assert "secret" not in found.uri
    assert "token" not in found.uri


def test_a_dataset_holds_the_files_that_its_path_names() -> None:
    assert of_path("/a/b").holds("/a/b/c.parquet")
    assert of_path("/a/*.csv").holds("/a/1.csv")
    assert of_path("s3://x/b").holds("s3://x/b/1.parquet")
    assert not of_path("/a/b").holds("/a/bc.parquet")


def test_no_secret_of_a_spec_leaves_the_machine() -> None:
    spec = {"data": {"path": ["https://me:secret@example.org/a.csv?token=1#x", "/a?b"]}, "n": 1}
    assert without_secrets(spec) == {"data": {"path": ["https://example.org/a.csv#x", "/a?b"]}, "n": 1}
