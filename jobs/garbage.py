"""What of an artifacts root nobody needs, by the rules of `treadle gc`: decided here, removed in `treadle.jobs.gc`."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from treadle.engine.cache import NOTES, folders_of, read_notes
from treadle.engine.store import OUTCOME, UNFINISHED, Store
from treadle.engine.vacuum import Needed, Unclear, needed_of
from treadle.jobs.holding import Running
from treadle.jobs.surveying import File, Folder, Manifest, Names, Publications

TRIALS = "stages/trials-"
LEFT = {"stages/checkpoints-": "checkpoint", "stages/publish-": "copies of what was published"}
"""Folders without an outcome that are no unfinished stages."""


@dataclass(frozen=True)
class Rules:
    """What is to go; times in seconds, sizes in bytes. Without any of them only what nobody can use goes."""

    older_than: float | None = None
    max_size: int | None = None
    grace: float = 86_400.0
    keep_runs: int | None = None
    runs_older_than: float | None = None

    @property
    def forget(self) -> bool:
        return self.keep_runs is not None or self.runs_older_than is not None


@dataclass(frozen=True)
class Removal:
    """A folder that goes with all that is in it, or some files of one."""

    what: str
    path: str
    why: str
    files: tuple[File, ...]
    whole: bool
    head: int | None = None
    """Of a table: the version that was the current one."""
    job: str | None = None
    """Of a run that is forgotten."""


@dataclass
class Ground:
    """All that is known of a root when something is decided."""

    store: Store
    now: float
    folders: Mapping[str, Sequence[Folder]]
    manifests: Mapping[str, Manifest]
    live: Sequence[Running]
    publications: Publications
    protected: Collection[str]
    """`name:version` of models that are to stay."""
    skipped: dict[str, str] = field(default_factory=dict)
    """What was left alone -> why."""

    @property
    def held_folders(self) -> set[str]:
        return {folder for run in self.live for folder in folders_of(run.stages)}

    @property
    def held_jobs(self) -> set[str]:
        """Jobs whose tables and bundles are left alone, since somebody may be at work on them."""
        return {run.job for run in self.live} | self.publications.unsettled

    @property
    def held_files(self) -> set[str]:
        return {file for run in self.live for held in run.inputs for file in held.files}


def removals_of(ground: Ground, rules: Rules) -> list[Removal]:
    """What goes by the rules, in the order in which it is to go."""
    cutoff = ground.now - rules.grace
    forgotten = _forgotten(ground, rules)
    kept = {run: manifest for run, manifest in ground.manifests.items() if run not in forgotten}
    removals = [
        *_models(ground, kept, forgotten, cutoff),
        *_tables(ground, kept, cutoff),
        *_runs(ground, forgotten, cutoff),
        *_leftovers(ground, cutoff),
    ]
    names = Names()
    for removal in removals:
        names.remove(removal.files)
    removals += _cache(ground, kept, rules, names)
    gone = tuple(f"{removal.path}/" for removal in removals if removal.whole)
    return [*removals, *_unfinished(ground, gone, cutoff)]


def _newest_models(ground: Ground) -> set[str]:
    """The newest version of every model: whoever loads it by its name alone gets that."""
    newest: dict[str, int] = {}
    for folder in ground.folders["models"]:
        _, name, version = folder.path.split("/")
        if version.isdigit() and folder.has("bundle.json"):
            newest[name] = max(int(version), newest.get(name, 0))
    return {f"{name}:{version}" for name, version in newest.items()}


def _forgotten(ground: Ground, rules: Rules) -> dict[str, Manifest]:
    """Runs whose manifests go. A run is kept when one of the rules that are given keeps it."""
    if not rules.forget:
        return {}
    by_job: dict[str, list[Manifest]] = defaultdict(list)
    for manifest in sorted(ground.manifests.values(), key=lambda one: (one.ended, one.run), reverse=True):
        by_job[manifest.job].append(manifest)
    models = _newest_models(ground) | set(ground.protected)
    live = {run.run for run in ground.live}
    forgotten = {}
    for job, of_job in by_job.items():
        if job in ground.held_jobs:
            continue  # what they name is left alone as well
        newest = next((one.run for one in of_job if one.succeeded), None)
        for place, one in enumerate(of_job):
            age = ground.now - one.ended
            keeps = age <= max(rules.grace, rules.runs_older_than or 0.0) or place < (rules.keep_runs or 0)
            is_named = one.run == newest or one.run in live or one.run in ground.publications.last
            if not (keeps or is_named or one.model in models):
                forgotten[one.run] = one
    return forgotten


def _models(
    ground: Ground, kept: Mapping[str, Manifest], forgotten: Mapping[str, Manifest], cutoff: float
) -> Iterator[Removal]:
    named = {model for manifest in kept.values() for model in manifest.models}
    named |= {model for run in ground.live for model in run.models} | set(ground.protected) | _newest_models(ground)
    only = {manifest.model for manifest in forgotten.values()} - named
    for folder in ground.folders["models"]:
        _, name, version = folder.path.split("/")
        if name in ground.held_jobs or f"{name}:{version}" in ground.protected or not version.isdigit():
            continue  # what is no version are records of promotions
        if not folder.has("bundle.json"):
            if folder.newest < cutoff:
                yield Removal("unfinished model", folder.path, "it has no bundle.json", folder.files, True)
        elif f"{name}:{version}" in only:
            yield Removal("model", folder.path, "only runs that are forgotten name it", folder.files, True)


def _tables(ground: Ground, kept: Mapping[str, Manifest], cutoff: float) -> Iterator[Removal]:
    versions: dict[str, set[int]] = defaultdict(set)
    for manifest in kept.values():
        for path, version in manifest.tables:
            versions[path].add(version)
    inputs = {path for manifest in kept.values() for path in manifest.inputs} | ground.held_files
    for folder in ground.folders["tables"]:
        job = folder.path.split("/")[1]
        if job in ground.held_jobs:
            if job in ground.publications.unsettled:
                ground.skipped[folder.path] = "a publication is going on, or was cut off; the job's next run ends it"
            continue
        files = {file.path.removeprefix(f"{folder.path}/"): file for file in folder.files}
        if not any(name.startswith("_delta_log/") for name in files):
            continue
        try:
            needed = needed_of(ground.store.fs, ground.store.path(folder.path), versions[folder.path])
        except Unclear as error:
            ground.skipped[folder.path] = str(error)
            continue
        unneeded = [file for name, file in files.items() if _is_unneeded(name, file, needed, cutoff)]
        going = [file for file in unneeded if file.path not in inputs]
        if going:
            why = "no version that a manifest names needs them"
            yield Removal("files of a table", folder.path, why, tuple(going), False, needed.head)


def _is_unneeded(name: str, file: File, needed: Needed, cutoff: float) -> bool:
    hidden = any(part.startswith(("_", ".")) for part in name.split("/")[:1])
    # What was committed counts from its commit; what never was, from when it was put there.
    at = file.written if name in needed.replaced else file.linked
    return not hidden and name.endswith(".parquet") and needed.may_go(name, at, cutoff)


def _runs(ground: Ground, forgotten: Mapping[str, Manifest], cutoff: float) -> Iterator[Removal]:
    live = {run.run for run in ground.live}
    for folder in ground.folders["runs"]:
        run = folder.path.removeprefix("runs/")
        if run in forgotten:
            why, job = "older than the runs to keep", forgotten[run].job
            yield Removal("run", folder.path, why, folder.files, True, job=job)
        elif run not in ground.manifests and run not in live and folder.newest < cutoff:
            yield Removal("unfinished run", folder.path, "its driver has ended without a manifest", folder.files, True)


def _leftovers(ground: Ground, cutoff: float) -> Iterator[Removal]:
    held = ground.held_folders
    for folder in ground.folders["stages"]:
        if folder.path == NOTES or folder.path.startswith(TRIALS) or folder.has(OUTCOME):
            continue
        if folder.path not in held and folder.newest < cutoff:
            what = next((what for start, what in LEFT.items() if folder.path.startswith(start)), "unfinished stage")
            yield Removal(what, folder.path, "no run is at work on it", folder.files, True)


def _unfinished(ground: Ground, gone: tuple[str, ...], cutoff: float) -> Iterator[Removal]:
    """Files that were being written, in folders that stay."""
    held = tuple(f"{folder}/" for folder in ground.held_folders)
    held += tuple(f"{top}/{job}/" for job in ground.held_jobs for top in ("tables", "models"))
    for folders in ground.folders.values():
        for folder in folders:
            left = [
                file
                for file in folder.files
                if file.path.endswith(UNFINISHED) and file.linked < cutoff and not file.path.startswith((*gone, *held))
            ]
            if left:
                yield Removal("unfinished files", folder.path, "their writer has ended", tuple(left), False)


@dataclass
class _Entry:
    """An outcome in the cache, or the trials of models by folds."""

    folder: Folder
    used: float
    """When a run last used it, in seconds since 1970."""
    needed_by: set[str] = field(default_factory=set)


def _cache(ground: Ground, kept: Mapping[str, Manifest], rules: Rules, names: Names) -> list[Removal]:
    """Outcomes by age, and then the least recently used until the rest fits."""
    entries = _entries(ground, ground.manifests.values())
    held, cutoff = ground.held_folders, ground.now - rules.grace
    removable = {
        path for path, one in entries.items() if path not in held and max(one.used, one.folder.newest) < cutoff
    }
    found: list[Removal] = []

    def remove(path: str, why: str) -> None:
        for one in sorted(_with_dependents(entries, path)):
            what = "trials" if one.startswith(TRIALS) else "outcome"
            found.append(Removal(what, one, why, entries[one].folder.files, True))
            names.remove(entries[one].folder.files)
            del entries[one]

    named = {path for manifest in kept.values() for path in manifest.folders} | held
    only = {path for run in ground.manifests.keys() - kept.keys() for path in ground.manifests[run].folders} - named
    for path in sorted(only & entries.keys()):
        if path in entries and _with_dependents(entries, path) <= removable & only:
            remove(path, "only runs that are forgotten used it")
    by_use = sorted(entries, key=lambda path: (entries[path].used, len(entries[path].needed_by), path))
    if rules.older_than is not None:
        for path in by_use:
            is_old = path in entries and entries[path].used < ground.now - rules.older_than
            if is_old and _with_dependents(entries, path) <= removable:
                remove(path, "not used for longer than --older-than")
    size = names.gain(file for entry in entries.values() for file in entry.folder.files)
    for path in by_use if rules.max_size is not None else ():
        if size <= (rules.max_size or 0):
            break
        if path not in entries or not (group := _with_dependents(entries, path)) <= removable:
            continue
        gain = names.gain(file for one in group for file in entries[one].folder.files)
        if gain > 0:  # else tables hold all of it, and nothing would come of it
            remove(path, "the cache is larger than --max-size")
            size -= gain
    return found


def _entries(ground: Ground, manifests: Iterable[Manifest]) -> dict[str, _Entry]:
    used: dict[str, float] = {}
    for manifest in manifests:
        for path in manifest.folders:
            used[path] = max(manifest.ended, used.get(path, 0.0))
    for job in ground.store.list(NOTES):
        if job.endswith(".json") and (notes := read_notes(ground.store, job.removesuffix(".json"))) is not None:
            at = datetime.fromisoformat(notes.noted).timestamp()
            for path in folders_of({name: made.fingerprint for name, made in notes.stages.items()}):
                used[path] = max(at, used.get(path, 0.0))
    entries: dict[str, _Entry] = {}
    for folder in ground.folders["stages"]:
        if folder.has(OUTCOME) or folder.path.startswith(TRIALS):
            own = max((file.written for file in folder.files), default=folder.made)
            entries[folder.path] = _Entry(folder, max(own, used.get(folder.path, 0.0)))
    needs = {path: (_references(ground.store, path) & entries.keys()) - {path} for path in entries}
    # What others are made of is used whenever they are; the last one used first, so that it reaches all below it.
    for path in sorted(entries, key=lambda path: entries[path].used, reverse=True):
        for other in needs[path]:
            entries[other].needed_by.add(path)
            entries[other].used = max(entries[other].used, entries[path].used)
    return entries


def _references(store: Store, path: str) -> set[str]:
    """The folders of the cache whose files an outcome names."""
    if path.startswith(TRIALS):
        return set()
    try:
        raw = store.fs.cat_file(store.path(f"{path}/{OUTCOME}"))
    except FileNotFoundError:
        return set()
    return {f"stages/{name.decode()}" for name in re.findall(rb'"stages/([^/"]+)/', raw)}


def _with_dependents(entries: Mapping[str, _Entry], path: str) -> set[str]:
    """An outcome, and those that are of no use without it."""
    found, left = {path}, [path]
    while left:
        for other in entries[left.pop()].needed_by:
            if other in entries and other not in found:
                found.add(other)
                left.append(other)
    return found
