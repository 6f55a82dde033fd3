"""`treadle parity`: the same job on the CPU and on GPUs, stage by stage.

What can be compared depends on the machine. Without a GPU it is the kernels of the best model, in Numba's CUDA
simulator; the report names what was not covered.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np

from treadle.cluster.probe import ProbeFailed, ask
from treadle.errors import RequestError
from treadle.jobs.run import Run
from treadle.jobs.runner import run as run_job

if TYPE_CHECKING:
    from treadle.engine.events import Listener

BOUND = 1e-4
"""Largest accepted difference, as a part of the largest value."""
STAGE_OF = {"margins": "predict", "contributions": "explain"}


@dataclass(frozen=True)
class Line:
    """One stage: seconds on the CPU and on the device, and how far the two are apart."""

    stage: str
    cpu_seconds: float | None
    device_seconds: float | None
    difference: float | None
    said: str

    @property
    def right(self) -> bool | None:
        """None: not covered."""
        return None if self.difference is None else self.difference <= BOUND


@dataclass(frozen=True)
class Parity:
    """What was compared on which device."""

    run: str
    device: str
    lines: tuple[Line, ...]

    @property
    def right(self) -> bool:
        """Whether all that was compared agrees."""
        return all(line.right is not False for line in self.lines)

    def described(self) -> dict[str, Any]:
        """For --json."""
        lines = [{**asdict(line), "right": line.right} for line in self.lines]
        return {"run": self.run, "device": self.device, "bound": BOUND, "right": self.right, "stages": lines}


def parity(
    spec: str | PathLike[str] | Mapping[str, Any],
    root: str | None = None,
    overrides: Sequence[str] = (),
    rows: int = 16,
    listener: Listener | None = None,
) -> Parity:
    """Runs the job on the CPU, and its best model's kernels on a device too.

    Parameters
    ----------
    rows
        Of the feature table, evenly spread, whose values are compared.

    Raises
    ------
    RequestError
        The job has no models: there is nothing that a device could compute differently yet.
    TreadleError
        The job or the kernels fail.
    """
    finished = run_job(spec, root=root, overrides=[*overrides, "device=cpu"], listener=listener)
    if finished.manifest["model"] is None:
        raise RequestError(f"parity: job '{finished.job}' has no models, and nothing else runs on a device yet.")
    device, environment = _device()
    compared = _compared(finished, rows, environment)
    lines = []
    for stage in finished.manifest["stages"]:
        name, seconds = stage["stage"], stage["wall_seconds"] if stage["status"] == "finished" else None
        found = next((one for one in compared if STAGE_OF[one.values] == name), None)
        if found is not None:
            said = f"{found.values} of {found.rows} rows, the seconds are of these"
            lines.append(Line(name, found.host_seconds, found.device_seconds, found.difference, said))
        elif name in STAGE_OF.values():
            lines.append(Line(name, seconds, None, None, f"not covered: {finished.model.model.method}"))
        else:
            lines.append(
                Line(name, seconds, None, None, "not covered: only the kernels of the best model are compared")
            )
    return Parity(finished.id, device, tuple(lines))


def _device() -> tuple[str, dict[str, str]]:
    """A GPU that computes, else the simulator; and the environment of a process that uses it."""
    environment = dict(os.environ)
    environment.pop("NUMBA_ENABLE_CUDASIM", None)
    try:
        ask("device")
    except ProbeFailed:
        return "Numba's CUDA simulator", {**environment, "NUMBA_ENABLE_CUDASIM": "1"}
    return "a GPU", environment


def _compared(finished: Run, rows: int, environment: dict[str, str]) -> list[Any]:
    from treadle.engine.models.forest import ForestModel
    from treadle.engine.parity import compare_elsewhere

    bundle = finished.model
    if not isinstance(bundle.model, ForestModel):
        return []
    table = finished.table("features").to_pandas()
    chosen = table.iloc[np.unique(np.linspace(0, len(table) - 1, min(rows, len(table))).astype(int))]
    matrix = chosen[list(bundle.document.features)].to_numpy(dtype=np.float32, na_value=np.nan)
    return compare_elsewhere(bundle.store.url, bundle.document.name, bundle.document.version, matrix, environment)
