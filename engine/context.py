"""What a stage works with: the job, the store, the Dask client, and collections that are still in memory."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from treadle.engine.backend import Backend
from treadle.engine.events import Events
from treadle.engine.job import Job
from treadle.engine.meter import DeviceMemory
from treadle.engine.publication import Publishing
from treadle.engine.store import Store
from treadle.engine.workers import Workers
from treadle.errors import TreadleError

if TYPE_CHECKING:
    from distributed import Client, Future

POLL_SECONDS = 0.5
REPLACE_SECONDS = 60
"""A nanny has a new worker in a few seconds; a scheduler that gives none in this time has lost it for good."""
FAN_IN = 8
"""Partials merged by one task: enough to keep the tree flat, few enough for a worker's memory."""


@dataclass
class Context:
    """One run of one job. `live` holds futures by artifact, for the stages that follow."""

    job: Job
    store: Store
    backend: Backend
    client: Client
    events: Events
    run_id: str
    spec_digest: str = ""
    stage: str = ""
    fingerprint: str = ""
    live: dict[str, Any] = field(default_factory=dict)
    publishing: Publishing | None = None
    """That of the run; None where nothing is to be published."""
    before_publish: Callable[[], object] = lambda: None
    """Called before results are made visible."""
    missing: Mapping[str, str] = field(default_factory=dict)
    """Stages of the run that had no outcome when it began -> the folders that they write into."""
    began: float = field(default_factory=time.monotonic)
    """When the run began, on the monotonic clock."""
    size: int = 0
    """Workers of the whole cluster: those when the run began, as long as lost ones are replaced."""
    device_memory: DeviceMemory | None = None
    """Who tells what stages use of the memory of GPUs; None on the CPU."""

    def __post_init__(self) -> None:
        self.size = len(self.workers)

    @property
    def folder(self) -> str:
        """Where the current stage writes, relative to the root."""
        return f"stages/{self.stage.replace(':', '-')}-{self.fingerprint}"

    @property
    def workers(self) -> list[str]:
        """Addresses of the workers, in the order of their names, so that placement repeats.

        Raises
        ------
        TreadleError
            All have died, and none was started again.
        """
        end = time.monotonic() + REPLACE_SECONDS
        while True:
            info = self.client.scheduler_info(n_workers=-1)["workers"]
            if info:
                return [address for address, _ in sorted(info.items(), key=lambda item: str(item[1]["name"]))]
            if time.monotonic() > end:
                raise TreadleError(
                    f"{self.stage or 'The run'}: no worker is left, and none came back in {REPLACE_SECONDS} s; "
                    "look at the cluster, and run again to go on where this run ended."
                )
            time.sleep(POLL_SECONDS)

    @property
    def room(self) -> Workers:
        """What there is of workers now."""
        return Workers.of(self.client)

    def all_workers(self) -> list[str]:
        """As `workers`, after waiting a while for those that were lost and are being started again."""
        end = time.monotonic() + REPLACE_SECONDS
        while len(self.workers) < self.size and time.monotonic() < end:
            time.sleep(POLL_SECONDS)
        workers = self.workers
        self.size = len(workers)
        return workers

    def submit(self, function: Callable[..., Any], items: Sequence[Any], *args: Any) -> list[Future]:
        """One task an item, on whichever worker has time; another one takes over when that dies.

        They are bound to no worker, not even loosely: once all workers have died, Dask never runs a task with
        any such wish again.
        """
        return [self.client.submit(function, item, *args, pure=False) for item in items]

    def submit_like(self, function: Callable[..., Any], futures: Sequence[Future], *args: Any) -> list[Future]:
        """One task a future, on the worker that holds its result."""
        return [self.client.submit(function, future, *args, pure=False) for future in futures]

    def gather(self, futures: Sequence[Future], rows: Callable[[Any], int] | None = None) -> list[Any]:
        """Results in the order of the futures, reporting progress as they arrive.

        The first error ends the wait and cancels the rest.

        Raises
        ------
        TreadleError
            A task killed its workers again and again, or there are no workers any more.
        """
        from distributed import as_completed

        results: dict[Any, Any] = {}
        done_rows = 0
        with self._in_words(futures):
            for future, result in as_completed(futures, with_results=True):
                if isinstance(result, CancelledError):
                    raise result
                results[future.key] = result
                done_rows += rows(result) if rows else 0
                self.progress(len(results), len(futures), done_rows if rows else None)
        return [results[future.key] for future in futures]

    def ready(self, futures: Sequence[Future]) -> None:
        """Waits until all results are there, on the workers. Raises as `gather`."""
        from distributed import wait

        with self._in_words(futures):
            wait(list(futures))
            for future in futures:
                if future.status != "finished":
                    future.result()

    def result(self, future: Future, seconds: float) -> Any:
        """Of a task that has ended. Raises as `gather`, and TimeoutError when it does not arrive in time."""
        with self._in_words([future]), contextlib.suppress(TimeoutError):
            return future.result(timeout=seconds)
        raise TimeoutError(f"{self.stage}: a result did not arrive in {seconds:g} s")

    @contextlib.contextmanager
    def _in_words(self, futures: Sequence[Future]) -> Iterator[None]:
        """Says what errors of the cluster mean; cancels the futures in case of any."""
        from distributed import KilledWorker
        from distributed.scheduler import NoValidWorkerError, NoWorkerError

        try:
            yield
        except BaseException as error:
            self.client.cancel(list(futures))
            if isinstance(error, KilledWorker):
                raise TreadleError(
                    f"{self.stage}: {error.allowed_failures + 1} workers died over the same partition, most likely "
                    "for want of memory. Use more data.partitions, or give each worker more memory (fewer "
                    "cluster.workers, or cluster.memory)."
                ) from error
            if isinstance(error, (NoWorkerError, NoValidWorkerError, CancelledError)):
                raise TreadleError(
                    f"{self.stage}: the cluster lost its workers or its scheduler ({type(error).__name__}); "
                    "run again to go on where this run ended."
                ) from error
            raise

    def reduce(self, futures: Sequence[Future], merge: Callable[[list[Any]], Any]) -> Any:
        """Merges partial results in a tree on the workers; the order of the partials is kept."""
        level = list(futures)
        while len(level) > 1:
            level = [self.client.submit(merge, level[i : i + FAN_IN], pure=False) for i in range(0, len(level), FAN_IN)]
        return self.gather(level)[0]

    def fell_back(self, what: str, why: str) -> None:
        """As the backend's, of what the driver knows without a worker."""
        if self.backend.topic:
            self.client.log_event(self.backend.topic, f"{what}: {why}")

    def progress(self, done: int, total: int, rows: int | None = None) -> None:
        self.events.emit(self.stage, "progress", done=done, total=total, rows=rows)
