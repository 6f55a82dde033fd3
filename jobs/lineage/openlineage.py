"""A run as OpenLineage events: START, and COMPLETE, FAIL or ABORT, with what it read and what it made.

The classes are those of the library `openlineage-python`, which also sends them. Whatever an event says is in the
run's manifest, its tables and its model: nothing is guessed.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from treadle.errors import RequestError, StorageError, TreadleError
from treadle.jobs.lineage.columns import column_lineage, facet
from treadle.jobs.lineage.dataset_names import Named, input_names, named, without_secrets
from treadle.versions import version_of

if TYPE_CHECKING:
    from openlineage.client.event_v2 import InputDataset, OutputDataset, RunEvent

    from treadle.jobs.run import Run, Table

PRODUCER = f"urn:treadle:{version_of('treadle')}"
"""Who the events say made them."""
ENDS = {"succeeded": "COMPLETE", "failed": "FAIL", "cancelled": "ABORT"}
INSTALL = "pip install 'treadle[lineage]'"
SECONDS = 10.0
"""Longest that a server may take to accept an event."""


def events_of(run: Run, namespace: str = "treadle") -> list[RunEvent]:
    """Both events of a run, in the order of time.

    Raises
    ------
    RequestError
        The library openlineage-python is not installed.
    """
    _require()
    from openlineage.client import event_v2 as ol

    manifest = run.manifest
    started = datetime.fromisoformat(manifest["started"])
    ended = started + timedelta(seconds=manifest["seconds"] or 0.0)
    end = ENDS[run.status]
    inputs = list(_inputs(run))
    outputs = list(_outputs(run)) if end == "COMPLETE" else []
    job = ol.Job(namespace, run.job, _job_facets(run))

    def event(kind: str, time: datetime, facets: dict[str, Any]) -> RunEvent:
        return ol.RunEvent(
            eventType=ol.RunState(kind),
            eventTime=time.isoformat(),
            run=ol.Run(_uuid(run, started), facets),
            job=job,
            inputs=inputs,
            outputs=outputs if kind == "COMPLETE" else [],
            producer=PRODUCER,
        )

    return [event("START", started, _run_facets(run, None)), event(end, ended, _run_facets(run, end))]


def to_lines(events: Sequence[RunEvent]) -> list[str]:
    """Events as JSON documents, one a line."""
    from openlineage.client.serde import Serde

    return [Serde.to_json(event) for event in events]


def send(events: Sequence[RunEvent], url: str) -> None:
    """Sends events to a server (Marquez, say), with the key of the variable OPENLINEAGE_API_KEY if it is set.

    Raises
    ------
    RequestError
        The URL is none of HTTP.
    StorageError
        The server cannot be reached, or does not accept an event.
    """
    _require()
    from openlineage.client.transport.http import ApiKeyTokenProvider, HttpConfig, HttpTransport, TokenProvider

    if not url.startswith(("http://", "https://")):
        raise RequestError(f"--to: '{url}' is no URL of a server, such as http://127.0.0.1:5000.")
    key = os.environ.get("OPENLINEAGE_API_KEY")
    auth = TokenProvider({}) if not key else ApiKeyTokenProvider({"apiKey": key})
    config = HttpConfig(url=url, auth=auth, timeout=SECONDS, retry={"total": 2, "backoff_factor": 0.2})
    with contextlib.closing(HttpTransport(config)) as transport:
        for number, event in enumerate(events):
            try:
                answer = transport.emit(event)
                if answer is not None:
                    answer.raise_for_status()
            except OSError as error:  # every error of requests is one
                sent = f"{number} of {len(events)} events were sent"
                raise StorageError(f"{url} did not accept an event of OpenLineage ({sent}): {error}") from error


def _require() -> None:
    try:
        import openlineage.client  # noqa: F401
    except ImportError as error:
        raise RequestError(
            f"The library openlineage-python is not installed, which makes and sends the events: {INSTALL}."
        ) from error


def _uuid(run: Run, started: datetime) -> str:
    """The same for a run, whenever its events are made."""
    from openlineage.client.uuid import generate_static_uuid

    return str(generate_static_uuid(started, run.id.encode()))


def _run_facets(run: Run, end: str | None) -> dict[str, Any]:
    from openlineage.client.generated.environment_variables_run import EnvironmentVariable, EnvironmentVariablesRunFacet
    from openlineage.client.generated.error_message_run import ErrorMessageRunFacet
    from openlineage.client.generated.processing_engine_run import ProcessingEngineRunFacet
    from openlineage.client.generated.tags_run import TagsRunFacet, TagsRunFacetFields

    manifest = run.manifest
    version = manifest["libraries"]["treadle"]
    tags = {"treadle.run": run.id, "treadle.spec": manifest["spec_digest"], "treadle.seed": str(manifest["seed"])}
    if "code" in manifest:
        tags["treadle.sources"] = manifest["code"]["sources"]
    facets: dict[str, Any] = {
        "processing_engine": ProcessingEngineRunFacet(version, "Treadle", version, producer=PRODUCER),
        "tags": TagsRunFacet(
            [TagsRunFacetFields(key, value, "TREADLE") for key, value in tags.items()], producer=PRODUCER
        ),
    }
    variables = manifest.get("environment", {}).get("variables", {})
    if variables:
        named_ = [EnvironmentVariable(name, value) for name, value in variables.items()]
        facets["environmentVariables"] = EnvironmentVariablesRunFacet(named_, producer=PRODUCER)
    if end in ("FAIL", "ABORT") and manifest["error"]:
        facets["errorMessage"] = ErrorMessageRunFacet(manifest["error"], "PYTHON", producer=PRODUCER)
    return facets


def _job_facets(run: Run) -> dict[str, Any]:
    from openlineage.client.generated.job_type_job import JobTypeJobFacet
    from openlineage.client.generated.source_code_job import SourceCodeJobFacet
    from openlineage.client.generated.source_code_location_job import SourceCodeLocationJobFacet

    spec = json.dumps(without_secrets(run.manifest["spec"]), indent=1)
    facets: dict[str, Any] = {
        "sourceCode": SourceCodeJobFacet("json", spec, producer=PRODUCER),
        "jobType": JobTypeJobFacet("BATCH", "TREADLE", "JOB", producer=PRODUCER),
    }
    code = run.manifest.get("code") or {}
    if code.get("commit") and code.get("repository"):
        facets["sourceCodeLocation"] = SourceCodeLocationJobFacet(
            "git", code["repository"], repoUrl=code["repository"], version=code["commit"], producer=PRODUCER
        )
    return facets


def _inputs(run: Run) -> Iterator[InputDataset]:
    from openlineage.client.event_v2 import InputDataset
    from openlineage.client.generated.dataset_version_dataset import DatasetVersionDatasetFacet
    from openlineage.client.generated.input_statistics_input_dataset import InputStatisticsInputDatasetFacet

    kinds = run.manifest["results"].get("read", {}).get("kinds")
    names = input_names(run.manifest)
    for found in run.manifest["inputs"]:
        for dataset in names[found["section"]]:
            files = [file for file in found["files"] if dataset.holds(file["path"])]
            facets = _source(dataset)
            if kinds is not None and found["section"] in ("data", "split"):
                facets["schema"] = _schema(kinds)
            digests = found["digest"] if len(names[found["section"]]) == 1 else _digest(files)
            version = digests if found["version"] is None else str(found["version"])
            facets["version"] = DatasetVersionDatasetFacet(version, producer=PRODUCER)
            counts = [file["rows"] for file in files]
            statistics = InputStatisticsInputDatasetFacet(
                rowCount=None if None in counts else sum(counts),
                size=sum(file["bytes"] for file in files),
                fileCount=len(files),
                producer=PRODUCER,
            )
            yield InputDataset(
                dataset.namespace, dataset.name, facets=facets, inputFacets={"inputStatistics": statistics}
            )


def _digest(files: Sequence[Mapping[str, Any]]) -> str:
    from treadle.engine.document import digest

    return digest([file["digest"] for file in files])


def _outputs(run: Run) -> Iterator[OutputDataset]:
    from openlineage.client.event_v2 import OutputDataset
    from openlineage.client.generated.dataset_type_dataset import DatasetTypeDatasetFacet
    from openlineage.client.generated.dataset_version_dataset import DatasetVersionDatasetFacet

    for table in run.tables.values():
        yield _table(run, table)
    if run.manifest["model"] is not None:
        name, _, version = run.manifest["model"].rpartition(":")
        dataset = named(run.path(f"models/{name}"), run.store.fs)
        facets = {
            **_source(dataset),
            "datasetType": DatasetTypeDatasetFacet("MODEL", producer=PRODUCER),
            "version": DatasetVersionDatasetFacet(version, producer=PRODUCER),
        }
        yield OutputDataset(dataset.namespace, dataset.name, facets=facets)


def _table(run: Run, table: Table) -> OutputDataset:
    from openlineage.client.event_v2 import OutputDataset
    from openlineage.client.generated.dataset_type_dataset import DatasetTypeDatasetFacet
    from openlineage.client.generated.dataset_version_dataset import DatasetVersionDatasetFacet
    from openlineage.client.generated.lifecycle_state_change_dataset import (
        LifecycleStateChange,
        LifecycleStateChangeDatasetFacet,
    )
    from openlineage.client.generated.output_statistics_output_dataset import OutputStatisticsOutputDatasetFacet
    from openlineage.client.generated.storage_dataset import StorageDatasetFacet

    record = next(one for one in run.manifest["tables"] if one["name"] == table.name)
    dataset = named(table.path, run.store.fs)
    change = LifecycleStateChange.CREATE if table.version == 0 else LifecycleStateChange.OVERWRITE
    facets = {
        **_source(dataset),
        "datasetType": DatasetTypeDatasetFacet("TABLE", producer=PRODUCER),
        "version": DatasetVersionDatasetFacet(str(table.version), producer=PRODUCER),
        "storage": StorageDatasetFacet("delta", "parquet", producer=PRODUCER),
        "lifecycleStateChange": LifecycleStateChangeDatasetFacet(change, producer=PRODUCER),
    }
    # A version that was vacuumed has no columns to tell of any more.
    with contextlib.suppress(TreadleError):
        schema = table.schema
        facets["schema"] = _schema({field.name: str(field.type) for field in schema})
        if (lineage := column_lineage(run, table.name, schema.names)) is not None:
            facets["columnLineage"] = facet(run, lineage, PRODUCER)
    statistics = OutputStatisticsOutputDatasetFacet(
        rowCount=record["rows"], size=record["bytes"], fileCount=record["files"], producer=PRODUCER
    )
    return OutputDataset(dataset.namespace, dataset.name, facets=facets, outputFacets={"outputStatistics": statistics})


def _source(dataset: Named) -> dict[str, Any]:
    from openlineage.client.generated.datasource_dataset import DatasourceDatasetFacet

    return {"dataSource": DatasourceDatasetFacet(dataset.namespace, dataset.uri, producer=PRODUCER)}


def _schema(kinds: Mapping[str, str]) -> Any:
    from openlineage.client.generated.schema_dataset import SchemaDatasetFacet, SchemaDatasetFacetFields

    fields = [
        SchemaDatasetFacetFields(name, kind, ordinal_position=place)
        for place, (name, kind) in enumerate(kinds.items(), 1)
    ]
    return SchemaDatasetFacet(fields, producer=PRODUCER)
