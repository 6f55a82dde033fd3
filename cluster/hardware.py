"""What this machine offers: cores, memory, GPUs, and whether a job could run on them.

Importing a GPU library proves nothing: all of them import without a GPU. So libraries are looked up
without importing them, the driver is asked through NVML, and a process of its own allocates memory and
runs a kernel. Nothing here initialises CUDA in this process, which has yet to start GPU workers.
"""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from treadle.cluster.probe import ProbeFailed, ask
from treadle.errors import listed

GPU_LIBRARIES: Mapping[str, tuple[str, ...]] = {
    "cudf": ("cudf-cu13", "cudf"),
    "cudf_polars": ("cudf-polars-cu13", "cudf-polars"),
    "cuml": ("cuml-cu13", "cuml"),
    "cupy": ("cupy-cuda13x", "cupy"),
    "dask_cuda": ("dask-cuda",),
    "dask_cudf": ("dask-cudf-cu13", "dask-cudf"),
    "numba_cuda": ("numba-cuda",),
    "pynvml": ("nvidia-ml-py",),
    "rmm": ("rmm-cu13", "rmm"),
}
"""Modules that a job on GPUs uses -> the distributions that bring them, of pip and of conda."""
NEEDED = ("dask_cuda", "numba_cuda", "pynvml")
"""Those without which there is no such job; the host does what the others would, and the run says so."""
OLDEST_CAPABILITY = (7, 5)
OLDEST_CUDA = (13, 0)
DRIVER_FILES = ("/proc/driver/nvidia/version", "/dev/nvidiactl", "/dev/dxg")
"""What is there when a driver is loaded: natively, in a container, under Windows."""
NO_DRIVER = "install NVIDIA's driver, on a machine with a GPU"
INSTALL = "pip install 'treadle[gpu]', or conda-env.yml"


@dataclass(frozen=True)
class Gpu:
    """One GPU that this process may use; memory is all that it has, in bytes."""

    index: int
    uuid: str
    name: str
    memory_bytes: int
    compute_capability: tuple[int, int]


@dataclass(frozen=True)
class Check:
    """One thing that a job needs."""

    name: str
    ok: bool | None
    """None: could not be looked at, because an earlier check failed."""
    found: str
    remedy: str = ""


@dataclass(frozen=True)
class GpuReport:
    """All checks, in the order in which one builds on another."""

    checks: tuple[Check, ...]
    gpus: tuple[Gpu, ...]
    driver: str | None
    libraries: Mapping[str, str | None]
    """Module -> version; None for one that is not installed."""

    @property
    def problem(self) -> Check | None:
        """Why a job cannot run on GPUs here: the first check that failed; None when it can."""
        return next((check for check in self.checks if not check.ok), None)

    def described(self) -> dict[str, Any]:
        """For a manifest and for --json."""
        return {
            "usable": self.problem is None,
            "driver": self.driver,
            "gpus": [asdict(gpu) for gpu in self.gpus],
            "libraries": dict(self.libraries),
            "checks": [asdict(check) for check in self.checks],
        }


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory_bytes() -> int:
    """Memory of this machine or of its control group, whichever is less."""
    from distributed.system import memory_limit

    return int(memory_limit())


@functools.cache
def gpus_here() -> GpuReport:
    """`gpu_report` as far as the first problem; asked once a process, since each question takes seconds."""
    return gpu_report(thorough=False)


def installation_problem() -> Check | None:
    """The first of the problems that are found without starting a process."""
    return next((check for check in _installation() if not check.ok), None)


def _installation() -> list[Check]:
    libraries = _versions()
    return [_check_loaded(), _check_libraries(libraries), _check_versions(libraries)]


def gpu_report(thorough: bool = True) -> GpuReport:
    """Looks at libraries, driver, GPUs, and whether they compute; all there is to see, or up to the first problem."""
    libraries, checks = _versions(), _installation()
    driver: str | None = None
    gpus: tuple[Gpu, ...] = ()
    if checks[0].ok and libraries["pynvml"] and (thorough or all(check.ok for check in checks)):
        found, said = _check_answer()
        checks.append(found)
        if said is not None:
            driver, gpus = said["driver"], _visible(said["gpus"])
            checks += [_check_cuda(said["cuda"]), _check_gpus(gpus, len(said["gpus"]))]
    if all(check.ok for check in checks):
        checks.append(_check_device())
    else:
        checks.append(Check("computing", None, "not tried, because of the problems above"))
    return GpuReport(tuple(checks), gpus, driver, libraries)


def _versions() -> dict[str, str | None]:
    return {module: _version(module) for module in GPU_LIBRARIES}


def _version(module: str) -> str | None:
    """The version of an installed module, which is not imported; `?` where no distribution says it."""
    if importlib.util.find_spec(module) is None:
        return None
    for distribution in GPU_LIBRARIES[module]:
        try:
            return importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            continue
    return "?"


def _check_libraries(libraries: Mapping[str, str | None]) -> Check:
    missing = [module for module, version in libraries.items() if version is None]
    needed = [module for module in missing if module in NEEDED]
    if needed:
        return Check("libraries", False, f"{listed(needed)} not installed", INSTALL)
    said = listed(f"{module} {version}" for module, version in libraries.items() if version is not None)
    if missing:
        return Check(
            "libraries", True, f"{said}; not installed, so that the host does their part: {listed(missing)}", INSTALL
        )
    return Check("libraries", True, said)


def _check_versions(libraries: Mapping[str, str | None]) -> Check:
    """Installed versions against what the extra `gpu` asks for."""
    wrong = [
        f"{module} {libraries[module]} (wanted {wanted})"
        for module, wanted in wanted_versions().items()
        if libraries[module] not in (None, "?") and not _within(str(libraries[module]), wanted)
    ]
    if wrong:
        return Check("versions", False, listed(wrong), INSTALL)
    return Check("versions", True, "as the extra gpu asks for, as far as they are installed")


def wanted_versions() -> dict[str, str]:
    """Module -> the versions of it that the extra `gpu` of Treadle asks for."""
    wanted = requirements("gpu")
    return {
        module: wanted[distribution]
        for module, distributions in GPU_LIBRARIES.items()
        for distribution in distributions
        if distribution in wanted
    }


def requirements(extra: str = "") -> dict[str, str]:
    """Distribution -> the versions that Treadle asks for: always, or for an extra only."""
    from packaging.requirements import Requirement

    found = {}
    for requirement in map(Requirement, importlib.metadata.requires("treadle") or ()):
        always = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        asked = requirement.marker is not None and requirement.marker.evaluate({"extra": extra})
        if always if not extra else asked and not always:
            found[requirement.name] = str(requirement.specifier)
    return found


def unmet_requirements() -> list[str]:
    """What Treadle always needs and does not find, or finds in another version; one text each."""
    unmet = []
    for distribution, wanted in requirements().items():
        try:
            version = importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            unmet.append(f"{distribution} is not installed")
            continue
        if not _within(version, wanted):
            unmet.append(f"{distribution} {version} is installed, and {wanted} is wanted")
    return unmet


def _within(version: str, wanted: str) -> bool:
    from packaging.specifiers import SpecifierSet

    return SpecifierSet(wanted).contains(version, prereleases=True)


def _check_loaded() -> Check:
    loaded = [file for file in DRIVER_FILES if os.path.exists(file)]
    if not loaded:
        return Check("driver", False, "this machine has no NVIDIA driver", NO_DRIVER)
    return Check("driver", True, f"a driver is loaded ({loaded[0]})")


def _check_answer() -> tuple[Check, dict[str, Any] | None]:
    try:
        said = ask("driver")
    except ProbeFailed as error:
        remedy = "restart the machine, or install the driver again"
        return Check("NVML", False, f"the NVIDIA driver does not answer: {error}", remedy), None
    return Check("NVML", True, f"driver {said['driver']}, CUDA {_dotted(said['cuda'])}"), said


def _check_cuda(version: Sequence[int]) -> Check:
    if tuple(version) < OLDEST_CUDA:
        return Check(
            "CUDA", False, f"the driver knows CUDA {_dotted(version)}, and the libraries are made with "
            f"{_dotted(OLDEST_CUDA)}", "install a newer NVIDIA driver"
        )  # fmt: skip
    return Check("CUDA", True, f"the driver knows CUDA {_dotted(version)}; {_dotted(OLDEST_CUDA)} is enough")


def _visible(gpus: Sequence[Mapping[str, Any]]) -> tuple[Gpu, ...]:
    """The GPUs that CUDA_VISIBLE_DEVICES leaves, in its order; NVML knows nothing of it.

    Entries are numbers or beginnings of UUIDs, and what comes after a wrong one does not count (CUDA C++
    Programming Guide, "CUDA Environment Variables").
    """
    known = [Gpu(**{**gpu, "compute_capability": tuple(gpu["compute_capability"])}) for gpu in gpus]
    wanted = os.environ.get("CUDA_VISIBLE_DEVICES")
    if wanted is None:
        return tuple(known)
    found: list[Gpu] = []
    for entry in map(str.strip, wanted.split(",")):
        named = [g for g in known if entry == str(g.index) or (entry[:4] == "GPU-" and g.uuid.startswith(entry))]
        if len(named) != 1 or named[0] in found:
            break
        found += named
    return tuple(found)


def _check_gpus(gpus: Sequence[Gpu], installed: int) -> Check:
    if not gpus:
        given = os.environ.get("CUDA_VISIBLE_DEVICES")
        if installed:
            said = f"CUDA_VISIBLE_DEVICES={given} hides all {installed} GPUs"
            return Check("GPUs", False, said, "change it, or unset it")
        return Check("GPUs", False, "the driver knows no GPU", NO_DRIVER)
    old = [gpu for gpu in gpus if gpu.compute_capability < OLDEST_CAPABILITY]
    if old:
        said = listed(f"GPU {g.index} ({g.name}) has compute capability {_dotted(g.compute_capability)}" for g in old)
        remedy = "leave it out by CUDA_VISIBLE_DEVICES"
        return Check("GPUs", False, f"{said}, and {_dotted(OLDEST_CAPABILITY)} is needed", remedy)
    return Check("GPUs", True, "; ".join(map(_gpu_text, gpus)))


def _gpu_text(gpu: Gpu) -> str:
    major, minor = gpu.compute_capability
    return f"{gpu.name}, {gpu.memory_bytes / 2**30:.0f} GiB, sm_{major}{minor}"


def _check_device() -> Check:
    try:
        said = ask("device")
    except ProbeFailed as error:
        remedy = (
            "pip install 'nvidia-nvvm==13.0.*' 'nvidia-cuda-nvrtc==13.0.*', or a newer driver"
            if "PTX" in str(error).upper()
            else "look at nvidia-smi; another process may hold all of the memory"
        )
        return Check("computing", False, f"a GPU process failed: {error}", remedy)
    return Check("computing", True, f"memory and a kernel on GPU {listed(said['gpus'])}")


def _dotted(version: Sequence[int]) -> str:
    return ".".join(map(str, version))
