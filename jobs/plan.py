"""The plan of a job: what will run, on what, and whether it fits, before anything runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from treadle.cluster.hardware import memory_bytes
from treadle.cluster.launch import MEMORY_SHARE, thread_count, worker_count
from treadle.cluster.profiles import Profile, is_here
from treadle.engine import expected, job_inputs, pipeline
from treadle.engine.cache import Cache
from treadle.engine.chain import Stage
from treadle.engine.continuing import digests_of
from treadle.engine.expected import Memory, mib
from treadle.engine.inputs import row_bytes
from treadle.engine.job import Job, RandomSplit
from treadle.engine.job_inputs import Inputs
from treadle.engine.models.base import Task
from treadle.engine.models.catalogue import candidates
from treadle.engine.store import Store
from treadle.engine.training_place import places_told
from treadle.engine.trials.placement import place
from treadle.engine.workers import WORKER_OWN, Workers
from treadle.errors import RequestError
from treadle.jobs.device import Device, choose_device, on_device
from treadle.jobs.example_data import materialise
from treadle.jobs.spec import JobSpec

TASKS: tuple[Task, ...] = ("binary", "multiclass", "regression")
"""A preset is of models that do the task, which may not be known before rows are read."""


@dataclass(frozen=True)
class Plan:
    """What a run will do. Frozen: a run executes exactly this."""

    spec: JobSpec
    root: str
    inputs: Inputs
    stages: tuple[Stage, ...]
    cached: tuple[str, ...]
    device: Device
    device_reason: str
    rows: int | None
    partitions: int | None
    features: tuple[str, ...]
    """As far as they are known: the levels of one_hot are found by fitting (`column=?`)."""
    memory: Memory | None
    placement: str | None = None
    """Where models are compared by folds, and why, as far as rows and features are known."""
    why: Mapping[str, str] = field(default_factory=dict)
    """Of each stage that is not cached."""
    training: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Where models are trained on all training rows, with their titles; as far as rows and features are known."""

    def describe(self) -> dict[str, Any]:
        """For the manifest and for --json."""
        return {
            "job": self.spec.name,
            "root": self.root,
            "device": self.device,
            "device_reason": self.device_reason,
            "rows": self.rows,
            "partitions": self.partitions,
            "stages": [
                {
                    "stage": s.name,
                    "fingerprint": s.fingerprint,
                    "status": "cached" if s.name in self.cached else "to run",
                    "why": self.why.get(s.name),
                }
                for s in self.stages
            ],
            "memory": None if self.memory is None else vars(self.memory),
            "placement": self.placement,
            "training": {place: list(titles) for place, titles in self.training.items()},
        }


def make_plan(spec: JobSpec, root: str, fresh: bool = False, workers: Workers | None = None) -> Plan:
    """Reads footers and heads, resolves every operation and finds what is cached.

    `workers` are those of a cluster that is up already; else they are what the profile says.

    Raises
    ------
    RequestError
        The spec does not fit its input, the device cannot be had, or the job does not fit the memory.
    """
    store = Store(root)
    device, reason = choose_device(spec.device, spec.cluster)
    spec = materialise(spec, store)
    inputs = job_inputs.inspect(spec.job)
    programs, features = pipeline.check(spec.job, inputs, store)
    # A version has the gates of the spec that published it: other gates make a new version of the same model.
    gates = {"promotion": spec.promotion.model_dump(mode="json")} if spec.promotion.gates and spec.job.models else {}
    stages = pipeline.stages_of(spec.job, inputs, digests_of(spec.job, store), gates)
    cache = Cache(store, spec.name, stages, fresh)
    rows = inputs.main.rows
    if rows is not None and inputs.test is not None:
        rows += inputs.test.rows or 0
    partitions = None
    memory, placement = None, None
    training: Mapping[str, tuple[str, ...]] = {}
    workers = workers or _workers(spec, on_device(spec.cluster, device))
    if rows is not None:
        chosen = spec.data.partitions or workers.partitions(rows, row_bytes(inputs.main.kinds))
        partitions = min(chosen, max(rows, 1))
        memory = expected.memory(spec.job, inputs, programs, partitions, len(features), workers)
        if spec.job.compared is not None:
            placement = place(rows, len(features), spec.job.compared.folds, workers).reason
        if spec.job.models and features:
            models = {model.title: model for task in TASKS for model in candidates(spec.job, task)}
            training = places_told(models.values(), _train_rows(spec.job, inputs), len(features), workers)
    return Plan(
        spec,
        root,
        inputs,
        stages,
        tuple(cache.outcomes),
        device,
        reason,
        rows,
        partitions,
        tuple(features),
        memory,
        placement,
        cache.whys,
        training,
    )


def _train_rows(job: Job, inputs: Inputs) -> int:
    """Rows that are trained on, about and at most: filters of `tables` may leave fewer."""
    share = (
        0.0 if job.split is not None and job.split.kind in ("path", "folds") else RandomSplit(kind="random").test_size
    )
    return round((inputs.main.rows or 0) * (1 - getattr(job.split, "test_size", share)))


def _workers(spec: JobSpec, profile: Profile) -> Workers:
    """The workers that a profile starts; their limit is known of local ones only."""
    count = worker_count(profile)
    return Workers(count, thread_count(profile), _limit(spec, count))


def _limit(spec: JobSpec, workers: int) -> int | None:
    """Bytes that a local worker may use; None when the cluster is not ours to size."""
    if not is_here(spec.cluster):
        return None
    given = spec.cluster.memory  # type: ignore[union-attr]
    limit = _bytes(given) if given else int(memory_bytes() * MEMORY_SHARE / workers)
    if limit < WORKER_OWN:
        raise RequestError(
            f"A worker may use {mib(limit)}{' (cluster.memory)' if given else ''}, and needs {mib(WORKER_OWN)} "
            f"before it has read a row; {'raise cluster.memory' if given else 'set cluster.workers to fewer'}."
        )
    return limit


def _bytes(text: str) -> int:
    from dask.utils import parse_bytes

    return int(parse_bytes(text))
