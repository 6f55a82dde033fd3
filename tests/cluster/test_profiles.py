"""Profiles as values: what is refused, what is safe by default, what a profile means for the plan."""

from __future__ import annotations

import re
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from treadle.cluster.launch import worker_count
from treadle.cluster.profiles import AnyProfile, Kubernetes, Profile, has_gpus, is_here
from treadle.cluster.remote import _quantity, kubernetes_spec, remote
from treadle.errors import RequestError
from treadle.jobs.device import choose_device
from treadle.jobs.spec import load_spec

PROFILES: TypeAdapter[Any] = TypeAdapter(AnyProfile)
TLS = {"ca": "ca.pem", "cert": "cert.pem", "key": "key.pem"}
SLURM: dict[str, Any] = {"profile": "slurm", "workers": 3, "cores": 4, "memory": "8GB"}
PODS: dict[str, Any] = {"profile": "kubernetes", "image": "treadle:1", "workers": 2, "cores": 2, "memory": "4GiB"}


def profile(**keys: Any) -> Any:
    return PROFILES.validate_python(keys)


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        (
            {"profile": "ssh", "hosts": ["gpu1"]},
            "cluster.tls: missing; without it whoever reaches the scheduler on gpu1",
        ),
        ({"profile": "ssh", "hosts": ["127.0.0.1", "10.1.2.3"]}, "whoever reaches the scheduler on 10.1.2.3"),
        ({"profile": "ssh", "hosts": []}, "at least 1 item"),
        ({"profile": "address", "address": "tls://h:1"}, "needed with an address tls://..., and only there"),
        (
            {"profile": "address", "address": "tcp://h:1", "tls": TLS},
            "needed with an address tls://..., and only there",
        ),
        ({"profile": "address"}, "address\n  Field required"),
        ({"profile": "local", "address": "tcp://127.0.0.1:1"}, "Extra inputs are not permitted"),
        ({**SLURM, "gpus": 2}, "ask for 1, and for more workers"),
        ({**SLURM, "prologue": ["module load cuda\nrm -r x"]}, "without line breaks"),
        ({**SLURM, "walltime": "an hour"}, "walltime"),
        ({"profile": "gateway", "address": "gateway.example.org", "workers": 1}, "is no URL"),
        ({"profile": "local-cuda", "gpus": []}, "at least 1 item"),
        ({"profile": "local-cuda", "rmm_pool": 1.5}, "rmm_pool"),
    ],
)
def test_refusals(keys: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        profile(**keys)


def test_loopback_needs_no_certificates_and_tls_can_be_turned_off_by_name() -> None:
    for hosts in (["127.0.0.1", "localhost", "::1"], ["127.8.9.1"]):
        assert profile(profile="ssh", hosts=hosts).tls is None
    assert profile(profile="ssh", hosts=["gpu1"], tls="off").tls == "off"
    assert profile(profile="ssh", hosts=["gpu1"], tls=TLS).tls.ca == "ca.pem"


@pytest.mark.parametrize(
    ("keys", "workers", "gpus", "here"),
    [
        ({"profile": "local", "workers": 3}, 3, False, True),
        ({"profile": "ssh", "hosts": ["localhost", "127.0.0.1"], "workers": 2}, 4, False, False),
        ({"profile": "ssh", "hosts": ["localhost"], "gpus": True}, 1, True, False),
        (SLURM, 3, False, False),
        ({**SLURM, "gpus": 1}, 3, True, False),
        (PODS, 2, False, False),
        ({"profile": "gateway", "address": "https://g", "workers": 5, "gpus": True}, 5, True, False),
    ],
)
def test_what_the_plan_wants_to_know(keys: dict[str, Any], workers: int, gpus: bool, here: bool) -> None:
    found: Profile = profile(**keys)
    assert worker_count(found) == workers
    assert has_gpus(found) == gpus
    assert is_here(found) == here


def test_a_profile_of_gpus_contradicts_a_device_without() -> None:
    for keys in ({"profile": "local-cuda"}, {**SLURM, "gpus": 1}):
        with pytest.raises(RequestError, match=f"device: cpu, and a cluster of GPUs .profile: {keys['profile']}"):
            choose_device("cpu", profile(**keys))


def test_specs_without_a_profile_mean_local() -> None:
    spec = {"apiVersion": "treadle/v1", "name": "x", "data": {"path": __file__}}
    assert load_spec({**spec, "cluster": {"workers": 2}}).cluster == profile(profile="local", workers=2)
    assert load_spec(spec).cluster == profile(profile="local")
    with pytest.raises(RequestError, match="cluster.workers: expected a whole number, got text 'many'"):
        load_spec({**spec, "cluster": {"workers": "many"}})
    with pytest.raises(RequestError, match="cluster.host: unknown key 'host'. Allowed: .*hosts.* Did you mean 'hosts'"):
        load_spec({**spec, "cluster": {"profile": "ssh", "hosts": ["localhost"], "host": "a"}})


@pytest.mark.parametrize(("size", "there"), [("4GiB", "4Gi"), ("500MB", "500M"), ("1.5 GB", "1.5G")])
def test_sizes_for_kubernetes(size: str, there: str) -> None:
    assert _quantity(size) == there


def test_pods() -> None:
    pytest.importorskip("dask_kubernetes", reason="dask-kubernetes is not installed")
    found = Kubernetes(**{**PODS, "gpus": 1, "service_account": "treadle"})
    spec = kubernetes_spec(found)
    worker, scheduler = (spec["spec"][role]["spec"] for role in ("worker", "scheduler"))
    assert spec["spec"]["worker"]["replicas"] == 2
    names = {kubernetes_spec(found)["metadata"]["name"] for _ in range(3)}
    assert len(names) == 3
    assert all(re.fullmatch(r"treadle-[0-9a-f]{8}", name) for name in names)
    (container,) = worker["containers"]
    assert container["image"] == "treadle:1"
    assert container["args"][:3] == ["dask", "cuda", "worker"]
    assert container["args"][-4:] == ["--nthreads", "2", "--memory-limit", "4GiB"]
    assert container["resources"]["limits"] == {"cpu": "2", "memory": "4Gi", "nvidia.com/gpu": "1"}
    assert container["resources"]["requests"] == {"cpu": "2", "memory": "4Gi"}
    assert "nvidia.com/gpu" not in scheduler["containers"][0]["resources"]["limits"]
    assert worker["serviceAccountName"] == scheduler["serviceAccountName"] == "treadle"


@pytest.mark.parametrize(
    ("keys", "library"),
    [
        ({"profile": "ssh", "hosts": ["localhost"]}, "asyncssh"),
        (SLURM, "dask-jobqueue"),
        (PODS, "dask-kubernetes"),
        ({"profile": "gateway", "address": "http://127.0.0.1:9", "workers": 1}, "dask-gateway"),
    ],
)
def test_a_library_that_is_not_installed(keys: dict[str, Any], library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    words = f"cluster.profile: {keys['profile']} needs the library {library}, which is not installed: pip install 't"
    with pytest.raises(RequestError, match=words), remote(profile(**keys)):
        pass
