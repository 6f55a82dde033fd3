"""MLflow, as Treadle uses it: quiet, telling nobody anything, and only when it is needed.

Importing it takes one or two seconds of a core, and making a database one more: `Connection.begin` has a thread do it.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import re
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from treadle.cluster.locks import locked
from treadle.engine.store import Store
from treadle.errors import RequestError, StorageError, TreadleError
from treadle.jobs.registry.sections import Tracking

if TYPE_CHECKING:
    from mlflow import MlflowClient

DATABASE = "mlflow.db"
ARTIFACTS = "mlartifacts"
"""Folder beside the database, a folder an experiment in it."""
MODE = "TREADLE_TRACKING"
"""Set to `off`, no run records itself; to `later`, runs are left to whoever asks the registry, where it is local."""
LOCK_SECONDS = 180.0
QUIET: Mapping[str, str] = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "GIT_PYTHON_REFRESH": "quiet",
    # A server that does not answer costs the end of a run some seconds, not MLflow's minutes.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
}
"""What the environment says to MLflow where it says nothing itself. Telemetry is off whatever it says."""


@dataclass(frozen=True)
class Target:
    """Where a job is recorded."""

    uri: str
    experiment: str

    @property
    def is_server(self) -> bool:
        """Whether files go to it over a network; else they are read where they lie."""
        return self.uri.startswith(("http://", "https://", "databricks"))

    @property
    def database(self) -> Path | None:
        """The file of an SQLite database."""
        return Path(self.uri.removeprefix("sqlite:///")) if self.uri.startswith("sqlite:///") else None


def target_of(tracking: Tracking, job: str, store: Store) -> Target | None:
    """Where runs of a job are recorded; None where nothing says so, and the root is on an object store."""
    uri = tracking.uri or os.environ.get("MLFLOW_TRACKING_URI")
    if uri is None:
        if "file" not in store.fs.protocol:
            return None
        uri = f"sqlite:///{store.path(DATABASE)}"
    return Target(uri, tracking.experiment or job)


def is_off() -> bool:
    """Whether no run of this process records itself."""
    return os.environ.get(MODE, "").casefold() == "off"


def is_later(tracking: Tracking) -> bool:
    """Whether a run is recorded by the next who asks the registry. Where one was named others look, so it is not."""
    named = tracking.uri or os.environ.get("MLFLOW_TRACKING_URI")
    return os.environ.get(MODE, "").casefold() == "later" and not named


def no_target(store: Store) -> str:
    """Why there is none, and what to do."""
    return (
        f"{store.url} is on an object store, which has no database of MLflow: name a server or a database in "
        "tracking.uri of the spec, or in MLFLOW_TRACKING_URI"
    )


STORES = ("mlflow.store.tracking.sqlalchemy_store", "mlflow.store.model_registry.sqlalchemy_store")
"""What MLflow imports when it opens a database."""


def load() -> None:
    """Imports MLflow, so that it says nothing and reaches nobody, with what a database takes, which is most of it."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    os.environ.update(MLFLOW_DISABLE_TELEMETRY="true", DO_NOT_TRACK="true")
    for module in ("mlflow.tracking", *STORES):
        importlib.import_module(module)
    for name in ("mlflow", "alembic"):
        logger = logging.getLogger(name)
        logger.setLevel(max(logger.level, logging.ERROR))


class Connection:
    """A client of MLflow for one target. Opened when it is first used, or by a thread that `begin` starts."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self._client: MlflowClient | None = None
        self._opening = threading.Lock()
        self._thread: threading.Thread | None = None

    def begin(self) -> Connection:
        """Has a thread open it, while something else is waited for; what goes wrong is said by who uses it."""

        def open_it() -> None:
            with contextlib.suppress(Exception):
                self._opened()

        self._thread = threading.Thread(target=open_it, name="mlflow", daemon=True)
        self._thread.start()
        return self

    @contextlib.contextmanager
    def using(self) -> Iterator[MlflowClient]:
        """The client; a local database is for one process at a time meanwhile.

        Raises
        ------
        TrackingError
            MLflow refuses something, or is not reached.
        """
        with failures(self.target):
            client = self._opened()
            with self._locked():
                yield client

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        database = self.target.database
        if database is None:
            yield
            return
        database.parent.mkdir(parents=True, exist_ok=True)
        try:
            with locked(database.with_name(f"{database.name}.lock"), seconds=LOCK_SECONDS, mine=False):
                yield
        except BlockingIOError as error:
            raise TrackingError(
                f"{database} has been in use by another process for {LOCK_SECONDS:.0f} s; try again later."
            ) from error

    def _opened(self) -> MlflowClient:
        with self._opening:
            if self._client is None:
                load()
                with self._locked():
                    from mlflow import MlflowClient

                    client = MlflowClient(tracking_uri=self.target.uri, registry_uri=self.target.uri)
                    if self.target.database is not None:
                        # Makes the tables, which two processes must not do at once.
                        client.search_registered_models(max_results=1)
                self._client = client
            return self._client


class TrackingError(StorageError):
    """MLflow could not be asked, or told, something."""


@contextlib.contextmanager
def failures(target: Target) -> Iterator[None]:
    """Whatever MLflow raises, as one message."""
    try:
        yield
    except TreadleError:
        raise
    except Exception as error:
        first = re.sub(r"\s+", " ", str(error)).strip()
        raise TrackingError(f"MLflow at {target.uri}: {first[:500] or type(error).__name__}") from error


def is_missing(error: Exception) -> bool:
    """Whether MLflow says that something is not there."""
    return getattr(error, "error_code", None) in ("RESOURCE_DOES_NOT_EXIST", "NOT_FOUND") or (
        getattr(error, "error_code", None) == "INVALID_PARAMETER_VALUE" and "alias" in str(error)
    )


def is_there_already(error: Exception) -> bool:
    return getattr(error, "error_code", None) == "RESOURCE_ALREADY_EXISTS"


def tracking_in(manifest: Mapping[str, Any]) -> Tracking:
    """The section of a run's spec."""
    return Tracking.model_validate(manifest["spec"].get("tracking") or {})


def target_for(store: Store, manifest: Mapping[str, Any]) -> Target:
    """Where what a run made is registered; RequestError where that is nowhere."""
    target = target_of(tracking_in(manifest), manifest["job"], store)
    if target is None:
        raise RequestError(f"There is no registry of '{manifest['job']}': {no_target(store)}.")
    return target
