"""The workers of a cluster: how many, and what each has room for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from treadle.engine.inputs import PARTITION_BYTES, partition_count

if TYPE_CHECKING:
    from distributed import Client

WORKER_OWN = 400 * 2**20
"""Memory of a worker process with its libraries loaded and nothing to do; below it, none starts."""
PEAK_PARTITIONS = 4
"""Copies of a partition that its task holds at the peak: read, prepared, features, encoded for writing."""
ROOMY = 2
"""Partitions are cut so small that a worker has room for this many times its tasks."""
UNLIMITED = 2**34
"""Bytes that a worker without a limit is taken to have."""


@dataclass(frozen=True)
class Workers:
    """The workers as far as they are known."""

    count: int
    threads: int
    """Tasks that each does at once."""
    limit: int | None
    """Bytes that each may use; None where nothing limits it, or it is not known."""

    @classmethod
    def of(cls, client: Client) -> Workers:
        """Those that a client's cluster has now; what the least of them has room for."""
        found = list(client.scheduler_info(n_workers=-1)["workers"].values())
        limits = [worker["memory_limit"] for worker in found if worker["memory_limit"]]
        threads = max((worker["nthreads"] for worker in found), default=1)
        return cls(max(len(found), 1), threads, min(limits, default=None))

    @property
    def memory(self) -> int:
        """Bytes that each may use, or is taken to."""
        return self.limit or UNLIMITED

    @property
    def partition_bytes(self) -> int:
        """Bytes of rows of a partition that they have room for, at most `PARTITION_BYTES`."""
        room = (self.memory - WORKER_OWN) // (ROOMY * PEAK_PARTITIONS * self.threads)
        return max(min(room, PARTITION_BYTES), 2**20)

    def partitions(self, rows: int, bytes_a_row: int) -> int:
        """Partitions of so many rows that are chosen for them."""
        return partition_count(rows, bytes_a_row, self.count, self.partition_bytes)
