"""A cluster that others started: real schedulers and workers with other versions, or without our files."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd
import pytest

from tests.conftest import people_spec, write_people
from treadle.cluster.agreement import check_files, gpu_trouble
from treadle.cluster.launch import open_cluster
from treadle.cluster.profiles import Attached
from treadle.errors import RequestError, TreadleError
from treadle.jobs.runner import run

DEADLINE = 60.0
pytestmark = pytest.mark.filterwarnings("ignore::distributed.versions.VersionMismatchWarning")  # of this file's clients


@contextlib.contextmanager
def running(folder: Path, scheduler: Path | None = None, worker: Path | None = None, mount: str = "") -> Iterator[str]:
    """Address of a scheduler with a worker, each a process that looks for modules in a folder first.

    With `mount`, the worker has an empty file system there.
    """
    file = folder / "scheduler.json"
    common = ["--host", "127.0.0.1", "--no-dashboard", "--scheduler-file", str(file)]
    worker_command = [sys.executable, "-m", "distributed.cli.dask_worker", *common, "--nthreads", "1", "--no-nanny"]
    commands = [
        ([sys.executable, "-m", "distributed.cli.dask_scheduler", *common, "--port", "0"], scheduler),
        (["unshare", "--mount", "sh", "-c", f'mount -t tmpfs none "{mount}" && exec "$@"', "sh", *worker_command]
         if mount else worker_command, worker),
    ]  # fmt: skip
    with contextlib.ExitStack() as stack:
        for command, first in commands:
            stack.enter_context(_process(command, folder, first))
            end = time.monotonic() + DEADLINE
            while not file.exists() and time.monotonic() < end:
                time.sleep(0.1)
        from distributed import Client

        with Client(scheduler_file=str(file), set_as_default=False, timeout=DEADLINE) as client:
            client.wait_for_workers(1, timeout=DEADLINE)
            address = str(client.scheduler_info()["address"])
        yield address


@contextlib.contextmanager
def _process(command: Sequence[str], folder: Path, first: Path | None) -> Iterator[None]:
    environment = {**os.environ, **({"PYTHONPATH": str(first)} if first else {})}
    with subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            yield
        finally:
            process.kill()


def other(folder: Path, library: str, version: str) -> Path:
    """A folder whose metadata say that another version of a library is installed."""
    made = folder / f"other-{library}"
    info = made / f"{library}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {library}\nVersion: {version}\n")
    return made


def test_a_worker_with_another_version_is_refused_by_name(tmp_path: Path) -> None:
    with running(tmp_path, worker=other(tmp_path, "pandas", "1.2.3")) as address:
        words = rf"pandas is {pd.__version__} here, and 1.2.3 on tcp://127.0.0.1:\d+. Install the same"
        with pytest.raises(TreadleError, match=words), open_cluster(Attached(profile="address", address=address)):
            pass


def test_a_scheduler_with_another_version_is_refused_before_the_job_starts(tmp_path: Path) -> None:
    people = write_people(tmp_path / "people.parquet")
    with running(tmp_path, scheduler=other(tmp_path, "cloudpickle", "0.1")) as address:
        words = r"cloudpickle is .* here, and 0.1 on the scheduler. Install"
        with pytest.raises(TreadleError, match=words):
            run(people_spec(people, tmp_path / "artifacts", address))
    assert not list((tmp_path / "artifacts" / "stages").glob("read-*"))


def test_a_worker_without_treadle(tmp_path: Path) -> None:
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    (hidden / "treadle.py").write_text("raise ImportError('no such thing here')\n")
    with running(tmp_path, worker=hidden) as address:
        words = r"Treadle cannot be loaded on tcp://127.0.0.1:\d+: .*no such thing here.*. Install it there"
        with pytest.raises(TreadleError, match=words), open_cluster(Attached(profile="address", address=address)):
            pass


def test_a_worker_that_sees_other_files_is_refused(tmp_path: Path) -> None:
    root, elsewhere = tmp_path / "artifacts", tmp_path / "elsewhere"
    root.mkdir()
    elsewhere.mkdir()
    probe = ["unshare", "--mount", "mount", "-t", "tmpfs", "none", str(root)]
    try:
        subprocess.run(probe, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no file system can be mounted for a process here")
    people = write_people(tmp_path / "people.parquet")
    with running(elsewhere, mount=str(root)) as address:
        with pytest.raises(RequestError, match=r"artifacts/runs/.*/events.jsonl' is not there for tcp://127.0.0.1:\d+"):
            run(people_spec(people, root, address))
        with open_cluster(Attached(profile="address", address=address)) as client:
            check_files(client, [str(people)])


def test_workers_without_gpus_are_refused_for_a_job_on_gpus(tmp_path: Path, scheduler: str) -> None:
    if not gpu_trouble():
        pytest.skip("this machine has a GPU")
    people = write_people(tmp_path / "people.parquet")
    words = r"device: cuda cannot be used: no kernel computes on a GPU of tcp://127.0.0.1:\d+: \w.* Attach to workers"
    with pytest.raises(RequestError, match=words):
        run({**people_spec(people, tmp_path / "artifacts", scheduler), "device": "cuda"})
    assert not list((tmp_path / "artifacts" / "stages").glob("read-*"))
