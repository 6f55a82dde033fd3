"""Whether a cluster that others started fits a job: the same versions, the same files, GPUs that compute."""

from __future__ import annotations

import functools
import importlib.metadata
import os
import platform
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from treadle.cluster.probe import ProbeFailed, ask
from treadle.errors import RequestError, TreadleError, listed
from treadle.versions import version_of

if TYPE_CHECKING:
    from distributed import Client

MESSAGES = ("dask", "distributed", "cloudpickle", "msgpack")
"""What the processes of a cluster understand each other by."""
LIBRARIES = (*MESSAGES, "treadle", "numpy", "pandas", "pyarrow", "numba", "xgboost", "scikit-learn")
"""What results may depend on besides."""
NOT_INSTALLED = "not installed"
TRIES = 5
BETWEEN_SECONDS = 0.3


def check_versions(client: Client) -> None:
    """Refuses a cluster whose scheduler or workers have other versions than this process.

    Raises
    ------
    TreadleError
        Names every library with its version here and there.
    """
    here = installed()
    there = on_workers(client, installed)
    for process, found in there.items():
        if isinstance(found, Exception):
            raise TreadleError(
                f"Treadle cannot be loaded on {process}: {found}. Install it there too, with the versions of "
                "constraints.txt."
            )
    differ = []
    for library, version in here.items():
        found = {process: versions[library] for process, versions in there.items()}
        if library in MESSAGES:
            found["the scheduler"] = _on_scheduler(client, library)
        differ += _differing(library, version, found)
    if differ:
        raise TreadleError(
            f"The cluster has other versions than this process: {listed(differ)}. Install the same on all machines: "
            "constraints.txt has exact versions."
        )


@functools.cache
def installed() -> dict[str, str]:
    """The versions that a process has; of Python without the patch level, which changes neither."""
    return {"Python": ".".join(platform.python_version_tuple()[:2])} | {name: _version(name) for name in LIBRARIES}


def on_workers(client: Client, function: Callable[..., Any], *arguments: Any) -> dict[str, Any]:
    """What each worker answers, or the exception; asked again when a worker goes meanwhile, as any may at any time."""
    from distributed.comm.core import CommClosedError

    for _ in range(TRIES):
        found = client.run(function, *arguments, on_error="return")
        if not any(isinstance(answer, CommClosedError) for answer in found.values()):
            break
        time.sleep(BETWEEN_SECONDS)
    return dict(found)


def _answers(client: Client, function: Callable[..., Any], *arguments: Any) -> Iterator[tuple[str, Any]]:
    for worker, answer in on_workers(client, function, *arguments).items():
        if isinstance(answer, Exception):
            raise answer
        yield worker, answer


def _version(library: str) -> str:
    try:
        return version_of(library)
    except importlib.metadata.PackageNotFoundError:
        return NOT_INSTALLED


def _on_scheduler(client: Client, library: str) -> str:
    """Asked without a function of ours: a scheduler can do without Treadle."""
    try:
        return str(client.run_on_scheduler(importlib.metadata.version, library))
    except importlib.metadata.PackageNotFoundError:
        return NOT_INSTALLED


def _differing(library: str, here: str, there: Mapping[str, str]) -> list[str]:
    """One text for each other version that some process has."""
    where: dict[str, list[str]] = {}
    for process, version in there.items():
        if version != here:
            where.setdefault(version, []).append(process)
    return [f"{library} is {here} here, and {text} on {listed(sorted(names), 2)}" for text, names in where.items()]


def check_files(client: Client, paths: Iterable[str]) -> None:
    """Refuses workers that do not see files of this machine, which a job on them would need.

    Raises
    ------
    RequestError
        Names the first file and who does not see it.
    """
    for path in paths:
        blind = sorted(worker for worker, sees in _answers(client, os.path.exists, path) if not sees)
        if blind:
            raise RequestError(
                f"'{path}' is not there for {listed(blind, 3)}. All workers of a cluster need the same input and "
                "artifacts root: use a folder that they share, or a URL such as s3://..."
            )


def check_gpus(client: Client) -> None:
    """Refuses workers on which no kernel computes on a GPU, for a job that runs on them.

    Raises
    ------
    RequestError
        Names a worker, and what its own process said that tried.
    """
    for worker, trouble in sorted(_answers(client, gpu_trouble)):
        if trouble:
            raise RequestError(
                f"device: cuda cannot be used: no kernel computes on a GPU of {worker}: {trouble}. Attach to workers "
                "with GPUs (dask cuda worker), or set device: auto or cpu."
            )


def gpu_trouble() -> str:
    """On a worker: why no kernel computes on its GPU; empty when one does. Asked in a process of its own."""
    try:
        ask("device")
    except ProbeFailed as error:
        return str(error).rstrip(".")
    return ""
