"""Clusters that a profile describes: what is started, where it listens, and that it is gone afterwards."""

from __future__ import annotations

import multiprocessing.spawn
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.conftest import people_spec, write_people
from treadle.cluster import hardware, launch, remote
from treadle.cluster.launch import local_workers, open_cluster
from treadle.cluster.profiles import Attached, Local
from treadle.errors import RequestError


def listening() -> list[str]:
    """Addresses on which this process and its children listen."""
    processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
    found = [c for p in processes for c in p.net_connections(kind="tcp") if c.status == psutil.CONN_LISTEN]
    return [c.laddr.ip for c in found]


def test_a_local_cluster_listens_on_loopback_only_and_leaves_nothing(tmp_path: Path) -> None:
    before = {p.pid for p in psutil.Process().children(recursive=True)}
    others = len([ip for ip in listening() if not ip.startswith("127.")])
    log = tmp_path / "workers.log"
    with open_cluster(Local(workers=1, threads=1, memory="1GB"), str(log)) as client:
        (worker,) = client.scheduler_info(n_workers=-1)["workers"].values()
        assert worker["nthreads"] == 1
        assert worker["memory_limit"] == 10**9
        assert len([ip for ip in listening() if not ip.startswith("127.")]) == others
        client.submit(print, "a library prints").result()
        scratch = Path(worker["local_directory"])
        assert scratch.exists()
    assert "a library prints" in log.read_text()
    assert not scratch.exists()
    left = {p.pid for p in psutil.Process().children(recursive=True)} - before
    names = [" ".join(psutil.Process(pid).cmdline()) for pid in left if psutil.pid_exists(pid)]
    assert not [name for name in names if "resource_tracker" not in name]


def test_attaches_to_a_running_scheduler(scheduler: str) -> None:
    with open_cluster(Attached(profile="address", address=scheduler)) as client:
        assert len(client.scheduler_info(n_workers=-1)["workers"]) == 2


def test_an_address_where_nothing_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "ATTACH_TIMEOUT", "2s")
    profile = Attached(profile="address", address="tcp://127.0.0.1:9")
    with (
        pytest.raises(RequestError, match=r"No Dask scheduler answers at tcp://127.0.0.1:9 \(cluster.address\)"),
        open_cluster(profile),
    ):
        pass


def test_workers_share_the_cores() -> None:
    workers, threads = local_workers(Local())
    assert 1 <= workers <= 4
    assert workers * threads <= max(hardware.cores(), workers)
    assert local_workers(Local(workers=3, threads=2)) == (3, 2)


@pytest.mark.slow
def test_a_script_without_a_main_guard_runs_once(tmp_path: Path) -> None:
    """multiprocessing would run the script again in every worker, which would start clusters without end."""
    people = write_people(tmp_path / "people.parquet")
    spec = people_spec(people, tmp_path / "artifacts", "", cluster={"workers": 1}, models=["decision_tree"])
    script = tmp_path / "script.py"
    script.write_text(f"import treadle\nprint('once')\nprint(treadle.run({spec!r}).status)\n")
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout.split() == ["once", "succeeded"], done.stderr
    assert multiprocessing.spawn.get_preparation_data is launch._preparation_data
