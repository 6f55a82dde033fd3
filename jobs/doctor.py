"""`treadle doctor`: what this installation has, what of it would not work, and what to do about it."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import tempfile
from dataclasses import dataclass
from typing import Any

from treadle.cluster.hardware import Check, GpuReport, cores, gpu_report, memory_bytes, unmet_requirements
from treadle.engine.store import Store
from treadle.engine.warmup import kept_code
from treadle.errors import TreadleError, listed
from treadle.jobs.gpu_proof import proof

FREE_BYTES = 2 * 2**30
"""Free space of the scratch folder, below which spilling may fill it."""
TRIAL = ".doctor"


@dataclass(frozen=True)
class Diagnosis:
    """What was looked at: what every job needs, and what only jobs on GPUs need."""

    checks: tuple[Check, ...]
    gpu: GpuReport
    proof: Check
    """Whether whole jobs are known to run as they should on the GPUs."""

    def failed(self, device: str) -> list[Check]:
        """The problems that keep a job with this `device` from running."""
        checks = self.checks + (self.gpu.checks if device == "cuda" else ())
        return [check for check in checks if not check.ok]

    def described(self) -> dict[str, Any]:
        """For --json."""
        return {
            "treadle": importlib.metadata.version("treadle"),
            "python": platform.python_version(),
            "cores": cores(),
            "memory_bytes": memory_bytes(),
            "checks": [vars(check) for check in self.checks],
            "gpu": {**self.gpu.described(), "proof": vars(self.proof)},
        }


def diagnose(root: str) -> Diagnosis:
    """Looks at this installation; `root` is where artifacts would go."""
    gpu = gpu_report()
    return Diagnosis((_machine(), _libraries(), _kernels(), _scratch(), _root(root)), gpu, proof(gpu))


def _machine() -> Check:
    memory = memory_bytes() / 2**30
    return Check("machine", True, f"Python {platform.python_version()}, {cores()} cores, {memory:.1f} GiB of memory")


def _libraries() -> Check:
    wrong = unmet_requirements()
    if wrong:
        return Check("libraries", False, listed(wrong), "pip install treadle again, in an environment of its own")
    return Check("libraries", True, f"treadle {importlib.metadata.version('treadle')} and all that it needs")


def _kernels() -> Check:
    """Whether machine code can be kept, and whether there is some."""
    folder, kept = kept_code()
    there = next(path for path in (folder, *folder.parents) if path.exists())
    if not (there.is_dir() and os.access(there, os.W_OK)):
        said = f"machine code cannot be kept in {folder}, so that every process compiles for half a minute"
        return Check("kernels", False, said, "set NUMBA_CACHE_DIR to a folder that is yours")
    return Check(
        "kernels", True, f"machine code of {kept} functions is kept" if kept else "treadle warmup compiles them"
    )


def _scratch() -> Check:
    folder = tempfile.gettempdir()
    free = shutil.disk_usage(folder).free
    enough = free >= FREE_BYTES
    said = f"{free / 2**30:.1f} GiB free in {folder}, where workers spill"
    return Check("scratch", enough, said, "" if enough else "free some, or set TMPDIR to another folder")


def _root(root: str) -> Check:
    """Creates a file there, which goes once only, and leaves the place as it was."""
    store = Store(root)
    try:
        existed = store.exists("")
        store.remove_file(TRIAL)
        store.create(TRIAL, 1)
        twice = store.create(TRIAL, 2)
        store.remove_file(TRIAL)
        if not existed:
            store.remove_empty("")
    except TreadleError as error:
        return Check("artifacts", False, str(error), "name another folder by --root")
    if twice:
        said = f"{root} does not know puts on a condition (If-None-Match), by which drivers that publish take turns"
        return Check("artifacts", False, said, "name another store by --root")
    return Check("artifacts", True, f"{root} can be written")
