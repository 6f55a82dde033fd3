"""Ray Jobs by the same questions, run by the interpreter of an environment that has ray[default]; JSON comes last.

python -I service_ray.py FOLDER SINGLE BURST

A head is started on loopback with FOLDER for its session. SINGLE jobs one after the other, then BURST at once; a job
is the command `true`. At last all processes of the head are killed, and one is started again with the same FOLDER.
"""

from __future__ import annotations

import json
import os
import socket
import statistics
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psutil
import ray
from ray.job_submission import JobStatus, JobSubmissionClient

COMMAND = "true"
SETTLE_SECONDS = 5.0
LOOK_SECONDS = 0.05
SAMPLED_SECONDS = 0.2
LONGEST = 600.0


def main(folder: str, single: int, burst: int) -> dict[str, Any]:
    """What is measured, by name; times in milliseconds and seconds, memory in bytes."""
    ports = {"gcs": _free_port(), "dashboard": _free_port()}
    try:
        client, found = _started(folder, ports)
        found["first_job_seconds"] = _first(client)
        time.sleep(SETTLE_SECONDS)
        found["idle"] = _memory(folder)
        acknowledged, ended = [], []
        for _ in range(single):
            begun = time.perf_counter()
            job = client.submit_job(entrypoint=COMMAND)
            acknowledged.append((time.perf_counter() - begun) * 1000)
            _wait(client, {job})
            ended.append(time.perf_counter() - begun)
        found["submit_ms"] = {
            "count": single,
            "median": statistics.median(acknowledged),
            "p95": statistics.quantiles(acknowledged, n=20)[-1],
        }
        found["single_seconds"] = statistics.median(ended)
        found["burst"] = _burst(client, folder, burst)
        time.sleep(SETTLE_SECONDS)
        found["after_jobs"] = _memory(folder)
        known = len(client.list_jobs())
        _kill(folder)
        client, restarted = _started(folder, ports)
        found["killed"] = {
            "acknowledged": known,
            "remembered": len(client.list_jobs()),
            "restart_seconds": restarted["start_seconds"],
        }
    finally:
        _kill(folder)
    return {"version": ray.__version__, "python": sys.version.split()[0], **found}


def _started(folder: str, ports: dict[str, int]) -> tuple[JobSubmissionClient, dict[str, Any]]:
    """A head that answers, and the seconds until it did."""
    begun = time.perf_counter()
    command = [
        os.path.join(os.path.dirname(sys.executable), "ray"), "start", "--head", "--node-ip-address=127.0.0.1",
        f"--port={ports['gcs']}", "--dashboard-host=127.0.0.1", f"--dashboard-port={ports['dashboard']}",
        f"--temp-dir={folder}", "--num-cpus=2", "--disable-usage-stats",
    ]  # fmt: skip
    subprocess.run(command, check=True, stdout=sys.stderr, stderr=sys.stderr)
    while True:
        try:
            client = JobSubmissionClient(f"http://127.0.0.1:{ports['dashboard']}")
            client.list_jobs()
        except Exception:
            if time.perf_counter() - begun > LONGEST:
                raise
            time.sleep(LOOK_SECONDS)
            continue
        return client, {"start_seconds": time.perf_counter() - begun}


def _first(client: JobSubmissionClient) -> float:
    """Seconds until a job has ended on a head that answers; until its agent is up, it refuses jobs."""
    begun = time.perf_counter()
    while True:
        try:
            _wait(client, {client.submit_job(entrypoint=COMMAND)})
        except RuntimeError:
            if time.perf_counter() - begun > LONGEST:
                raise
            time.sleep(LOOK_SECONDS)
            continue
        return time.perf_counter() - begun


def _burst(client: JobSubmissionClient, folder: str, number: int) -> dict[str, Any]:
    done = threading.Event()
    with ThreadPoolExecutor(9) as pool:
        spent = pool.submit(_spent, folder, done)
        try:
            begun = time.perf_counter()
            jobs = set(pool.map(lambda _: client.submit_job(entrypoint=COMMAND), range(number)))
            submitted = time.perf_counter() - begun
            states = _wait(client, jobs)
            wall = time.perf_counter() - begun
        finally:
            done.set()
    return {
        "jobs": number,
        "wall_seconds": wall,
        "cpu_seconds": spent.result(),
        "submitted_seconds": submitted,
        "states": states,
    }


def _wait(client: JobSubmissionClient, jobs: set[str]) -> dict[str, int]:
    """How many of the jobs ended in each state, when all have."""
    deadline = time.perf_counter() + LONGEST
    while True:
        states = [one.status for one in client.list_jobs() if one.submission_id in jobs]
        if len(states) == len(jobs) and all(state.is_terminal() for state in states):
            return {state.value.lower(): states.count(state) for state in JobStatus if state in states}
        if time.perf_counter() > deadline:
            raise TimeoutError(f"jobs do not end: {states}")
        time.sleep(LOOK_SECONDS)


def _processes(folder: str) -> list[psutil.Process]:
    """All of the head: those that name its folder, and what they started."""
    found: dict[int, psutil.Process] = {}
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if any(f"{folder}/session_" in word for word in words):
            try:
                found |= {one.pid: one for one in (process, *process.children(recursive=True))}
            except psutil.Error:
                continue
    return list(found.values())


def _memory(folder: str) -> dict[str, Any]:
    processes = _processes(folder)
    every = [process.memory_full_info() for process in processes]
    return {
        "processes": len(every),
        **{kind: sum(getattr(one, kind) for one in every) for kind in ("rss", "pss", "uss")},
    }


def _spent(folder: str, done: threading.Event) -> float:
    """CPU seconds of all processes until it is done, looked at often: Ray does not count those that have ended.

    What a process uses between the last look and its end is missed.
    """
    before = newest = _cpu_seconds(folder)
    while not done.wait(SAMPLED_SECONDS):
        newest = {**newest, **_cpu_seconds(folder)}
    newest = {**newest, **_cpu_seconds(folder)}
    return sum(spent - before.get(process, 0.0) for process, spent in newest.items())


def _cpu_seconds(folder: str) -> dict[tuple[int, float], float]:
    """Of each process that lives."""
    found = {}
    for process in _processes(folder):
        try:
            found[process.pid, process.create_time()] = sum(process.cpu_times()[:2])
        except psutil.Error:
            continue
    return found


def _kill(folder: str) -> None:
    """`ray stop` would end every Ray on this machine."""
    processes = _processes(folder)
    for process in processes:
        try:
            process.kill()
        except psutil.Error:
            continue
    psutil.wait_procs(processes, timeout=20)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))))
