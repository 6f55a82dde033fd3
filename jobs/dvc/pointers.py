"""Pointer files of DVC 3: what `dvc add` writes about a file or folder, without DVC.

A file is known by the MD5 of its bytes. A folder is known by the MD5 of a JSON list of its files, each with its MD5 and
its path in the folder, in the order of these paths; `.dir` is put behind it. MD5 is DVC's choice, and guards nothing.

Source: `Tree.as_bytes` of dvc-data, https://github.com/iterative/dvc-data.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from treadle.engine.store import storage_errors

SKIPPED = frozenset({".git", ".hg", ".dvc"})
"""Folders that DVC never looks into."""
IGNORE = ".dvcignore"


@dataclass(frozen=True)
class Pointer:
    """What DVC knows a file or folder by."""

    md5: str
    size: int
    files: int | None
    """Of a folder."""

    def out(self, name: str) -> dict[str, Any]:
        """The entry of `outs` in a pointer file beside the data."""
        counted = {} if self.files is None else {"nfiles": self.files}
        return {"md5": self.md5, "size": self.size, **counted, "hash": "md5", "path": name}


def pointer_of(path: Path) -> Pointer:
    """Of a file or folder, by all of its content."""
    with storage_errors(str(path)):
        if not path.is_dir():
            return Pointer(_md5(path), path.stat().st_size, None)
        found = sorted(_files(path))
        listing = [{"md5": _md5(path / relative), "relpath": relative} for relative in found]
        digest = hashlib.md5(json.dumps(listing, sort_keys=True).encode(), usedforsecurity=False).hexdigest()
        return Pointer(f"{digest}.dir", sum((path / relative).stat().st_size for relative in found), len(found))


def has_patterns(folder: Path, repository: Path) -> bool:
    """Whether a `.dvcignore` may keep files of a folder from DVC; only DVC itself can tell which."""
    around = [parent for parent in (folder, *folder.parents) if parent == repository or repository in parent.parents]
    inside = [folder / Path(relative).parent for relative in _files(folder) if Path(relative).name == IGNORE]
    return any(_says_something(parent / IGNORE) for parent in (*around, *inside))


def _says_something(path: Path) -> bool:
    if not path.is_file():
        return False
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return any(line.strip() and not line.startswith("#") for line in lines)


def _files(folder: Path) -> Iterator[str]:
    """Paths of all files in a folder, relative to it, as DVC spells them."""
    for parent, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if name not in SKIPPED]
        for name in names:
            if name not in SKIPPED:
                yield (Path(parent) / name).relative_to(folder).as_posix()


def _md5(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
