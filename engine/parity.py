"""The best model of a run on a device and on the host: `python -m treadle.engine.parity`, in a process of its own.

Numba decides when it is imported whether there is a simulator in place of a GPU (NUMBA_ENABLE_CUDASIM=1); so
whoever asks starts this process with the environment that it wants.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from treadle.engine import column_parity
from treadle.engine.backend import Backend
from treadle.engine.bundle import Bundle, load_bundle
from treadle.engine.encoders import columns_for, to_matrix
from treadle.engine.fallbacks import listening
from treadle.engine.models.base import Values
from treadle.engine.models.forest import ForestModel
from treadle.engine.operation import ROW_ID
from treadle.engine.preparing import apply_features
from treadle.engine.program import Program
from treadle.engine.skew import Sample
from treadle.engine.store import Store
from treadle.errors import TreadleError


@dataclass(frozen=True)
class Compared:
    """One kind of values of the same rows, computed twice."""

    values: str
    """margins or contributions"""
    rows: int
    host_seconds: float
    device_seconds: float
    difference: float
    """The largest, as a part of the largest value of the host's, or of 1 where that is smaller."""


def compare(model: ForestModel, matrix: np.ndarray) -> list[Compared]:
    """Margins and contributions of float32 rows (rows, features) on the host and on the current device.

    Raises
    ------
    TreadleError
        The device has too little memory, so that the host would be compared with itself.
    """
    kinds: tuple[tuple[str, Values], ...] = (("margins", "margin"), ("contributions", "contributions"))
    found = []
    for values, what in kinds:
        started = time.perf_counter()
        host, _ = model.computed(what, matrix, Backend("cpu"))
        between = time.perf_counter()
        device, on_host = model.computed(what, matrix, Backend("cuda"))
        ended = time.perf_counter()
        if on_host:
            raise TreadleError(f"the device has no memory for {on_host} rows; give fewer by --rows")
        worst = float(np.abs(device - host).max(initial=0.0) / max(1.0, float(np.abs(host).max(initial=0.0))))
        found.append(Compared(values, len(matrix), between - started, ended - between, worst))
    return found


@dataclass(frozen=True)
class Preparation:
    """A stage's work on the same rows, done twice."""

    stage: str
    """etl or features"""
    rows: int
    host_seconds: float
    device_seconds: float
    difference: float
    """The largest of a column of numbers, as a part of the column's largest."""
    faults: tuple[str, ...]
    """What may not differ at all."""
    fell_back: tuple[str, ...]
    """What the host did for the device."""


def compare_preparing(bundle: Bundle, raw: pa.Table) -> list[Preparation]:
    """Raw rows prepared, and their features made, on the host and by queries."""
    host, device = bundle.program, replace(bundle.program, backend=Backend("cuda"))
    rows = host.backend.frame(raw)
    if bundle.document.id is None:
        rows.insert(0, ROW_ID, pd.Series(range(len(rows)), dtype="Int64"))
    rows = host.with_id(rows)
    d = bundle.document
    frames: list[pd.DataFrame] = []

    def prepared(program: Program) -> pa.Table:
        frames.append(program.apply(rows))
        return host.backend.table(frames[-1])

    def features(program: Program) -> pa.Table:
        columns = columns_for(frames[0], bundle.operations, list(d.feature_inputs))
        made = apply_features(program.backend, columns, bundle.operations)
        matrix = to_matrix(made, d.features, len(frames[0]))
        return pa.table({name: matrix[:, i] for i, name in enumerate(d.features)})

    return [_done_twice("etl", prepared, host, device), _done_twice("features", features, host, device)]


def _done_twice(stage: str, work: Callable[[Program], pa.Table], host: Program, device: Program) -> Preparation:
    started = time.perf_counter()
    here = work(host)
    between = time.perf_counter()
    with listening() as heard:
        there = work(device)
    ended = time.perf_counter()
    columns, faults = column_parity.compare(column_parity.InMemory(here), column_parity.InMemory(there), ROW_ID)
    faults += [column.fault for column in columns if column.fault is not None]
    worst = max((column.difference for column in columns), default=0.0)
    fell_back = tuple(dict.fromkeys(heard))
    return Preparation(stage, here.num_rows, between - started, ended - between, worst, tuple(faults), fell_back)


def compare_elsewhere(
    root: str, name: str, version: int, matrix: np.ndarray | None, environment: dict[str, str]
) -> tuple[list[Compared], list[Preparation]]:
    """As `compare`, of a matrix, and `compare_preparing`, of the bundle's sample, in a new process.

    Of either nothing where there is no matrix, no sample, or no Polars; `environment` is that of the process.

    Raises
    ------
    TreadleError
        The process did not end well: the kernels fail, or crash.
    """
    request = {"root": root, "name": name, "version": version, "matrix": None if matrix is None else matrix.tolist()}
    done = subprocess.run(
        [sys.executable, "-m", __name__],
        input=json.dumps(request),
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or [f"status {done.returncode}"]
        raise TreadleError(f"parity: the kernels or queries for devices failed: {last[0]}")
    kernels, stages = json.loads(done.stdout.splitlines()[-1])
    return [Compared(**one) for one in kernels], [_preparation(one) for one in stages]


def _preparation(described: dict[str, Any]) -> Preparation:
    texts = {name: tuple(described[name]) for name in ("faults", "fell_back")}
    return Preparation(**{**described, **texts})


def main() -> None:
    request: dict[str, Any] = json.load(sys.stdin)
    store = Store(request["root"])
    bundle = load_bundle(store, request["name"], request["version"])
    kernels: list[Compared] = []
    if request["matrix"] is not None:
        assert isinstance(bundle.model, ForestModel)
        kernels = compare(bundle.model, np.array(request["matrix"], dtype=np.float32))
    stages: list[Preparation] = []
    d = bundle.document
    if d.sample is not None and d.sample.rows and importlib.util.find_spec("polars") is not None:
        sample = Sample.read(store, bundle.folder, list(d.inputs), d.features, bundle.model.outputs)
        stages = compare_preparing(bundle, sample.rows)
    print(json.dumps([[asdict(one) for one in found] for found in (kernels, stages)]))


if __name__ == "__main__":
    main()
