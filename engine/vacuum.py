"""Which files of a Delta table some of its versions need, read from its log.

deltalake's own vacuum knows versions to keep, but writes two commits of its own to the log, after which the current
version is none that Treadle published, and a run that made nothing new would publish again. So files are listed here
by the log, and deleted by `treadle gc` with everything else.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import fsspec

from treadle.engine.delta_log import entry, versions
from treadle.engine.store import modified

RUN = "treadle.run"
"""Key in a commit's metadata that a run leaves there."""
OURS = re.compile(r"part-\d{5}-[0-9a-f]{12}(-[0-9a-f]{8})?\.parquet")
"""Names that publishing gives to files."""


class Unclear(Exception):
    """The log does not tell which files the versions need; the message says why. The table is to be left alone."""


@dataclass(frozen=True)
class Needed:
    """Files of a table, relative to its folder."""

    head: int
    """The current version."""
    files: frozenset[str]
    """Those of the current version and of the others that are kept."""
    replaced: Mapping[str, float]
    """File that was committed -> when it was last left out of a version, in seconds since 1970."""
    foreign: frozenset[str]
    """Files that something else than a run of Treadle committed."""

    def may_go(self, name: str, written: float, cutoff: float) -> bool:
        """Whether nobody needs a file of the table's folder, and nobody has since `cutoff`."""
        if name in self.files or name in self.foreign:
            return False
        if name in self.replaced:
            return max(written, self.replaced[name]) < cutoff
        return written < cutoff and OURS.fullmatch(name) is not None


def head_of(fs: fsspec.AbstractFileSystem, table: str) -> int:
    """The number of the newest entry of a table's log; -1 where there is none."""
    return max(_entries(fs, table), default=-1)


def needed_of(fs: fsspec.AbstractFileSystem, table: str, kept: Collection[int]) -> Needed:
    """What the current version of a table and those to keep need.

    Raises
    ------
    Unclear
        Entries of the log are missing or not understood, or deltalake reads something else out of it.
    """
    entries = _entries(fs, table)
    if not entries:
        raise Unclear("its log has no entries")
    first, head = min(entries), max(entries)
    if len(entries) != head - first + 1:
        raise Unclear("entries of its log are missing")
    current: set[str] = set()
    ours: set[str] = set()
    every: set[str] = set()
    if first > 0:
        current = _files_of(fs, table, first)  # who committed them is not known any more
        every |= current
    needed = set(current) if first in kept else set()
    replaced: dict[str, float] = {}
    for version in range(first if first == 0 else first + 1, head + 1):
        info, added, removed = _read(fs, entries[version])
        at = info.get("timestamp", 0) / 1000 or modified(fs.info(entries[version]))
        for name in removed - added:
            replaced[name] = max(at, replaced.get(name, 0.0))
        current = (current - removed) | added
        every |= added
        ours |= added if RUN in info else set()
        if version in kept or version == head:
            needed |= current
    if current != _files_of(fs, table, head):
        raise Unclear("deltalake finds other files of its current version than are in its log")
    return Needed(head, frozenset(needed), replaced, frozenset(every - ours))


def _entries(fs: fsspec.AbstractFileSystem, table: str) -> dict[int, str]:
    return {version: entry(table, version) for version in versions(fs, table)}


def _read(fs: fsspec.AbstractFileSystem, path: str) -> tuple[dict[str, Any], set[str], set[str]]:
    """The information of a commit, and the paths that it adds and removes."""
    info: dict[str, Any] = {}
    added: set[str] = set()
    removed: set[str] = set()
    try:
        for line in fs.cat_file(path).splitlines():
            action = json.loads(line) if line.strip() else {}
            info |= action.get("commitInfo") or {}
            added |= {unquote(action["add"]["path"])} if "add" in action else set()
            removed |= {unquote(action["remove"]["path"])} if "remove" in action else set()
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Unclear(f"{path.rsplit('/', 1)[-1]} of its log cannot be read") from error
    return info, added, removed


def _files_of(fs: fsspec.AbstractFileSystem, table: str, version: int) -> set[str]:
    """As deltalake reads them."""
    import pyarrow as pa

    from treadle.engine import delta
    from treadle.errors import TreadleError

    try:
        opened = delta.open_table(fs, table, version)
        return {unquote(path) for path in pa.table(opened.get_add_actions()).column("path").to_pylist()}
    except TreadleError as error:
        raise Unclear(str(error)) from error
