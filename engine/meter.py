"""What a stage cost: wall and CPU seconds, the peak memory of the driver and the cluster together, and of GPUs."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol

import psutil

INTERVAL = 0.25
"""Seconds between samples of memory."""
LOOK = 1.0
"""Seconds between looks for new processes, which read what all processes of the machine are: 10 ms for a hundred."""


@dataclass(frozen=True)
class Cost:
    """`peak_bytes` is resident memory, the largest sample; the cluster counts while it runs on this host."""

    wall_seconds: float
    cpu_seconds: float
    peak_bytes: int
    device_peak_bytes: int | None = None
    """Of a GPU, what was allocated through RMM at most; of the worker that had most. None on the CPU."""
    device_used_bytes: int | None = None
    """Of a GPU, what was not free in the largest sample, whoever had it."""


class DeviceMemory(Protocol):
    """Who tells what is used of the memory of GPUs."""

    def begin(self) -> None:
        """Forgets what was used so far."""

    def used(self) -> tuple[int | None, int | None]:
        """`device_peak_bytes` and `device_used_bytes` of a `Cost`, since `begin`."""


class Meter:
    """Measures this process and its children (the workers of a local cluster) while its block runs, and GPUs."""

    def __init__(self, device_memory: DeviceMemory | None = None) -> None:
        self._device_memory = device_memory

    def __enter__(self) -> Meter:
        self._process = psutil.Process()
        self._processes: list[psutil.Process] = []
        self._looked = -LOOK
        self._peak = 0
        self._cpu: dict[int, tuple[float, float]] = {}
        self._stop = threading.Event()
        if self._device_memory is not None:
            self._device_memory.begin()
        self._sample()
        self._started = time.perf_counter()
        self._thread = threading.Thread(target=self._watch, name="treadle-meter", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        self._sample()
        wall = time.perf_counter() - self._started
        # What failed may be the workers, which would not answer.
        device = (None, None) if self._device_memory is None or kind is not None else self._device_memory.used()
        self.cost = Cost(wall, sum(last - first for first, last in self._cpu.values()), self._peak, *device)

    def _watch(self) -> None:
        while not self._stop.wait(INTERVAL):
            self._sample()

    def _sample(self) -> None:
        if time.perf_counter() - self._looked >= LOOK:
            self._processes = [self._process, *self._process.children(recursive=True)]
            self._looked = time.perf_counter()
        resident = 0
        for process in self._processes:
            try:
                with process.oneshot():
                    resident += process.memory_info().rss
                    times = process.cpu_times()
            except psutil.Error:
                self._looked = -LOOK
                continue
            used = times.user + times.system
            # A process that appears during the stage, a restarted worker say, used all its time in it.
            first = (
                self._cpu[process.pid][0] if process.pid in self._cpu else (0.0 if self._cpu and self._peak else used)
            )
            self._cpu[process.pid] = (first, used)
        self._peak = max(self._peak, resident)
