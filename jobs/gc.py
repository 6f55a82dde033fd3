"""`treadle gc`: removes what nobody needs under an artifacts root, and of the cache what was not used for long.

What goes is decided twice: at leisure, and once more while no run can begin to use anything (`treadle.jobs.holding`).
Then it is only renamed, into <root>/trash, and deleted when runs may go on.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import time
import uuid
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from treadle.cluster.locks import locked
from treadle.engine.cache import folders_of
from treadle.engine.store import OUTCOME, Store, storage_errors
from treadle.engine.vacuum import head_of
from treadle.errors import RequestError, StorageError
from treadle.jobs.garbage import Ground, Removal, Rules, removals_of
from treadle.jobs.holding import deciding, live_runs
from treadle.jobs.surveying import Names, manifests_of, publications_of, read_folder, scan

ALONE = "stages/gc.lock"
TRASH = "trash"
SAYS_SO = (OUTCOME, "bundle.json", "manifest.json")
"""Files without which the others of a folder do not count."""
ATTEMPTS = 5
"""When something is decided that changes meanwhile, such as which models are to stay, it is decided again."""

Protected = Callable[[], Collection[str]]
"""`name:version` of models that are to stay with their runs, whatever the rules."""


def nothing() -> Collection[str]:
    """No model is protected."""
    return ()


@dataclass(frozen=True)
class Report:
    """What went, or would go."""

    root: str
    dry_run: bool
    removals: tuple[Removal, ...]
    bytes: int
    """Of all names of files that were removed."""
    freed: int
    """Of these, what no other name holds."""
    live: tuple[str, ...]
    """Runs that are going on, and that everything was spared for."""
    skipped: dict[str, str]
    """What was left alone -> why."""
    seconds: float
    """For which runs that began had to wait."""

    def described(self) -> dict[str, Any]:
        """For --json."""
        return {
            "root": self.root,
            "dry_run": self.dry_run,
            "removed": [
                {
                    "what": removal.what,
                    "path": removal.path,
                    "why": removal.why,
                    "bytes": sum(file.bytes for file in removal.files),
                    "files": len(removal.files) if removal.whole else [file.path for file in removal.files],
                }
                for removal in self.removals
            ],
            "bytes": self.bytes,
            "freed_bytes": self.freed,
            "live_runs": list(self.live),
            "left_alone": self.skipped,
            "held_up_seconds": round(self.seconds, 3),
        }


def collect(
    root: str, rules: Rules, *, protected: Protected = nothing, dry_run: bool = False, now: float | None = None
) -> Report:
    """Removes what the rules say, or tells it.

    Parameters
    ----------
    protected
        Models that are to stay; asked again when things are removed.
    now
        Seconds since 1970; the clock's when absent.

    Raises
    ------
    RequestError
        There is no such root.
    StorageError
        Another gc is at work; a manifest is damaged, so that it is not known what it names.
    """
    store = Store(root)
    if not store.exists(""):
        raise RequestError(f"There is nothing at {root}; name the artifacts root with --root.")
    if dry_run:
        ground = _survey(store, rules, protected, now)
        return _report(ground, removals_of(ground, rules), True, 0.0)
    with _alone(store):
        _empty(store)
        try:
            for _ in range(ATTEMPTS):
                ground = _survey(store, rules, protected, now)
                planned = removals_of(ground, rules)
                with deciding(store):
                    began = time.monotonic()
                    if frozenset(protected()) != ground.protected:
                        continue
                    held = _held(store, ground, rules)
                    going = [one for one in planned if not held.holds(one) and _is_unchanged(store, one)]
                    if store.is_local:
                        _take_away(store, going)
                    else:
                        going = _delete(store, ground, rules, going)
                    seconds = time.monotonic() - began
                return _report(ground, going, False, seconds if store.is_local else 0.0)
        finally:
            _empty(store)
    raise StorageError(f"What is to stay under {root} changed {ATTEMPTS} times while gc looked; run it again.")


def _survey(store: Store, rules: Rules, protected: Protected, now: float | None) -> Ground:
    """Manifests are read before the folders: whatever is seen later is younger, and looked at once more."""
    at = time.time() if now is None else now
    return Ground(
        store=store,
        now=at,
        manifests=manifests_of(store, store.list("runs")),
        live=live_runs(store, at - rules.grace),
        publications=publications_of(store),
        protected=frozenset(protected()),
        folders=scan(store),
    )


def _report(ground: Ground, removals: Sequence[Removal], dry_run: bool, seconds: float) -> Report:
    names = Names()
    for removal in removals:
        names.remove(removal.files)
    live = tuple(run.run for run in ground.live)
    return Report(
        ground.store.url, dry_run, tuple(removals), names.bytes, names.freed, live, dict(ground.skipped), seconds
    )


@contextlib.contextmanager
def _alone(store: Store) -> Iterator[None]:
    """One gc a root at a time, where there are locks."""
    with contextlib.ExitStack() as ending:
        if store.is_local:
            path = Path(store.path(ALONE))
            with storage_errors(str(path)):
                path.parent.mkdir(parents=True, exist_ok=True)
                try:
                    ending.enter_context(locked(path, mine=False))
                except BlockingIOError as error:
                    raise StorageError(f"Another treadle gc is at work under {store.url}; wait for its end.") from error
                except OSError as error:
                    if error.filename is not None:
                        raise
        yield


@dataclass(frozen=True)
class _Held:
    """What runs need that are going on, or that have ended since the root was surveyed."""

    runs: frozenset[str]
    folders: frozenset[str]
    jobs: frozenset[str]
    """Their tables and bundles are left alone."""
    models: frozenset[str]
    files: frozenset[str]

    def holds(self, removal: Removal) -> bool:
        top, name, *_ = removal.path.split("/")
        match top:
            case "stages":
                return removal.path in self.folders
            case "runs":
                return name in self.runs or removal.job in self.jobs
            case "models":
                return name in self.jobs or ":".join(removal.path.split("/")[1:]) in self.models
        return name in self.jobs or any(file.path in self.files for file in removal.files)


def _held(store: Store, ground: Ground, rules: Rules) -> _Held:
    live = live_runs(store, ground.now - rules.grace)
    # A manifest that says `succeeded` is never written again.
    settled = {run for run, manifest in ground.manifests.items() if manifest.succeeded}
    found = manifests_of(store, [run for run in store.list("runs") if run not in settled])
    newer = [manifest for run, manifest in found.items() if manifest != ground.manifests.get(run)]
    stages = [run.stages for run in live] + [manifest.stages for manifest in newer]
    inputs = [held.files for run in live for held in run.inputs] + [tuple(manifest.inputs) for manifest in newer]
    models = [run.models for run in live] + [tuple(manifest.models) for manifest in newer]
    return _Held(
        runs=frozenset([run.run for run in live] + [manifest.run for manifest in newer]),
        folders=frozenset(folder for of_run in stages for folder in folders_of(of_run)),
        jobs=frozenset([run.job for run in live] + [manifest.job for manifest in newer])
        | publications_of(store).unsettled,
        models=frozenset(model for of_run in models for model in of_run),
        files=frozenset(file for of_run in inputs for file in of_run),
    )


def _is_unchanged(store: Store, removal: Removal) -> bool:
    """Whether what goes is as it was when that was decided."""
    if removal.head is not None and head_of(store.fs, store.path(removal.path)) != removal.head:
        return False
    found = read_folder(store, removal.path).files
    return found == removal.files if removal.whole else set(found) >= set(removal.files)


def _take_away(store: Store, going: Sequence[Removal]) -> None:
    """Renames it into the trash, which takes next to no time."""
    folder = Path(store.path(f"{TRASH}/{uuid.uuid4().hex}"))
    with storage_errors(str(folder)):
        folder.mkdir(parents=True)
        number = 0
        for removal in going:
            for path in [removal.path] if removal.whole else [file.path for file in removal.files]:
                number += 1
                _move(Path(store.path(path)), folder / str(number))


def _move(source: Path, target: Path) -> None:
    try:
        os.rename(source, target)
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        # Part of the root lies on another file system.
        if source.is_dir():
            shutil.rmtree(source)
        else:
            source.unlink()


def _delete(store: Store, ground: Ground, rules: Rules, going: Sequence[Removal]) -> list[Removal]:
    """On an object store: first what says that it is there, then, unless a run has begun to use it, the rest."""
    whole = [removal for removal in going if removal.whole]
    for removal in whole:
        for file in removal.files:
            if file.path.removeprefix(f"{removal.path}/") in SAYS_SO:
                store.remove_file(file.path)
    held = _held(store, ground, rules)
    removed = [removal for removal in going if not held.holds(removal)]
    for removal in removed:
        for file in removal.files:
            store.remove_file(file.path)
    return removed


def _empty(store: Store) -> None:
    """Deletes what was taken away, also by a gc that was killed."""
    if store.is_local:
        shutil.rmtree(store.path(TRASH), ignore_errors=True)
