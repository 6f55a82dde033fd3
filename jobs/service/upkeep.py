"""Looks at the cluster and tidies it up, in copies of the nursery: the service itself loads no Dask."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

from pydantic import TypeAdapter

from treadle.cluster.profiles import AnyProfile
from treadle.errors import TreadleError

if TYPE_CHECKING:
    from distributed import Client


def free(profile: str) -> int:
    """Frees workers that are busy with tasks of drivers which are gone."""
    from treadle.cluster.busy import free_workers

    try:
        with _client(profile) as client:
            for worker in free_workers(client):
                print(f"started {worker} again: it was busy with a job that was stopped", flush=True)
    except TreadleError as error:  # the cluster is gone as well
        print(f"no worker was looked at: {error}", flush=True)
    return 0


def look(profile: str) -> int:
    """Prints what the cluster has, as JSON."""
    with _client(profile) as client:
        workers = list(client.scheduler_info(n_workers=-1)["workers"].values())
        print(
            json.dumps(
                {
                    "dashboard": client.dashboard_link,
                    "workers": len(workers),
                    "threads": sum(worker["nthreads"] for worker in workers),
                    "memory_bytes": sum(worker["memory_limit"] or 0 for worker in workers),
                }
            )
        )
    return 0


@contextlib.contextmanager
def _client(profile: str) -> Iterator[Client]:
    from treadle.cluster.launch import open_cluster

    with open_cluster(TypeAdapter(AnyProfile).validate_json(profile)) as client:
        yield client
