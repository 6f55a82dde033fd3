"""What a running run needs, said where others see it, so that nothing of it is collected as garbage.

<root>/runs/<run>/running.json   as long as the run has no manifest; its driver holds a lock on it
<root>/stages/lock               held, shared, by runs while they say so, and alone by `treadle gc` while it decides

So a run either has said what it needs before gc looks, or looks at the cache after gc has taken away what it takes.
Where there are no locks, on object stores, only the grace of gc keeps the two apart.
"""

from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, ValidationError

from treadle.cluster.locks import is_locked, locked
from treadle.engine.document import Document
from treadle.engine.events import now
from treadle.engine.processes import boot
from treadle.engine.store import Store, modified, storage_errors
from treadle.errors import StorageError, listed

if TYPE_CHECKING:
    from treadle.engine.inputs import Inspected
    from treadle.jobs.plan import Plan

RUNNING = "running.json"
LOCK = "stages/lock"
WAIT_SECONDS = 120.0
"""A run waits this long for a gc that is taking things away, and a gc for runs that say what they need."""


class HeldInput(Document):
    """An input that lies under the artifacts root itself."""

    section: str
    version: int | None
    """Of a Delta table."""
    files: tuple[str, ...]
    """Relative to the root."""


class Running(Document):
    """running.json."""

    format: int = 1
    run: str
    job: str
    host: str
    boot: str
    """Names the system since it was started: locks on local files are known to all its processes, and to no others."""
    pid: int
    started: str
    stages: dict[str, str]
    """Stage -> fingerprint, of all that are planned."""
    inputs: tuple[HeldInput, ...] = ()
    models: tuple[str, ...] = Field(default=())
    """`name:version` of those that training continues."""


@contextlib.contextmanager
def holding(plan: Plan, store: Store, run_id: str) -> Iterator[None]:
    """Says what a run needs, until its manifest says what it made.

    Raises
    ------
    StorageError
        A file of an input was removed since the plan was made; a gc does not come to its end.
    """
    said = Running(
        **_here(plan.spec.name, run_id),
        stages={stage.name: stage.fingerprint for stage in plan.stages},
        inputs=tuple(_inputs(plan, store)),
        models=tuple(model.continue_from for model in plan.spec.job.listed_models if model.continue_from),
    )
    with _saying(store, said):
        _check(store, said)
        yield


@contextlib.contextmanager
def at_work(store: Store, job: str, run_id: str) -> Iterator[None]:
    """As `holding`, for what works on the published tables and models of a job without running it."""
    with _saying(store, Running(**_here(job, run_id), stages={})):
        yield


def _here(job: str, run_id: str) -> dict[str, Any]:
    """What says of a run that it is one of this process."""
    return {
        "run": run_id,
        "job": job,
        "host": platform.node(),
        "boot": boot(),
        "pid": os.getpid(),
        "started": now(),
    }


@contextlib.contextmanager
def _saying(store: Store, said: Running) -> Iterator[None]:
    folder = f"runs/{said.run}"
    relative = f"{folder}/{RUNNING}"
    with contextlib.ExitStack() as ending:
        ending.callback(store.remove_empty, folder)
        ending.callback(store.remove_file, relative)
        if store.is_local:
            with deciding(store, shared=True), storage_errors(store.path(relative)):
                path = Path(store.path(relative))
                path.parent.mkdir(parents=True, exist_ok=True)
                with contextlib.suppress(BlockingIOError):  # a process that an earlier attempt left has it
                    _lock(ending, path)
                path.write_text(said.model_dump_json(indent=1))
        else:
            store.write_json(relative, said.model_dump(mode="json"))
        yield


@contextlib.contextmanager
def deciding(store: Store, *, shared: bool = False) -> Iterator[bool]:
    """For the block, nobody else takes away what is in the cache; tells whether the file system has such locks.

    Raises
    ------
    StorageError
        Another process does not let go of the lock.
    """
    with contextlib.ExitStack() as ending:
        if not store.is_local:
            yield False
            return
        path = Path(store.path(LOCK))
        with storage_errors(str(path)):
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                has_locks = _lock(ending, path, shared=shared, seconds=WAIT_SECONDS)
            except BlockingIOError as error:
                who = "treadle gc" if shared else "A run"
                raise StorageError(
                    f"{who} has held {path} for {WAIT_SECONDS:.0f} s; end the process that does, and run again."
                ) from error
        yield has_locks


def live_runs(store: Store, since: float) -> list[Running]:
    """The runs that are going on under a root.

    A lock tells it of processes of this system, and of others where the file system shares locks. Where none can be
    seen a run counts as going on if it has written something after `since` (seconds since 1970).

    Raises
    ------
    StorageError
        A run is going on and does not say what it needs.
    """
    found = []
    for run in store.list("runs"):
        relative = f"runs/{run}/{RUNNING}"
        if not store.exists(relative):
            continue
        try:
            said: Running | None = Running.model_validate(store.read_json(relative))
        except (StorageError, ValidationError):
            said = None
        if (said is None and not store.exists(relative)) or not _lives(store, run, said, since):
            continue  # it has ended, maybe just now
        if said is None:
            raise StorageError(
                f"Run {run} is going on, and {store.path(relative)} does not say what it needs: another version of "
                "Treadle wrote it. Try again when the run has ended."
            )
        found.append(said)
    return found


def _lives(store: Store, run: str, said: Running | None, since: float) -> bool:
    if store.is_local:
        with contextlib.suppress(FileNotFoundError):
            try:
                if is_locked(Path(store.path(f"runs/{run}/{RUNNING}"))):
                    return True
                if said is not None and said.boot == boot():
                    return False
            except PermissionError as error:
                raise StorageError(f"Whether run {run} is going on cannot be told: {error}.") from error
            except OSError:
                pass  # a file system without locks
    try:
        listing = store.fs.ls(store.path(f"runs/{run}"), detail=True)
    except FileNotFoundError:
        return False
    return max((modified(info) for info in listing), default=0.0) > since


def _lock(ending: contextlib.ExitStack, path: Path, **how: Any) -> bool:
    """Locks a file until `ending`, where the file system has locks; BlockingIOError when another process has it."""
    try:
        ending.enter_context(locked(path, mine=False, **how))
    except BlockingIOError:
        raise
    except OSError as error:
        if error.filename is not None:
            raise  # what has no name is not of the file, but of locking it
        return False
    return True


def _inputs(plan: Plan, store: Store) -> Iterator[HeldInput]:
    """The inputs that have files under the root."""
    named: dict[str, Inspected | None] = {"data": plan.inputs.main, "split": plan.inputs.test}
    named |= {f"tables.{i}": side for i, side in plan.inputs.sides.items()}
    named |= {f"contract.{i}": known for i, known in plan.inputs.known.items()}
    for section, found in named.items():
        if found is not None and (files := inside(store, [file.path for file in found.files])):
            yield HeldInput(section=section, version=found.version, files=tuple(files))


def inside(store: Store, paths: Sequence[str]) -> list[str]:
    """Of paths or URLs of files those that lie under the root, relative to it."""
    root = store.path("")
    real = f"{os.path.realpath(root)}/" if store.is_local else root
    found = []
    for path in paths:
        bare = path
        if "://" in path:
            protocol = path.partition("://")[0]
            if protocol not in ((store.fs.protocol,) if isinstance(store.fs.protocol, str) else store.fs.protocol):
                continue
            bare = str(store.fs._strip_protocol(path))
        elif not store.is_local:
            continue
        if store.is_local and not bare.startswith(root):
            bare = f"{os.path.realpath(os.path.dirname(bare))}/{os.path.basename(bare)}"
        for prefix in (root, real):
            if bare.startswith(prefix):
                found.append(bare.removeprefix(prefix))
                break
    return found


def _check(store: Store, said: Running) -> None:
    """What lies under the root may have been taken away between the plan and now."""
    files = [file for held in said.inputs for file in held.files]
    gone = [file for file in files if not store.exists(file)]
    if gone:
        raise StorageError(
            f"{len(gone)} files of the input under {store.url} were removed since the run was planned "
            f"({listed(gone, 2)}): no run that is kept named that version. Name another version, or make it again."
        )
