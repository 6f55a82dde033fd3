"""The best model of a run on a device and on the host: `python -m treadle.engine.parity`, in a process of its own.

Numba decides when it is imported whether there is a simulator in place of a GPU (NUMBA_ENABLE_CUDASIM=1); so
whoever asks starts this process with the environment that it wants.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from treadle.engine.backend import Backend
from treadle.engine.bundle import load_bundle
from treadle.engine.models.base import Values
from treadle.engine.models.forest import ForestModel
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


def compare_elsewhere(
    root: str, name: str, version: int, matrix: np.ndarray, environment: dict[str, str]
) -> list[Compared]:
    """As `compare`, in a new process with this environment.

    Raises
    ------
    TreadleError
        The process did not end well: the kernels fail, or crash.
    """
    request = {"root": root, "name": name, "version": version, "matrix": matrix.tolist()}
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
        raise TreadleError(f"parity: the kernels for devices failed: {last[0]}")
    return [Compared(**one) for one in json.loads(done.stdout.splitlines()[-1])]


def main() -> None:
    request: dict[str, Any] = json.load(sys.stdin)
    model = load_bundle(Store(request["root"]), request["name"], request["version"]).model
    assert isinstance(model, ForestModel)
    matrix = np.array(request["matrix"], dtype=np.float32)
    print(json.dumps([asdict(one) for one in compare(model, matrix)]))


if __name__ == "__main__":
    main()
