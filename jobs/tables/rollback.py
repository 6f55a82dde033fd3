"""`treadle rollback`: the tables and the model that a run published, current again, all together."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from treadle.engine.artifacts import TableRecord
from treadle.engine.commit_all import COMMON_STEPS, Steps, commit_all
from treadle.engine.commits import Ready
from treadle.engine.delta import RUN, TableVersion
from treadle.engine.events import Listener, now
from treadle.engine.publication import Publishing
from treadle.engine.restoring import OldBundle, prepared
from treadle.engine.store import Store
from treadle.errors import RequestError
from treadle.jobs.gc.holding import at_work
from treadle.jobs.registry.connection import tracking_in
from treadle.jobs.registry.recorder import Recorder
from treadle.jobs.run import Run, load_run
from treadle.jobs.spec import root_of
from treadle.jobs.tables.catalogue import tables_of
from treadle.signals import held
from treadle.versions import version_of

STEP = {"stage": "publish", "event": "progress"}


@dataclass(frozen=True)
class RolledBack:
    """What a rollback came to."""

    run: str | None
    """The run that names the versions that are current now; None where nothing was to be done."""
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
        return self.run is not None

    def described(self) -> dict[str, Any]:
        """For --json."""
        return {
            "run": self.run,
            "rollback_of": self.of,
            "changed": self.changed,
            "tables": self.tables,
            "model": self.model,
            "left": self.left,
        }


def rollback(run_id: str, root: str | None = None, listener: Listener | None = None) -> RolledBack:
    """Makes what a run published current again, by new versions with the same content and a manifest that names them.

    Everything is looked at before anything is changed, and all of it is changed in one publication of the job. Where
    it is all current, nothing is. `listener` is called with every step.

    Raises
    ------
    RequestError
        No such run, or it published nothing.
    StorageError
        Files of its versions are gone; its model would not predict as it was trained; the disk is full.
    """
    store = Store(root_of(root))
    old = load_run(store.url, run_id)
    if old.status != "succeeded" or not old.manifest["tables"]:
        raise RequestError(f"Run {old.id} {old.status}, and published nothing; there is nothing to go back to.")
    new = f"{old.job}-{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"
    with at_work(store, old.job, new):
        return _rolled_back(store, load_run(store.url, old.id), new, listener)


def _rolled_back(store: Store, old: Run, new: str, listener: Listener | None) -> RolledBack:
    bundle = _bundle(store, old, new)
    if bundle is not None:
        bundle.verify()
    metadata = {
        RUN: new,
        "treadle.spec": old.manifest["spec_digest"],
        "treadle.version": version_of("treadle"),
        "treadle.rollback_of": old.id,
    }
    records = [TableRecord.model_validate(record) for record in old.manifest["tables"]]
    ready = prepared(store, records, metadata)
    before = {name: table.look()[0] for name, table in ready.items()}
    changed, found, model = _restored(store, old, new, (ready, bundle), listener or (lambda _: None))
    tables = [
        {
            "table": f"{old.job}/{record.name}",
            "version": record.version,
            "before": before[record.name],
            "now": found[record.name].version,
        }
        for record in records
    ]
    left = tuple(f"{job}/{name}" for job, name in tables_of(store) if job == old.job and name not in ready)
    models = {"version": old.manifest["model"], "now": model}
    return RolledBack(new if changed else None, old.id, tuple(tables), models, left)


def _bundle(store: Store, old: Run, new: str) -> OldBundle | None:
    if old.manifest["model"] is None:
        return None
    name, _, version = old.manifest["model"].rpartition(":")
    return OldBundle(store, name, int(version), new)


def _restored(
    store: Store,
    old: Run,
    new: str,
    what: tuple[Mapping[str, Ready], OldBundle | None],
    listener: Listener,
) -> tuple[bool, dict[str, TableVersion], str | None]:
    """The commits and the manifest; whether there were any, the current versions of the tables, and the model's."""
    started = time.perf_counter()
    manifest = _manifest(old, new)
    recorder = Recorder(tracking_in(manifest), old.job, store)
    ready, bundle = what
    with recorder.recording(), contextlib.ExitStack() as ending:
        publishing = Publishing(store, old.job, new, ending)
        steps = Steps(
            lambda n, total, note: listener({**STEP, "done": n, "total": total, "note": note}),
            len(ready) + COMMON_STEPS,
        )
        done = False
        try:
            found, model = commit_all(store, publishing, new, old.job, ready, bundle, steps)
            records = [{**record, **_counts(found[record["name"]])} for record in old.manifest["tables"]]
            manifest.update(status="succeeded", tables=records, model=model)
            done = True
        except BaseException as error:
            manifest["error"] = str(error) or type(error).__name__
            raise
        finally:
            if publishing.claim is not None:
                with held():
                    manifest["seconds"] = time.perf_counter() - started
                    manifest["publication"] = publishing.number if done else publishing.undone()
                    store.write_json(f"runs/{new}/manifest.json", manifest)
                    recorder.written(manifest)
    return publishing.claim is not None, found, model


def _counts(version: TableVersion) -> dict[str, int]:
    return {"version": version.version, "rows": version.rows, "bytes": version.bytes, "files": version.files}


def _manifest(old: Run, run_id: str) -> dict[str, Any]:
    """Of a rollback that did nothing yet: what made the content, it has from the old run."""
    used = {"peak_bytes": 0, "device_peak_bytes": None, "device_used_bytes": None}
    nothing = {"status": "cached", "wall_seconds": 0.0, "cpu_seconds": 0.0, **used}
    return {
        **old.manifest,
        "run": run_id,
        "rollback_of": old.id,
        "status": "failed",
        "error": None,
        "started": now(),
        "seconds": None,
        "cluster_start_seconds": None,
        "stages": [{**record, **nothing} for record in old.manifest["stages"]],
        "publication": None,
        "tables": [],
        "model": None,
    }
