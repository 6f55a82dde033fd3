"""Clusters that are started through a real SSH server, a real Slurm and a real Dask Gateway, on loopback."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask
import psutil
import pytest

from tests.cluster.servers import (
    GatewayServer,
    SlurmServer,
    SshServer,
    gateway,
    slurm,
    sshd,
    why_no_gateway,
    why_no_slurm,
    why_no_sshd,
)
from tests.conftest import people_spec, write_people
from treadle.cluster.launch import open_cluster
from treadle.cluster.profiles import Attached, Gateway, Slurm, Ssh, Tls
from treadle.errors import RequestError, TreadleError
from treadle.jobs.runner import run

MEMORY = "1GB"


@pytest.fixture(scope="module")
def ssh_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshServer]:
    if why := why_no_sshd():
        pytest.skip(why)
    with sshd(tmp_path_factory.mktemp("sshd")) as server:
        yield server


@pytest.fixture(scope="module")
def slurm_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SlurmServer]:
    if why := why_no_slurm():
        pytest.skip(why)
    with slurm(tmp_path_factory.mktemp("slurm")) as server:
        yield server


@pytest.fixture(scope="module")
def gateway_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayServer]:
    if why := why_no_gateway():
        pytest.skip(why)
    with gateway(tmp_path_factory.mktemp("gateway")) as server:
        yield server


def over_ssh(server: SshServer, **keys: Any) -> Ssh:
    given = {
        "profile": "ssh",
        "hosts": ("127.0.0.1",),
        "memory": MEMORY,
        "threads": 1,
        "port": server.port,
        "username": server.username,
        "key": str(server.private_key),
        "known_hosts": str(server.known_hosts),
    }
    return Ssh.model_validate({**given, **keys})


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Tls:
    """One self-signed certificate for all."""
    from distributed import Security

    folder = tmp_path_factory.mktemp("tls")
    made = Security.temporary()
    for name, text in (("ca", made.tls_ca_file), ("cert", made.tls_client_cert), ("key", made.tls_client_key)):
        (folder / f"{name}.pem").write_text(text)
    return Tls(**{name: str(folder / f"{name}.pem") for name in ("ca", "cert", "key")})


@pytest.mark.slow
def test_a_job_over_ssh(ssh_server: SshServer, scheduler: str, tmp_path: Path) -> None:
    """Whole, and equal to the same job on other workers."""
    people = write_people(tmp_path / "people.parquet")
    there = over_ssh(ssh_server, workers=2).model_dump(mode="json")
    spec = people_spec(people, tmp_path / "there", scheduler, models=["decision_tree"])
    runs = [run({**spec, "cluster": there}), run({**spec, "artifacts": {"root": str(tmp_path / "here")}})]
    for table in ("predictions", "explanations"):
        first, second = (one.table(table).to_pandas() for one in runs)
        assert len(first) > 100
        assert first.equals(second)


@pytest.mark.parametrize("encrypted", [pytest.param(False, marks=pytest.mark.slow), True])
def test_workers_over_ssh(ssh_server: SshServer, certificates: Tls, encrypted: bool) -> None:
    profile = over_ssh(ssh_server, workers=2, tls=certificates if encrypted else None)
    before = {p.pid for p in psutil.process_iter()}
    with open_cluster(profile) as client:
        info = client.scheduler_info(n_workers=-1)
        assert len(info["workers"]) == 2
        addresses = [info["address"], *info["workers"]]
        assert {address.partition("://")[0] for address in addresses} == {"tls" if encrypted else "tcp"}
        assert all("://127.0.0.1:" in address for address in addresses)
        pids = set(client.run(os.getpid).values())
        assert len(pids) == 2
        assert not pids & before
    for pid in pids:
        psutil.wait_procs([psutil.Process(pid)] if psutil.pid_exists(pid) else [], timeout=10)
        assert not psutil.pid_exists(pid)


def test_a_scheduler_with_certificates_is_attached_to_with_them(ssh_server: SshServer, certificates: Tls) -> None:
    with open_cluster(over_ssh(ssh_server, tls=certificates)) as client:
        address = client.scheduler_info()["address"]
        with open_cluster(Attached(profile="address", address=address, tls=certificates)) as other:
            assert other.submit(sum, [1, 2]).result() == 3
        other_tls = certificates.model_copy(update={"ca": certificates.key})
        with (
            pytest.raises(RequestError, match="No Dask scheduler answers at tls://"),
            open_cluster(Attached(profile="address", address=address, tls=other_tls)),
        ):
            pass


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"known_hosts": os.devnull}, "profile: ssh. did not start: .*[Hh]ost key"),
        ({"key": "/no/such/key"}, "profile: ssh. did not start: .*No such file"),
        ({"port": 9}, "profile: ssh. did not start: .*[Cc]onnect"),
        ({"python": "/no/such/python"}, "profile: ssh. did not start: "),
    ],
    ids=["unknown host", "no key", "no server", "no python"],
)
def test_ssh_that_fails_is_told(ssh_server: SshServer, keys: dict[str, Any], words: str) -> None:
    with pytest.raises(TreadleError, match=words), open_cluster(over_ssh(ssh_server, **keys)):
        pass


def test_workers_as_slurm_jobs(slurm_server: SlurmServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, value in slurm_server.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    profile = Slurm(
        profile="slurm",
        workers=2,
        cores=1,
        memory=MEMORY,
        queue=slurm_server.partition,
        interface="lo",
        shared_folder=str(tmp_path),
        walltime="00:10:00",
        directives=("--comment=from-a-test",),
        prologue=("export TREADLE_PROLOGUE=ran",),
    )
    with open_cluster(profile) as client:
        info = client.scheduler_info(n_workers=-1)
        assert len(info["workers"]) == 2
        assert all(address.startswith("tls://127.0.0.1:") for address in (info["address"], *info["workers"]))
        assert set(client.run(os.getenv, "TREADLE_PROLOGUE").values()) == {"ran"}
        assert client.submit(sum, [1, 2]).result() == 3
        (key,) = tmp_path.glob(".treadle-*/key.pem")
        assert key.stat().st_mode & 0o077 == key.parent.stat().st_mode & 0o077 == 0
        queue = subprocess.run(["squeue", "-h", "-o", "%T %k"], capture_output=True, text=True, check=True).stdout
        assert queue.splitlines() == ["RUNNING from-a-test"] * 2
    left = subprocess.run(["squeue", "-h", "-t", "RUNNING,PENDING"], capture_output=True, text=True, check=True).stdout
    assert left == ""
    assert not list(tmp_path.glob(".treadle-*"))


@pytest.mark.slow
def test_workers_of_a_gateway(gateway_server: GatewayServer) -> None:
    profile = Gateway(profile="gateway", address=gateway_server.url, workers=1)
    auth = {"gateway.auth.type": "basic", "gateway.auth.kwargs": {"username": "t", "password": gateway_server.password}}
    with dask.config.set(auth), open_cluster(profile) as client:
        assert len(client.scheduler_info(n_workers=-1)["workers"]) == 1
        assert client.submit(sum, [1, 2]).result() == 3
    wrong = {**auth, "gateway.auth.kwargs": {"username": "t", "password": "wrong"}}
    with (
        dask.config.set(wrong),
        pytest.raises(TreadleError, match="profile: gateway. did not start: "),
        open_cluster(profile),
    ):
        pass
