"""What only a process that may crash or hang can find out: `python -m treadle.cluster.probe driver|device`.

A broken driver may crash or hang who asks it, and a process that has initialised CUDA cannot start GPU
workers any more. So each question is asked in a process of its own, which prints one line of JSON.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from typing import Any

SECONDS = 90.0
"""A cold import of the GPU libraries from a slow disk takes most of it."""
ALLOCATED_BYTES = 16


class ProbeFailed(Exception):
    """A question that was not answered, and why."""


def ask(question: str, seconds: float = SECONDS) -> Any:
    """The answer of a new process.

    Raises
    ------
    ProbeFailed
        The process raised an error, crashed, or did not answer in so many seconds.
    """
    environment = {name: value for name, value in os.environ.items() if name != "NUMBA_ENABLE_CUDASIM"}
    try:
        done = subprocess.run(
            [sys.executable, "-m", __name__, question],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ProbeFailed(f"no answer in {seconds:.0f} s") from None
    if done.returncode < 0:
        raise ProbeFailed(f"the process that asked died of signal {-done.returncode}")
    if done.returncode:
        raise ProbeFailed(_error(done.stderr) or f"the process that asked ended with status {done.returncode}")
    return json.loads(done.stdout.splitlines()[-1])


def _error(stderr: str) -> str:
    """The error at the end of a traceback, in a line; its message may have several."""
    lines = stderr.strip().splitlines()
    begins = [i for i, line in enumerate(lines) if re.match(r"[A-Za-z_][\w.]*(: |$)", line)]
    return " ".join(" ".join(lines[begins[-1] if begins else -1 :]).split())[:300].rstrip(": ")


def driver() -> dict[str, Any]:
    """The driver and all GPUs that it knows, through NVML, which initialises nothing of CUDA."""
    import pynvml

    pynvml.nvmlInit()
    gpus = []
    for index in range(pynvml.nvmlDeviceGetCount()):
        handle = pynvml.nvmlDeviceGetHandleByIndex(index)
        gpus.append(
            {
                "index": index,
                "uuid": str(pynvml.nvmlDeviceGetUUID(handle)),
                "name": str(pynvml.nvmlDeviceGetName(handle)),
                "memory_bytes": int(pynvml.nvmlDeviceGetMemoryInfo(handle).total),
                "compute_capability": list(pynvml.nvmlDeviceGetCudaComputeCapability(handle)),
            }
        )
    version = int(pynvml.nvmlSystemGetCudaDriverVersion_v2())
    return {
        "driver": str(pynvml.nvmlSystemGetDriverVersion()),
        "cuda": [version // 1000, version % 1000 // 10],
        "gpus": gpus,
    }


def device() -> dict[str, Any]:
    """Allocates memory and runs a kernel on every visible GPU."""
    import numpy as np
    from numba import cuda

    if importlib.util.find_spec("rmm") is not None:
        import rmm

        rmm.DeviceBuffer(size=ALLOCATED_BYTES)

    @cuda.jit
    def double(values):  # type: ignore[no-untyped-def]
        i = cuda.grid(1)
        if i < values.size:
            values[i] *= 2

    numbers = []
    for gpu in cuda.gpus:
        with gpu:
            values = cuda.to_device(np.arange(4.0))
            double[1, 32](values)
            if values.copy_to_host().tolist() != [0.0, 2.0, 4.0, 6.0]:
                raise RuntimeError(f"GPU {gpu.id} computes wrong results")
            numbers.append(int(gpu.id))
    return {"gpus": numbers}


QUESTIONS = {"driver": driver, "device": device}


if __name__ == "__main__":
    print(json.dumps(QUESTIONS[sys.argv[1]]()))
