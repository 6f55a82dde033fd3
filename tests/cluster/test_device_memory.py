"""Memory of GPUs, counted on real workers; a module in place of `rmm` plays the GPU.

It counts by RMM's rules: pushed counters begin at 0, and are added to those below when they are popped. RMM's own
counters are held to the same rules where RMM is installed; they need no GPU.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import inspect
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from distributed import Client, LocalCluster

from treadle.cluster.device_memory import KEPT_SHARE, Counter, DeviceMemory, set_up

RESOURCES = """
from types import SimpleNamespace

TOTAL = 1000
elsewhere = 0

class CudaMemoryResource: ...
class PoolMemoryResource: ...

class CudaAsyncMemoryResource:
    def __init__(self, initial_pool_size=None, release_threshold=None):
        self.release_threshold = release_threshold

class StatisticsResourceAdaptor:
    def __init__(self, upstream):
        self.upstream_mr = upstream
        self.stack = [[0, 0]]

    def allocate(self, size):
        top = self.stack[-1]
        top[0] += size
        top[1] = max(top)

    def deallocate(self, size):
        self.stack[-1][0] -= size

    @property
    def allocation_counts(self):
        return SimpleNamespace(current_bytes=self.stack[-1][0], peak_bytes=self.stack[-1][1])

    def push_counters(self):
        before = self.allocation_counts
        self.stack.append([0, 0])
        return before

    def pop_counters(self):
        popped = self.allocation_counts
        self.stack.pop()
        below = self.stack[-1]
        below[1] = max(below[1], below[0] + popped.peak_bytes)
        below[0] += popped.current_bytes
        return popped

current = CudaMemoryResource()

def get_current_device_resource():
    return current

def set_current_device_resource(resource):
    global current
    current = resource

def available_device_memory():
    held = sum(level[0] for level in getattr(current, "stack", ()))
    return TOTAL - held - elsewhere, TOTAL
"""


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a module `rmm`, in which workers that are started now look first."""
    (tmp_path / "rmm").mkdir()
    (tmp_path / "rmm" / "__init__.py").write_text("from . import mr\n")
    (tmp_path / "rmm" / "mr.py").write_text(RESOURCES)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


@contextlib.contextmanager
def workers(count: int = 2) -> Iterator[Client]:
    with (
        LocalCluster(
            n_workers=count, threads_per_worker=1, host="127.0.0.1", dashboard_address="127.0.0.1:0"
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client


def allocate(size: int, kept: int = 0, others: int = 0) -> None:
    """On a worker: takes `size` bytes for a moment, keeps some of them, and has others take some elsewhere."""
    import rmm.mr

    rmm.mr.current.allocate(size)
    rmm.mr.elsewhere = others
    time.sleep(0.6)
    rmm.mr.current.deallocate(size - kept)
    rmm.mr.elsewhere = 0


def resource() -> tuple[str, str, Any]:
    import rmm.mr

    counted = rmm.mr.current
    below = counted.upstream_mr
    return type(counted).__name__, type(below).__name__, getattr(below, "release_threshold", None)


def test_stages_have_peaks_of_their_own(stand_in: Path) -> None:
    with workers() as client:
        memory = DeviceMemory(client)
        first, second = client.scheduler_info(n_workers=-1)["workers"]
        assert set(client.run(resource).values()) == {
            ("StatisticsResourceAdaptor", "CudaAsyncMemoryResource", int(1000 * KEPT_SHARE))
        }
        memory.begin()
        client.run(allocate, 300, 40, workers=[first])
        client.run(allocate, 200, others=500, workers=[second])
        # The peak is that of the worker that had most; in samples, others' memory counts too.
        assert memory.used() == (300, 700)
        memory.begin()
        assert memory.used() == (40, 40)
        memory.begin()
        client.run(allocate, 100, workers=[first])
        assert memory.used() == (140, 140)
        # Another driver of the same workers sets nothing up again.
        again = DeviceMemory(client)
        again.begin()
        assert again.used() == (40, 40)
        assert {one[1] for one in client.run(resource).values()} == {"CudaAsyncMemoryResource"}


def test_a_worker_that_is_started_again_counts_too(stand_in: Path) -> None:
    with workers(1) as client:
        memory = DeviceMemory(client)
        memory.begin()
        client.run(allocate, 300)
        (pid,) = client.run(os.getpid).values()
        os.kill(pid, signal.SIGKILL)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and pid in (found := [*client.run(os.getpid, on_error="return").values()]):
            time.sleep(0.2)
        client.wait_for_workers(1, timeout=60)
        assert found != [pid]
        client.run(allocate, 50)
        assert memory.used() == (50, 50)


@pytest.mark.slow
def test_a_pool_that_somebody_chose_stays(stand_in: Path) -> None:
    path = stand_in / "rmm" / "mr.py"
    path.write_text(path.read_text().replace("current = CudaMemoryResource()", "current = PoolMemoryResource()"))
    with workers(1) as client:
        DeviceMemory(client)
        assert {one[:2] for one in client.run(resource).values()} == {
            ("StatisticsResourceAdaptor", "PoolMemoryResource")
        }


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        ("raise ImportError('libcuda.so')", "memory of the GPU is not counted: ImportError: libcuda.so"),
        (None, "memory of the GPU is not counted: RMM is not installed"),
        (RESOURCES + "\ndel StatisticsResourceAdaptor", "memory of the GPU is not counted: AttributeError"),
    ],
)
def test_what_is_missing_is_told_and_stops_nothing(stand_in: Path, broken: str | None, words: str) -> None:
    path = stand_in / "rmm" / "mr.py"
    if broken is None:
        path.unlink()
        path.with_name("__init__.py").unlink()
        path.parent.rmdir()
        importlib.invalidate_caches()
        if importlib.util.find_spec("rmm") is not None:
            pytest.skip("RMM is installed here")
    else:
        path.write_text(broken)
    with workers(1) as client:
        memory = DeviceMemory(client)
        memory.begin()
        (told,) = client.run(set_up).values()
        assert told[0].startswith(words)
        assert memory.used() == (None, None)
        assert client.submit(lambda: 1).result() == 1


def test_libraries_that_cannot_share_are_named(stand_in: Path) -> None:
    """The stand-in has no allocators for others."""
    with workers(1) as client:
        (told,) = client.run(set_up).values()
        assert told[0].startswith("Numba does not take memory of the GPU from RMM: ModuleNotFoundError")


def counted_by_rmm() -> tuple[Any, Callable[[int], int], Callable[[int, int], None]]:
    """RMM's own statistics, of memory of the host."""
    mr = pytest.importorskip("rmm.mr", reason="RMM is not installed")
    libc = ctypes.CDLL(None)
    libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    libc.free.argtypes = [ctypes.c_void_p]
    host = mr.CallbackMemoryResource(lambda size, stream: libc.malloc(size), lambda at, size, stream: libc.free(at))
    counted = mr.StatisticsResourceAdaptor(host)
    return counted, counted.allocate, counted.deallocate


def test_rmm_counts_as_the_stand_in_does() -> None:
    counted, allocate, deallocate = counted_by_rmm()
    counter = Counter(counted, lambda: (60, 100))
    kept, gone = allocate(1000), allocate(500)
    deallocate(gone, 500)
    assert counter.used() == (1500, 40)
    counter.begin()
    assert counter.used()[0] == 1000
    more = allocate(300)
    deallocate(kept, 1000)
    assert counter.used()[0] == 1300
    counter.begin()
    assert counter.used()[0] == 300
    deallocate(more, 300)


def test_what_is_asked_of_rmm_is_there() -> None:
    """What needs a GPU cannot be called here; that it exists can be seen."""
    mr = pytest.importorskip("rmm.mr", reason="RMM is not installed")
    assert "release_threshold" in (mr.CudaAsyncMemoryResource.__doc__ or "")
    for name in ("get_current_device_resource", "set_current_device_resource", "available_device_memory"):
        assert callable(getattr(mr, name))
    assert isinstance(mr.CudaMemoryResource, type)
    assert isinstance(mr.PoolMemoryResource, type)
    assert "free and total" in mr.available_device_memory.__doc__
    cupy = pytest.importorskip("cupy", exc_type=ImportError)
    from rmm.allocators.cupy import rmm_cupy_allocator

    assert list(inspect.signature(rmm_cupy_allocator).parameters) == ["nbytes"]
    assert callable(cupy.cuda.set_allocator)


def test_numba_takes_the_manager_of_rmm() -> None:
    pytest.importorskip("rmm", reason="RMM is not installed")
    from numba import config, cuda

    if config.ENABLE_CUDASIM:
        pytest.skip("the simulator has no memory managers")
    from numba.cuda.cudadrv import driver
    from rmm.allocators.numba import RMMNumbaManager

    before = driver._memory_manager
    try:
        cuda.set_memory_manager(RMMNumbaManager)
        assert driver._memory_manager is RMMNumbaManager
    finally:
        driver._memory_manager = before


def test_xgboost_cannot_take_its_memory_from_rmm() -> None:
    """What docs/clusters.md says of its wheels; one that can should be told to."""
    import xgboost

    assert xgboost.build_info()["USE_RMM"] is False
