"""What this machine offers: cores, memory, and whether the GPU path could be used."""

from __future__ import annotations

import importlib.util
import os

GPU_LIBRARIES = ("cudf", "dask_cuda", "rmm")


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory_bytes() -> int:
    """Memory of this machine or of its control group, whichever is less."""
    from distributed.system import memory_limit

    return int(memory_limit())


def why_no_gpu() -> str:
    """Why the CUDA backend cannot be used here. Nothing of CUDA is initialised to find out."""
    missing = [name for name in GPU_LIBRARIES if importlib.util.find_spec(name) is None]
    if missing:
        return f"the libraries {', '.join(missing)} are not installed (pip install 'treadle[gpu]', or conda-env.yml)"
    return "this version of Treadle runs its stages on the CPU only"
