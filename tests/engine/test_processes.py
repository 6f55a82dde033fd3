"""Processes that others can tell to be gone."""

from __future__ import annotations

import subprocess
import sys

import pytest

from treadle.engine import processes
from treadle.engine.processes import Process, this_process

TELLS = (
    "from treadle.engine.processes import this_process; print(this_process().model_dump_json(), flush=True); input()"
)


def test_a_process_is_gone_when_it_has_ended() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", TELLS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        told = Process.model_validate_json(other.stdout.readline())
        assert told.pid == other.pid
        assert not told.is_gone
        other.kill()
        other.wait()
        assert told.is_gone


def test_a_number_that_is_used_again_is_another_process() -> None:
    mine = this_process()
    assert not mine.is_gone
    assert mine.model_copy(update={"started": mine.started - 100}).is_gone


def test_nothing_is_known_of_other_machines_and_containers() -> None:
    gone = this_process().model_copy(update={"started": -100.0})
    assert gone.is_gone
    assert not gone.model_copy(update={"boot": "another"}).is_gone
    assert not gone.model_copy(update={"namespace": "pid:[1]"}).is_gone


def test_where_the_system_does_not_say_when_it_was_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "BOOT_ID", processes.BOOT_ID / "nowhere")
    monkeypatch.setattr(processes, "PID_NAMESPACE", processes.PID_NAMESPACE / "nowhere")
    assert processes.boot() == processes.boot()
    assert not this_process().is_gone
