"""The GPU check, as far as a machine without a GPU can show: in Numba's simulator, which real processes run."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from treadle.benchmarks import gpu_check
from treadle.cluster.hardware import GpuReport
from treadle.errors import TreadleError
from treadle.jobs.cli import app


@pytest.fixture
def simulated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels run in the simulator, and the question whether one computes is answered by it."""
    monkeypatch.setenv("NUMBA_ENABLE_CUDASIM", "1")
    monkeypatch.setattr(gpu_check, "ask", lambda question: {"gpus": [0]})


def test_without_a_gpu_it_says_what_is_missing() -> None:
    if gpu_check.gpu_report(thorough=False).problem is None:
        pytest.skip("this machine has a GPU")
    result = CliRunner().invoke(app, ["bench", "gpu"])
    assert result.exit_code == 2
    assert "no kernel computes on a GPU here" in result.output
    assert "treadle doctor says more" in result.output


def test_the_whole_check(simulated: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_check, "tests", lambda seconds: gpu_check.Outcome("tests", None, "run by another test"))
    out = tmp_path / "result.json"
    done = CliRunner().invoke(app, ["bench", "gpu", "--model", "tiny", "--out", str(out)])
    assert done.exit_code == 0, done.output
    result = json.loads(out.read_text())
    assert result["right"] is True
    kernels, tests, parity, jobs = result["steps"]
    assert [step["step"] for step in result["steps"]] == ["kernels", "tests", "parity", "jobs"]
    assert (kernels["right"], tests["right"], parity["right"], jobs["right"]) == (True, None, None, None)
    assert parity["said"].startswith("not covered")
    assert jobs["said"].startswith("not covered")
    (model,) = kernels["details"]
    for what in ("contributions", "margins"):
        assert model[what]["figures"]["treadle"]["rows"] == 12
        assert model[what]["largest_difference"]["treadle"] <= 1e-6
    # The table comes last: the line of the model, then a line for each step.
    *_, row, first, second, third, fourth = done.output.strip().splitlines()
    assert row.startswith("tiny, depth 3, 8 features")
    assert [line.split()[0] for line in (first, second, third, fourth)] == ["kernels", "tests", "parity", "jobs"]


def test_what_there_was_no_time_for_is_told(simulated: None) -> None:
    said: list[str] = []
    outcome = gpu_check.kernels(("depth 12, 50 features",), 1.0, said.append)
    assert outcome.right is False
    assert "0 of 0 models right; 1 not measured: time was up after 1 s" in outcome.said


def test_a_crash_is_told(simulated: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "numpy.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    outcome = gpu_check.kernels(("tiny",), 60.0, print)
    assert outcome.right is False
    assert "1 not measured: it ended with" in outcome.said


@pytest.mark.slow
def test_tests_that_fail_or_take_too_long(simulated: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = tmp_path / "tests" / "kernels" / "cuda"
    monkeypatch.setattr(gpu_check, "FOLDER", tmp_path / "benchmarks")
    monkeypatch.setattr(gpu_check, "TESTS", ("tests/kernels/cuda",))
    assert gpu_check.tests(60.0).right is None
    folder.mkdir(parents=True)
    head = "import pytest, time\n@pytest.mark.gpu\n"
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = gpu: x\n")
    for name, body, right, words in (
        ("fails", "assert False", False, "1 failed"),
        ("passes", "pass", True, "1 passed"),
        ("hangs", "time.sleep(60)", None, "not done after 9 s"),
    ):
        (folder / "test_one.py").write_text(f"{head}def test_{name}(): {body}\n")
        outcome = gpu_check.tests(9.0)
        assert outcome.right is right, name
        assert words in outcome.said


@pytest.mark.slow
def test_jobs_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """A real job on the CPU, which stands in for the one on GPUs too."""
    real = functools.cache(gpu_check.process.measured)

    def measured(command: list[str], seconds: float) -> dict[str, Any]:
        *rest, device = command
        *_, folder = rest
        found = real((*rest[:-1], folder.replace("cuda", "cpu"), "cpu"), seconds // 1000)
        assert found["device_peak_bytes"] is None
        memory = {"device_peak_bytes": 2**30, "device_used_bytes": 3 * 2**29}
        return found if device == "cpu" else {**found, "auc": found["auc"] + 5e-4, "fell_back": ["etl: x"], **memory}

    monkeypatch.setattr(gpu_check.process, "measured", measured)
    machine = GpuReport((), (), "1", {})
    outcome = gpu_check.jobs(machine, 3000, 200_000.0)
    assert outcome.right is True, outcome
    assert "AUC differs by 5.0e-04; 1 things fell back" in outcome.said
    assert outcome.said.endswith("; GPU memory: 1.00 GiB through RMM, 1.50 in use")


FOUND: dict[str, Any] = {
    "device_run": "b", "not_covered": None, "right": False,
    "stages": [
        {"stage": "read", "right": True, "faults": [], "said": "x"},
        {"stage": "etl", "right": None, "faults": [], "said": "x"},
        {"stage": "features", "right": False, "faults": ["column 'a': 2 rows are unequal", "y"], "said": "x"},
        {"stage": "explain", "right": False, "faults": [], "said": "contributions of 3 rows"},
    ],
}  # fmt: skip


@pytest.mark.parametrize(
    ("found", "right", "words"),
    [
        (
            FOUND,
            False,
            "1 of 4 stages agree; features: column 'a': 2 rows are unequal; explain: contributions of 3 rows",
        ),
        ({**FOUND, "right": True, "stages": FOUND["stages"][:2]}, True, "breast-cancer.yaml: 1 of 2 stages agree"),
        ({**FOUND, "device_run": None, "not_covered": "the whole job"}, None, "not covered: the whole job"),
        (TreadleError("python x was not done after 9 s"), None, "was not done after 9 s"),
        (TreadleError("python x failed: boom"), False, "boom"),
    ],
)
def test_what_parity_finds_is_told(
    found: dict[str, Any] | TreadleError, right: bool | None, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measured(command: list[str], seconds: float) -> dict[str, Any]:
        assert command[:2] == ["-m", "treadle.benchmarks.parity_job"]
        assert seconds == 9.0
        if isinstance(found, TreadleError):
            raise found
        return found

    monkeypatch.setattr(gpu_check.process, "measured", measured)
    outcome = gpu_check.parity(GpuReport((), (), "1", {}), 9.0)
    assert outcome.right is right
    assert outcome.said.endswith(words)


@pytest.mark.slow
def test_parity_of_the_example_in_a_process_of_its_own() -> None:
    """Where there is no GPU it says so."""
    if gpu_check.gpu_report(thorough=False).problem is None:
        pytest.skip("this machine has a GPU")
    outcome = gpu_check.parity(GpuReport((), (), "1", {}), 300.0)
    assert outcome.right is None
    assert outcome.said.startswith("not covered: the whole job on a GPU (")
    assert {"explain", "predict"} <= {line["stage"] for line in outcome.details["stages"] if line["right"]}


@pytest.mark.parametrize(
    ("steps", "kept", "words"),
    [
        ({"kernels": True, "tests": True, "parity": True, "jobs": True}, True, "device: auto runs jobs on these GPUs"),
        ({"kernels": True, "tests": None, "parity": True, "jobs": True}, True, "device: auto runs jobs on these GPUs"),
        ({"kernels": True, "tests": True, "parity": None, "jobs": None}, None, "parity and jobs would have to be"),
        ({"kernels": False, "tests": True, "parity": True, "jobs": True}, False, "since something is wrong"),
    ],
)
def test_only_whole_jobs_prove_a_gpu_for_device_auto(
    steps: dict[str, bool | None], kept: bool | None, words: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What was known before stays where the check could not look at jobs."""
    monkeypatch.setenv("TREADLE_HOME", str(tmp_path))
    report = GpuReport((), (), "1", {})
    outcomes = [gpu_check.Outcome(step, right, "") for step, right in steps.items()]
    before = gpu_check.gpu_proof.proof(report).ok
    assert words in gpu_check._proven(report, outcomes)
    assert gpu_check.gpu_proof.proof(report).ok is (True if kept else before)
    gpu_check.gpu_proof.keep(report)
    gpu_check._proven(report, outcomes)
    assert gpu_check.gpu_proof.proof(report).ok is (None if kept is False else True)


def test_a_job_that_takes_too_long_is_told() -> None:
    outcome = gpu_check.jobs(GpuReport((), (), "1", {}), 300, 0.0)
    assert outcome.right is False
    assert "was not done after 1 s" in outcome.said


def test_lines_of_models_that_failed() -> None:
    broken: dict[str, Any] = {"model": "x", "errors": {"all": "RuntimeError: y"}, "right": False}
    said: list[str] = []
    step = {"step": "kernels", "right": False, "said": "0 of 1", "seconds": 1.0, "details": [broken]}
    gpu_check.show({"probe": GpuReport((), (), None, {}).described(), "steps": [step]}, said.append)
    assert "  all failed: RuntimeError: y" in said
    assert said[-1].split()[:2] == ["kernels", "WRONG"]
