"""What a service survives: its own death, that of its cluster and of drivers, frozen ones, a full disk."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.jobs.service.served import Served, long_spec, served, small_spec, until

STAGES = ("read", "etl", "split", "features", "train:decision_tree", "evaluate", "explain", "predict", "publish")


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Served]:
    """A service that a test may kill. Faults of the machine are tried again soon."""
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    (home / "service.yaml").write_text("back_off: 0.5\nsilence: 3\ncluster: {workers: 1}\n")
    with served(tmp_path, "--max-running", "2") as one:
        yield one


def versions(service: Served, job: str, table: str = "predictions") -> list[dict[str, Any]]:
    """The commits of a job's table, by its Delta log."""
    log = service.folder / "artifacts" / "tables" / job / table / "_delta_log"
    return [json.loads(line) for path in sorted(log.glob("*.json")) for line in path.read_text().splitlines()]


def commits(service: Served, name: str) -> int:
    return sum("commitInfo" in line for line in versions(service, name))


def training(service: Served, job: str, model: str = "gradient_boosting") -> bool:
    return f"train:{model} started" in service.http.get(f"/v1/jobs/{job}/logs").text


@pytest.mark.slow
def test_a_service_that_is_killed_goes_on_where_it_was(own: Served) -> None:
    """Two jobs run and many are queued: drivers live on and are taken up again; nothing is lost or done twice."""
    middle = [{"name": "gradient_boosting", "params": {"n_estimators": 1500}}]
    running = [own.submit(small_spec(f"running-{i}", models=middle, seed=i)) for i in range(2)]
    queued = [own.submit(small_spec(f"queued-{i}")) for i in range(8)]
    until(lambda: all(training(own, job) for job in running), 30)
    drivers = [own.driver(job) for job in running]
    own.kill()
    assert all(is_there(driver) for driver in drivers)
    own.start()
    assert [own.driver(job) for job in running] == drivers
    for job in (*running, *queued):
        view = own.wait(job, 120)
        assert (view["state"], view["attempt"]) == ("succeeded", 1), view
    assert {commits(own, own.job(job)["name"]) for job in (*running, *queued)} == {1}


@pytest.mark.slow
def test_drivers_that_end_or_die_while_no_service_runs_are_noticed(own: Served) -> None:
    ends = own.submit(small_spec("ends", models=[{"name": "gradient_boosting", "params": {"n_estimators": 300}}]))
    dies = own.submit(long_spec("dies"))
    until(lambda: training(own, dies) and training(own, ends), 30)
    ending, dying = own.driver(ends), own.driver(dies)
    own.kill()
    assert dying is not None
    os.kill(dying, signal.SIGKILL)
    until(lambda: not is_there(ending), 60)
    own.start()
    view = own.wait(ends)
    assert (view["state"], view["attempt"]) == ("succeeded", 1)
    until(lambda: own.job(dies)["attempt"] == 2, 30)
    own.http.post(f"/v1/jobs/{dies}/cancel")
    assert own.wait(dies)["state"] == "cancelled"


@pytest.mark.slow
def test_a_service_that_is_stopped_takes_its_jobs_up_again(own: Served) -> None:
    job = own.submit(long_spec("stopped", models=["decision_tree", *long_spec()["models"]]), retries=0)
    until(lambda: training(own, job), 30)
    driver = own.driver(job)
    assert own.process is not None
    own.process.send_signal(signal.SIGTERM)
    assert own.process.wait(30) == 0
    assert not is_there(driver)
    assert not cluster_alive(own)
    own.start()
    until(lambda: own.job(job)["attempt"] == 2, 30)
    assert "the service was stopped" in own.job(job)["transitions"][2]["reason"]
    until(lambda: "train:decision_tree cached" in own.http.get(f"/v1/jobs/{job}/logs").text, 30)
    own.http.post(f"/v1/jobs/{job}/cancel")
    own.wait(job)


def cluster_alive(service: Served) -> bool:
    pid = (service.home / "cluster" / "lock").read_text()
    return is_there(int(pid))


def is_there(pid: int | None) -> bool:
    """Whether a process lives; one that nobody has waited for yet does not."""
    try:
        return pid is not None and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.slow
def test_a_cluster_that_dies_is_started_again_and_its_jobs_go_on(own: Served) -> None:
    middle = [{"name": "gradient_boosting", "params": {"n_estimators": 1500}}]
    job = own.submit(small_spec("survives", models=middle))
    until(lambda: training(own, job), 30)
    cluster = psutil.Process(int((own.home / "cluster" / "lock").read_text()))
    workers = cluster.children(recursive=True)
    cluster.kill()
    view = own.wait(job, 120)
    assert view["state"] == "succeeded", view
    assert view["attempt"] == 2
    assert commits(own, "survives") == 1
    gone, alive = psutil.wait_procs(workers, 10)
    assert not alive, f"workers of the dead cluster: {alive}; gone: {gone}"


@pytest.mark.slow
def test_a_driver_that_freezes_is_killed_and_its_job_tried_again(own: Served) -> None:
    job = own.submit(long_spec("frozen"))
    until(lambda: training(own, job), 30)
    driver = own.driver(job)
    assert driver is not None
    os.kill(driver, signal.SIGSTOP)
    until(lambda: own.job(job)["attempt"] == 2, 30)
    assert "no sign of life" in own.job(job)["transitions"][2]["reason"]
    assert not is_there(driver)
    own.http.post(f"/v1/jobs/{job}/cancel")
    own.wait(job)


@pytest.mark.slow
def test_a_job_whose_folder_was_deleted_is_tried_again_and_holds_up_no_other(own: Served) -> None:
    job, other = own.submit(long_spec("deleted"), retries=1), own.submit(small_spec("other"))
    until(lambda: training(own, job), 60)
    driver = own.driver(job)
    shutil.rmtree(own.home / "jobs" / job)
    assert own.wait(other)["state"] == "succeeded"
    until(lambda: own.job(job)["attempt"] == 2, 60)
    until(lambda: training(own, job), 60)
    assert own.driver(job) != driver
    until(lambda: not is_there(driver), 10)
    own.http.post(f"/v1/jobs/{job}/cancel")
    assert own.wait(job)["state"] == "cancelled"


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["driver", "cluster"])
def test_a_kill_at_each_stage_leaves_one_version_of_everything(own: Served, victim: str) -> None:
    """The moment is when the events tell that the stage begins; where the job has come since, is chance."""
    for i, stage in enumerate(STAGES):
        name = f"at-{i}"
        job = own.submit(small_spec(name, seed=i, explain={"rows": "all"}), retries=3)
        events = own.home / "jobs" / job / "events.jsonl"
        struck = re.compile(f'"stage": "{stage}", "event": "(started|cached)"')
        until(lambda path=events, text=struck: path.exists() and text.search(path.read_text()), 60, lambda: own.said)
        pid = own.driver(job) if victim == "driver" else int((own.home / "cluster" / "lock").read_text())
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid or 0, signal.SIGKILL)
        view = own.wait(job, 120)
        assert view["state"] == "succeeded", (stage, view)
        for table in ("features", "leaderboard", "predictions", "explanations"):
            assert sum("commitInfo" in line for line in versions(own, name, table)) == 1, (stage, table)
        # A number is not used again when its driver was killed before the bundle was whole.
        assert len(list((own.folder / "artifacts" / "models" / name).glob("*/bundle.json"))) == 1


@pytest.mark.slow
def test_a_service_that_is_killed_with_two_hundred_jobs_queued_loses_and_doubles_none(own: Served) -> None:
    middle = [{"name": "gradient_boosting", "params": {"n_estimators": 1500}}]
    running = [own.submit(small_spec(f"running-{i}", models=middle, seed=i)) for i in range(2)]
    until(lambda: all(training(own, job) for job in running), 30)
    queued = [own.submit(small_spec(f"queued-{i}", seed=i)) for i in range(200)]
    own.kill()
    own.start()
    listed = list(pages(own))
    assert sorted(listed) == sorted((*running, *queued))
    for job in listed:
        view = own.wait(job, 300)
        assert (view["state"], view["attempt"]) == ("succeeded", 1), view
    assert {commits(own, own.job(job)["name"]) for job in listed} == {1}


def pages(service: Served) -> Iterator[str]:
    """The ids of all jobs."""
    cursor = None
    while True:
        asked = {"limit": 30, **({"cursor": cursor} if cursor else {})}
        page = service.http.get("/v1/jobs", params=asked).json()
        yield from (job["id"] for job in page["jobs"])
        if (cursor := page["next"]) is None:
            return


FAKETIME = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)


@pytest.mark.slow
@pytest.mark.skipif(FAKETIME is None, reason="clocks are set by libfaketime (Debian: faketime)")
def test_jobs_outlive_a_clock_that_jumps(tmp_path: Path) -> None:
    """A day forward and two back, for the service, its drivers and its cluster alike, while jobs run and wait."""
    clock = tmp_path / "clock"
    clock.write_text("+0")
    environment = {
        "LD_PRELOAD": str(FAKETIME),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_CACHE_DURATION": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    (home / "service.yaml").write_text("back_off: 2\n")
    with served(tmp_path, "--workers", "1", "--max-running", "1", environment=environment) as own:
        middle = [{"name": "gradient_boosting", "params": {"n_estimators": 1000}}]
        jobs = [own.submit(small_spec(f"clock-{i}", models=middle, seed=i), timeout=300) for i in range(4)]
        for i, jump in enumerate(("+86400", "-86400", "+0")):
            until(lambda job=jobs[i]: training(own, job), 60)
            clock.write_text(jump)
            if jump == "-86400":  # the next attempt is due a day from now, by the clock that was
                os.kill(own.driver(jobs[i]) or 0, signal.SIGKILL)
        for job in jobs:
            assert own.wait(job, 120)["state"] == "succeeded"
        order = [own.job(job)["transitions"][-1] for job in jobs]
        assert all(step["after"] == "succeeded" for step in order)
        assert own.job(jobs[1])["attempt"] == 2


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_full_disk_refuses_submissions_and_loses_none(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m,mode=700", "tmpfs", str(home)], check=True)
    try:
        with served(tmp_path, "--workers", "1") as service:
            before = service.submit(small_spec("before"))
            service.wait(before)
            filler = home / "filler"
            with contextlib.suppress(OSError), open(filler, "wb") as file:
                while True:
                    file.write(bytes(4096))
                    file.flush()
            acknowledged = []
            refused = None
            for i in range(2000):
                answer = service.http.post("/v1/jobs", json={"spec": small_spec(f"full-{i}")})
                if answer.status_code != 201:
                    refused = answer
                    break
                acknowledged.append(answer.json()["id"])
            assert refused is not None
            assert refused.status_code == 503
            assert "full" in refused.json()["detail"]
            assert service.http.get(f"/v1/jobs/{before}").json()["state"] == "succeeded"
            filler.unlink()
            after = service.submit(small_spec("after"))
            for job in (*acknowledged, after):
                assert service.wait(job)["state"] == "succeeded"
    finally:
        subprocess.run(["umount", "-l", str(home)], check=True)


@pytest.mark.slow
def test_a_dead_cluster_is_told_and_started_again(own: Served) -> None:
    assert own.http.get("/v1/cluster").json()["state"] == "up"
    os.kill(int((own.home / "cluster" / "lock").read_text()), signal.SIGKILL)
    time.sleep(0.1)
    until(lambda: own.http.get("/health").status_code == 503, 10)
    until(lambda: own.http.get("/health").status_code == 200, 30)
