"""The job service measured by itself, and Ray Jobs asked the same.

A real service is started in a folder of its own, on loopback. Its jobs are whole ones: 150 rows are read, split, made
into features, a decision tree is trained and measured, tables and a model are published. Ray's are the command `true`,
since it has no jobs of this kind: what can be compared is what each takes to accept a job, to know it again, and to be
there at all; of the seconds until jobs have ended, Ray's are those of starting a process and nothing else.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import psutil

from treadle.benchmarks import service_load as load
from treadle.benchmarks.machine import described
from treadle.benchmarks.process import measured
from treadle.benchmarks.report import FOLDER, Say, written
from treadle.benchmarks.served import Served
from treadle.errors import RequestError

LIBRARIES = ("treadle", "dask", "distributed", "fastapi", "uvicorn", "sqlalchemy", "scikit-learn", "pandas")
RAY = "pip install 'ray[default]' psutil"
PEER_SECONDS = 1800.0
MEGA = 1e6


def run(
    table: int,
    submissions: int,
    burst: int,
    many: int,
    workers: int,
    running: int,
    peer: Path | None,
    out: Path | None,
    say: Say,
) -> dict[str, Any]:
    """Measures the service, and Ray where `peer` is the interpreter of an environment that has it; writes the result.

    `table` jobs are in the table while `submissions` are timed; `burst` and `many` jobs are submitted at once.

    Raises
    ------
    RequestError
        There is no such interpreter.
    TreadleError
        The service or the peer does not do what it should.
    """
    if peer is not None and not peer.is_file():
        raise RequestError(f"bench service: --peer-python: there is no {peer}. Make an environment, and {RAY} there.")
    # In a checkout that has not run yet, the first jobs would compile the kernels.
    subprocess.run([sys.executable, "-m", "treadle", "warmup"], check=True, stdout=subprocess.DEVNULL)
    result: dict[str, Any] = {
        "benchmark": "service",
        **described(LIBRARIES),
        "workers": workers,
        "max_running": running,
    }
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch).resolve()
        result["treadle"] = {
            **_without_a_cluster(folder / "alone", table, submissions, say),
            **_with_a_cluster(folder / "whole", submissions, burst, many, workers, running, say),
        }
        result["ray"] = None if peer is None else _ray(peer, submissions, burst, say)
    show(result, say)
    written(result, "service-cpu", out, whole=peer is not None and table >= 1000 and many >= 200, say=say)
    return result


def _without_a_cluster(folder: Path, table: int, submissions: int, say: Say) -> dict[str, Any]:
    service = Served(folder, "--scheduler", load.NOBODY)
    try:
        started = service.start(until=(200, 503))
        idle = load.held(service)
        say(f"a service without cluster is up after {started:.1f} s")
        timed = load.submissions(service, table, submissions)
        median = timed["kept_connection_ms"]["median"]
        say(f"beside {table} jobs a submission is acknowledged within {median:.1f} ms")
        return {
            "start_seconds": started,
            "idle": idle,
            "submissions": timed,
            "with_the_table": load.held(service),
        }
    finally:
        service.end()


def _with_a_cluster(
    folder: Path, submissions: int, burst: int, many: int, workers: int, running: int, say: Say
) -> dict[str, Any]:
    service = Served(folder, "--workers", str(workers), "--max-running", str(running))
    try:
        found: dict[str, Any] = {"start_seconds_with_cluster": service.start()}
        found["first_job_seconds"] = load.single(service, "first", 1)["new"]
        found["single_seconds"] = load.single(service, "single", max(min(submissions // 20, 10), 1))
        say(f"single jobs are done; {burst} at once")
        found["burst"] = load.burst(service, burst)
        found["after_jobs"] = load.held(service)
        say(f"{burst} jobs took {found['burst']['wall_seconds']:.1f} s; {many} at once")
        found["mixed"] = load.mixed(service, many)
        say(f"{many} jobs took {found['mixed']['wall_seconds']:.1f} s; the service is killed")
        found["killed"] = load.killed(service, max(burst // 2, 4))
        return found
    finally:
        service.end()


def _ray(peer: Path, submissions: int, burst: int, say: Say) -> dict[str, Any]:
    say("Ray Jobs")
    script = FOLDER / "peers" / "service_ray.py"
    # Not in a longer folder: Ray's sockets lie in it, whose paths may have 107 bytes.
    with tempfile.TemporaryDirectory(prefix="ray", dir="/tmp") as scratch:
        command = ["-I", str(script), scratch, str(max(min(submissions // 20, 10), 2)), str(burst)]
        try:
            return measured(command, PEER_SECONDS, python=str(peer.absolute()), folder=Path(scratch))
        except BaseException:
            _end_all(scratch)
            raise


def _end_all(folder: str) -> None:
    """Kills the peer and its head, which name their folder: they would go on."""
    for process in psutil.process_iter(["cmdline"]):
        if any(word.startswith(folder) or f"={folder}/" in word for word in process.info["cmdline"] or ()):
            with contextlib.suppress(psutil.Error):
                process.kill()


def show(result: dict[str, Any], say: Say) -> None:
    """The table, as it stands in docs."""
    ours, theirs = result["treadle"], result["ray"]
    kept, new = ours["submissions"]["kept_connection_ms"], ours["submissions"]["new_connection_ms"]
    memory = {
        "service, idle": ours["idle"]["service"],
        f"service with {ours['submissions']['jobs_in_the_table']} jobs": ours["with_the_table"]["service"],
        "service, after jobs": ours["after_jobs"]["service"],
        "nursery, after jobs": ours["after_jobs"]["nursery"],
    }
    if theirs:
        memory |= {"Ray's head, idle": theirs["idle"], "Ray's head, after jobs": theirs["after_jobs"]}
    say(f"\n{'submitted to acknowledged':<34}{'median ms':>10}{'p95 ms':>9}")
    for name, one in (("Treadle, connection kept", kept), ("Treadle, a new connection each", new)):
        say(f"{name:<34}{one['median']:>10.1f}{one['p95']:>9.1f}")
    say(
        f"{'Treadle, while jobs run':<34}{ours['burst']['submit_ms']['median']:>10.1f}",
    )
    if theirs:
        say(f"{'Ray':<34}{theirs['submit_ms']['median']:>10.1f}{theirs['submit_ms']['p95']:>9.1f}")
    say(f"\n{'submitted to ended, s':<34}{'one':>10}{'again':>9}{'first':>9}{'at once':>9}{'wall':>9}{'CPU':>9}")
    many, one = ours["burst"], ours["single_seconds"]
    say(
        f"{'Treadle, a whole ML job':<34}{one['new']:>10.2f}{one['again']:>9.2f}{ours['first_job_seconds']:>9.2f}"
        f"{many['jobs']:>9}{many['wall_seconds']:>9.1f}{many['cpu_seconds']:>9.1f}"
    )
    if theirs:
        many = theirs["burst"]
        say(
            f"{'Ray, the command `true`':<34}{theirs['single_seconds']:>10.2f}{'-':>9}"
            f"{theirs['first_job_seconds']:>9.2f}{many['jobs']:>9}{many['wall_seconds']:>9.1f}{many['cpu_seconds']:>9.1f}"
        )
    say(f"\n{'memory, MB':<34}{'processes':>10}{'RSS':>9}{'PSS':>9}{'USS':>9}")
    for name, held in memory.items():
        say(f"{name:<34}{held['processes']:>10}" + "".join(f"{held[k] / MEGA:>9.1f}" for k in ("rss", "pss", "uss")))
    mixed, killed = ours["mixed"], ours["killed"]
    say(
        f"\n{mixed['jobs']} jobs at once, some of which must not succeed: {mixed['right']} in the right state, "
        f"{mixed['lost']} lost, {mixed['attempted_twice']} attempted twice, {mixed['wall_seconds']:.0f} s"
    )
    say(
        f"killed with {killed['before']}: {killed['remembered']} of {killed['acknowledged']} remembered after "
        f"{killed['restart_seconds']:.1f} s, then {killed['ended']}; {killed['attempted_twice']} attempted twice"
    )
    if theirs:
        lost = theirs["killed"]
        say(
            f"Ray's head killed: {lost['remembered']} of {lost['acknowledged']} remembered "
            f"after {lost['restart_seconds']:.1f} s (by default it keeps jobs in memory; with Redis it would not)"
        )
