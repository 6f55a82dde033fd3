"""Treadle: one declarative job on a Dask cluster, from raw files to explained predictions.

    import treadle
    run = treadle.run("spec.yaml")
    run.leaderboard
    treadle.load_model("adult").predict(frame)

Names are loaded when they are used: `import treadle` itself is instant.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from treadle.engine.bundle import Bundle
    from treadle.jobs.auto import auto
    from treadle.jobs.client import AsyncClient, Client
    from treadle.jobs.run import Run, load_run
    from treadle.jobs.runner import run
    from treadle.jobs.spec import JobSpec, load_spec
    from treadle.jobs.tables import open_table

_HOMES = {
    "AsyncClient": "treadle.jobs.client",
    "Client": "treadle.jobs.client",
    "auto": "treadle.jobs.auto",
    "run": "treadle.jobs.runner",
    "Run": "treadle.jobs.run",
    "load_run": "treadle.jobs.run",
    "JobSpec": "treadle.jobs.spec",
    "load_spec": "treadle.jobs.spec",
    "open_table": "treadle.jobs.tables",
    "Bundle": "treadle.engine.bundle",
}
__all__ = [
    "AsyncClient", "Bundle", "Client", "JobSpec", "Run", "auto", "load_model", "load_run", "load_spec", "open_table",
    "run",
]  # fmt: skip


def load_model(model: str, root: str | None = None) -> Bundle:
    """A published model, by `name` (its newest version), `name:version` or `name@alias`.

    `root` is the artifacts root; else TREADLE_ROOT, else `artifacts`.

    Raises
    ------
    treadle.errors.RequestError
        There is no such model, version or alias.
    """
    from treadle.jobs.predict import find_model

    return find_model(model, root)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'treadle' has no attribute '{name}'")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)
