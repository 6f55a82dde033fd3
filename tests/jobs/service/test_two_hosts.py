"""Two hosts, as network namespaces: service and scheduler on one, the worker on the other, TLS between all of them."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.jobs.service.served import small_spec, until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("ip"), reason="network namespaces need root and `ip`"),
]
FIRST, SECOND = "10.213.7.1", "10.213.7.2"
PORT, SCHEDULER = 8844, 8786
CUT_SECONDS = 20.0


@dataclass(frozen=True)
class Hosts:
    """Names of the namespaces."""

    first: str
    second: str

    def run(self, host: str, *command: str, **how: Any) -> subprocess.Popen[bytes]:
        return subprocess.Popen(["ip", "netns", "exec", host, sys.executable, "-m", *command], **how)

    def link(self, state: str) -> None:
        _ip("-n", self.second, "link", "set", "wire", state)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


@pytest.fixture
def hosts() -> Iterator[Hosts]:
    both = Hosts(f"treadle-a-{os.getpid()}", f"treadle-b-{os.getpid()}")
    try:
        for host in (both.first, both.second):
            _ip("netns", "add", host)
            _ip("-n", host, "link", "set", "lo", "up")
        _ip("-n", both.first, "link", "add", "wire", "type", "veth", "peer", "name", "wire", "netns", both.second)
        for host, address in ((both.first, FIRST), (both.second, SECOND)):
            _ip("-n", host, "address", "add", f"{address}/24", "dev", "wire")
            _ip("-n", host, "link", "set", "wire", "up")
        yield both
    finally:
        for host in (both.first, both.second):
            subprocess.run(["ip", "netns", "delete", host], check=False, capture_output=True)


@contextlib.contextmanager
def inside(host: str) -> Iterator[None]:
    """This thread's connections are made by the host."""
    with open("/proc/self/ns/net") as outside, open(f"/run/netns/{host}") as namespace:
        os.setns(namespace.fileno(), os.CLONE_NEWNET)
        try:
            yield
        finally:
            os.setns(outside.fileno(), os.CLONE_NEWNET)


def test_a_link_that_is_cut_for_twenty_seconds_does_no_harm_or_is_told(hosts: Hosts, tmp_path: Path) -> None:
    certs, home = tmp_path / "certs", tmp_path / "home"
    treadle = [sys.executable, "-m", "treadle"]
    subprocess.run([*treadle, "certs", str(certs), "--host", FIRST], check=True, capture_output=True)
    tls = {"ca": str(certs / "ca.pem"), "cert": str(certs / "dask.pem"), "key": str(certs / "dask.key")}
    flags = ["--tls-ca-file", tls["ca"], "--tls-cert", tls["cert"], "--tls-key", tls["key"]]
    scheduler = f"tls://{FIRST}:{SCHEDULER}"
    home.mkdir(mode=0o700)
    settings = {
        "host": FIRST,
        "port": PORT,
        "certificate": str(certs / "service.pem"),
        "key": str(certs / "service.key"),
        "cluster": {"profile": "address", "address": scheduler, "tls": tls},
        "back_off": 1.0,
    }
    (home / "service.yaml").write_text(json.dumps(settings))
    environment = {**os.environ, "TREADLE_HOME": str(home)}
    made = subprocess.run(
        [*treadle, "tokens", "add", "me"], env=environment, check=True, capture_output=True, text=True
    )
    token = made.stdout.strip()
    started = []
    try:
        with open(tmp_path / "said.log", "ab") as log:
            how: dict[str, Any] = {"cwd": tmp_path, "env": environment, "stdout": log, "stderr": log}
            serve = ["dask", "scheduler", "--host", f"tls://{FIRST}", "--port", str(SCHEDULER), "--no-dashboard"]
            started.append(hosts.run(hosts.first, *serve, *flags, **how))
            work = ["dask", "worker", scheduler, "--host", f"tls://{SECOND}", "--nthreads", "1", "--no-dashboard"]
            started.append(hosts.run(hosts.second, *work, *flags, **how))
            started.append(hosts.run(hosts.first, "treadle", "up", **how))
        with inside(hosts.first), client(certs / "ca.pem", token) as http:
            until(lambda: answers(http), 60, lambda: (tmp_path / "said.log").read_text())
            models = ["decision_tree", {"name": "gradient_boosting", "params": {"n_estimators": 1500}}]
            job = http.post("/v1/jobs", json={"spec": small_spec("far", models=models)}).json()["id"]
            until(lambda: "train:gradient_boosting started" in http.get(f"/v1/jobs/{job}/logs").text, 60)
            hosts.link("down")
            time.sleep(CUT_SECONDS)
            assert http.get(f"/v1/jobs/{job}").json()["state"] in ("running", "queued")
            hosts.link("up")
            until(lambda: http.get(f"/v1/jobs/{job}").json()["state"] not in ("running", "queued"), 240)
            ended = http.get(f"/v1/jobs/{job}").json()
            assert ended["state"] in ("succeeded", "failed"), ended
            if ended["state"] == "failed":
                assert "worker" in ended["reason"] or "cluster" in ended["reason"], ended["reason"]
            # And the cluster is of use again.
            after = http.post("/v1/jobs", json={"spec": small_spec("after")}).json()["id"]
            until(lambda: http.get(f"/v1/jobs/{after}").json()["state"] == "succeeded", 120)
    finally:
        for process in reversed(started):
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(30)
            process.kill()
            process.wait()


def client(ca: Path, token: str) -> httpx.Client:
    import ssl

    trust = ssl.create_default_context(cafile=str(ca))
    headers = {"Authorization": f"Bearer {token}"}
    return httpx.Client(base_url=f"https://{FIRST}:{PORT}", verify=trust, headers=headers, timeout=30)


def answers(http: httpx.Client) -> bool:
    try:
        return http.get("/health").status_code == 200 and http.get("/v1/cluster").json()["workers"] == 1
    except httpx.TransportError:
        return False
