"""`treadle rollback`: the tables and the model that a run published, current again, all together."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from treadle.engine.artifacts import Publication, TableRecord
from treadle.engine.events import now
from treadle.engine.restoring import Restoration, prepared, restore
from treadle.engine.store import Store
from treadle.errors import RequestError
from treadle.jobs.run import Run, load_run
from treadle.jobs.spec import root_of
from treadle.jobs.tables import tables_of
from treadle.signals import held
from treadle.versions import version_of


@dataclass(frozen=True)
class RolledBack:
    """What a rollback came to."""

    run: Run
    """The run that names the versions that are current now: a new one, or the one asked for, where that was current."""
    of: str
    """The run whose versions these are."""
    tables: tuple[dict[str, Any], ...]
    """`table`, `version` of the run, `before`, the one that was current, and `now`."""
    model: Mapping[str, str | None]
    """`version` of the run and `now`, as `name:version`."""
    left: tuple[str, ...]
    """Tables of the job that the run did not publish, which are as they were."""

    @property
    def changed(self) -> bool:
        """False: it was current already."""
        return self.run.id != self.of

    def described(self) -> dict[str, Any]:
        """For --json."""
        return {
            "run": self.run.id,
            "rollback_of": self.of,
            "changed": self.changed,
            "tables": self.tables,
            "model": self.model,
            "left": self.left,
        }


def rollback(run_id: str, root: str | None = None) -> RolledBack:
    """Makes what a run published current again, by new versions with the same content and a manifest that names them.

    Everything is looked at before anything is changed. Where it is all current, nothing is.

    Raises
    ------
    RequestError
        No such run, or it published nothing.
    StorageError
        Files of its versions are gone; another run changed a table meanwhile.
    """
    store = Store(root_of(root))
    old = load_run(store.url, run_id)
    if old.status != "succeeded" or not old.manifest["tables"]:
        raise RequestError(f"Run {old.id} {old.status}, and published nothing; there is nothing to go back to.")
    records = [TableRecord.model_validate(record) for record in old.manifest["tables"]]
    found = prepared(store, records, old.manifest["model"])
    run = old if found.is_current else _restored(store, old, found)
    return _told(store, old, run, found)


def _restored(store: Store, old: Run, found: Restoration) -> Run:
    started = time.perf_counter()
    run_id = f"{old.job}-{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"
    manifest = {**_manifest(old, run_id), "status": "failed"}
    metadata = {
        "treadle.run": run_id,
        "treadle.spec": old.manifest["spec_digest"],
        "treadle.version": version_of("treadle"),
        "treadle.rollback_of": old.id,
    }
    with held():  # from the first table to the manifest nothing is left half done
        try:
            made = restore(store, found, run_id, metadata)
            manifest.update(_published(made), status="succeeded")
        except Exception as error:
            manifest["error"] = str(error)
            raise
        finally:
            manifest["seconds"] = time.perf_counter() - started
            store.write_json(f"runs/{run_id}/manifest.json", manifest)
    return Run(store, manifest)


def _manifest(old: Run, run_id: str) -> dict[str, Any]:
    """Of a run that did nothing yet: what made the content, it has from the old one."""
    nothing = {"status": "cached", "wall_seconds": 0.0, "cpu_seconds": 0.0, "peak_bytes": 0}
    return {
        **old.manifest,
        "run": run_id,
        "rollback_of": old.id,
        "error": None,
        "started": now(),
        "cluster_start_seconds": None,
        "stages": [{**record, **nothing} for record in old.manifest["stages"]],
        "tables": [],
        "model": None,
    }


def _published(made: Publication) -> dict[str, Any]:
    return {"tables": [record.model_dump() for record in made.tables], "model": made.model}


def _told(store: Store, old: Run, run: Run, found: Restoration) -> RolledBack:
    now_at = {record["name"]: record["version"] for record in run.manifest["tables"]}
    tables = tuple(
        {
            "table": f"{old.job}/{one.record.name}",
            "version": one.record.version,
            "before": one.current,
            "now": one.current if found.is_current else now_at[one.record.name],
        }
        for one in found.tables
    )
    model = {"version": found.model, "now": found.current_model if found.is_current else run.manifest["model"]}
    names = {one.record.name for one in found.tables}
    left = tuple(f"{job}/{name}" for job, name in tables_of(store) if job == old.job and name not in names)
    return RolledBack(run, old.id, tables, model, left)
