"""What lies under an artifacts root, and what its manifests name: the ground that `treadle gc` decides on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from treadle.engine.cache import folders_of
from treadle.engine.publication import latest, pending
from treadle.engine.store import Store, modified
from treadle.errors import StorageError
from treadle.jobs.holding import inside

TOPS = {"stages": 1, "runs": 1, "models": 2, "tables": 2}
"""Folders under the root -> how deep below them lie the folders that are one thing: an outcome, a run, a bundle..."""


@dataclass(frozen=True)
class File:
    """A name of a file; on a local file system a file may have several, and its bytes are freed with the last."""

    path: str
    """Relative to the root."""
    bytes: int
    written: float
    """Seconds since 1970."""
    linked: float
    """As `written`, or when it got another name or lost one."""
    inode: int | None
    links: int


@dataclass(frozen=True)
class Folder:
    """A folder that is one thing, with all files below it."""

    path: str
    files: tuple[File, ...]
    made: float
    """When it was made or changed itself, where the file system tells."""

    @property
    def newest(self) -> float:
        return max((file.linked for file in self.files), default=self.made)

    def has(self, name: str) -> bool:
        """Whether it has a file of this name."""
        return any(file.path == f"{self.path}/{name}" for file in self.files)


@dataclass(frozen=True)
class Manifest:
    """What a manifest names."""

    run: str
    job: str
    succeeded: bool
    ended: float
    """Seconds since 1970."""
    stages: Mapping[str, str]
    tables: frozenset[tuple[str, int]]
    """Folders and versions."""
    model: str | None
    models: frozenset[str]
    """`name:version` of its own and of those that its training continued."""
    inputs: frozenset[str]
    """Files under the root itself that it read."""

    @property
    def folders(self) -> set[str]:
        return folders_of(self.stages)


def scan(store: Store) -> dict[str, list[Folder]]:
    """The folders below each of `TOPS`."""
    store.fs.invalidate_cache()
    found = {}
    for top, depth in TOPS.items():
        paths = [top]
        for _ in range(depth):
            paths = [f"{path}/{name}" for path in paths for name, info in _inside(store, path) if _is_folder(info)]
        found[top] = [read_folder(store, path) for path in paths]
    return found


def read_folder(store: Store, path: str) -> Folder:
    """A folder with its files as they are now; links that lead elsewhere are not followed."""
    files: list[File] = []
    made = 0.0
    left = [path]
    while left:
        current = left.pop()
        if store.is_local:
            try:
                made = max(made, modified(store.fs.info(store.path(current))))
            except FileNotFoundError:
                continue
        for name, info in _inside(store, current):
            inner = f"{current}/{name}"
            if _is_folder(info):
                left.append(inner)
                continue
            local = store.is_local
            written = modified(info)
            files.append(
                File(
                    path=inner,
                    bytes=int(info.get("size") or 0),
                    written=written,
                    linked=max(written, float(info["created"])) if local else written,
                    inode=int(info["ino"]) if local else None,
                    links=int(info["nlink"]) if local else 1,
                )
            )
    return Folder(path, tuple(sorted(files, key=lambda file: file.path)), made)


def _inside(store: Store, relative: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    try:
        listing = store.fs.ls(store.path(relative), detail=True)
    except (FileNotFoundError, NotADirectoryError):
        return
    for info in listing:
        path = str(info["name"]).rstrip("/")
        if not info.get("islink") and path != store.path(relative):
            yield path.rsplit("/", 1)[-1], info


def _is_folder(info: Mapping[str, Any]) -> bool:
    return info["type"] == "directory"


def manifests_of(store: Store, runs: Iterable[str]) -> dict[str, Manifest]:
    """What the manifests of runs name; runs without one are left out.

    Raises
    ------
    StorageError
        A manifest is damaged, so that it is not known what it names.
    """
    found = {}
    for run in runs:
        path = f"runs/{run}/manifest.json"
        if not store.exists(path):
            continue
        raw = store.read_json(path)
        try:
            found[run] = _manifest(store, raw)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise StorageError(
                f"{store.path(path)} is not understood ({error!r}), and what it names is not known. Restore it, or "
                "remove the folder of this run."
            ) from error
    return found


def _manifest(store: Store, raw: Mapping[str, Any]) -> Manifest:
    stages = {one["stage"]: one["fingerprint"] for one in (*raw["plan"]["stages"], *raw["stages"])}
    named = raw["spec"].get("models") or ()
    models = {one.get("continue_from") for one in named if isinstance(one, Mapping)} | {raw["model"]}
    return Manifest(
        run=raw["run"],
        job=raw["job"],
        succeeded=raw["status"] == "succeeded",
        ended=datetime.fromisoformat(raw["started"]).timestamp() + (raw["seconds"] or 0.0),
        stages=stages,
        tables=frozenset((table["path"], table["version"]) for table in raw["tables"]),
        model=raw["model"],
        models=frozenset(model for model in models if model),
        inputs=frozenset(inside(store, [file["path"] for one in raw["inputs"] for file in one["files"]])),
    )


@dataclass(frozen=True)
class Publications:
    """How far publishing has come, by the claims of jobs."""

    unsettled: frozenset[str]
    """Jobs whose last publication is going on, or was left by a killed driver: the next one takes it back."""
    last: frozenset[str]
    """Runs of each job's last claim: without their manifests it would count as unsettled."""


def publications_of(store: Store) -> Publications:
    """Of all jobs that have published something."""
    unsettled, last = set(), set()
    for job in store.list("publications"):
        claim = latest(store, job)
        if claim is not None:
            last.add(claim.run)
            unsettled |= {job} if pending(store, job) is not None else set()
    return Publications(frozenset(unsettled), frozenset(last))


class Names:
    """Counts the names of files that are removed: the bytes of a file are free with its last one."""

    def __init__(self) -> None:
        self._gone: Counter[int] = Counter()
        self._paths: set[str] = set()
        self.bytes = 0
        """Of all names; a file that loses two counts twice."""
        self.freed = 0
        """Of the files that no name is left of."""

    def remove(self, files: Iterable[File]) -> None:
        """Each name counts once, however often it is removed."""
        fresh = [file for file in files if file.path not in self._paths]
        self.freed += self.gain(fresh)
        for file in fresh:
            self._paths.add(file.path)
            self.bytes += file.bytes
            if file.inode is not None:
                self._gone[file.inode] += 1

    def gain(self, files: Iterable[File]) -> int:
        """Bytes that would be free, were some more removed."""
        fresh = [file for file in files if file.path not in self._paths]
        more = Counter(file.inode for file in fresh if file.inode is not None)
        gone = {file.inode: file.bytes for file in fresh if file.inode is not None and self._is_last(file, more)}
        return sum(gone.values()) + sum(file.bytes for file in fresh if file.inode is None)

    def _is_last(self, file: File, more: Mapping[int, int]) -> bool:
        return file.inode is not None and self._gone[file.inode] + more[file.inode] >= file.links
