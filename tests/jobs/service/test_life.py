"""The life of jobs, in a real service with a real cluster."""

from __future__ import annotations

import io
import json
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psutil
import pyarrow as pa
import pytest

from tests.jobs.service.served import Served, long_spec, small_spec, until


def states(view: dict[str, Any]) -> list[str]:
    return [step["after"] for step in view["transitions"]]


def test_a_job_is_done_and_its_results_can_be_had(service: Served) -> None:
    job = service.submit(small_spec("done"))
    assert service.wait(job)["state"] == "succeeded"
    details = service.job(job)
    assert states(details) == ["queued", "running", "succeeded"]
    assert details["run"] == job
    manifest = service.http.get(f"/v1/jobs/{job}/manifest").json()
    assert manifest["run"] == job
    assert manifest["status"] == "succeeded"
    named = {(one["kind"], one["name"]) for one in service.http.get(f"/v1/jobs/{job}/artifacts").json()["artifacts"]}
    assert {("file", "manifest.json"), ("table", "leaderboard"), ("table", "predictions")} <= named
    file = service.http.get(f"/v1/jobs/{job}/artifacts/manifest.json")
    assert json.loads(file.content) == manifest
    answer = service.http.get(f"/v1/jobs/{job}/tables/predictions", params={"columns": ["id", "class"], "limit": 5})
    rows = pa.ipc.open_stream(io.BytesIO(answer.content)).read_all()
    assert rows.column_names == ["id", "class"]
    assert rows.num_rows == 5
    log = service.http.get(f"/v1/jobs/{job}/logs").text
    assert "publish finished" in log


def test_events_tell_everything_once_and_go_on_where_a_reader_was(service: Served) -> None:
    job = service.submit(small_spec("told"))

    def read(**headers: str) -> list[tuple[str, str, Any]]:
        text = service.http.get(f"/v1/jobs/{job}/events", headers=headers).text
        blocks = [dict(line.split(": ", 1) for line in block.splitlines()) for block in text.split("\n\n") if block]
        return [(block["id"], block["event"], json.loads(block["data"])) for block in blocks if "id" in block]

    told = read()
    stages = [(data["stage"], data["event"]) for _, kind, data in told if kind == "stage"]
    assert ("publish", "finished") in stages
    assert len(stages) == len(set(stages)) or any(event == "progress" for _, event in stages)
    assert [data["after"] for _, kind, data in told if kind == "state"] == ["queued", "running", "succeeded"]
    assert told[-1][1] == "end"
    assert told[-1][2]["state"] == "succeeded"
    half = len(told) // 2
    assert read(**{"Last-Event-ID": told[half][0]}) == told[half + 1 :]


def test_a_wrong_spec_fails_at_once_and_is_not_tried_again(service: Served) -> None:
    job = service.submit(small_spec("wrong", data={"path": "sklearn://iris", "target": "colour"}))
    view = service.wait(job)
    assert (view["state"], view["attempt"]) == ("failed", 1)
    assert "Column 'colour' was not found" in view["reason"]


def test_a_hundred_submissions_of_one_id_are_one_job(service: Served) -> None:
    spec = small_spec("once")
    with ThreadPoolExecutor(20) as pool:
        jobs = set(pool.map(lambda _: service.submit(spec, submission_id="only-once"), range(100)))
    assert len(jobs) == 1
    other = service.http.post("/v1/jobs", json={"spec": small_spec("other"), "submission_id": "only-once"})
    assert other.status_code == 409
    assert "another spec" in other.json()["detail"]
    service.wait(jobs.pop())


def test_cancelling_ends_the_job_and_frees_the_worker_within_five_seconds(service: Served) -> None:
    job = service.submit(long_spec("stopped"))
    until(lambda: "train:gradient_boosting started" in service.http.get(f"/v1/jobs/{job}/logs").text, 30)
    time.sleep(0.5)  # so that the worker is in the middle of it
    driver = service.driver(job)
    assert driver is not None
    begun = time.monotonic()
    assert service.http.post(f"/v1/jobs/{job}/cancel").status_code == 202
    assert service.wait(job)["state"] == "cancelled"
    assert not psutil.pid_exists(driver)
    until(lambda: not busy(service), 5 - (time.monotonic() - begun))
    assert service.http.post(f"/v1/jobs/{job}/cancel").status_code == 200
    tables = service.folder / "artifacts" / "tables"
    assert not (tables / "stopped").exists()
    # The worker is there for the next job.
    assert service.wait(service.submit(small_spec("next")))["state"] == "succeeded"


def busy(service: Served) -> bool:
    """Whether a process of the cluster computes."""
    lock = (service.home / "cluster" / "lock").read_text()
    cluster = psutil.Process(int(lock))
    children = cluster.children(recursive=True)
    for child in children:
        child.cpu_percent()
    time.sleep(0.2)
    return any(child.cpu_percent() > 60 for child in children if child.is_running())


def test_a_queued_job_is_cancelled_at_once_and_can_be_tried_again(service: Served) -> None:
    blockers = [service.submit(long_spec(f"blocker-{i}")) for i in range(2)]
    job = service.submit(small_spec("waiting"))
    answer = service.http.post(f"/v1/jobs/{job}/cancel")
    assert (answer.status_code, answer.json()["state"]) == (200, "cancelled")
    after = service.submit(small_spec("dependent"), after=[job])
    for blocker in blockers:
        service.http.post(f"/v1/jobs/{blocker}/cancel")
        service.wait(blocker)
    view = service.wait(after)
    assert (view["state"], view["reason"]) == ("cancelled", f"it waits for job {job}, which is cancelled")
    assert service.http.post(f"/v1/jobs/{job}/retry").json()["state"] == "queued"
    assert service.wait(job)["state"] == "succeeded"
    assert service.http.post(f"/v1/jobs/{job}/retry").status_code == 409


def test_a_job_waits_for_those_that_it_needs(service: Served) -> None:
    first = service.submit(small_spec("first"))
    second = service.submit(small_spec("second"), after=[first], priority=1000)
    assert service.wait(second)["state"] == "succeeded"
    ended, started = service.job(first)["finished"], service.job(second)["started"]
    assert ended <= started
    unknown = service.http.post("/v1/jobs", json={"spec": small_spec("third"), "after": ["nobody"]})
    assert (unknown.status_code, unknown.json()["detail"]) == (404, "after: there is no job 'nobody'.")


def test_an_attempt_that_takes_too_long_is_stopped(service: Served) -> None:
    view = service.wait(service.submit(long_spec("slow"), timeout=2.0))
    assert (view["state"], view["reason"]) == ("timed_out", "attempt 1 took longer than 2 s")


@pytest.mark.parametrize("number", [signal.SIGKILL, pytest.param(signal.SIGSEGV, marks=pytest.mark.slow)])
def test_a_driver_that_dies_is_started_again_and_goes_on(service: Served, number: signal.Signals) -> None:
    job = service.submit(long_spec(f"dies-{number}", models=["decision_tree", *long_spec()["models"]]), retries=1)
    until(lambda: "train:gradient_boosting started" in service.http.get(f"/v1/jobs/{job}/logs").text, 30)
    driver = service.driver(job)
    assert driver is not None
    os.kill(driver, number)
    until(lambda: service.job(job)["attempt"] == 2, 30)
    until(lambda: "train:gradient_boosting started" in second_log(service, job), 30)
    assert "train:decision_tree cached" in second_log(service, job)
    reasons = [step["reason"] for step in service.job(job)["transitions"]]
    assert f"its driver died by {number.name}" in reasons[2]
    service.http.post(f"/v1/jobs/{job}/cancel")
    assert service.wait(job)["state"] == "cancelled"


def second_log(service: Served, job: str) -> str:
    return service.http.get(f"/v1/jobs/{job}/logs").text.partition("attempt 2")[2]


def test_a_driver_that_dies_as_often_as_it_may_is_lost(service: Served) -> None:
    job = service.submit(long_spec("lost"), retries=0)
    until(lambda: service.driver(job) is not None, 30)
    os.kill(service.driver(job) or 0, signal.SIGKILL)
    view = service.wait(job)
    assert view["state"] == "lost"
    assert "attempts are spent (1)" in view["reason"]


def test_a_plan_is_told_without_running(service: Served) -> None:
    planned = service.http.post("/v1/plan", json={"spec": small_spec("planned", seed=12345)}).json()
    assert {stage["stage"]: stage["status"] for stage in planned["stages"]}["train:decision_tree"] == "to run"
    wrong = service.http.post("/v1/plan", json={"spec": small_spec("planned", metric="rmse")})
    assert wrong.status_code == 422
    assert "rmse" in wrong.json()["detail"]
