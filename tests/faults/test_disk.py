"""A disk that fills up: the run says where and what to do, what was published stays, and room makes it go on."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

import treadle
from tests.conftest import people_spec
from tests.faults.driver import until
from treadle.errors import StorageError
from treadle.jobs import runner
from treadle.jobs.cli import app
from treadle.jobs.run import Run, list_runs, load_run

SIZE = "2m"
NO_SPACE = r"No space left on the device of {root}/.*; free space there, or choose another folder with --root\."


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MB; a run on `people` takes a tenth of it."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.name != "posix" or os.geteuid() != 0:
        pytest.skip("mounting a small file system needs the root user")
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(folder)]
    try:
        done = subprocess.run(mount, capture_output=True, text=True, timeout=20)
    except FileNotFoundError:
        pytest.skip("mounting a small file system needs the program mount")
    if done.returncode != 0:
        pytest.skip(f"a small file system cannot be mounted here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True, timeout=20)


def fill(disk: Path) -> Path:
    """Writes until there is no room for a byte; returns the file to remove."""
    path = disk / "filler"
    with open(path, "wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12, 1):
            try:
                while True:
                    file.write(b"\0" * size)
            except OSError:
                continue
    return path


@pytest.fixture
def published(disk: Path, people: Path, scheduler: str) -> Run:
    """A run on the disk from before it filled up."""
    return treadle.run(people_spec(people, disk / "root", scheduler))


def assert_still_there(run: Run, disk: Path) -> None:
    """The tables and the model of a run, read anew."""
    again = load_run(str(disk / "root"), run.id)
    for name, table in again.tables.items():
        assert len(table.to_pandas()) == table.rows, name
    pd.testing.assert_frame_equal(again.leaderboard, run.leaderboard)
    assert again.model.reference == run.model.reference


def test_a_disk_that_the_features_fill(disk: Path, published: Run, tmp_path: Path, scheduler: str) -> None:
    rng = np.random.default_rng(5)
    noise = rng.random((300_000, 2))  # as float32, which does not compress, more than the disk has
    big = tmp_path / "big.parquet"
    buys = np.where(noise[:, 0] > 0.5, "yes", "no")
    pd.DataFrame({"key": np.arange(300_000), "a": noise[:, 0], "b": noise[:, 1], "buys": buys}).to_parquet(big)
    spec = people_spec(
        big,
        disk / "root",
        scheduler,
        data={"path": str(big), "target": "buys", "positive_class": "yes", "id": "key", "partitions": 4},
        tables=[],
        features=[],
        models=[{"name": "decision_tree", "params": {"max_depth": 3}}],
        explain={"rows": "none"},
        predict={"rows": "none"},
    )
    file = tmp_path / "spec.json"
    file.write_text(json.dumps(spec))
    command = ["run", str(file), "--quiet"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 1
    assert re.fullmatch("treadle: " + NO_SPACE.format(root=disk / "root") + "\n", result.stderr)
    assert f"{disk}/root/stages/features-" in result.stderr
    assert result.stdout == ""
    until("the end of what is still being written", lambda: None if list(disk.rglob("*.tmp")) else True, 10)
    assert_still_there(published, disk)
    assert treadle.load_model("people", root=str(disk / "root")).reference == "people:1"
    subprocess.run(["mount", "-o", "remount,size=200m", str(disk)], check=True, timeout=20)
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.stderr
    newest = load_run(str(disk / "root"), list_runs(str(disk / "root"))[0]["run"])
    assert newest.table("features").rows == 300_000
    assert newest.table("features").version == 1
    assert_still_there(published, disk)


@pytest.mark.parametrize("moment", ["cluster finished", "split finished", "evaluate finished", "publish started"])
def test_a_disk_that_fills_at_any_moment(disk: Path, published: Run, people: Path, scheduler: str, moment: str) -> None:
    """Nothing is left for the next event, which goes to events.jsonl, nor for what follows."""
    fillers: list[Path] = []

    def listener(event: dict[str, Any]) -> None:
        if f"{event['stage']} {event['event']}" == moment:
            fillers.append(fill(disk))

    spec = people_spec(people, disk / "root", scheduler, seed=8)
    with pytest.raises(StorageError, match=NO_SPACE.format(root=disk / "root")):
        runner.run(spec, listener=listener)
    assert_still_there(published, disk)
    fillers[0].unlink()
    again = treadle.run(spec)
    assert again.status == "succeeded"
    assert {again.table(name).version for name in ("predictions", "leaderboard")} == {1}
    assert again.model.reference == "people:2"
    assert_still_there(published, disk)


@pytest.mark.parametrize("broken", ["runs", "events.jsonl"])
def test_a_root_where_runs_cannot_be_written(
    people: Path, tmp_path: Path, scheduler: str, broken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The device that is always full, in place of the events."""
    root = tmp_path / "artifacts"
    if broken == "runs":
        root.mkdir()
        (root / "runs").write_text("in the way")
    else:
        make = runner.Events.__init__

        def full(self: Any, store: Any, run_id: str, listener: Any = None) -> None:
            folder = root / "runs" / run_id
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "events.jsonl").symlink_to("/dev/full")
            make(self, store, run_id, listener)

        monkeypatch.setattr(runner.Events, "__init__", full)
    with pytest.raises(StorageError, match=rf"{root}/runs/.*(events\.jsonl|running\.json).*--root"):
        treadle.run(people_spec(people, root, scheduler))
