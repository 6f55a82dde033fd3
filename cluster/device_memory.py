"""Memory of GPUs: on every worker RMM gives it out to whoever can take it from there, and counts it.

cuDF takes it from RMM by itself, Numba and CuPy when they are told to. XGBoost cannot: its wheels are built without
RMM. What RMM does not count is seen as memory of the GPU that is not free, in samples.
"""

from __future__ import annotations

import contextlib
import importlib.util
import sys
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from distributed import Worker, WorkerPlugin

from treadle.cluster.agreement import on_workers

if TYPE_CHECKING:
    from distributed import Client

KEPT_SHARE = 1 / 8
"""Of a GPU's memory, what RMM keeps for the next allocation when nobody uses it; XGBoost finds the rest free."""
INTERVAL = 0.25
"""Seconds between samples of what is not free."""


class DeviceMemory:
    """What stages use of the memory of the GPUs of a cluster, as the driver asks for it."""

    def __init__(self, client: Client) -> None:
        self._client = client
        client.register_plugin(OneAllocator())

    def begin(self) -> None:
        """Forgets what was used so far."""
        on_workers(self._client, _begin)

    def used(self) -> tuple[int | None, int | None]:
        """Bytes since `begin`, each the most of any worker: the peak that RMM counted, and the largest sample.

        A worker that died in between took what it knew with it; the one in its place counts from its start. None
        where no worker has RMM and a GPU.
        """
        found = [one for one in on_workers(self._client, _used).values() if isinstance(one, tuple)]
        if not found:
            return None, None
        peaks, samples = zip(*found, strict=True)
        return max(peaks), max((sample for sample in samples if sample is not None), default=None)


class OneAllocator(WorkerPlugin):
    """Has a worker with a GPU take its memory from RMM. What is missing for that is a line in the worker's log."""

    name = "treadle-device-memory"

    def setup(self, worker: Worker) -> None:
        for text in set_up():
            print(f"treadle: {text}", file=sys.stderr, flush=True)


class Counter:
    """What was used of a GPU since `begin`, in this process by RMM, and by everybody.

    Parameters
    ----------
    resource
        RMM's StatisticsResourceAdaptor that everything is allocated from.
    available
        Tells free and total bytes of the GPU.
    """

    def __init__(self, resource: Any, available: Callable[[], tuple[int, int]]) -> None:
        self._resource = resource
        self._available = available
        self._lock = threading.Lock()
        self._before = 0
        self._pushed = False
        self._sample: int | None = None
        self._measuring = threading.Event()
        threading.Thread(target=self._watch, name="treadle-device-memory", daemon=True).start()
        self.begin()

    def begin(self) -> None:
        """Counts anew. What is allocated already stays in use."""
        with self._lock:
            if self._pushed:
                self._resource.pop_counters()
            # Pushed counters begin at 0, though memory is in use.
            self._before = int(self._resource.push_counters().current_bytes)
            self._pushed = True
            self._sample = None
        self._look()
        self._measuring.set()

    def used(self) -> tuple[int, int | None]:
        """The peak of what RMM gave out, and the largest sample of what was not free; ends the samples."""
        self._measuring.clear()
        self._look()
        with self._lock:
            return self._before + int(self._resource.allocation_counts.peak_bytes), self._sample

    def _look(self) -> None:
        with contextlib.suppress(Exception):  # a GPU that is lost; the next kernel will say so
            free, total = self._available()
            with self._lock:
                self._sample = max(self._sample or 0, total - free)

    def _watch(self) -> None:
        while self._measuring.wait():
            self._look()
            time.sleep(INTERVAL)


_counter: Counter | None = None
"""That of this process, once it is set up."""


def set_up() -> list[str]:
    """On a worker, once: everything takes its memory from RMM, which counts it. Returns what does not, and why."""
    global _counter
    if _counter is not None:
        return []
    if importlib.util.find_spec("rmm") is None:
        return ["memory of the GPU is not counted: RMM is not installed"]
    try:
        import rmm.mr

        chosen = rmm.mr.get_current_device_resource()
        # Somebody's pool stays.
        if isinstance(chosen, rmm.mr.CudaMemoryResource):
            chosen = _asynchronous() or chosen
        counted = rmm.mr.StatisticsResourceAdaptor(chosen)
        rmm.mr.set_current_device_resource(counted)
        _counter = Counter(counted, rmm.mr.available_device_memory)
    except Exception as error:  # whatever a machine without a GPU, or a broken driver, raises
        return [f"memory of the GPU is not counted: {type(error).__name__}: {error}"]
    missing = []
    for name, share in (("Numba", _numba), ("CuPy", _cupy)):
        try:
            share()
        except Exception as error:  # of another version, say: it goes on with an allocator of its own
            missing.append(f"{name} does not take memory of the GPU from RMM: {type(error).__name__}: {error}")
    return missing


def _asynchronous() -> Any:
    """The allocator of the driver, which gives back what nobody uses; None on a GPU or a driver without it."""
    import rmm.mr

    _, total = rmm.mr.available_device_memory()
    try:
        # Without a threshold RMM keeps everything for ever, and XGBoost would not find it.
        return rmm.mr.CudaAsyncMemoryResource(release_threshold=int(total * KEPT_SHARE))
    except (RuntimeError, MemoryError):
        return None


def _numba() -> None:
    from numba import config, cuda

    if not config.ENABLE_CUDASIM:
        from rmm.allocators.numba import RMMNumbaManager

        cuda.set_memory_manager(RMMNumbaManager)


def _cupy() -> None:
    if importlib.util.find_spec("cupy") is not None:
        import cupy
        from rmm.allocators.cupy import rmm_cupy_allocator

        cupy.cuda.set_allocator(rmm_cupy_allocator)


def _begin() -> None:
    if _counter is not None:
        _counter.begin()


def _used() -> tuple[int, int | None] | None:
    return None if _counter is None else _counter.used()
