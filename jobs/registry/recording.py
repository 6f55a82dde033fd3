"""Runs in MLflow, as their manifests say: recorded once, however often it is tried, and gone on with when cut off.

A run of MLflow has the spec's leaves as params, the metrics of the best model, the inputs with digests, the manifest
and figures, and below it a run for each model of the leaderboard. It is RUNNING until all of that is there.
"""

from __future__ import annotations

import json
import math
import re
import tempfile
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from treadle.engine.bundle import versions
from treadle.engine.store import Store
from treadle.jobs.registry import figures
from treadle.jobs.registry.connection import ARTIFACTS, Connection, Target, is_there_already

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Param, Run

RUN, MODEL, VERSION = "treadle.run", "treadle.model", "treadle.version"
"""Tags: the run's id, of the run and of versions that it made; a model of the leaderboard; a bundle's version."""
STATUS: Mapping[str, str] = {"succeeded": "FINISHED", "failed": "FAILED", "cancelled": "KILLED"}
PARAMS = 100
"""Most params that MLflow takes at a time."""
LONGEST = 6000
"""Characters of a param."""
TAG = 5000
"""Characters of a tag."""


def record_run(connection: Connection, store: Store, manifest: Mapping[str, Any]) -> str:
    """Records a run, unless it is recorded, and registers its model; returns the id that MLflow gave it.

    Raises
    ------
    TrackingError
        MLflow refuses something, or is not reached. What it has by then is gone on with another time.
    """
    from treadle.jobs.registry.versions import register

    with connection.using() as client:
        found = find_run(client, connection.target, manifest["run"])
        if found is None or found.info.status == "RUNNING":
            found = _record(client, connection.target, store, manifest, found)
        if manifest["model"] is not None:
            name, _, number = manifest["model"].partition(":")
            # Also the earlier ones, so that MLflow's numbers are the bundles'; a server has only what runs sent it.
            earlier = [] if connection.target.is_server else [v for v in versions(store, name) if v < int(number)]
            for version in [*earlier, int(number)]:
                register(client, connection.target, store, f"{name}:{version}")
    return str(found.info.run_id)


def find_run(client: MlflowClient, target: Target, run: str) -> Run | None:
    """What was recorded of a run of Treadle, or is being."""
    experiment = client.get_experiment_by_name(target.experiment)
    if experiment is None:
        return None
    found = client.search_runs([experiment.experiment_id], f"tags.`{RUN}` = '{run}'", max_results=1)
    return found[0] if found else None


def _experiment(client: MlflowClient, target: Target, store: Store) -> str:
    found = client.get_experiment_by_name(target.experiment)
    if found is not None:
        return str(found.experiment_id)
    place = None
    if target.database is not None:
        place = (target.database.parent / ARTIFACTS / _file_name(target.experiment)).as_uri()
    elif not target.is_server:
        place = store.fs.unstrip_protocol(store.path(f"{ARTIFACTS}/{_file_name(target.experiment)}"))
    try:
        return str(client.create_experiment(target.experiment, artifact_location=place))
    except Exception as error:
        found = client.get_experiment_by_name(target.experiment) if is_there_already(error) else None
        if found is None:
            raise
        return str(found.experiment_id)


def _record(client: MlflowClient, target: Target, store: Store, manifest: Mapping[str, Any], begun: Run | None) -> Run:
    from mlflow.entities import RunTag

    started = round(datetime.fromisoformat(manifest["started"]).timestamp() * 1000)
    ended = started + round(1000 * (manifest["seconds"] or 0))
    evaluation = manifest["results"].get("evaluate")
    tags = {
        RUN: manifest["run"],
        "treadle.root": store.url,
        "treadle.spec_digest": manifest["spec_digest"],
        "mlflow.source.name": "treadle",
        "mlflow.source.type": "JOB",
    }
    if manifest["error"]:
        tags["treadle.error"] = manifest["error"][:TAG]
    if evaluation:
        tags["treadle.best"], tags["treadle.metric"] = evaluation["best"], evaluation["metric"]
    experiment = begun.info.experiment_id if begun else _experiment(client, target, store)
    run = begun or client.create_run(experiment, start_time=started, tags=tags, run_name=manifest["run"])
    run_id = run.info.run_id
    params = list(_params(manifest["spec"]))
    for i in range(0, len(params), PARAMS):
        client.log_batch(run_id, params=params[i : i + PARAMS])
    metrics = {"seconds": manifest["seconds"]}
    if evaluation:
        (best,) = [row for row in evaluation["rows"] if row["model"] == evaluation["best"]]
        metrics |= best | {f"test_{name}": value for name, value in (evaluation["held_out"] or {}).items()}
        if len(evaluation["rows"]) > 1:
            done = _recorded_models(client, experiment, run_id) if begun else set()
            _children(client, experiment, run_id, evaluation, done, (started, ended))
    client.log_batch(run_id, metrics=_metrics(metrics, ended), tags=[RunTag(k, v) for k, v in tags.items()])
    _inputs(client, run_id, manifest)
    if target.is_server or "file" in store.fs.protocol:
        _artifacts(client, run_id, manifest)
    client.set_terminated(run_id, STATUS[manifest["status"]], end_time=ended)
    return run


def _recorded_models(client: MlflowClient, experiment: str, parent: str) -> set[str | None]:
    """Those of the leaderboard that have their runs already."""
    there = client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{parent}'", max_results=1000)
    return {run.data.tags.get(MODEL) for run in there if run.info.status != "RUNNING"}


def _children(
    client: MlflowClient,
    experiment: str,
    parent: str,
    evaluation: Mapping[str, Any],
    done: set[str | None],
    times: tuple[int, int],
) -> None:
    """A run a model, in the order of the leaderboard; those that are done are left."""
    started, ended = times
    for rank, row in enumerate(evaluation["rows"], 1):
        if row["model"] in done:
            continue
        tags = {"mlflow.parentRunId": parent, MODEL: row["model"], "treadle.rank": str(rank)}
        if row["error"] is not None:
            tags["treadle.error"] = row["error"][:TAG]
        made = client.create_run(experiment, start_time=started, tags=tags, run_name=row["model"])
        client.log_batch(made.info.run_id, metrics=_metrics(row, ended))
        status = "FINISHED" if row["error"] is None else "FAILED"
        client.set_terminated(made.info.run_id, status, end_time=ended)


def _metrics(values: Mapping[str, Any], time: int) -> list[Metric]:
    from mlflow.entities import Metric

    numbers = {
        name: float(value)
        for name, value in values.items()
        if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    }
    return [Metric(name, value, time, 0) for name, value in numbers.items()]


def _params(spec: Mapping[str, Any]) -> Iterator[Param]:
    from mlflow.entities import Param

    for path, value in leaves(spec):
        text = value if isinstance(value, str) else json.dumps(value)
        if len(text) > LONGEST:
            text = f"{text[: LONGEST - 1]}…"
        yield Param(re.sub(r"[^\w\-. /]", "_", path)[:250], text)


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted path and value of all that is in a spec; a list without mappings is a value."""
    if isinstance(value, Mapping) and value:
        for key, one in value.items():
            yield from leaves(one, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list) and any(isinstance(one, (Mapping, list)) for one in value):
        for i, one in enumerate(value):
            yield from leaves(one, f"{path}.{i}")
    else:
        yield path, value


def _inputs(client: MlflowClient, run_id: str, manifest: Mapping[str, Any]) -> None:
    """The inputs as data sets, with the digests of their content."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    contexts = {"data": "training", "split": "testing"}
    found = []
    for one in manifest["inputs"]:
        paths = [file["path"] for file in one["files"]]
        if not paths:
            continue
        rows = [file["rows"] for file in one["files"]]
        scheme = urlsplit(paths[0]).scheme
        known = {"s3": "s3", "gs": "gs", "http": "http", "https": "http"}
        dataset = Dataset(
            name=paths[0].rstrip("/").rsplit("/", 1)[-1][:500],
            digest=one["digest"][:36],
            source_type=known.get(scheme, "local"),
            source=json.dumps({("url" if scheme.startswith("http") else "uri"): paths[0]}),
            profile=json.dumps(
                {
                    "num_rows": None if None in rows else sum(rows),
                    "files": len(paths),
                    "format": one["format"],
                    "version": one["version"],
                }
            ),
        )
        context = contexts.get(one["section"], one["section"])
        found.append(DatasetInput(dataset, [InputTag("mlflow.data.context", context)]))
    if found:
        client.log_inputs(run_id, found)


def _artifacts(client: MlflowClient, run_id: str, manifest: Mapping[str, Any]) -> None:
    texts = {"manifest.json": json.dumps(manifest, indent=1, default=str)}
    evaluation, explained = manifest["results"].get("evaluate"), manifest["results"].get("explain")
    if evaluation and evaluation["calibration"]:
        texts["calibration.svg"] = figures.calibration(evaluation["calibration"], evaluation["best"])
    if explained and explained["importance"]:
        texts["importance.svg"] = figures.importance(explained["importance"])
    with tempfile.TemporaryDirectory(prefix="treadle-") as folder:
        for name, text in texts.items():
            Path(folder, name).write_text(text, encoding="utf-8")
        client.log_artifacts(run_id, folder)


def _file_name(name: str) -> str:
    return re.sub(r"[^\w-]", "_", name)
