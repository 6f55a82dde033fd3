"""Starting or attaching to the Dask cluster that a profile describes."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Iterator
from multiprocessing import spawn
from typing import TYPE_CHECKING, Any

from treadle.cluster.hardware import cores, memory_bytes
from treadle.cluster.local import SETTINGS, local_cluster
from treadle.cluster.profiles import ClusterProfile
from treadle.errors import RequestError

if TYPE_CHECKING:
    from distributed import Client

MEMORY_SHARE = 0.9
START_TIMEOUT = "60s"
ATTACH_TIMEOUT = "15s"


def local_workers(profile: ClusterProfile) -> tuple[int, int]:
    """Workers and threads a worker that a local profile starts."""
    workers = profile.workers or min(cores(), 4)
    return workers, profile.threads or max(cores() // workers, 1)


@contextlib.contextmanager
def open_cluster(profile: ClusterProfile, log: str = os.devnull) -> Iterator[Client]:
    """A client of the profile's cluster. What was started is stopped at the end, whatever happens.

    Everything listens on loopback. Workers that die are started again by their nannies. What
    local workers print goes to the file `log`.

    Raises
    ------
    RequestError
        No scheduler answers at the profile's address.
    """
    import dask
    from distributed import Client

    from treadle.cluster.plugins import WorkerLog

    settings = {
        "distributed.comm.timeouts.connect": START_TIMEOUT,
        **SETTINGS,
        # The spec's own data types: Dask must not convert strings behind our back.
        "dataframe.convert-string": False,
    }
    with dask.config.set(settings), quiet_logs():
        if profile.profile == "address":
            try:
                client = Client(profile.address, timeout=ATTACH_TIMEOUT, set_as_default=False)
            except (OSError, TimeoutError, ValueError) as error:
                raise RequestError(
                    f"No Dask scheduler answers at {profile.address} (cluster.address): {error}. "
                    "Start it, or use profile: local."
                ) from error
            with client, client.as_current():
                yield client
            return
        workers, threads = local_workers(profile)
        memory = profile.memory or int(memory_bytes() * MEMORY_SHARE / workers)
        with workers_without_main(), local_cluster(workers, threads, memory) as client, client.as_current():
            client.register_plugin(WorkerLog(log))
            yield client


_main_lock = threading.Lock()
_main_users = 0


@contextlib.contextmanager
def workers_without_main() -> Iterator[None]:
    """Worker processes do not run the user's script again.

    multiprocessing has every new process import the parent's main module. A script that calls
    `treadle.run` at its top level would then start clusters without end, and hang. Nothing of
    the script is needed on a worker, which gets its functions from installed modules.
    """
    global _main_users
    with _main_lock:
        if _main_users == 0:
            spawn.get_preparation_data = _without_main
        _main_users += 1
    try:
        yield
    finally:
        with _main_lock:
            _main_users -= 1
            if _main_users == 0:
                spawn.get_preparation_data = _preparation_data


_preparation_data = spawn.get_preparation_data


def _without_main(name: str) -> dict[str, Any]:
    data = _preparation_data(name)
    if name.startswith("Dask Worker"):
        data.pop("init_main_from_name", None)
        data.pop("init_main_from_path", None)
    return data


@contextlib.contextmanager
def quiet_logs() -> Iterator[None]:
    """Distributed reports lost workers on its own loggers; the engine says what matters of it."""
    logger = logging.getLogger("distributed")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)
