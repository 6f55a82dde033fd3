"""The clients against a real service: whole jobs, their ends, their results."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import ssl
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import pandas as pd
import pytest

import treadle
from tests.jobs.service.served import Served, served
from treadle import AsyncClient, Client
from treadle.errors import RequestError
from treadle.jobs.client import Conflict, Job, JobFailed, NotFound, Refused, SpecRefused, StillRunning
from treadle.jobs.client.remote_run import RemoteRun
from treadle.jobs.service.states import State


def training(job: Job) -> None:
    """Returns when the job trains."""
    for event in job.events():
        assert event.kind != "end", event.data
        if event.kind == "stage" and event.data["stage"].startswith("train"):
            return


def remote(job: Job) -> RemoteRun:
    """Its run as a client on another machine has it."""
    return RemoteRun(job._table, job.seen.root, job._manifest())


def test_its_result_is_that_of_treadle_run(done: Job, spec: dict[str, Any], scheduler: str, tmp_path: Path) -> None:
    here = treadle.run({**spec, "cluster": {"profile": "address", "address": scheduler}}, root=str(tmp_path / "here"))
    there = done.result()
    assert done.status() is State.SUCCEEDED
    assert type(there) is treadle.Run
    pd.testing.assert_frame_equal(
        there.table("predictions").to_pandas(), here.table("predictions").to_pandas(), check_exact=True
    )
    assert there.model.document.name == "people"
    view = done.view()
    assert (view.submission_id, view.priority, view.spec["name"]) == ("people-1", 5, "people")
    assert [step.after for step in view.transitions] == [State.QUEUED, State.RUNNING, State.SUCCEEDED]


def test_over_http_a_run_has_the_same_tables_and_says_what_it_has_not(done: Job) -> None:
    near, far = done.result(), remote(done)
    assert (far.id, far.status, far.job, far.importance) == (near.id, "succeeded", "people", near.importance)
    assert set(far.tables) == set(near.tables)
    for name in far.tables:
        pd.testing.assert_frame_equal(
            far.table(name).to_pandas(), near.table(name).to_pandas(), check_exact=True, obj=name
        )
        assert far.table(name).path == near.table(name).path
    assert far.table("predictions").to_arrow(columns=["score", "id"]).column_names == ["score", "id"]
    pd.testing.assert_frame_equal(far.leaderboard, near.leaderboard)
    assert far._repr_html_() == near._repr_html_()
    with pytest.raises(RequestError, match="to_arrow"):
        far.table("predictions").files()
    with pytest.raises(RequestError, match="treadle predict"):
        _ = far.model
    with pytest.raises(RequestError, match="Did you mean 'predictions'"):
        far.table("predictionss")
    with pytest.raises(RequestError, match="agee"):
        far.table("predictions").to_arrow(columns=["agee"])


ELSEWHERE = """
import json, sys
from treadle import Client
run = Client().job(sys.argv[1]).result()
print(json.dumps([type(run).__name__, run.leaderboard.to_csv(), run.table("predictions").to_pandas().to_csv()]))
"""


def test_where_the_artifacts_root_cannot_be_read_results_come_over_http(done: Job, service: Served) -> None:
    """In a process that sees another, empty folder in the place of the root, as on another machine."""
    hide = ["unshare", "-rm", "sh", "-c", 'mount -t tmpfs none "$0" && exec "$@"', done.seen.root]
    if shutil.which("unshare") is None or subprocess.run([*hide, "true"], capture_output=True).returncode:
        pytest.skip("a process here may not mount anything, even in a name space of its own")
    environment = {**os.environ, "TREADLE_URL": service.url}

    def said(*command: str) -> str:
        line = [*hide, sys.executable, *command]
        return subprocess.run(line, check=True, capture_output=True, text=True, env=environment).stdout

    near = done.result()
    predictions = near.table("predictions").to_pandas().to_csv()
    assert json.loads(said("-c", ELSEWHERE, done.id)) == ["RemoteRun", near.leaderboard.to_csv(), predictions]
    assert "Leaderboard by auc" in said("-m", "treadle", "result", done.id)


def test_a_submission_id_is_one_job(client: Client, done: Job, spec: dict[str, Any]) -> None:
    again = client.submit(spec, submission_id="people-1", priority=5)
    assert again.id == done.id
    assert again.seen.state is State.SUCCEEDED
    with pytest.raises(Conflict, match="people-1"):
        client.submit({**spec, "seed": 8}, submission_id="people-1", priority=5)


def test_events_and_logs_are_the_same_whether_followed_or_not(client: Client, spec: dict[str, Any]) -> None:
    job = client.submit({**spec, "seed": 11})
    lines: list[str] = []
    follower = threading.Thread(target=lambda: lines.extend(job.logs(follow=True)))
    follower.start()
    followed = list(job.events())
    follower.join(60)
    assert followed[-1].kind == "end"
    assert followed[-1].data["state"] == "succeeded"
    replayed = list(job.events(follow=False))
    for kind in ("stage", "state", "end"):
        assert [event.data for event in followed if event.kind == kind] == [
            event.data for event in replayed if event.kind == kind
        ]
    assert len({event.id for event in followed[:-1]}) == len(followed) - 1
    stages = [event.data for event in followed if event.kind == "stage"]
    finished = [stage["stage"] for stage in stages if stage["event"] in ("finished", "cached")]
    assert finished == ["cluster", *(record["stage"] for record in job.result().manifest["stages"])]
    assert [one.data["after"] for one in followed if one.kind == "state"] == ["queued", "running", "succeeded"]
    assert lines == job.logs().splitlines()


def test_a_failed_job_says_why_and_is_done_after_a_retry(
    client: Client, service: Served, broken: dict[str, Any]
) -> None:
    job = client.submit(broken, submission_id="broken-1")
    with pytest.raises(JobFailed, match="rows.csv") as caught:
        job.result(timeout=120)
    assert caught.value.state is State.FAILED
    assert caught.value.reason == job.view().reason
    assert "rows.csv" in job._repr_html_()
    with pytest.raises(Conflict):
        job.cancel()
    (service.folder / "rows.csv").write_text("a,b\n1,2\n3,4\n")
    again = client.submit(broken, submission_id="broken-1")
    assert (again.id, again.seen.state) == (job.id, State.FAILED), "what a scheduler's second try finds"
    assert again.retry().state is State.QUEUED
    assert job.result(timeout=120).table("etl").rows == 2
    with pytest.raises(Conflict):
        job.retry()


def test_waiting_ends_in_time_and_a_cancelled_job_is_an_error(client: Client, long: dict[str, Any]) -> None:
    job = client.submit(long)
    training(job)
    before = time.monotonic()
    with pytest.raises(StillRunning, match="still running"):
        job.wait(timeout=0.3)
    assert time.monotonic() - before < 5
    assert job.cancel().id == job.id
    with pytest.raises(JobFailed, match="was cancelled") as caught:
        job.wait(timeout=60)
    assert caught.value.state is State.CANCELLED
    assert job.cancel().state is State.CANCELLED, "cancelling again changes nothing"
    assert job.wait(check=False).state is State.CANCELLED


def test_a_job_that_takes_longer_than_its_timeout_is_ended(client: Client, long: dict[str, Any]) -> None:
    with pytest.raises(JobFailed, match="took too long") as caught:
        client.submit(long, timeout=2, retries=0).wait(timeout=100)
    assert caught.value.state is State.TIMED_OUT


def test_a_job_waits_for_those_before_it(client: Client, done: Job, spec: dict[str, Any], long: dict[str, Any]) -> None:
    first = client.submit({**long, "seed": 2})
    second = client.submit({**spec, "seed": 3}, after=[done, first])
    assert second.seen.after == (done.id, first.id)
    training(first)
    assert second.status() is State.QUEUED
    first.cancel()
    assert second.wait(timeout=60, check=False).state in (State.FAILED, State.CANCELLED)


def test_jobs_are_listed_by_what_is_asked_for(client: Client, done: Job) -> None:
    found = list(client.jobs(state="succeeded", name="people"))
    assert done.id in [job.id for job in found]
    assert all(job.seen.name == "people" and job.seen.state is State.SUCCEEDED for job in found)
    created = [job.seen.created for job in client.jobs()]
    assert created == sorted(created, reverse=True)
    assert len(list(client.jobs(limit=2))) == 2
    assert list(client.jobs(user="nobody-of-this-name")) == []


def test_a_job_is_found_by_the_start_of_its_id_if_no_other_has_it(client: Client, done: Job) -> None:
    assert client.find(done.id).id == done.id
    assert client.find(done.id[:-2]).id == done.id
    with pytest.raises(RequestError, match="jobs start with 'people-'"):
        client.find("people-")
    with pytest.raises(NotFound, match="There is no job 'poeple'"):
        client.find("poeple")
    with pytest.raises(NotFound):
        client.job(done.id[:-2])


def test_a_plan_is_that_of_treadle_plan(client: Client, done: Job, spec: dict[str, Any]) -> None:
    planned = client.plan(spec)
    assert {stage["status"] for stage in planned["stages"] if stage["stage"] != "publish"} == {"cached"}
    changed = client.plan(spec, overrides=["models.0.params.max_depth=2"])
    assert "to run" in {stage["status"] for stage in changed["stages"] if stage["stage"].startswith("train")}


def test_the_service_tells_of_itself_and_of_its_cluster(client: Client, scheduler: str) -> None:
    assert client.health().status == "ready"
    cluster = client.cluster()
    assert (cluster.state, cluster.address, cluster.workers) == ("up", scheduler, 2)


def test_what_the_service_refuses_is_named(client: Client, spec: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises((SpecRefused, NotFound), match="no-such-job"):
        client.submit(spec, after=["no-such-job"])
    with pytest.raises(Refused, match="outside|allow"):
        client.submit(spec, overrides=[f"artifacts.root={tmp_path}"])


def test_schedules_are_put_replaced_listed_and_removed(client: Client, spec: dict[str, Any]) -> None:
    made = client.schedule("daily", "0 6 * * mon-fri", spec, timezone="Europe/Berlin", priority=3)
    assert (made.next.minute, made.next.weekday() < 5) == (0, True)
    client.schedule("daily", "30 6 * * *", spec)
    (found,) = client.schedules()
    assert (found.cron, found.timezone, found.priority, found.next.minute) == ("30 6 * * *", "UTC", 0, 30)
    client.unschedule("daily")
    assert client.schedules() == []
    with pytest.raises(NotFound, match="daily"):
        client.unschedule("daily")
    with pytest.raises(SpecRefused):
        client.schedule("never", "99 99 * * *", spec)


@pytest.mark.slow
def test_a_schedule_submits_when_its_time_comes(client: Client, spec: dict[str, Any]) -> None:
    """At most a minute: the finest that a clock of this kind has."""
    client.schedule("often", "* * * * *", {**spec, "seed": 21, "name": "often"})
    try:
        deadline = time.monotonic() + 75
        while not (found := list(client.jobs(name="often"))):
            assert time.monotonic() < deadline
            time.sleep(0.5)
        assert found[-1].seen.schedule == "often"
        found[-1].wait(timeout=60)
    finally:
        client.unschedule("often")


@pytest.mark.slow
def test_waiting_and_following_outlive_a_restart_of_the_service(
    client: Client, service: Served, long: dict[str, Any]
) -> None:
    job = client.submit({**long, "seed": 5})
    training(job)
    ends: list[Any] = []
    watching = [
        threading.Thread(target=lambda: ends.append(job.wait(timeout=120, check=False).state)),
        threading.Thread(target=lambda: ends.append(list(job.events())[-1].data["state"])),
        threading.Thread(target=lambda: ends.append(len(list(job.logs(follow=True))))),
    ]
    for thread in watching:
        thread.start()
    time.sleep(0.5)
    assert service.process is not None
    service.process.terminate()
    service.process.wait(60)
    service.start()
    job.cancel()
    for thread in watching:
        thread.join(100)
    assert ends.count("cancelled") == 2, ends
    assert len(ends) == 3


def test_notebooks_show_the_job_and_its_leaderboard(done: Job) -> None:
    shown = done._repr_html_()
    assert done.id in shown
    assert "<th>auc</th>" in shown
    assert "<td>train:xgboost</td><td>" in shown


def test_asynchronous_jobs_run_beside_each_other(service: Served, spec: dict[str, Any], long: dict[str, Any]) -> None:
    async def script() -> None:
        async with AsyncClient(service.url) as client:
            first, second = await asyncio.gather(*(client.submit({**spec, "seed": seed}) for seed in (31, 32)))
            kinds = [event.kind async for event in first.events()]
            assert kinds[-1] == "end"
            views = await asyncio.gather(first.wait(), second.wait(timeout=60))
            assert {view.state for view in views} == {State.SUCCEEDED}
            assert "auc" in (await second.result()).leaderboard
            far = RemoteRun(first._table, views[0].root, (await first.result()).manifest)
            assert len(await asyncio.to_thread(far.table("predictions").to_pandas)) == 150
            lines = [line async for line in first.logs(follow=True)]
            assert lines == (await first.logs()).splitlines()
            assert {job.id async for job in client.jobs(limit=2, state="succeeded")} == {first.id, second.id}
            slow = await client.submit({**long, "seed": 33})
            assert (await client.find(slow.id[:-1])).id == slow.id
            with pytest.raises(StillRunning):
                await slow.wait(timeout=0.2)
            await slow.cancel()
            with pytest.raises(JobFailed, match="was cancelled"):
                await slow.wait(timeout=60)
            assert (await client.health()).status == "ready"

    asyncio.run(script())


def commanded(folder: Path, *command: str) -> list[str]:
    """The lines that a command of the operator prints."""
    environment = {**os.environ, "TREADLE_HOME": str(folder / "home")}
    line = [sys.executable, "-m", "treadle", *command]
    return subprocess.run(line, check=True, capture_output=True, text=True, env=environment).stdout.splitlines()


@pytest.mark.slow
def test_tokens_and_certificates_are_asked_for_and_taken(
    tmp_path: Path, scheduler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "service.yaml").write_text("tokens: true\n")
    made = {Path(line).name: line for line in commanded(tmp_path, "certs", str(tmp_path / "certs"))}
    (token,) = commanded(tmp_path, "tokens", "add", "reader", "--scope", "read")
    https = ("--certificate", made["service.pem"], "--key", made["service.key"])
    ca = made["ca.pem"]
    service = Served(tmp_path, "--scheduler", scheduler, *https)
    service.url = f"https://127.0.0.1:{service.port}"
    service.http = httpx.Client(base_url=service.url, verify=ssl.create_default_context(cafile=ca))
    try:
        service.start()
        before = time.monotonic()
        with Client(service.url) as client, pytest.raises(RequestError, match="not trusted.*TREADLE_CA"):
            client.health()
        assert time.monotonic() - before < 3, "trying again does not make a certificate trusted"
        with Client(service.url, ca=ca) as client, pytest.raises(Refused, match="TREADLE_TOKEN"):
            list(client.jobs())
        with Client(service.url, "wrong", ca=ca) as client, pytest.raises(Refused, match="not known"):
            list(client.jobs())
        monkeypatch.setenv("TREADLE_TOKEN", token)
        monkeypatch.setenv("TREADLE_CA", ca)
        with Client(service.url) as client:
            assert list(client.jobs()) == []
            with pytest.raises(Refused, match="submit"):
                client.unschedule("daily")
    finally:
        service.end()


def test_a_service_that_was_killed_is_said_to_be_gone(tmp_path: Path, scheduler: str) -> None:
    with served(tmp_path, "--scheduler", scheduler) as service, Client(service.url, retries=1) as client:
        assert client.health().status == "ready"
        service.kill()
        with pytest.raises(RequestError, match="treadle up"):
            client.health()
