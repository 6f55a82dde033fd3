"""The plan of a job: what will run, on what, and whether it fits, before anything runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from treadle.cluster.hardware import memory_bytes
from treadle.cluster.launch import MEMORY_SHARE, worker_count
from treadle.cluster.profiles import is_here
from treadle.engine import pipeline
from treadle.engine.inputs import partition_count, row_bytes
from treadle.engine.pipeline import Inputs, Stage
from treadle.engine.store import Store
from treadle.errors import RequestError
from treadle.jobs.device import Device, choose_device, on_device
from treadle.jobs.example_data import materialise
from treadle.jobs.spec import JobSpec

FEATURE_COPIES = 3
"""The float32 matrix exists as blocks, once more while XGBoost bins it, and as its bins."""
WORKER_OWN = 400 * 2**20
"""Memory of a worker process with its libraries loaded and nothing to do; below it, none starts."""
PEAK_PARTITIONS = 4
"""Copies of a partition that its task holds at the peak: read, prepared, features, encoded for writing."""


@dataclass(frozen=True)
class Memory:
    """Estimated bytes; the worker's limit is None when the cluster is not ours to size."""

    partition: int
    rows: int
    features: int
    worker_peak: int
    worker_limit: int | None


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
                }
                for s in self.stages
            ],
            "memory": None if self.memory is None else vars(self.memory),
        }


def make_plan(spec: JobSpec, root: str, fresh: bool = False) -> Plan:
    """Reads footers and heads, resolves every operation and finds what is cached.

    Raises
    ------
    RequestError
        The spec does not fit its input, the device cannot be had, or the job does not fit the memory.
    """
    store = Store(root)
    device, reason = choose_device(spec.device, spec.cluster)
    spec = materialise(spec, store)
    inputs = pipeline.inspect(spec.job)
    program, features = pipeline.check(spec.job, inputs, store)
    stages = pipeline.stages_of(spec.job, inputs)
    cached = () if fresh else tuple(stage.name for stage in stages if pipeline.cached(store, stage) is not None)
    rows = inputs.main.rows
    if rows is not None and inputs.test is not None:
        rows += inputs.test.rows or 0
    workers = worker_count(on_device(spec.cluster, device))
    bytes_a_row = row_bytes(inputs.main.kinds)
    limit = _limit(spec, workers)
    partitions = None
    memory = None
    if rows is not None:
        partitions = min(spec.data.partitions or partition_count(rows, bytes_a_row, workers), max(rows, 1))
        widest = max(bytes_a_row, row_bytes(program.output()))
        memory = _memory(rows, partitions, workers, widest, len(features), limit)
    return Plan(spec, root, inputs, stages, cached, device, reason, rows, partitions, tuple(features), memory)


def _limit(spec: JobSpec, workers: int) -> int | None:
    """Bytes that a local worker may use; None when the cluster is not ours to size."""
    if not is_here(spec.cluster):
        return None
    given = spec.cluster.memory  # type: ignore[union-attr]
    limit = _bytes(given) if given else int(memory_bytes() * MEMORY_SHARE / workers)
    if limit < WORKER_OWN:
        raise RequestError(
            f"A worker may use {_mib(limit)}{' (cluster.memory)' if given else ''}, and needs {_mib(WORKER_OWN)} "
            f"before it has read a row; {'raise cluster.memory' if given else 'set cluster.workers to fewer'}."
        )
    return limit


def _memory(rows: int, partitions: int, workers: int, bytes_a_row: int, features: int, limit: int | None) -> Memory:
    partition = -(-rows // partitions) * bytes_a_row
    matrix = rows * features * 4
    peak = WORKER_OWN + PEAK_PARTITIONS * partition + FEATURE_COPIES * matrix // workers
    if limit is not None and peak > limit:
        if WORKER_OWN + FEATURE_COPIES * matrix // workers > limit:
            remedy = "use more workers or fewer features (select, drop)"
        else:
            remedy = f"set data.partitions to {partitions * 4} or more"
        raise RequestError(
            f"The job does not fit: a worker would need about {_mib(peak)} ({rows} rows in {partitions} partitions, "
            f"{features} features), and may use {_mib(limit)}; {remedy}, or raise cluster.memory."
        )
    return Memory(partition, rows * bytes_a_row, matrix, peak, limit)


def _mib(size: int) -> str:
    return f"{size / 2**20:.0f} MiB"


def _bytes(text: str) -> int:
    from dask.utils import parse_bytes

    return int(parse_bytes(text))
