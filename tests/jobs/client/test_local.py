"""`Client.local`: jobs without a service have the same interface, and results, as with one."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import treadle
from tests.conftest import people_spec, write_people
from treadle import Client
from treadle.errors import RequestError
from treadle.jobs.client import Conflict, JobFailed, NotFound, StillRunning
from treadle.jobs.client.local import LocalClient
from treadle.jobs.client.local_job import LocalJob
from treadle.jobs.service.states import State


@pytest.fixture(scope="module")
def client() -> Iterator[LocalClient]:
    with Client.local() as client:
        yield client


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory, scheduler: str) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("local")
    return people_spec(write_people(folder / "people.parquet"), folder / "artifacts", scheduler)


@pytest.fixture(scope="module")
def long(spec: dict[str, Any]) -> dict[str, Any]:
    """A job that takes minutes."""
    return {**spec, "name": "long", "models": [{"name": "xgboost", "params": {"n_estimators": 200_000}}]}


@pytest.fixture(scope="module")
def done(client: LocalClient, spec: dict[str, Any]) -> LocalJob:
    job = client.submit(spec, submission_id="people-1")
    job.wait(timeout=120)
    return job


def training(job: LocalJob) -> None:
    """Returns when the job trains."""
    for event in job.events():
        if event.kind == "stage" and event.data["stage"].startswith("train"):
            return


def test_its_result_is_that_of_treadle_run(done: LocalJob, spec: dict[str, Any], tmp_path: Path) -> None:
    here = treadle.run(spec, root=str(tmp_path / "here"))
    there = done.result()
    assert done.status() is State.SUCCEEDED
    assert there.id == done.view().run
    pd.testing.assert_frame_equal(
        there.table("predictions").to_pandas(), here.table("predictions").to_pandas(), check_exact=True
    )
    assert list(there.leaderboard["auc"]) == list(here.leaderboard["auc"])
    assert there.model.document.name == "people"


def test_events_tell_its_stages_in_order_and_end_with_the_job(done: LocalJob) -> None:
    events = list(done.events())
    assert [event.id for event in events] == [str(i + 1) for i in range(len(events))]
    assert events[0].data["after"] == "running"
    assert events[-1].kind == "end"
    assert events[-1].data["state"] == "succeeded"
    finished = [one.data["stage"] for one in events if one.kind == "stage" and one.data["event"] == "finished"]
    assert finished == ["cluster", *(record["stage"] for record in done.result().manifest["stages"])]


def test_logs_hold_what_a_terminal_would_show(done: LocalJob) -> None:
    said = done.logs()
    assert "train:xgboost" in said
    assert list(done.logs(follow=True)) == said.splitlines()


def test_a_submission_id_is_one_job(client: LocalClient, done: LocalJob, spec: dict[str, Any]) -> None:
    assert client.submit(spec, submission_id="people-1") is done
    with pytest.raises(Conflict, match="people-1"):
        client.submit({**spec, "seed": 8}, submission_id="people-1")


@pytest.mark.slow
def test_a_job_that_cannot_be_done_fails_with_its_reason_and_may_be_retried(
    client: LocalClient, spec: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("a,b\n1,2\n3\n")
    job = client.submit(
        {key: spec[key] for key in ("apiVersion", "artifacts", "cluster")}
        | {"name": "etl", "data": {"path": str(path)}}
    )
    with pytest.raises(JobFailed, match="rows.csv") as caught:
        job.wait(timeout=120)
    assert caught.value.state is State.FAILED
    assert caught.value.reason == job.view().reason
    assert caught.value.reason in job.logs()
    assert "rows.csv" in job._repr_html_()
    path.write_text("a,b\n1,2\n3,4\n")
    assert job.retry().state is State.RUNNING
    assert job.result(timeout=120).table("etl").rows == 2
    assert job.view().attempt == 2
    with pytest.raises(Conflict, match="succeeded"):
        job.retry()
    with pytest.raises(Conflict, match="succeeded"):
        job.cancel()


def test_a_cancelled_job_ends_and_publishes_nothing(client: LocalClient, long: dict[str, Any]) -> None:
    job = client.submit(long)
    training(job)
    with pytest.raises(StillRunning):
        job.wait(timeout=0.01)
    job.cancel()
    assert job.wait(timeout=60, check=False).state is State.CANCELLED
    assert job.cancel().state is State.CANCELLED
    with pytest.raises(JobFailed, match="was cancelled"):
        job.result()
    assert not (Path(long["artifacts"]["root"]) / "tables" / "long").exists()


def test_a_job_that_takes_too_long_is_ended(client: LocalClient, long: dict[str, Any]) -> None:
    before = time.monotonic()
    view = client.submit(long, timeout=3).wait(timeout=60, check=False)
    assert view.state is State.TIMED_OUT
    assert "longer than 3 s" in view.reason
    assert time.monotonic() - before >= 3


def test_a_job_whose_process_was_killed_is_lost(client: LocalClient, long: dict[str, Any]) -> None:
    job = client.submit(long)
    training(job)
    os.kill(job._process.pid, signal.SIGKILL)
    with pytest.raises(JobFailed, match="was lost: .*-9"):
        job.wait(timeout=30)


@pytest.mark.slow
def test_closing_a_client_ends_its_jobs(long: dict[str, Any]) -> None:
    with Client.local() as client:
        job = client.submit(long)
        training(job)
    assert job._process.poll() is not None


def test_jobs_are_listed_the_newest_first(client: LocalClient, done: LocalJob, spec: dict[str, Any]) -> None:
    assert done.id in [job.id for job in client.jobs(state="succeeded", name="people")]
    assert list(client.jobs(limit=1, state="queued")) == []
    assert client.job(done.id) is done
    assert client.find(done.id[:-1]) is done
    with pytest.raises(NotFound, match="nothing"):
        client.job("nothing")
    assert {stage["status"] for stage in client.plan(spec)["stages"] if stage["stage"] != "publish"} == {"cached"}


def test_what_needs_a_service_says_so(client: LocalClient, spec: dict[str, Any]) -> None:
    for ask in (
        lambda: client.submit(spec, after=["a"]),
        lambda: client.submit(spec, retries=1),
        client.health,
        client.cluster,
        client.schedules,
        lambda: client.schedule("daily", "0 6 * * *", spec),
        lambda: client.unschedule("daily"),
    ):
        with pytest.raises(RequestError, match="needs a service.*treadle up"):
            ask()


def test_notebooks_show_the_leaderboard_and_escape_what_they_show(done: LocalJob) -> None:
    shown = done._repr_html_()
    assert done.id in shown
    assert "<th>auc</th>" in shown
    assert "<td>train:xgboost</td><td>finished</td>" in shown
    run = done.result()
    manifest: Any = run.manifest
    manifest["error"] = "<script>alert(1)</script>"
    manifest["results"]["evaluate"]["rows"][0]["model"] = "<b>"
    for part in ("&lt;script&gt;", "<td>&lt;b&gt;</td>", "predictions"):
        assert part in run._repr_html_()
    assert "<script>" not in run._repr_html_()
