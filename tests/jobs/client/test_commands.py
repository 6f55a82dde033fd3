"""The commands that ask a service: what they print, and their exit status."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from tests.jobs.service.served import Served
from treadle import Client
from treadle.jobs.cli import app
from treadle.jobs.client import Job


@pytest.fixture(autouse=True)
def _environment(service: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TREADLE_URL", service.url)


@pytest.fixture(scope="module")
def path(service: Served, spec: dict[str, Any]) -> Path:
    path = service.folder / "people.json"
    path.write_text(json.dumps(spec))
    return path


@pytest.fixture(scope="module")
def long_path(service: Served, long: dict[str, Any]) -> Path:
    path = service.folder / "long.json"
    path.write_text(json.dumps(long))
    return path


def treadle_says(*command: str | Path, status: int = 0) -> Result:
    result = CliRunner().invoke(app, [str(part) for part in command])
    assert result.exit_code == status, result.output
    return result


def document(*command: str | Path, status: int = 0) -> Any:
    """The one JSON document that a command prints."""
    result = treadle_says(*command, "--json", status=status)
    assert len(result.stdout.splitlines()) == 1, result.stdout
    return json.loads(result.stdout)


def test_submit_prints_the_job_and_does_not_wait(path: Path) -> None:
    said = treadle_says("submit", path, "--set", "seed=41").stdout
    job_id, _, rest = said.partition("  ")
    assert job_id.startswith("people-")
    assert rest.startswith(("queued: ", "running: "))
    assert treadle_says("wait", job_id).stdout.startswith(f"{job_id}  succeeded: ")


def test_submit_takes_what_the_python_client_takes(path: Path, done: Job) -> None:
    made = document("submit", path, "--set", "seed=42", "--priority", "7", "--submission-id", "s-42", "--timeout",
                    "500", "--retries", "4", "--after", done.id[:-1])  # fmt: skip
    shown = {key: made[key] for key in ("priority", "submission_id", "timeout", "retries", "after")}
    assert shown == {"priority": 7, "submission_id": "s-42", "timeout": 500, "retries": 4, "after": [done.id]}
    again = document("submit", path, "--set", "seed=42", "--priority", "7", "--submission-id", "s-42", "--timeout",
                     "500", "--retries", "4", "--after", done.id)  # fmt: skip
    assert again["id"] == made["id"]
    assert "s-42" in treadle_says("submit", path, "--submission-id", "s-42", status=2).stderr
    document("wait", made["id"])


def test_submit_and_wait_shows_progress_and_what_was_made(path: Path) -> None:
    told = treadle_says("submit", path, "--wait", "--set", "seed=43")
    assert "train:xgboost" in told.stderr
    assert "Leaderboard by auc" in told.stdout
    quiet = treadle_says("submit", path, "--wait", "--quiet", "--set", "seed=44")
    assert quiet.stderr == ""
    assert document("submit", path, "--wait", "--set", "seed=45")["state"] == "succeeded"


def test_a_job_that_failed_is_exit_status_1(service: Served, broken: dict[str, Any]) -> None:
    (service.folder / "broken.json").write_text(json.dumps(broken))
    (service.folder / "rows.csv").write_text("a,b\n1,2\n3\n")
    failed = document("submit", service.folder / "broken.json", "--wait", status=1)
    assert failed["state"] == "failed"
    job_id = failed["id"]
    assert "rows.csv" in treadle_says("result", job_id, status=1).stderr
    assert "failed: " in treadle_says("wait", job_id, status=1).stdout
    assert document("wait", job_id, status=1)[0]["reason"] == failed["reason"]
    assert f"{job_id}  failed: {failed['reason']}" in treadle_says("status", job_id).stdout
    assert document("list", "--state", "failed", "--name", "broken")[0]["id"] == job_id
    (service.folder / "rows.csv").write_text("a,b\n1,2\n3,4\n")
    assert document("retry", job_id, "--fresh")["state"] in ("queued", "running")
    assert "etl" in treadle_says("result", job_id, "--timeout", "100").stdout
    assert document("status", job_id)["attempt"] == 2
    assert job_id in treadle_says("retry", job_id, status=2).stderr


def test_status_list_logs_and_result_of_a_job_that_is_done(done: Job, client: Client) -> None:
    shown = treadle_says("status", done.id[:-1]).stdout
    for words in (done.id, "succeeded", "priority 5", "people-1", "train:xgboost"):
        assert words in shown
    assert document("status", done.id) == done.view().model_dump(mode="json")
    assert done.id in treadle_says("list", "--limit", "500").stdout
    assert len(document("list", "--limit", "1")) == 1
    assert "No such jobs" in treadle_says("list", "--user", "nobody-of-this-name").stdout
    assert treadle_says("logs", done.id).stdout == done.logs()
    assert treadle_says("logs", done.id, "-f").stdout.splitlines() == done.logs().splitlines()
    assert document("result", done.id) == done.result().manifest
    assert "Leaderboard by auc" in treadle_says("result", done.id).stdout


def test_waiting_ends_with_124_and_cancelling_with_1(long_path: Path) -> None:
    job_id = document("submit", long_path)["id"]
    assert f"{job_id} is still" in treadle_says("wait", job_id, "--timeout", "0.3", status=124).stderr
    assert document("wait", job_id, "--timeout", "0.1", status=124)["status"] == "error"
    assert "is still" in treadle_says("result", job_id, "--timeout", "0", status=124).stderr
    assert job_id in treadle_says("cancel", job_id).stdout
    assert "cancelled" in treadle_says("wait", job_id, "--timeout", "60", status=1).stdout
    assert "was cancelled" in treadle_says("result", job_id, status=1).stderr


def test_several_jobs_are_waited_for_and_cancelled_at_once(path: Path, long_path: Path, done: Job) -> None:
    ids = [document("submit", long_path, "--set", f"seed={seed}")["id"] for seed in (51, 52)]
    refused = treadle_says("cancel", *ids, done.id, status=2)
    assert done.id in refused.stderr
    assert [view["state"] for view in document("wait", *ids, done.id, "--timeout", "60", status=1)] == [
        "cancelled", "cancelled", "succeeded",
    ]  # fmt: skip


def test_wrong_requests_are_exit_status_2(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "There is no job" in treadle_says("status", "no-such-job", status=2).stderr
    assert "Did you mean 'xgboost'" in treadle_says("submit", path, "--set", "models.0.name=xgbost", status=2).stderr
    assert "Did you mean 'queued'" in treadle_says("list", "--state", "queud", status=2).stderr
    assert document("status", "no-such-job", status=2)["status"] == "error"
    assert "http://" in treadle_says("list", "--url", "localhost", status=2).stderr
    monkeypatch.setenv("TREADLE_URL", "http://127.0.0.1:1")
    before = time.monotonic()
    assert "treadle up" in treadle_says("wait", "a-job", status=2).stderr
    assert time.monotonic() - before < 3


def test_schedules_by_commands(path: Path) -> None:
    said = treadle_says("schedule", "put", "daily", "0 6 * * mon-fri", path, "--timezone", "Europe/Berlin").stdout
    assert said.startswith("daily: next at ")
    assert document("schedule", "list")[0]["timezone"] == "Europe/Berlin"
    assert "0 6 * * mon-fri" in treadle_says("schedule", "list").stdout
    treadle_says("schedule", "remove", "daily")
    assert "There are no schedules" in treadle_says("schedule", "list").stdout
    assert "daily" in treadle_says("schedule", "remove", "daily", status=2).stderr
    assert "catch_up" in treadle_says("schedule", "put", "x", "0 6 * * *", path, "--catch-up", "some", status=2).stderr


def test_ctrl_c_ends_the_waiting_and_not_the_job(service: Served, long_path: Path, client: Client) -> None:
    command = [sys.executable, "-m", "treadle", "submit", str(long_path), "--wait", "--set", "seed=61"]
    environment = {**os.environ, "TREADLE_URL": service.url}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as waiting:
        assert waiting.stderr is not None
        job = client.job(waiting.stderr.readline().strip())
        time.sleep(0.3)
        waiting.send_signal(signal.SIGINT)
        said = waiting.stderr.read()
        assert waiting.wait(20) == 130
    assert f"treadle cancel {job.id}" in said
    assert not job.status().is_terminal
    job.cancel()
    job.wait(timeout=60, check=False)
