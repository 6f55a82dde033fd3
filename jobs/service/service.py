"""A service: its store, its dispatcher and its cluster, opened and closed together."""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from treadle.cluster.locks import is_locked, locked
from treadle.cluster.private import private_folder
from treadle.engine.models.import_path import check_allowed
from treadle.errors import RequestError, StorageError, TreadleError
from treadle.jobs import loading
from treadle.jobs.service.access import Access
from treadle.jobs.service.bell import Bell
from treadle.jobs.service.beside import Beside
from treadle.jobs.service.database import held_alone, migrate, open_database
from treadle.jobs.service.dispatcher import Dispatcher
from treadle.jobs.service.folders import Order
from treadle.jobs.service.paths import confine
from treadle.jobs.service.settings import Settings
from treadle.jobs.service.states import RETRIABLE, State
from treadle.jobs.service.store import Conflict, Defaults, JobStore, StateChanged
from treadle.jobs.service.views import JobView, Submission
from treadle.jobs.spec import JobSpec, load_spec, root_of

LOCK = "service.lock"


class Service:
    """What a request or a command works with."""

    def __init__(self, settings: Settings, home: Path) -> None:
        self.settings = settings
        self.home = home
        self.engine = open_database(database_of(settings, home))
        self.store = JobStore(self.engine, Defaults(settings.retries, settings.timeout))
        self.access = Access(self.engine)
        self.bell = Bell()
        self.beside = Beside(settings.cluster, home / "cluster")
        self.dispatcher = Dispatcher(self.store, settings, home / "jobs", home / "nursery.log", self.beside, self.bell)
        self.closing = threading.Event()
        self.looked: tuple[float, dict[str, Any]] = (float("-inf"), {})
        """When the cluster was looked at, by the monotonic clock, and what it had."""

    def submit(self, submission: Submission, user: str, schedule: str | None = None) -> tuple[JobView, bool]:
        """The job of a submission, and whether it is new.

        Raises
        ------
        RequestError
            The spec has mistakes, leads out of the allowed roots, or asks for a cluster of its own.
        """
        written, name, root = self.check(submission.spec)
        found = self.store.submit(submission.model_copy(update={"spec": written}), name, root, user, schedule)
        self.bell.ring()
        return found

    def check(self, document: dict[str, Any]) -> tuple[dict[str, Any], str, str]:
        """A spec with absolute paths, its name, and its artifacts root; raises as `submit`."""
        _check_numbers(document)
        parsed = loading.load(document, JobSpec)
        if parsed.cluster.profile != "local":
            raise RequestError(
                f"cluster.profile: '{parsed.cluster.profile}', but jobs of a service run on the service's cluster; "
                "leave the section out."
            )
        for model in parsed.listed_models:
            if model.estimator is not None:
                check_allowed(model.estimator)
        root = root_of(parsed.artifacts.root or self.settings.root)
        # First of all: what is said of a file that is not there tells what else is.
        confine(parsed, root, self.settings.allowed, self.settings.closed(self.home))
        spec = load_spec(parsed)
        written = spec.model_dump(mode="json", by_alias=True, exclude_unset=True)
        written.pop("cluster", None)
        return written, spec.name, root

    def plan_order(self, document: dict[str, Any]) -> str:
        """What a copy of the nursery plans; raises as `submit`, and TreadleError when there is no cluster."""
        written, _, root = self.check(document)
        profile = self.beside.seen
        if profile is None:
            raise TreadleError(f"The cluster is {' because '.join(self.beside.state)}; try again.")
        closed = self.settings.closed(self.home)
        return json.dumps(asdict(Order("plan", written, root, self.settings.allowed, False, profile, closed)))

    def cancel(self, job: str, user: str) -> JobView:
        """Has a job stopped. Raises Conflict when it ended in another way, NoSuchJob."""
        reason = f"cancelled by {user}"
        while True:
            with contextlib.suppress(StateChanged):
                self.store.move(job, State.QUEUED, State.CANCELLED, reason)
            view = self.store.view(job)
            if view.state is State.CANCELLED or (view.state is State.RUNNING and self.store.ask_to_cancel(job, reason)):
                self.bell.ring()
                return view
            if view.state.is_terminal:
                raise Conflict(f"Job {job} has {view.state} already; there is nothing to cancel.")
            # It changed in between: an attempt began, or ended and another is due.

    def retry(self, job: str, user: str, fresh: bool) -> JobView:
        """Queues a job again that did not succeed. Raises Conflict when it cannot be, NoSuchJob."""
        view = self.store.view(job)
        if view.state not in RETRIABLE:
            raise Conflict(f"Job {job} is {view.state}; only one that ended without success can be tried again.")
        try:
            self.store.move(
                job,
                view.state,
                State.QUEUED,
                f"tried again by {user}",
                tries=0,
                fresh=fresh,
                finished=None,
                cancel=None,
            )
        except StateChanged as error:
            raise Conflict(f"{error}; look at it again.") from None
        self.bell.ring()
        return self.store.view(job)


def _check_numbers(document: dict[str, Any]) -> None:
    """Refuses what Python takes for JSON and nobody else: clients could not read the job's spec again."""
    try:
        json.dumps(document, allow_nan=False)
    except ValueError:
        raise RequestError("The spec has NaN or an infinite number, which JSON has not; leave it out.") from None
    except RecursionError:
        raise RequestError("The spec is nested too deep.") from None


@contextlib.contextmanager
def opened(settings: Settings, home: Path) -> Iterator[Service]:
    """A service whose dispatcher runs during the block.

    Raises
    ------
    RequestError
        Another service has the folder or the database.
    """
    with _alone(home) as lock:
        service = Service(settings, home)
        try:
            with held_alone(service.engine) as make_sure:
                migrate(service.engine)
                if settings.needs_tokens and not service.access.tokens():
                    raise RequestError(
                        f"{settings.host} needs tokens, and there are none: "
                        "`treadle tokens add NAME --scope admin` makes one."
                    )
                _describe(lock, settings)
                service.dispatcher.start(make_sure)
                try:
                    yield service
                finally:
                    service.dispatcher.close()
        finally:
            service.engine.dispose()


@contextlib.contextmanager
def _alone(home: Path) -> Iterator[IO[str]]:
    with contextlib.ExitStack() as stack:
        try:
            private_folder(home)
            lock = stack.enter_context(locked(home / LOCK))
        except BlockingIOError:
            raise RequestError(
                f"A service runs already with {home} (TREADLE_HOME). `treadle down` ends it; another one needs "
                "another folder."
            ) from None
        except OSError as error:
            raise _unusable(home, error) from error
        lock.truncate(0)
        yield lock


def _unusable(home: Path, error: OSError) -> StorageError:
    return StorageError(f"{home} cannot be used (TREADLE_HOME): {error.strerror}. --home names another folder.")


def _describe(lock: IO[str], settings: Settings) -> None:
    """For `treadle down`, and for clients on this machine."""
    json.dump({"pid": os.getpid(), "url": settings.url}, lock)
    lock.flush()


def running(home: Path) -> dict[str, Any] | None:
    """Process id and address of the service that has the folder, if one runs; StorageError when that is not to see."""
    try:
        if is_locked(home / LOCK):
            return dict(json.loads((home / LOCK).read_text() or "{}"))
    except ValueError:
        pass  # it is starting, and has not written all of it
    except OSError as error:
        raise _unusable(home, error) from error
    return None


@contextlib.contextmanager
def access_to(settings: Settings, home: Path) -> Iterator[Access]:
    """The tokens of a service, whether it runs or not."""
    try:
        private_folder(home)
    except OSError as error:
        raise _unusable(home, error) from error
    engine = open_database(database_of(settings, home))
    try:
        migrate(engine)
        yield Access(engine)
    finally:
        engine.dispose()


def database_of(settings: Settings, home: Path) -> str:
    """The address of the database."""
    return settings.database or f"sqlite:///{home / 'jobs.db'}"
