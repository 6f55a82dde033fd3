"""A Dask cluster on this machine: started whole or not at all, and stopped whatever happens."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
from collections.abc import Iterator
from multiprocessing import resource_tracker
from typing import TYPE_CHECKING

from treadle.cluster.scratch import scratch_folder
from treadle.cluster.signals import delayed
from treadle.errors import TreadleError

if TYPE_CHECKING:
    from distributed import Client, LocalCluster

CLOSING_SECONDS = 10.0
SETTINGS = {
    "distributed.worker.daemon": True,
    # A worker that is started again on a busy machine takes a while to import everything.
    "distributed.deploy.lost-worker-timeout": "60s",
    # Rather an error than a wait without end when no worker comes back.
    "distributed.scheduler.no-workers-timeout": "120s",
}


@contextlib.contextmanager
def local_cluster(workers: int, threads: int, memory: str | int) -> Iterator[Client]:
    """A client of `workers` new processes on loopback. Workers that die are started again.

    A signal waits until the cluster is up or down: in between Dask leaves processes behind. At the end the
    workers are killed, which takes seconds less than to ask them; nobody wants any more what they have.

    Raises
    ------
    TreadleError
        The worker processes do not start.
    """
    from distributed import Client, LocalCluster

    cluster: LocalCluster | None = None
    stack = contextlib.ExitStack()
    try:
        with delayed():
            folder = stack.enter_context(scratch_folder())
            try:
                with deaf_to_ctrl_c():
                    cluster = LocalCluster(
                        n_workers=workers,
                        threads_per_worker=threads,
                        memory_limit=memory,
                        host="127.0.0.1",
                        dashboard_address="127.0.0.1:0",
                        local_directory=folder,
                        silence_logs=logging.CRITICAL,
                    )
            except (RuntimeError, OSError, TimeoutError) as error:
                raise TreadleError(f"The {workers} local workers did not start: {error}.") from error
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
