"""Plugins of the workers that Treadle starts."""

from __future__ import annotations

import os

from distributed import Worker, WorkerPlugin


class WorkerLog(WorkerPlugin):
    """What libraries print on a local worker goes to a file, also when C++ prints it, and not over the progress."""

    name = "treadle-worker-log"

    def __init__(self, path: str) -> None:
        self.path = path

    def setup(self, worker: Worker) -> None:
        try:
            descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        except OSError:  # a full disk; whatever matters more will say so
            descriptor = os.open(os.devnull, os.O_WRONLY)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        os.close(descriptor)
