"""The profile local-cuda, as far as a machine without a GPU can show it.

A stand-in takes the place of the module `dask_cuda`: its cluster notes what it is asked for, and starts real
workers without GPUs. What the probe says of the GPUs is made up. Everything else is real.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from distributed import LocalCluster

from treadle.cluster import launch, local
from treadle.cluster.hardware import Gpu, GpuReport
from treadle.cluster.launch import local_gpus, open_cluster, thread_count, worker_count
from treadle.cluster.profiles import LocalCuda
from treadle.errors import RequestError

CUDA_OPTIONS = {"CUDA_VISIBLE_DEVICES", "rmm_pool_size", "enable_cudf_spill", "device_memory_limit"}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the last cluster was asked for, on a machine with the GPUs 0 to 3."""
    found: dict[str, Any] = {}

    class LocalCUDACluster(LocalCluster):
        def __init__(self, **options: Any) -> None:
            found.update(options)
            super().__init__(**{k: v for k, v in options.items() if k not in CUDA_OPTIONS and k != "protocol"})

    stand_in = ModuleType("dask_cuda")
    stand_in.LocalCUDACluster = LocalCUDACluster  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "dask_cuda", stand_in)
    gpus = tuple(Gpu(i, f"GPU-{i}", "H", 2**36, (9, 0)) for i in range(4))
    monkeypatch.setattr(launch, "gpus_here", lambda: GpuReport((), gpus, "1", {}))
    return found


def profile(**keys: Any) -> LocalCuda:
    return LocalCuda(profile="local-cuda", **keys)


def test_one_worker_a_gpu_on_loopback_with_its_options(asked: dict[str, Any], tmp_path: Path) -> None:
    given = profile(gpus=(2, 0), memory="1GB", rmm_pool="10GB", device_memory_limit=0.7)
    with open_cluster(given, str(tmp_path / "log")) as client:
        info = client.scheduler_info(n_workers=-1)
        assert len(info["workers"]) == 2
        assert all(worker["nthreads"] == 1 for worker in info["workers"].values())
        assert all("://127.0.0.1:" in address for address in (info["address"], *info["workers"]))
    assert {key: asked[key] for key in CUDA_OPTIONS} == {
        "CUDA_VISIBLE_DEVICES": [2, 0],
        "rmm_pool_size": "10GB",
        "enable_cudf_spill": True,
        "device_memory_limit": 0.7,
    }
    assert asked["n_workers"] == 2
    assert asked["memory_limit"] == "1GB"
    assert asked["host"] == "127.0.0.1"


def test_defaults(asked: dict[str, Any]) -> None:
    assert local_gpus(profile()) == (0, 1, 2, 3)
    assert worker_count(profile()) == 4
    with open_cluster(profile(gpus=(1,))):
        pass
    # Memory that a worker took at once would be missing where XGBoost trains.
    assert asked["rmm_pool_size"] is None
    assert asked["protocol"] is None
    # dask-cuda's own choice, which depends on whether cuDF spills.
    assert "device_memory_limit" not in asked


@pytest.mark.parametrize(
    ("gpus", "given", "installed", "protocol"),
    [((0, 1), None, True, "ucx"), ((0,), None, True, None), ((0, 1), None, False, None), ((0, 1), "tcp", True, "tcp")],
)
def test_ucx_where_it_is_installed_and_there_are_several_gpus(
    asked: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    gpus: tuple[int, ...],
    given: Any,
    installed: bool,
    protocol: str | None,
) -> None:
    monkeypatch.setattr(local.importlib.util, "find_spec", lambda name: installed or None)
    monkeypatch.setattr(LocalCluster, "__init__", lambda self, **options: None)
    local.cuda_cluster(profile(gpus=gpus, protocol=given), gpus, 1, "1GB")({})
    assert asked["protocol"] == protocol


def test_the_cores_are_shared_out_as_threads(asked: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """One thread at a time uses the GPU; the host's share of a job wants the others."""
    monkeypatch.setattr(launch, "cores", lambda: 16)
    assert thread_count(profile()) == 4
    assert thread_count(profile(gpus=(0, 1, 2))) == 5
    assert thread_count(profile(threads=2)) == 2


def test_a_gpu_that_is_not_there(asked: dict[str, Any]) -> None:
    with (
        pytest.raises(RequestError, match=r"cluster.gpus: there is no GPU 7. GPUs: \[0, 1, 2, 3\]"),
        open_cluster(profile(gpus=(0, 7))),
    ):
        pass
