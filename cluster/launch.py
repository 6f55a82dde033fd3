"""Starting or attaching to the Dask cluster that a profile describes."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Iterator
from multiprocessing import spawn
from typing import TYPE_CHECKING, Any

from treadle.cluster.hardware import cores, gpus_here, memory_bytes
from treadle.cluster.local import SETTINGS, cpu_cluster, cuda_cluster, local_cluster
from treadle.cluster.profiles import Gateway, Kubernetes, Local, LocalCuda, Profile, Slurm, Ssh, is_here
from treadle.cluster.remote import remote
from treadle.errors import RequestError, listed

if TYPE_CHECKING:
    from distributed import Client

MEMORY_SHARE = 0.9
START_TIMEOUT = "60s"


def local_workers(profile: Local) -> tuple[int, int]:
    """Workers and threads a worker that a local profile starts."""
    workers = profile.workers or min(cores(), 4)
    return workers, profile.threads or max(cores() // workers, 1)


def cuda_threads(profile: LocalCuda, gpus: int) -> int:
    """Threads of each of so many workers with a GPU."""
    return profile.threads or max(cores() // gpus, 1)


def worker_count(profile: Profile) -> int:
    """Workers that a profile starts; of a cluster that is attached to, a guess."""
    if isinstance(profile, LocalCuda):
        return len(local_gpus(profile))
    if isinstance(profile, Ssh):
        return profile.workers * len(profile.hosts)
    if isinstance(profile, (Slurm, Kubernetes, Gateway)):
        return profile.workers
    return local_workers(profile if isinstance(profile, Local) else Local())[0]


def thread_count(profile: Profile) -> int:
    """Tasks that each worker of a profile does at once; of a cluster that is attached to, a guess."""
    if isinstance(profile, Local):
        return local_workers(profile)[1]
    if isinstance(profile, LocalCuda):
        return cuda_threads(profile, len(local_gpus(profile)))
    if isinstance(profile, (Slurm, Kubernetes)):
        return profile.cores
    return getattr(profile, "threads", None) or 1


def local_gpus(profile: LocalCuda) -> tuple[int, ...]:
    """The numbers of the GPUs that get a worker.

    Raises
    ------
    RequestError
        The profile names a GPU that is not there.
    """
    there = [gpu.index for gpu in gpus_here().gpus]
    for number in profile.gpus or ():
        if number not in there:
            raise RequestError(f"cluster.gpus: there is no GPU {number}. GPUs: [{listed(there)}].")
    return profile.gpus or tuple(there)


@contextlib.contextmanager
def open_cluster(profile: Profile, log: str = os.devnull) -> Iterator[Client]:
    """A client of the profile's cluster. What was started is stopped at the end, whatever happens.

    Everything that is started on this machine listens on loopback. Workers that die are started again by their
    nannies. What local workers print goes to the file `log`.

    Raises
    ------
    RequestError
        No scheduler answers at the profile's address, or what it needs is not installed.
    TreadleError
        Workers do not start, or have other versions of the libraries.
    """
    import dask
    import distributed  # noqa: F401  (its defaults must be there before some are changed for a while)

    settings = {
        "distributed.comm.timeouts.connect": START_TIMEOUT,
        **SETTINGS,
        # The spec's own data types: Dask must not convert strings behind our back.
        "dataframe.convert-string": False,
    }
    opened = local(profile, log) if is_here(profile) else remote(profile)
    with dask.config.set(settings), quiet_logs(), opened as client, client.as_current():
        yield client


@contextlib.contextmanager
def local(profile: Profile, log: str) -> Iterator[Client]:
    """Workers on this machine."""
    from treadle.cluster.plugins import WorkerLog

    if isinstance(profile, LocalCuda):
        gpus = local_gpus(profile)
        memory = profile.memory or _memory_share(len(gpus))
        create = cuda_cluster(profile, gpus, cuda_threads(profile, len(gpus)), memory)
    else:
        assert isinstance(profile, Local)
        workers, threads = local_workers(profile)
        create = cpu_cluster(workers, threads, profile.memory or _memory_share(workers))
    with workers_without_main(), local_cluster(create) as client:
        client.register_plugin(WorkerLog(log))
        yield client


def _memory_share(workers: int) -> int:
    """Bytes of this machine's memory for each of so many workers."""
    return int(memory_bytes() * MEMORY_SHARE / workers)


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
