"""A Dask cluster on this machine: started whole or not at all, and stopped whatever happens."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import resource_tracker
from typing import TYPE_CHECKING, Any

from treadle.cluster.profiles import LocalCuda
from treadle.cluster.scratch import scratch_folder
from treadle.errors import TreadleError
from treadle.signals import delayed

if TYPE_CHECKING:
    from distributed import Client, LocalCluster

CLOSING_SECONDS = 10.0
SETTINGS = {
    "distributed.worker.daemon": True,
    # A worker that is started again on a busy machine takes a while to import everything.
    "distributed.deploy.lost-worker-timeout": "60s",
    # Rather an error than a wait without end when no worker comes back.
    "distributed.scheduler.no-workers-timeout": "120s",
    # It looks at every thread a hundred times a second, which costs a twentieth of a job's CPU time.
    "distributed.worker.profile.enabled": False,
    # Dask has workers give memory back at once, so that every column is paid for again, page by page: a third of
    # the CPU time of an ETL job. These many bytes may wait for the next column instead.
    "distributed.nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_": 128 * 2**20,
    "distributed.nanny.pre-spawn-environ.MALLOC_MMAP_THRESHOLD_": 32 * 2**20,
}


Create = Callable[[dict[str, Any]], "LocalCluster"]
"""Makes a cluster, given the settings that all have in common."""


def cpu_cluster(workers: int, threads: int, memory: str | int) -> Create:
    """Worker processes with so many threads and so much memory each."""

    def create(settings: dict[str, Any]) -> LocalCluster:
        from distributed import LocalCluster

        return LocalCluster(n_workers=workers, threads_per_worker=threads, memory_limit=memory, **settings)

    return create


def cuda_cluster(profile: LocalCuda, gpus: Sequence[int], threads: int, memory: str | int) -> Create:
    """A worker process for each of the GPUs, bound to the cores beside it; with a pool of its memory where asked."""

    def create(settings: dict[str, Any]) -> LocalCluster:
        from dask_cuda import LocalCUDACluster

        protocol = profile.protocol
        if protocol is None and len(gpus) > 1 and importlib.util.find_spec("distributed_ucxx") is not None:
            protocol = "ucx"
        if profile.device_memory_limit is not None:
            settings = {**settings, "device_memory_limit": profile.device_memory_limit}
        return LocalCUDACluster(
            CUDA_VISIBLE_DEVICES=list(gpus),
            n_workers=len(gpus),
            threads_per_worker=threads,
            memory_limit=memory,
            rmm_pool_size=profile.rmm_pool,
            enable_cudf_spill=profile.spill,
            protocol=protocol,
            **settings,
        )

    return create


@contextlib.contextmanager
def local_cluster(create: Create) -> Iterator[Client]:
    """A client of a new cluster on loopback. Workers that die are started again.

    A signal waits until the cluster is up or down: in between Dask leaves processes behind. At the end the
    workers are killed, which takes seconds less than to ask them; nobody wants any more what they have.

    Raises
    ------
    TreadleError
        The worker processes do not start.
    """
    from distributed import Client

    cluster: LocalCluster | None = None
    stack = contextlib.ExitStack()
    try:
        with delayed():
            settings = {
                "host": "127.0.0.1",
                "dashboard_address": "127.0.0.1:0",
                "local_directory": stack.enter_context(scratch_folder()),
                "silence_logs": logging.CRITICAL,
            }
            try:
                with deaf_to_ctrl_c():
                    cluster = create(settings)
            except (RuntimeError, OSError, TimeoutError) as error:
                raise TreadleError(f"The local workers did not start: {error}.") from error
            stack.callback(_close, cluster)
            client = stack.enter_context(Client(cluster, set_as_default=False))
        yield client
    finally:
        with delayed():
            if cluster is not None:
                with contextlib.suppress(TimeoutError):
                    cluster.sync(_kill_workers, cluster, callback_timeout=CLOSING_SECONDS)
            stack.close()


@contextlib.contextmanager
def deaf_to_ctrl_c() -> Iterator[None]:
    """Threads that are started here, and the processes that they start, never see SIGINT.

    A terminal sends it to all processes; the workers would answer with tracebacks. The driver stops them.
    """
    resource_tracker.ensure_running()  # now, because it unblocks SIGINT when it starts
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _close(cluster: LocalCluster) -> None:
    with contextlib.suppress(TimeoutError):
        cluster.close(timeout=CLOSING_SECONDS)


async def _kill_workers(cluster: LocalCluster) -> None:
    """On the cluster's event loop: kills the worker processes, and keeps their nannies from replacing them."""
    for nanny in cluster.workers.values():
        nanny.close_gracefully(reason="treadle-stopped")
        if nanny.pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(nanny.pid, signal.SIGKILL)
