"""Publications of a job, one after the other: each is seen as a whole or not at all.

<root>/publications/<job>/<n>.json   a claim: what publication n is about to change, written before it changes anything
<root>/publications/<job>/lock       held by the driver that publishes, where the root is a local folder

A publication is over when its run's manifest has its number. Until then readers see what was there before:
a claim says which versions that were. What a driver that was killed had committed, the next publication takes back
once it is claimed.

Delta Lake makes a version of one table at once, and has no commit of several; this is the intent log that is
missing. Where a root is on an object store there are no locks: there a claim is made by a conditional put, and is
another driver's to take over once its own is seen to be gone, or, from another machine, once it is older than a lease.
Should its own driver go on after that, no version is a mixture all the same: a commit replaces exactly the version
that was looked at, or fails.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from datetime import UTC, datetime

from treadle.engine.document import Document
from treadle.engine.events import now
from treadle.engine.processes import Process, this_process
from treadle.engine.store import Store, storage_errors
from treadle.errors import StorageError, TreadleError

LEASE_SECONDS = 600.0
"""On an object store a claim is left to a driver on another machine for this long; commits take seconds."""
POLL_SECONDS = 0.2


class Claim(Document):
    """What a publication is about to change."""

    job: str
    number: int
    run: str
    started: str
    before: dict[str, int | None]
    """The version that each of its tables had; None of one that was not there."""
    model: str | None = None
    """`name:version` of the bundle that it makes, if any."""
    driver: Process | None = None
    """None in claims of earlier versions of Treadle."""
    took_over: tuple[str, ...] = ()
    """Runs that were cut off, of which it may have kept what it makes as well; `before` has their tables, too."""
    left_models: tuple[str, ...] = ()
    """Their bundles, which are hidden unless it is its own as well."""


class Turn:
    """The right to publish what a job makes; one driver at a time has it."""

    def __init__(self, store: Store, job: str, last: int, left: Claim | None) -> None:
        self._store = store
        self._job = job
        self._last = last
        self.left = left
        """A publication that its driver did not end: whoever claims the next one settles it."""

    @property
    def left_models(self) -> tuple[str, ...]:
        """Bundles of publications that were not ended."""
        if self.left is None:
            return ()
        return self.left.left_models if self.left.model is None else (self.left.model, *self.left.left_models)

    def claim(self, run: str, before: Mapping[str, int | None], model: str | None = None) -> Claim | None:
        """Begins the next publication; None where another driver came first, as one can where there are no locks.

        What was left is this one's to end or undo from here on. That it is claimed before anything is taken back
        keeps a driver that comes second from taking back what the first has kept.

        Raises
        ------
        StorageError
            One came first though this one has the lock.
        """
        left = self.left
        claim = Claim(
            job=self._job,
            number=self._last + 1,
            run=run,
            started=now(),
            before={**before, **({} if left is None else left.before)},
            model=model,
            driver=this_process(),
            took_over=() if left is None else (left.run, *left.took_over),
            left_models=self.left_models,
        )
        if self._store.create(_path(claim), claim.model_dump(mode="json")):
            return claim
        if self._store.is_local:
            raise StorageError(
                f"Another run of '{self._job}' began to publish at the same time: locks of files in {self._store.url} "
                "do not hold. Use it from one machine at a time, or another folder; run again, and it goes on."
            )
        return None


@contextlib.contextmanager
def turn(store: Store, job: str, waiting: Callable[[], object]) -> Iterator[Turn]:
    """A turn for the block, after those of drivers that are at it; `waiting` is called once where there is one."""
    if store.is_local:
        with _locked(store, job, waiting):
            yield Turn(store, job, *_state(store, job))
    else:
        yield Turn(store, job, *_expired(store, job, waiting))


class Publishing:
    """The publication of one run, as far as it has come. `ending` is for what lasts until the run has its manifest."""

    def __init__(self, store: Store, job: str, run: str, ending: contextlib.ExitStack) -> None:
        self._store = store
        self._job = job
        self._run = run
        self.ending = ending
        self.claim: Claim | None = None

    def turn(self, waiting: Callable[[], object]) -> Turn:
        """Waits for the turn of this run, which it has until its manifest is written."""
        return self.ending.enter_context(turn(self._store, self._job, waiting))

    def begin(self, turn: Turn, before: Mapping[str, int | None], model: str | None) -> Claim | None:
        """Says what will be changed: from here on it is wholly published, or undone. None as in `Turn.claim`."""
        self.claim = turn.claim(self._run, before, model)
        return self.claim

    @property
    def number(self) -> int | None:
        """For the manifest; None where nothing was to be changed."""
        return None if self.claim is None else self.claim.number

    def undone(self) -> int | None:
        """Takes back what was committed, since the run failed all the same; the number for its manifest.

        None where it cannot be taken back: then the claim stays, and the next run does it.
        """
        try:
            if self.claim is not None:
                settle(self._store, self.claim, self._run)
                for model in (self.claim.model, *self.claim.left_models):
                    if model is not None:
                        hide(self._store, model)
        except TreadleError:
            return None
        return self.number


def hide(store: Store, model: str) -> None:
    """Makes the bundle `name:version`, which no manifest names, one that is not there."""
    store.remove_file(f"models/{model.replace(':', '/')}/bundle.json")


def latest(store: Store, job: str) -> Claim | None:
    """The last claim of a job."""
    names = [name for name in store.list(f"publications/{job}") if name.endswith(".json")]
    return Claim.model_validate(store.read_json(f"publications/{job}/{names[-1]}")) if names else None


def pending(store: Store, job: str) -> Claim | None:
    """The publication that is going on, or that a killed driver left; None when the last one is over."""
    return _state(store, job)[1]


def _state(store: Store, job: str) -> tuple[int, Claim | None]:
    """The number of the last claim, 0 without one; and the claim while its publication is not over."""
    last = latest(store, job)
    if last is None:
        return 0, None
    return last.number, None if _is_over(store, last) else last


def versions_before(store: Store, job: str) -> Mapping[str, int | None]:
    """The versions that readers should see of tables that are being published; None of one that was not there."""
    claim = pending(store, job)
    return {} if claim is None else claim.before


def settle(store: Store, claim: Claim, run: str, keep: Collection[str] = ()) -> None:
    """Takes back the table versions of a publication that did not end, but for the tables to `keep`.

    `run` is what does it. The bundle of the claim is hidden from readers, and left to the caller.
    """
    from treadle.engine.commits import take_back

    for name, before in claim.before.items():
        if name not in keep:
            path = store.path(f"tables/{claim.job}/{name}")
            take_back(store.fs, path, before, {claim.run, *claim.took_over}, run)


def _path(claim: Claim) -> str:
    return f"publications/{claim.job}/{claim.number:08d}.json"


def _is_over(store: Store, claim: Claim) -> bool:
    """Whether the run has a manifest that was written after the claim; an earlier attempt's has a lower number."""
    manifest = f"runs/{claim.run}/manifest.json"
    return store.exists(manifest) and (store.read_json(manifest).get("publication") or 0) >= claim.number


@contextlib.contextmanager
def _locked(store: Store, job: str, waiting: Callable[[], object]) -> Iterator[None]:
    path = store.path(f"publications/{job}/lock")
    with storage_errors(path):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        # For reading only, so that all who share a root can take turns, whoever of them made the file.
        file = os.open(path, os.O_RDONLY | os.O_CREAT, 0o666)
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting()
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
    finally:
        os.close(file)


def _expired(store: Store, job: str, waiting: Callable[[], object]) -> tuple[int, Claim | None]:
    """As `_state`, once no publication is going on, or its driver has left it, as far as can be told."""
    told = False
    while True:
        last, claim = _state(store, job)
        if claim is None:
            return last, None
        age = (datetime.now(UTC) - datetime.fromisoformat(claim.started)).total_seconds()
        if age > LEASE_SECONDS or (claim.driver is not None and claim.driver.is_gone):
            # It may have come to its end just before its driver did; the newest claim may be another's by now.
            return last, None if _is_over(store, claim) else claim
        if not told:
            waiting()
            told = True
        time.sleep(POLL_SECONDS)
