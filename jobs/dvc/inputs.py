"""What a job reads, as DVC sees it: dependencies, those that get a pointer, and those that DVC cannot follow."""

from __future__ import annotations

import glob
import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from treadle.jobs.dvc.pointers import has_patterns
from treadle.jobs.spec import JobSpec

REMOTE = frozenset({"s3", "gs", "http", "https", "hdfs", "webhdfs", "ssh"})
"""Schemes that DVC has file systems for; most come as extras of it, such as dvc[s3]."""


@dataclass
class Followed:
    """The inputs of a job."""

    dependencies: list[str] = field(default_factory=list)
    """Paths, absolute, or URLs."""
    pointed: list[Path] = field(default_factory=list)
    """Those of them that get a pointer file."""
    notes: list[str] = field(default_factory=list)
    """What is not followed, or not pointed to, and why."""

    def add(self, path: str) -> bool:
        """Whether it was not there yet."""
        is_new = path not in self.dependencies
        if is_new:
            self.dependencies.append(path)
        return is_new


def inputs_of(spec: JobSpec) -> list[str]:
    """Every path or URL that a spec names, in its order, each once."""

    def every() -> Iterator[str | tuple[str, ...]]:
        yield spec.data.path
        if spec.split is not None and spec.split.kind == "path":
            yield spec.split.path
        for operation in spec.tables:
            if operation.op in ("join", "union"):
                yield operation.with_.path
        for expectation in spec.contract:
            if expectation.expect == "known":
                yield expectation.in_.path

    paths = [path for found in every() for path in ([found] if isinstance(found, str) else found)]
    return list(dict.fromkeys(paths))


def follow(spec: JobSpec, repository: Path, made: list[Path]) -> Followed:
    """Looks at every input; `made` are folders whose content stages make, so that no pointer is to them."""
    found = Followed()
    for path in inputs_of(spec):
        scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]*)(?:::|://)", path)
        if scheme is not None:
            _follow_url(path, scheme[1].lower(), found)
        elif any(c in path for c in "*?["):
            _follow_glob(path, repository, made, found)
        else:
            _follow_path(Path(path), repository, made, found)
    return found


def _follow_url(url: str, scheme: str, found: Followed) -> None:
    if scheme == "sklearn":
        found.notes.append(f"{url} ships with scikit-learn; its version in the run's manifest tells what it was")
    elif scheme not in REMOTE or any(c in url for c in "*?["):
        found.notes.append(f"{url} is not followed: DVC has no dependency of this kind. Run `dvc repro --force`")
    elif found.add(url):
        found.notes.append(f"{url} is an external dependency, for which DVC may need an extra such as dvc[s3]")


def _follow_glob(path: str, repository: Path, made: list[Path], found: Followed) -> None:
    """The folder before the first wildcard, so that new files are noticed; file by file where that holds too much."""
    folder = Path(re.split(r"[^/]*[*?\[]", path)[0])
    if repository == folder or folder in repository.parents or any(folder in out.parents for out in made):
        for name in sorted(glob.glob(path, recursive=True)):
            _follow_path(Path(name), repository, made, found)
        found.notes.append(f"{path}: each file is a dependency, and a new one is not noticed; keep them in a folder")
    else:
        _follow_path(folder, repository, made, found)


def _follow_path(path: Path, repository: Path, made: list[Path], found: Followed) -> None:
    path = Path(os.path.normpath(path))
    if not found.add(str(path)):
        return
    why = _unpointed(path, repository, made)
    if why is None:
        found.pointed = [other for other in found.pointed if path not in other.parents]
        if not any(other in path.parents for other in found.pointed):
            found.pointed.append(path)
    elif why:
        found.notes.append(f"{path} {why}")


def _unpointed(path: Path, repository: Path, made: list[Path]) -> str | None:
    """Why a local input gets no pointer; None when it does, empty when that needs no words."""
    if any(out == path or out in path.parents for out in made):
        return ""
    if repository not in path.parents:
        return "is outside of the repository: a dependency without a pointer"
    for parent in path.parents:
        if parent == repository:
            break
        if parent.with_name(f"{parent.name}.dvc").is_file():
            return ""  # the folder has a pointer, and a file of two would be refused by DVC
    if _in_git(path):
        return "is tracked by Git: a dependency without a pointer"
    if path.is_dir() and has_patterns(path, repository):
        return "is under a .dvcignore with patterns, which only DVC can apply: run `dvc add` on it"
    return None


def _in_git(path: Path) -> bool:
    """Whether Git tracks a file, or any file of a folder; not where there is no Git."""
    command = ["git", "-C", str(path.parent), "ls-files", "-z", "--", path.name]
    try:
        done = subprocess.run(command, capture_output=True, check=False, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0 and bool(done.stdout)
