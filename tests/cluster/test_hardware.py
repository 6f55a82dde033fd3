"""The probe: what it asks in processes that may crash, and what it makes of the answers.

There is no GPU here. Where a driver must answer, a stand-in for the module `pynvml` does, which a real
probing process imports; everything else is real.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from treadle.cluster import hardware
from treadle.cluster.hardware import (
    GPU_LIBRARIES,
    GpuReport,
    gpu_report,
    gpus_here,
    installation_problem,
    requirements,
    wanted_versions,
)
from treadle.cluster.probe import ProbeFailed, ask

GPU_MODULES = {*GPU_LIBRARIES, "numba.cuda", "cuda"}
NVML = """
class Memory: total = {memory}
def nvmlInit(): pass
def nvmlDeviceGetCount(): return {count}
def nvmlDeviceGetHandleByIndex(index): return index
def nvmlDeviceGetUUID(handle): return f"GPU-{{handle}}abc"
def nvmlDeviceGetName(handle): return "NVIDIA Stand-in"
def nvmlDeviceGetMemoryInfo(handle): return Memory
def nvmlDeviceGetCudaComputeCapability(handle): return (9, handle)
def nvmlSystemGetCudaDriverVersion_v2(): return 13010
def nvmlSystemGetDriverVersion(): return "580.65"
"""
ANSWER: dict[str, Any] = {
    "driver": "580.65",
    "cuda": [13, 1],
    "gpus": [
        {"index": i, "uuid": f"GPU-{i}abc", "name": "H", "memory_bytes": 80 * 2**30, "compute_capability": [9, 0]}
        for i in range(3)
    ],
}


@pytest.fixture
def nvml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Gives probing processes a module `pynvml` with this source."""

    def write(source: str) -> None:
        (tmp_path / "pynvml.py").write_text(source)
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    return write


@pytest.fixture(autouse=True)
def asked_anew(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    gpus_here.cache_clear()
    yield
    gpus_here.cache_clear()


@pytest.fixture
def equipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with all libraries, and what shows that a driver is loaded."""
    loaded = tmp_path / "version"
    loaded.touch()
    monkeypatch.setattr(hardware, "DRIVER_FILES", (str(loaded),))
    versions = {
        "cudf": "26.10.2",
        "cudf_polars": "26.10.2",
        "cuml": "26.10.0",
        "dask_cuda": "26.10.0",
        "dask_cudf": "26.10.2",
        "rmm": "26.10.0",
    }
    versions |= {"numba_cuda": "0.30.4", "cupy": "14.0.1", "pynvml": "13.580"}
    monkeypatch.setattr(hardware, "_version", versions.get)


def states(report: GpuReport) -> dict[str, bool | None]:
    return {check.name: check.ok for check in report.checks}


def question(**answers: Any) -> Callable[[str], Any]:
    """Answers of probing processes; an exception is raised."""
    known = {"driver": ANSWER, "device": {"gpus": [0, 1, 2]}, **answers}

    def answer(asked: str) -> Any:
        if isinstance(known[asked], Exception):
            raise known[asked]
        return known[asked]

    return answer


def reported(answer: Callable[[str], Any], thorough: bool = True) -> GpuReport:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hardware, "ask", answer)
        return gpu_report(thorough)


def test_a_driver_is_asked_in_a_process_of_its_own(nvml: Callable[[str], None]) -> None:
    nvml(NVML.format(count=2, memory=80 * 2**30))
    before = "pynvml" in sys.modules  # by Dask, where it is installed
    said = ask("driver")
    assert said["driver"] == "580.65"
    assert said["cuda"] == [13, 1]
    assert [gpu["compute_capability"] for gpu in said["gpus"]] == [[9, 0], [9, 1]]
    assert {gpu["memory_bytes"] for gpu in said["gpus"]} == {80 * 2**30}
    assert ("pynvml" in sys.modules) is before


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "died of signal 11"),
        ("raise RuntimeError('Driver Not Loaded')", "RuntimeError: Driver Not Loaded"),
        ("import sys; sys.exit(3)", "ended with status 3"),
        ("import time; time.sleep(60)", "no answer in 2 s"),
    ],
    ids=["crash", "error", "exit", "hang"],
)
def test_what_a_broken_driver_does_is_told(nvml: Callable[[str], None], source: str, words: str) -> None:
    nvml(source)
    with pytest.raises(ProbeFailed, match=words):
        ask("driver", seconds=2.0 if "no answer" in words else 60.0)


def test_without_a_driver_nothing_is_asked() -> None:
    """As on every machine without a GPU."""

    def never(asked: str) -> Any:
        raise AssertionError(asked)

    if any(Path(file).exists() for file in hardware.DRIVER_FILES):
        pytest.skip("this machine has an NVIDIA driver")
    for thorough in (True, False):
        report = reported(never, thorough)
        assert report.problem is not None
        assert report.problem.name == "driver"
        assert report.gpus == ()
    assert gpus_here().problem == installation_problem() == report.problem


def test_a_machine_that_has_everything(equipped: None) -> None:
    report = reported(question())
    assert report.problem is None
    assert set(states(report).values()) == {True}
    assert [gpu.index for gpu in report.gpus] == [0, 1, 2]
    assert report.gpus[0].compute_capability == (9, 0)
    json.dumps(report.described())


@pytest.mark.parametrize(
    ("answers", "check", "words"),
    [
        ({"driver": ProbeFailed("died")}, "NVML", "does not answer: died"),
        ({"driver": {**ANSWER, "cuda": [12, 8]}}, "CUDA", "knows CUDA 12.8, and the libraries are made with 13.0"),
        ({"driver": {**ANSWER, "gpus": []}}, "GPUs", "knows no GPU"),
        ({"driver": {**ANSWER, "gpus": [{**ANSWER["gpus"][0], "compute_capability": [7, 0]}]}}, "GPUs", "7.0, and 7.5"),
        ({"device": ProbeFailed("cudaErrorMemoryAllocation")}, "computing", "cudaErrorMemoryAllocation"),
        ({"device": ProbeFailed("ptxas: Unsupported .version 9.5; CUDA_ERROR_UNSUPPORTED_PTX")}, "computing", "PTX"),
    ],
    ids=["driver", "CUDA", "none", "old", "memory", "PTX"],
)
@pytest.mark.parametrize("thorough", [True, False])
def test_the_first_problem_is_told_with_its_remedy(
    equipped: None, answers: dict[str, Any], check: str, words: str, thorough: bool
) -> None:
    report = reported(question(**answers), thorough)
    assert report.problem is not None
    assert report.problem.name == check
    assert words in report.problem.found
    assert report.problem.remedy
    if "PTX" in words:
        assert "nvidia-nvvm" in report.problem.remedy
    # What builds on a check that failed is not tried.
    assert states(report)["computing"] is (False if check == "computing" else None)


def test_missing_and_wrong_libraries(equipped: None, monkeypatch: pytest.MonkeyPatch) -> None:
    known = hardware._version
    monkeypatch.setattr(hardware, "_version", lambda m: {"cudf": "25.02.1", "dask_cuda": None}.get(m, known(m)))
    report = reported(question())
    assert states(report) == {
        "driver": True, "libraries": False, "versions": False, "NVML": True, "CUDA": True, "GPUs": True,
        "computing": None,
    }  # fmt: skip
    assert report.problem is not None
    assert report.problem.found == "dask_cuda not installed"
    versions = next(check for check in report.checks if check.name == "versions")
    assert f"cudf 25.02.1 (wanted {wanted_versions()['cudf']})" in versions.found


def test_a_job_needs_few_of_the_libraries(equipped: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the others would do the host does."""
    known = hardware._version
    monkeypatch.setattr(hardware, "_version", lambda m: known(m) if m in hardware.NEEDED else None)
    report = reported(question())
    assert report.problem is None
    libraries = next(check for check in report.checks if check.name == "libraries")
    assert libraries.found.endswith(
        "not installed, so that the host does their part: cudf, cudf_polars, cuml, cupy, dask_cudf, rmm"
    )
    assert libraries.remedy == hardware.INSTALL


@pytest.mark.parametrize(
    ("given", "seen"),
    [
        ("0,1,2", [0, 1, 2]), ("2,0", [2, 0]), ("1", [1]), (" 1 , 2", [1, 2]), ("GPU-2a", [2]), ("GPU-0abc,1", [0, 1]),
        ("", []), ("-1", []), ("0,7,1", [0]), ("0,0", [0]), ("GPU-", []), ("all", []),
    ],
)  # fmt: skip
def test_visible_gpus(equipped: None, monkeypatch: pytest.MonkeyPatch, given: str, seen: list[int]) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
    report = reported(question())
    assert [gpu.index for gpu in report.gpus] == seen
    assert (report.problem is None) == bool(seen)
    if not seen:
        assert report.problem is not None
        assert report.problem.found == f"CUDA_VISIBLE_DEVICES={given} hides all 3 GPUs"


@given(st.text(alphabet="0123GPU-abc, ", max_size=12))
def test_visible_gpus_are_known_ones_and_each_once(given: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CUDA_VISIBLE_DEVICES", given)
        seen = [gpu.index for gpu in hardware._visible(ANSWER["gpus"])]
    assert len(set(seen)) == len(seen)
    assert set(seen) <= {0, 1, 2}
    assert not seen or given.strip()


def test_the_extra_gpu_is_what_is_wanted() -> None:
    wanted = requirements("gpu")
    assert set(wanted_versions()) >= {"cudf", "cudf_polars", "cuml", "dask_cuda", "dask_cudf", "numba_cuda", "rmm"}
    assert not set(wanted) & set(requirements())
    assert {"dask", "xgboost", "pandas"} <= set(requirements())
    assert hardware.unmet_requirements() == []


def test_choosing_a_device_initialises_nothing_of_cuda() -> None:
    """A process that has initialised CUDA cannot start GPU workers; so no GPU library may even be imported.

    Dask itself imports NVML's and RMM where they are installed, which initialises nothing.
    """
    code = (
        "import json, sys; from treadle.cluster.profiles import Local; from treadle.jobs.device import choose_device; "
        "choose_device('auto', Local()); from treadle.jobs.doctor import diagnose; "
        "diagnose('artifacts-that-are-not-there'); print(json.dumps(sorted(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    dask = "import json, sys; import distributed; print(json.dumps(sorted(sys.modules)))"
    known = subprocess.run([sys.executable, "-c", dask], capture_output=True, text=True, check=True)
    assert not GPU_MODULES & set(json.loads(done.stdout)) - set(json.loads(known.stdout))
    assert not Path("artifacts-that-are-not-there").exists()
