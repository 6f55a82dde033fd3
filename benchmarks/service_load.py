"""What `treadle bench service` asks of a service: submissions, many jobs at once, memory, a kill."""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil

from treadle.benchmarks.served import Served, memory
from treadle.errors import TreadleError

CLIENTS = 8
"""That submit at once."""
SECONDS_A_JOB = 20.0
"""After which jobs are given up: so many for each of them."""
SETTLE_SECONDS = 3.0
NOBODY = "tcp://127.0.0.1:9"
"""A scheduler that is not there: jobs stay queued, and the service starts neither cluster nor nursery."""


def spec(folder: Path, name: str, target: str = "target") -> dict[str, Any]:
    """A small whole job: 150 rows, a decision tree, predictions, in an artifacts root where nothing is cached."""
    return {
        "apiVersion": "treadle/v1",
        "name": name,
        "data": {"path": "sklearn://iris", "target": target},
        "split": {"kind": "random"},
        "models": ["decision_tree"],
        "explain": {"rows": "none"},
        "artifacts": {"root": str(folder / "roots" / name)},
    }


def milliseconds(seconds: Sequence[float]) -> dict[str, float]:
    """Median and 95th percentile of two times at least."""
    return {
        "count": len(seconds),
        "median": statistics.median(seconds) * 1000,
        "p95": statistics.quantiles(seconds, n=20, method="inclusive")[-1] * 1000,
    }


def submissions(service: Served, table: int, number: int) -> dict[str, Any]:
    """Times from the request to the answer with so many jobs in the table, where none is started."""
    document = spec(service.folder, "submitted")

    def filled(count: int) -> None:
        for _ in range(count):
            service.submit({"spec": document}, keep=True)

    def timed(keep: bool) -> dict[str, float]:
        found = []
        for _ in range(number):
            begun = time.perf_counter()
            service.submit({"spec": document}, keep)
            found.append(time.perf_counter() - begun)
        return milliseconds(found)

    filled(table)
    return {
        "jobs_in_the_table": table,
        "kept_connection_ms": timed(keep=True),
        "new_connection_ms": timed(keep=False),
        "seconds_of_a_page_of_50": _page_seconds(service),
    }


def _page_seconds(service: Served) -> float:
    begun = time.perf_counter()
    service.ask("GET", "/v1/jobs?limit=50")
    return time.perf_counter() - begun


def single(service: Served, name: str, number: int) -> dict[str, float]:
    """Median seconds from the submission of a job to its end: of new jobs, and of the same spec again."""
    took: dict[str, list[float]] = {"new": [], "again": []}
    for turn in range(number):
        for seconds in took.values():
            begun = time.perf_counter()
            job = service.submit({"spec": spec(service.folder, f"{name}-{turn}")})
            _succeeded(service.ask("GET", f"/v1/jobs/{job}/wait?timeout=60")[1])
            seconds.append(time.perf_counter() - begun)
    return {kind: statistics.median(seconds) for kind, seconds in took.items()}


def _succeeded(job: dict[str, Any]) -> None:
    if job["state"] != "succeeded":
        raise TreadleError(f"bench service: job {job['id']} is {job['state']}: {job['reason']}")


def burst(service: Served, number: int) -> dict[str, Any]:
    """So many different jobs at once: seconds until the last has succeeded, and CPU seconds of all processes."""
    cpu, begun = service.cpu_seconds(), time.time()

    def submit(index: int) -> tuple[str, float]:
        started = time.perf_counter()
        job = service.submit({"spec": spec(service.folder, f"burst-{index}")})
        return job, time.perf_counter() - started

    with ThreadPoolExecutor(CLIENTS) as pool:
        acknowledged = list(pool.map(submit, range(number)))
    submitted = time.time() - begun
    service.wait(number * SECONDS_A_JOB)
    wall = time.time() - begun
    found = [one for one in service.jobs() if one["id"] in {job for job, _ in acknowledged}]
    for one in found:
        _succeeded(one)
    return {
        "jobs": number,
        "succeeded": len(found),
        "wall_seconds": wall,
        "cpu_seconds": service.cpu_seconds() - cpu,
        "submitted_seconds": submitted,
        "submit_ms": milliseconds([seconds for _, seconds in acknowledged]),
    }


def mixed(service: Served, number: int) -> dict[str, Any]:
    """So many jobs at once, of which every tenth cannot be done and another tenth waits for one of those.

    Tells how many ended in the state that they should, and whether any was lost or run more than once: in the
    service's table, and in the artifacts roots, of which each job has its own.
    """
    known = {one["id"] for one in service.jobs()}
    begun = time.time()

    def submit(index: int, after: Sequence[str] = ()) -> str:
        wrong = "nothing" if index % 10 == 3 else "target"
        return service.submit({"spec": spec(service.folder, f"mixed-{index}", wrong), "after": list(after)})

    first = [index for index in range(number) if index % 10 != 7]
    with ThreadPoolExecutor(CLIENTS) as pool:
        jobs = dict(zip(first, pool.map(submit, first), strict=True))
        later = [index for index in range(number) if index % 10 == 7]
        jobs |= dict(zip(later, pool.map(lambda index: submit(index, [jobs[index - 4]]), later), strict=True))
    service.wait(number * SECONDS_A_JOB)
    wall = time.time() - begun
    wanted = {jobs[index]: {3: "failed", 7: "cancelled"}.get(index % 10, "succeeded") for index in range(number)}
    found = [one for one in service.jobs() if one["id"] not in known]
    runs = Counter(path.name for path in service.folder.glob("roots/mixed-*/runs/*"))
    return {
        "jobs": number,
        "acknowledged": len(set(jobs.values())),
        "states": dict(Counter(one["state"] for one in found)),
        "right": sum(wanted.get(one["id"]) == one["state"] for one in found),
        "lost": len(set(wanted) - {one["id"] for one in found}),
        "unknown": len({one["id"] for one in found} - set(wanted)),
        "attempted_twice": sum(one["attempt"] > 1 for one in found),
        "runs_of_those_that_succeeded": sum(runs[job] for job, state in wanted.items() if state == "succeeded"),
        "wall_seconds": wall,
    }


def held(service: Served) -> dict[str, Any]:
    """Memory of the service's process, and of its nursery where it has one, when nothing has been asked for a while."""
    time.sleep(SETTLE_SECONDS)
    nursery = [one for one in service.process.children() if _is_nursery(one)]
    return {"service": memory(service.process), **({"nursery": memory(*nursery)} if nursery else {})}


def _is_nursery(process: psutil.Process) -> bool:
    return any("nursery" in word for word in process.cmdline())


def killed(service: Served, number: int) -> dict[str, Any]:
    """SIGKILL of the service with jobs queued and running; what it knows when it is back, and what becomes of them."""
    jobs = {service.submit({"spec": spec(service.folder, f"killed-{index}")}) for index in range(number)}
    deadline = time.perf_counter() + number * SECONDS_A_JOB
    while not any(one["state"] == "succeeded" and one["id"] in jobs for one in service.jobs()):
        if time.perf_counter() > deadline:
            raise TreadleError("bench service: no job ends")
    before = _states(service, jobs)
    service.kill()
    restart = service.start()
    after = _states(service, jobs)
    service.wait(number * SECONDS_A_JOB)
    ended = [one for one in service.jobs() if one["id"] in jobs]
    return {
        "acknowledged": number,
        "before": before,
        "restart_seconds": restart,
        "remembered": sum(after.values()),
        "after": after,
        "ended": dict(Counter(one["state"] for one in ended)),
        "attempted_twice": sum(one["attempt"] > 1 for one in ended),
    }


def _states(service: Served, jobs: set[str]) -> dict[str, int]:
    return dict(Counter(one["state"] for one in service.jobs() if one["id"] in jobs))
