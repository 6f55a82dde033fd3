"""Records a run in MLflow when its manifest is written, and what earlier runs under the root failed to record."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from treadle.engine.bundle import versions
from treadle.engine.store import Store
from treadle.errors import StorageError, TreadleError
from treadle.jobs.registry.connection import Connection, Target, is_later, is_off, no_target, target_of, tracking_in
from treadle.jobs.registry.recording import find_run, record_run
from treadle.jobs.registry.sections import Tracking
from treadle.jobs.registry.versions import connection_of, manifest_of, register, registered
from treadle.signals import held

logger = logging.getLogger("treadle.tracking")
PENDING = "unrecorded"
"""Folder of a file a run that is still to be recorded: by the next one, or by `treadle models`."""


class Recorder:
    """Of one run. Made when the run begins, so that MLflow is loaded while it computes."""

    def __init__(self, tracking: Tracking, job: str, store: Store) -> None:
        self._store = store
        self._connection: Connection | None = None
        self._manifest: Mapping[str, Any] | None = None
        self._later = tracking.enabled and is_later(tracking) and store.is_local
        if not tracking.enabled or is_off() or self._later:
            return
        target = target_of(tracking, job, store)
        if target is None:
            logger.warning("treadle: the run is not recorded in MLflow: %s.", no_target(store))
        else:
            self._connection = Connection(target).begin()

    def written(self, manifest: Mapping[str, Any]) -> None:
        """The manifest is there, by which the run is what it is."""
        self._manifest = manifest

    @contextlib.contextmanager
    def recording(self) -> Iterator[None]:
        """Records the run after the block, if its manifest was written.

        Never raises on its own account: the run is what its manifest says, whatever becomes of this.
        """
        try:
            yield
        finally:
            if self._manifest is not None:
                with held():
                    if self._connection is not None:
                        self._record(self._connection, self._manifest)
                    elif self._later:
                        self._note(self._manifest["run"], None)

    def _note(self, run: str, error: str | None) -> None:
        with contextlib.suppress(TreadleError, OSError):
            self._store.write_json(f"{PENDING}/{run}", {"error": error})

    def _record(self, connection: Connection, manifest: Mapping[str, Any]) -> None:
        run = manifest["run"]
        try:
            record_run(connection, self._store, manifest)
        except Exception as error:
            said = error if isinstance(error, TreadleError) else f"{type(error).__name__}: {error}"
            logger.warning(
                "treadle: run %s is done, but not recorded in MLflow: %s. `treadle models --sync` tries again.",
                run,
                str(said).rstrip("."),
            )
            self._note(run, str(said))
            return
        with contextlib.suppress(Exception):  # of other runs, which are still to be recorded then
            self._store.remove_file(f"{PENDING}/{run}")
            catch_up(self._store, connection)


def catch_up(store: Store, connection: Connection | None = None) -> None:
    """Records the runs under a root that were left for later, or could not be; those for a connection's place only.

    Raises
    ------
    TrackingError
        MLflow is not reached.
    """
    connections = {} if connection is None else {connection.target: connection}
    for run in store.list(PENDING):
        manifest = _manifest(store, run)
        target = None if manifest is None else target_of(tracking_in(manifest), manifest["job"], store)
        if connection is not None and manifest is not None and (target is None or target.uri != connection.target.uri):
            continue
        if manifest is not None and target is not None:
            record_run(connections.setdefault(target, Connection(target)), store, manifest)
        store.remove_file(f"{PENDING}/{run}")


def record_missing(store: Store, connection: Connection, name: str, numbers: Sequence[int]) -> None:
    """Registers versions of a model that MLflow lacks, after the runs that made them."""
    for version in numbers:
        with connection.using() as client:
            if version in registered(client, name):
                continue
        with contextlib.suppress(StorageError):
            manifest = manifest_of(store, name, version)
            target = Target(connection.target.uri, tracking_in(manifest).experiment or name)
            record_run(connection if target == connection.target else Connection(target), store, manifest)
        with connection.using() as client:
            register(client, connection.target, store, f"{name}:{version}")


def sync(store: Store, name: str | None = None) -> Iterator[dict[str, Any]]:
    """Records every run and model under a root, or of one job, that MLflow lacks; tells each, as it is done.

    Runs of specs with `tracking: {enabled: false}` are left out. Aliases that MLflow lost are set as the records of
    promotions have them.

    Raises
    ------
    TrackingError
        MLflow is not reached.
    """
    from treadle.jobs.registry.promotion import restore_aliases

    connections: dict[Target, Connection] = {}
    manifests = [found for run in store.list("runs") if (found := _manifest(store, run)) is not None]
    for manifest in sorted(manifests, key=lambda manifest: manifest["started"]):
        tracking = tracking_in(manifest)
        target = target_of(tracking, manifest["job"], store)
        if not tracking.enabled or target is None or name not in (None, manifest["job"]):
            continue
        connection = connections.setdefault(target, Connection(target))
        with connection.using() as client:
            recorded = find_run(client, target, manifest["run"])
        if recorded is None or recorded.info.status == "RUNNING":
            record_run(connection, store, manifest)
            yield {"run": manifest["run"], "uri": target.uri}
        store.remove_file(f"{PENDING}/{manifest['run']}")
    for model in store.list("models"):
        own = connection_of(store, model) if versions(store, model) and name in (None, model) else None
        if own is None:
            continue
        connection = connections.setdefault(own.target, own)
        record_missing(store, connection, model, versions(store, model))
        with connection.using() as client:
            for alias, version in restore_aliases(client, store, model).items():
                yield {"model": f"{model}:{version}", "alias": alias, "uri": connection.target.uri}


def _manifest(store: Store, run: str) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = store.read_json(f"runs/{run}/manifest.json")
    except StorageError:
        return None
    return found
