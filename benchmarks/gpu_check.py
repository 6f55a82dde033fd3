"""Everything that only a GPU can show, in one command: `treadle bench gpu`.

Steps run in processes of their own, each with a time limit, so that a crash or a hang of one costs only its own
line. What is not installed is left out and named: with XGBoost, CuPy and numba-cuda alone the kernels are
checked and measured. The table comes last; the whole result is written as JSON.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from treadle.benchmarks import process
from treadle.benchmarks.machine import described
from treadle.benchmarks.models import chosen
from treadle.benchmarks.report import FOLDER, LIBRARIES, Say, shown, written
from treadle.cluster.hardware import GpuReport, gpu_report
from treadle.cluster.probe import ProbeFailed, ask
from treadle.errors import RequestError, TreadleError
from treadle.jobs import gpu_proof
from treadle.jobs.make_data import make_transactions

MINUTES = 8.0
"""For everything; a step gets at most what is left."""
TESTS = (
    "tests/kernels/cuda",
    "tests/engine/queries",
    "tests/engine/test_exact_on_devices.py",
    "tests/engine/test_by_cuml.py",
)
METRIC_BOUND = 1e-3
"""Largest accepted difference of a metric between a job on GPUs and on the CPU, whose models differ a little."""
TESTS_SHARE = 0.35
"""Of the time, at most for the tests; they compile every kernel anew."""
PARITY_SHARE = 0.25
"""Of the time, at most for the small job on both, so that some is left for the large one."""


@dataclass(frozen=True)
class Outcome:
    """How a step went: True when all of it is right, None when it was left out."""

    step: str
    right: bool | None
    said: str
    seconds: float = 0.0
    details: Any = field(default=None, repr=False)


Step = Callable[[float], Outcome]
"""Given the seconds that it may take."""


def run(minutes: float, models: tuple[str, ...], rows: int, out: Path | None, say: Say) -> dict[str, Any]:
    """Makes every check that this machine allows; writes and returns the result. `rows` are those of the job.

    Raises
    ------
    RequestError
        There is no GPU on which a kernel computes, or no model of such a name.
    StorageError
        The result cannot be written.
    """
    chosen(models)  # a name that no model has is refused before anything is asked
    report = gpu_report()
    try:
        computing = ask("device")
    except ProbeFailed as error:
        problem = f" ({report.problem.found})" if report.problem else ""
        why = str(error).rstrip(".")
        raise RequestError(
            f"bench gpu: no kernel computes on a GPU here: {why}{problem}; treadle doctor says more."
        ) from None
    end = time.monotonic() + 60 * minutes
    outcomes: list[Outcome] = []
    steps: Mapping[str, Step] = {
        "kernels": lambda seconds: kernels(models, seconds, say),
        "tests": lambda seconds: tests(min(seconds, 60 * minutes * TESTS_SHARE)),
        "parity": lambda seconds: parity(report, min(seconds, 60 * minutes * PARITY_SHARE)),
        "jobs": lambda seconds: jobs(report, rows, seconds),
    }
    for name, step in steps.items():
        started = time.monotonic()
        say(f"{name} ...")
        outcome = step(end - started)
        outcomes.append(Outcome(outcome.step, outcome.right, outcome.said, time.monotonic() - started, outcome.details))
    result = {
        "benchmark": "gpu",
        **described(LIBRARIES),
        "probe": report.described(),
        "computing": computing,
        "steps": [asdict(outcome) for outcome in outcomes],
        "right": all(outcome.right is not False for outcome in outcomes),
    }
    name = re.sub(r"[^a-z0-9]+", "-", report.gpus[0].name.lower()).strip("-") if report.gpus else "gpu"
    written(result, f"gpu-{name}", out, whole=not models, say=say)
    show(result, say)
    if not models:
        say(_proven(report, outcomes))
    return result


def _proven(report: GpuReport, outcomes: Sequence[Outcome]) -> str:
    """Keeps what `device: auto` goes by: that nothing was wrong, and whole jobs were among what was right."""
    right = {outcome.step: outcome.right for outcome in outcomes}
    if False in right.values():
        gpu_proof.forget()
        return "device: auto stays on the CPU, since something is wrong."
    missing = [step for step in ("parity", "jobs") if not right[step]]
    if missing:
        return f"device: auto stays as it was: {' and '.join(missing)} would have to be covered."
    return f"device: auto runs jobs on these GPUs from now on ({gpu_proof.keep(report)})."


def kernels(models: tuple[str, ...], seconds: float, say: Say) -> Outcome:
    """`treadle.benchmarks.gpu_kernels`, whose models are told as they are done."""
    found: list[dict[str, Any]] = []
    command = [sys.executable, "-m", "treadle.benchmarks.gpu_kernels", *models]
    late = threading.Event()
    with (
        tempfile.TemporaryFile("w+") as log,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True) as process,
    ):

        def stop() -> None:
            late.set()
            process.kill()

        timer = threading.Timer(seconds, stop)
        timer.start()
        assert process.stdout is not None
        for text in process.stdout:
            if text.startswith("{") and text.endswith("}\n"):  # libraries print too, and a kill may cut a line
                found.append(json.loads(text))
                say(f"  {found[-1]['model']}: {'right' if found[-1]['right'] else 'wrong'}")
        timer.cancel()
        log.seek(0)
        complaint = log.read().strip().splitlines()[-1:]
    wanted = len(chosen(models))
    right = [one["right"] for one in found]
    said = f"{sum(right)} of {len(found)} models right"
    if len(found) < wanted:
        ended = f"it ended with {' '.join(complaint) or 'no word'}"
        why = f"time was up after {seconds:.0f} s" if late.is_set() else ended
        said += f"; {wanted - len(found)} not measured: {why}"
    # What there was no time for is not wrong; a crash is.
    enough = len(found) == wanted or (late.is_set() and found)
    return Outcome("kernels", all(right) and bool(enough), said, details=found)


def tests(seconds: float) -> Outcome:
    """The tests that are marked `gpu`."""
    root = FOLDER.parent
    if not (root / "tests" / "kernels" / "cuda").is_dir():
        return Outcome("tests", None, "not in a checkout, which has the tests")
    if find_spec("pytest") is None:
        return Outcome("tests", None, "pytest is not installed")
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", *TESTS]
    try:
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired as error:
        output = error.stdout or b""
        text = output.decode() if isinstance(output, bytes) else output
        # Those that were done may all be right; that is not known of the others.
        return Outcome("tests", False if "F" in text else None, f"not done after {seconds:.0f} s", details=text[-4000:])
    lines = done.stdout.strip().splitlines() or [""]
    return Outcome(
        "tests",
        done.returncode == 0,
        lines[-1].strip("= "),
        details=None if done.returncode == 0 else done.stdout[-8000:],
    )


def parity(report: GpuReport, seconds: float) -> Outcome:
    """`treadle parity` of the small example: what every stage makes on the CPU and on the GPUs of this machine."""
    if report.problem is not None:
        return Outcome("parity", None, f"not covered: {report.problem.found}")
    with tempfile.TemporaryDirectory() as folder:
        try:
            found = process.measured(["-m", "treadle.benchmarks.parity_job", folder], max(1.0, seconds))
        except TreadleError as error:
            said = " ".join(str(error).split())[-200:]
            # What there was no time for is not wrong.
            return Outcome("parity", None if "was not done after" in said else False, said, details=str(error)[-4000:])
    if found["device_run"] is None:
        return Outcome("parity", None, f"not covered: {found['not_covered']}", details=found)
    lines = found["stages"]
    said = f"breast-cancer.yaml: {sum(line['right'] is True for line in lines)} of {len(lines)} stages agree"
    wrong = [f"{line['stage']}: {(*line['faults'], line['said'])[0]}" for line in lines if line["right"] is False]
    return Outcome("parity", found["right"], "; ".join([said, *wrong]), details=found)


def jobs(report: GpuReport, rows: int, seconds: float) -> Outcome:
    """fraud.yaml on the CPU and on the GPUs of this machine: time, and metrics."""
    if report.problem is not None:
        return Outcome("jobs", None, f"not covered: {report.problem.found}")
    end = time.monotonic() + seconds
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        make_transactions(Path(folder), rows)
        for device in ("cuda", "cpu"):
            command = ["-m", "treadle.benchmarks.fraud_job", folder, f"{folder}/{device}", device]
            try:
                found[device] = process.measured(command, max(1.0, end - time.monotonic()))
            except TreadleError as error:
                found["error"] = str(error)[-4000:]
                return Outcome("jobs", False, f"{device}: {' '.join(str(error).split())[-200:]}", details=found)
    apart = abs(found["cuda"]["auc"] - found["cpu"]["auc"])
    took = {device: found[device]["process_wall_seconds"] for device in ("cuda", "cpu")}
    said = (
        f"fraud.yaml, {rows:,} rows: {took['cuda']:.1f} s on GPUs, {took['cpu']:.1f} s on the CPU "
        f"({took['cpu'] / took['cuda']:.2f} times); AUC differs by {apart:.1e}; "
        f"{len(found['cuda']['fell_back'])} things fell back to the host"
    )
    on_gpu = {name: found["cuda"].get(name) for name in ("device_peak_bytes", "device_used_bytes")}
    if on_gpu["device_peak_bytes"] is not None and on_gpu["device_used_bytes"] is not None:
        most = {name: f"{size / 2**30:.2f}" for name, size in on_gpu.items()}
        said += f"; GPU memory: {most['device_peak_bytes']} GiB through RMM, {most['device_used_bytes']} in use"
    return Outcome("jobs", apart <= METRIC_BOUND, said, details=found)


def show(result: dict[str, Any], say: Say) -> None:
    """The table of models, and then one line a step."""
    gpus = result["probe"]["gpus"]
    say(
        "; ".join(f"{gpu['name']}, {gpu['memory_bytes'] / 2**30:.0f} GiB" for gpu in gpus) or "GPU unknown without NVML"
    )
    say(
        f"{'':<38}{'contributions: rows a second':<33}{'ratio to XGBoost':<18}{'':<10}{'margins: rows a second':<24}\n"
        f"{'model':<38}{'treadle':>12}{'xgboost':>12}{'device':>10}{'to host':>9}{'error':>8}"
        f"{'treadle':>15}{'xgboost':>13}{'ratio':>7}{'error':>8}"
    )
    for step in result["steps"]:
        for model in step["details"] if step["step"] == "kernels" else ():
            say(line(model))
            for name, why in model["errors"].items():
                say(f"  {name} failed: {why}")
    for step in result["steps"]:
        state = {True: "right", False: "WRONG", None: "left out"}[step["right"]]
        say(f"{step['step']:<10}{state:<10}{step['seconds']:>6.0f} s  {step['said']}")


def line(model: dict[str, Any]) -> str:
    """A model's line of the table."""

    def rate(what: str, side: str) -> str:
        figures = model.get(what, {}).get("figures", {})
        return f"{figures[side]['rows_per_wall_second']:,.0f}" if side in figures else "-"

    def times(what: str, side: str) -> float | None:
        found: float | None = model.get(what, {}).get("ratio", {}).get(side)
        return found

    def error(what: str) -> str:
        found = model.get(what, {}).get("largest_difference", {}).get("treadle")
        return "-" if found is None else f"{found:.0e}"

    return (
        f"{model['model']:<38}{rate('contributions', 'treadle'):>12}{rate('contributions', 'xgboost'):>12}"
        f"{shown(times('contributions', 'treadle'), 10)}{shown(times('contributions', 'treadle to host'), 9)}"
        f"{error('contributions'):>8}{rate('margins', 'treadle'):>15}{rate('margins', 'xgboost'):>13}"
        f"{shown(times('margins', 'treadle'), 7)}{error('margins'):>8}"
    )
