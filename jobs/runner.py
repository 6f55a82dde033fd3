"""Runs a spec: plan, cluster, pipeline, manifest. `treadle run` and `treadle.run` are this."""

from __future__ import annotations

import contextlib
import os
import platform
import secrets
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from os import PathLike
from typing import TYPE_CHECKING, Any

from treadle.cluster.agreement import check_files, check_gpus
from treadle.cluster.hardware import cores, memory_bytes
from treadle.cluster.launch import open_cluster
from treadle.cluster.profiles import is_here
from treadle.engine import pipeline
from treadle.engine.artifacts import Artifact, Publication, Source
from treadle.engine.backend import Backend
from treadle.engine.cache import used
from treadle.engine.context import Context
from treadle.engine.digests import check_unchanged
from treadle.engine.document import digest
from treadle.engine.events import Events, Listener, now
from treadle.engine.publication import Publishing, latest, pending
from treadle.engine.store import Store
from treadle.errors import ContractBroken, TreadleError
from treadle.jobs.device import on_device
from treadle.jobs.gc.holding import holding
from treadle.jobs.lineage.environment import code, environment
from treadle.jobs.plan import Plan, make_plan
from treadle.jobs.registry.recorder import Recorder
from treadle.jobs.run import Run
from treadle.jobs.spec import JobSpec, load_spec
from treadle.signals import held, terminable
from treadle.versions import version_of

if TYPE_CHECKING:
    from distributed import Client

    from treadle.engine.chain import Record

LIBRARIES = (
    "treadle",
    "dask",
    "distributed",
    "pandas",
    "numpy",
    "pyarrow",
    "xgboost",
    "scikit-learn",
    "deltalake",
    "numba",
    "sqlglot",
    "pydantic",
)
IN_MANIFEST = (
    "read",
    "duplicates",
    "contract",
    "split",
    "folds",
    "compare",
    "ensemble",
    "refit",
    "evaluate",
    "explain",
)
"""Stages whose artifacts, without their file lists, are results that a reader of the manifest wants."""
NOT_IN_MANIFEST = {
    "table", "files", "partitions", "quarantine", "origins", "source", "left_out", "warnings", "fell_back", "configs",
}  # fmt: skip


def run(
    spec: str | PathLike[str] | Mapping[str, Any] | JobSpec,
    *,
    root: str | None = None,
    overrides: Sequence[str] = (),
    fresh: bool = False,
    listener: Listener | None = None,
) -> Run:
    """Runs a job to its end and returns the finished run; that of last time, when nothing at all has changed since.

    Parameters
    ----------
    spec
        A YAML or JSON file, a dict, or a `JobSpec`.
    root
        Artifacts root (folder or fsspec URL) instead of the spec's.
    overrides
        `path.to.leaf=value`, as with --set.
    fresh
        Do every stage again, also those that are cached.
    listener
        Called with every progress event.

    Raises
    ------
    RequestError
        The spec is wrong or does not fit its input; nothing was started.
    TreadleError
        The job failed; what was published before stays as it was.
    """
    loaded = load_spec(spec, overrides)
    plan = make_plan(loaded, loaded.root(root), fresh)
    return unchanged(plan) or execute(plan, fresh=fresh, listener=listener)


def unchanged(plan: Plan) -> Run | None:
    """The run that has published all that the plan would make, of the same spec, when nothing was published since."""
    store, job = Store(plan.root), plan.spec.name
    last = latest(store, job)
    todo = [stage for stage in plan.stages if stage.name not in plan.cached]
    if last is None or pending(store, job) is not None or any(not stage.always for stage in todo):
        return None
    run = Run(store, store.read_json(f"runs/{last.run}/manifest.json"), reused=True)
    before = {stage["stage"]: stage["fingerprint"] for stage in run.manifest["plan"]["stages"]}
    same = before == {stage.name: stage.fingerprint for stage in plan.stages}
    if run.status != "succeeded" or not same or run.manifest["spec_digest"] != _digest(plan.spec):
        return None
    if not run.is_current:
        return None
    used(store, job)
    return run


def _digest(spec: JobSpec) -> str:
    return digest(spec.model_dump(mode="json", by_alias=True))


def execute(
    plan: Plan,
    *,
    fresh: bool = False,
    listener: Listener | None = None,
    run_id: str | None = None,
    client: Client | None = None,
) -> Run:
    """Runs a plan. The manifest is written last, also for a run that failed or was cancelled.

    `run_id` is the run's, when it has been promised to somebody; an earlier attempt at it is written over. `client`
    is of a cluster that is open already; else the plan's is opened.
    """
    started = time.perf_counter()
    run_id = run_id or f"{plan.spec.name}-{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"
    store = Store(plan.root, run_id)
    manifest = _manifest(plan, run_id)
    recorder = Recorder(plan.spec.tracking, plan.spec.name, store)
    with terminable(), recorder.recording(), contextlib.ExitStack() as ending:
        ending.enter_context(holding(plan, store, run_id))
        events = Events(store, run_id, listener)
        publishing = Publishing(store, plan.spec.name, run_id, ending)
        try:
            events.emit("cluster", "started", profile=plan.spec.cluster.profile)
            log = store.path(f"runs/{run_id}/workers.log") if "file" in store.fs.protocol else os.devnull
            profile = on_device(plan.spec.cluster, plan.device)
            with contextlib.nullcontext(client) if client else open_cluster(profile, log) as client:
                waited = time.perf_counter() - started
                events.emit(
                    "cluster",
                    "finished",
                    wall_seconds=waited,
                    dashboard=client.dashboard_link,
                    device=plan.device,
                    device_reason=plan.device_reason,
                )
                manifest["cluster_start_seconds"] = waited
                if not is_here(plan.spec.cluster):
                    check_files(client, _shared(plan, store))
                    if plan.device == "cuda":
                        check_gpus(client)
                context = Context(
                    plan.spec.job, store, Backend(plan.device), client, events, run_id, manifest["spec_digest"]
                )
                manifest["cluster"] = {"workers": context.room.count, "threads": context.room.threads}
                if plan.device == "cuda":
                    from treadle.cluster.device_memory import DeviceMemory

                    context.device_memory = DeviceMemory(client)
                context.publishing = publishing
                context.before_publish = lambda: check_unchanged(plan.inputs.named().values())
                made, records = pipeline.run(context, plan.stages, fresh)
                context.live.clear()
            _finish(manifest, made, records)
        except KeyboardInterrupt:
            manifest.update(status="cancelled", error="cancelled by the user or by a signal")
            raise
        except TreadleError as error:
            manifest["error"] = str(error)
            if isinstance(error, ContractBroken):
                manifest["results"] = {"contract": {"verdicts": error.verdicts}}
            raise
        except BaseException as error:
            manifest["error"] = "".join(traceback.format_exception_only(error)).strip()
            raise
        finally:
            manifest["seconds"] = time.perf_counter() - started
            done = manifest["status"] == "succeeded"
            with held(), contextlib.nullcontext() if done else contextlib.suppress(TreadleError):
                for stage in () if done else plan.stages:
                    store.remove_unfinished(stage.folder)
                manifest["publication"] = publishing.number if done else publishing.undone()
                events.close()
                store.write_json(f"runs/{run_id}/manifest.json", manifest)
                recorder.written(manifest)
    return Run(store, manifest)


def _manifest(plan: Plan, run_id: str) -> dict[str, Any]:
    """That of a run which has not done anything yet."""
    return {
        "manifest": 1,
        "run": run_id,
        "job": plan.spec.name,
        "status": "failed",
        "error": None,
        "started": now(),
        "seconds": None,
        "spec": plan.spec.model_dump(mode="json", by_alias=True, exclude_unset=True),
        "spec_digest": _digest(plan.spec),
        "plan": plan.describe(),
        "inputs": described_inputs(plan),
        "seed": plan.spec.seed,
        "libraries": {name: version_of(name) for name in LIBRARIES},
        "hardware": {
            "machine": platform.machine(), "system": platform.system(), "python": platform.python_version(),
            "cores": cores(), "memory_bytes": memory_bytes(),
        },
        "code": code(), "environment": environment(),
        "cluster_start_seconds": None,
        "cluster": None,
        "stages": [],
        "results": {},
        "warnings": [],
        "fell_back": [],
        "publication": None,
        "tables": [],
        "model": None,
    }  # fmt: skip


def _shared(plan: Plan, store: Store) -> list[str]:
    """Files of this machine that workers must see: one of the root, and the first of each input."""
    root = [store.path(f"runs/{store.run}/events.jsonl")] if "file" in store.fs.protocol else []
    first = [inspected.files[0].path for inspected in plan.inputs.named().values() if inspected.files]
    return root + [path for path in first if "://" not in path]


def described_inputs(plan: Plan) -> list[dict[str, Any]]:
    """For the manifest: every input by the section of the spec that names it."""
    return [
        {
            "section": name,
            "digest": found.content,
            "format": found.format,
            "version": found.version,
            "files": [asdict(file) for file in found.files],
        }
        for name, found in plan.inputs.named().items()
    ]


def _finish(manifest: dict[str, Any], made: Mapping[str, Artifact], records: Sequence[Record]) -> None:
    published, read = made["publish"], made["read"]
    assert isinstance(published, Publication)
    assert isinstance(read, Source)
    # Stages that a run on GPUs made may be cached for this one.
    on_device = manifest["plan"]["device"] == "cuda"
    results = {}
    for name in IN_MANIFEST:
        if name in made:
            results[name] = made[name].model_dump(
                mode="json",
                exclude=NOT_IN_MANIFEST,
            )
    # By input, and those of text files too, whose rows are counted as they are read.
    of_test = sum(partition[0].role == "test" for partition in read.partitions)
    manifest["plan"]["partitions_read"] = {"data": len(read.partitions) - of_test, "split": of_test or None}
    manifest.update(
        status="succeeded",
        stages=[asdict(record) for record in records],
        results=results,
        warnings=[text for artifact in made.values() for text in artifact.warnings],
        fell_back=[text for artifact in made.values() for text in artifact.fell_back if on_device],
        tables=[record.model_dump() for record in published.tables],
        model=published.model,
    )
