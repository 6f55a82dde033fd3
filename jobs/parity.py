"""`treadle parity`: the same job on the CPU and on GPUs, stage by stage.

What can be compared depends on the machine. With a GPU the whole job runs on both. Without one it is the kernels of
the best model, in Numba's CUDA simulator, and the rows of its bundle prepared by queries; the report names what was
not covered.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np

from treadle.cluster.probe import ProbeFailed, ask
from treadle.engine.store import Store
from treadle.errors import RequestError
from treadle.jobs import parity_job
from treadle.jobs.parity_lines import Line, Parity
from treadle.jobs.run import Run
from treadle.jobs.runner import run as run_job
from treadle.jobs.spec import JobSpec, load_spec

if TYPE_CHECKING:
    from treadle.engine.events import Listener
    from treadle.engine.parity import Compared, Preparation

STAGE_OF = {"margins": "predict", "contributions": "explain"}


def parity(
    spec: str | PathLike[str] | Mapping[str, Any] | JobSpec,
    root: str | None = None,
    overrides: Sequence[str] = (),
    rows: int = 16,
    listener: Listener | None = None,
) -> Parity:
    """Runs the job on the CPU and on GPUs; without one on the CPU, and its best model's kernels in a simulator.

    Parameters
    ----------
    rows
        Of the feature table, evenly spread, whose values by one model are compared.

    Raises
    ------
    RequestError
        There is no GPU and the job has no models, so that nothing can be compared; or its models continue others.
    TreadleError
        The job or the kernels fail.
    """
    loaded = load_spec(spec, overrides)
    why = parity_job.why_not(loaded)
    if why is None:
        return _whole_job(loaded, loaded.root(root), rows, listener)
    finished = run_job(loaded, root=root, overrides=["device=cpu"], listener=listener)
    if finished.manifest["model"] is None:
        raise RequestError(
            f"parity: job '{finished.job}' has no models, and without a GPU only their kernels can be compared: {why}."
        )
    device, environment = _device()
    compared, prepared = _compared(finished, rows, environment)
    lines = []
    for stage in finished.manifest["stages"]:
        name, seconds = stage["stage"], stage["wall_seconds"] if stage["status"] == "finished" else None
        found = next((one for one in compared if STAGE_OF[one.values] == name), None)
        query = next((one for one in prepared if one.stage == name), None)
        if query is not None:
            lines.append(_line_of(query, "cuDF" if device == "a GPU" else "Polars in place of cuDF"))
        elif found is not None:
            said = f"{found.values} of {found.rows} rows, the seconds are of these"
            lines.append(Line(name, found.host_seconds, found.device_seconds, found.difference, said))
        elif name in STAGE_OF.values():
            lines.append(Line(name, seconds, None, None, f"not covered: {finished.model.model.method}"))
        else:
            lines.append(Line(name, seconds, None, None, "not covered"))
    missing = f"the whole job on a GPU ({why}), so training and metrics, and what cuDF makes of the queries"
    return Parity(finished.id, device, tuple(lines), not_covered=missing)


def _line_of(found: Preparation, computed_by: str) -> Line:
    said = f"{found.rows} raw rows as queries, by {computed_by}; the seconds are of these"
    return Line(
        found.stage,
        found.host_seconds,
        found.device_seconds,
        found.difference,
        said,
        bound=parity_job.FEATURES_BOUND,
        faults=found.faults,
        fell_back=found.fell_back,
    )


def _whole_job(spec: JobSpec, root: str, rows: int, listener: Listener | None) -> Parity:
    """Both runs are removed again when they agree."""
    place, cpu, gpu = parity_job.run_both(spec, root, listener)
    kernels: list[Compared] = []
    device = "GPUs of this machine"
    if cpu.manifest["model"] is not None:
        where, environment = _device()
        kernels, _ = _compared(cpu, rows, environment)
        device = device if where == "a GPU" else f"{device}, kernels of one model in {where}"
    lines = parity_job.lines_of(cpu, gpu, {one.values: one for one in kernels})
    found = Parity(cpu.id, device, lines, gpu.id)
    if found.right:
        parity_job.forget(root, place)
        return found
    return replace(found, kept=Store(root).uri(place))


def _device() -> tuple[str, dict[str, str]]:
    """A GPU that computes, else the simulator; and the environment of a process that uses it."""
    environment = dict(os.environ)
    environment.pop("NUMBA_ENABLE_CUDASIM", None)
    try:
        ask("device")
    except ProbeFailed:
        return "Numba's CUDA simulator", {**environment, "NUMBA_ENABLE_CUDASIM": "1"}
    return "a GPU", environment


def _compared(finished: Run, rows: int, environment: dict[str, str]) -> tuple[list[Compared], list[Preparation]]:
    from treadle.engine.models.forest import ForestModel
    from treadle.engine.parity import compare_elsewhere

    bundle, matrix = finished.model, None
    if isinstance(bundle.model, ForestModel):
        table = finished.table("features").to_pandas()
        chosen = table.iloc[np.unique(np.linspace(0, len(table) - 1, min(rows, len(table))).astype(int))]
        matrix = chosen[list(bundle.document.features)].to_numpy(dtype=np.float32, na_value=np.nan)
    return compare_elsewhere(bundle.store.url, bundle.document.name, bundle.document.version, matrix, environment)
