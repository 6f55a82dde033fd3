"""Inputs: which files a path names, what they hold, and how their rows are cut into partitions.

Only footers and heads are read here, so that planning a job on any amount of data is quick.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

import fsspec

from treadle.engine.artifacts import Piece, Role
from treadle.engine.digests import identify
from treadle.errors import RequestError, did_you_mean, listed

if TYPE_CHECKING:
    from treadle.engine.readers.options import TextOptions

PARTITION_BYTES = 100 * 2**20
"""Memory of one partition's rows: large enough that tasks are few, small enough for several a worker."""
BYTES_OF_KIND = {"int": 9, "float": 8, "bool": 2, "timestamp": 8, "text": 24}
_PACKED = ("", ".gz", ".bz2", ".zst", ".xz")
SUFFIXES = {
    "parquet": (".parquet", ".pq"),
    "csv": tuple(f"{name}{packed}" for name in (".csv", ".tsv", ".txt") for packed in _PACKED),
    "jsonl": tuple(f"{name}{packed}" for name in (".jsonl", ".ndjson") for packed in _PACKED),
}


@dataclass(frozen=True)
class FoundFile:
    """A file, or a Delta table's folder, that a path names."""

    path: str
    folders: tuple[str, ...]
    """Those between what the path names and the file, outermost first; of a glob, from its first wildcard on."""
    format: str | None = None
    """When it is no matter of the name."""


@dataclass(frozen=True)
class Found:
    """What the paths of an input name."""

    format: str
    files: tuple[FoundFile, ...]

    @property
    def paths(self) -> list[str]:
        return [file.path for file in self.files]


@dataclass(frozen=True)
class InputFile:
    """One file: rows are None where only reading it all would tell (CSV)."""

    path: str
    bytes: int
    digest: str
    rows: int | None = None
    groups: tuple[int, ...] = ()
    """Rows of each Parquet row group."""
    constants: tuple[tuple[str, str | None], ...] = ()
    """Columns that are not in the file and have one value in all of its rows, as text."""
    whole: bool = True
    """Whether the digest is of all the content; else it is of the ends."""
    stamp: str = ""
    """What the file system said of the file when it was looked at."""


@dataclass(frozen=True)
class Inspected:
    """An input as its footers and heads describe it."""

    format: str
    files: tuple[InputFile, ...]
    kinds: dict[str, str]
    options: TextOptions | None = None
    """How a text input is read."""
    left_out: dict[str, str] = field(default_factory=dict)
    """Columns that the engine does not take -> their types."""
    version: int | None = None
    """Of a Delta table."""
    notes: tuple[str, ...] = ()
    """What a user should know about the schema that was found."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """The notes, and which columns are left out."""
        named = ", ".join(f"{name} ({type_})" for name, type_ in self.left_out.items())
        left_out = [f"columns of types that Treadle does not take are left out: {named}"] if named else []
        return (*self.notes, *left_out)

    @property
    def is_text(self) -> bool:
        """Whether the files are written once as Parquet before they are read."""
        return self.options is not None

    @property
    def rows(self) -> int | None:
        counts = [file.rows for file in self.files]
        return None if None in counts else sum(count or 0 for count in counts)

    @property
    def bytes(self) -> int:
        return sum(file.bytes for file in self.files)

    @property
    def digest(self) -> str:
        """Of the content, and of the stamps of files whose content is not in it as a whole.

        A change in the middle that keeps the size shows in the stamp only.
        """
        stamps = "".join("" if file.whole else file.stamp for file in self.files)
        return _digest(self.content + stamps) if stamps else self.content

    @property
    def content(self) -> str:
        """A digest of the content, the values that folders stand for, and the version; a copy has the same."""
        parts = [f.digest + (json.dumps(f.constants) if f.constants else "") for f in self.files]
        parts += [] if self.version is None else [f"version {self.version}"]
        return _digest("".join(parts))


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def filesystem(path: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """The file system of a path or URL, and the path on it.

    Raises
    ------
    RequestError
        A URL of a kind that is not known, or that needs a library which is not installed.
    """
    try:
        return fsspec.core.url_to_fs(path)
    except (ImportError, ValueError) as error:
        raise RequestError(f"'{path}' cannot be opened: {error}.") from error


def find_files(paths: str | Sequence[str], format_: str | None = None, section: str = "data") -> Found:
    """Format and files, in order, of paths that are files, folders, globs or URLs.

    `section` is the part of a spec that names them, for messages.

    Raises
    ------
    RequestError
        A path that does not exist, a glob that matches nothing, files of several formats.
    """
    found: list[FoundFile] = []
    if not paths:
        raise RequestError("The input's path is empty; name a file, folder, glob or URL.")
    for path in [paths] if isinstance(paths, str) else paths:
        fs, bare = filesystem(path)
        # What lay there when this process looked last is not what lies there now.
        fs.invalidate_cache()
        if fs.isdir(bare) and fs.exists(f"{bare}/_delta_log"):
            found.append(_delta_table(path, paths, format_, section))
            continue
        if format_ == "delta" and fs.exists(bare):
            raise RequestError(f"'{path}' is no Delta table: it has no folder _delta_log.")
        base, names = _listed(fs, bare, path, format_)
        for name in names:
            folders = tuple(name.removeprefix(base).strip("/").split("/")[:-1])
            found.append(FoundFile(fs.unstrip_protocol(name) if "file" not in fs.protocol else name, folders))
    formats = {format_} if format_ else {file.format or _guess(file.path, section) for file in found}
    if len(formats) > 1:
        raise RequestError(f"The input mixes formats ({listed(sorted(map(str, formats)))}); set {section}.format.")
    seen: set[str] = set()
    for file in found:
        if file.path in seen:
            raise RequestError(f"The input names '{file.path}' twice; its rows would count twice.")
        seen.add(file.path)
    return Found(formats.pop() or "parquet", tuple(found))


def _delta_table(path: str, paths: str | Sequence[str], format_: str | None, section: str) -> FoundFile:
    if format_ not in (None, "delta"):
        raise RequestError(
            f"'{path}' is a Delta table, whose folder also keeps files of older versions; "
            f"leave {section}.format out, or set it to delta instead of {format_}."
        )
    if not isinstance(paths, str) and len(paths) > 1:
        raise RequestError(f"'{path}' is a Delta table, which is an input by itself; name no other paths beside it.")
    return FoundFile(path, (), "delta")


def _listed(fs: fsspec.AbstractFileSystem, bare: str, path: str, format_: str | None) -> tuple[str, list[str]]:
    """The files that a path names, and the part of their names that the user has written out."""
    if any(c in bare for c in "*?[") and not fs.exists(bare):
        found = sorted(p for p in fs.glob(bare) if fs.isfile(p))
        if not found:
            raise RequestError(f"Nothing matches the glob '{path}'; look at the folder part and the ending.")
        return re.split(r"[^/]*[*?\[]", bare)[0], found
    if fs.isdir(bare):
        inside = sorted(fs.find(bare))
        tables = sorted({p.partition("/_delta_log/")[0] for p in inside if "/_delta_log/" in p})
        if tables:
            raise RequestError(f"The folder '{path}' holds Delta tables; name one of them: [{listed(tables)}].")
        wanted = SUFFIXES.get(format_ or "", sum(SUFFIXES.values(), ()))
        found = [p for p in inside if not _is_hidden(p.removeprefix(bare)) and p.lower().endswith(wanted)]
        if not found:
            raise RequestError(f"The folder '{path}' holds no {format_ or 'Parquet, CSV or JSON lines'} file.")
        return bare, found
    if not fs.exists(bare):
        raise RequestError(f"Input '{path}' was not found.{_near(fs, bare)}")
    return bare.rpartition("/")[0], [bare]


def _is_hidden(path: str) -> bool:
    """Whether a path inside a folder is for other programs: `_SUCCESS`, `.ipynb_checkpoints/...`, not `_key=1/...`."""
    return any(part.startswith(".") or (part.startswith("_") and "=" not in part) for part in path.split("/"))


def _near(fs: fsspec.AbstractFileSystem, path: str) -> str:
    folder, _, name = path.rpartition("/")
    if not fs.isdir(folder or "."):
        return f" The folder '{folder}' does not exist."
    return did_you_mean(name, [p.rsplit("/", 1)[-1] for p in fs.ls(folder or ".", detail=False)])


def _guess(path: str, section: str) -> str:
    for name, suffixes in SUFFIXES.items():
        if path.lower().endswith(suffixes):
            return name
    raise RequestError(
        f"The format of '{path}' cannot be told from its name; set {section}.format (parquet, csv or jsonl)."
    )


def file_of_text(path: str) -> InputFile:
    """A text file; its rows are not known before it is read."""
    fs, bare = filesystem(path)
    found = identify(fs, bare)
    return InputFile(path, found.bytes, found.digest, whole=found.whole, stamp=found.stamp)


def row_bytes(kinds: dict[str, str]) -> int:
    """Estimated bytes of one row in memory."""
    return sum(BYTES_OF_KIND[kind] for kind in kinds.values()) + 8


def partition_count(rows: int, bytes_a_row: int, workers: int, most: int = PARTITION_BYTES) -> int:
    """Partitions of about `most` bytes, a multiple of the workers once the rows are worth sharing."""
    by_size = math.ceil(rows * bytes_a_row / most)
    wanted = max(by_size, workers if rows >= 10_000 else 1)
    return math.ceil(wanted / workers) * workers if wanted > 1 else 1


def cut(
    files: Sequence[InputFile],
    count: int,
    *,
    own: bool = False,
    offset: int = 0,
    role: Role = "any",
) -> tuple[tuple[Piece, ...], ...]:
    """`count` partitions (fewer when there are fewer rows) of consecutive rows, about equally long.

    A cut moves to the nearest border between row groups when that is near, because a row group is
    decoded whole.
    """
    rows = sum(file.rows or 0 for file in files)
    if rows == 0:
        return ()
    borders, position = [0], 0
    for file in files:
        for group in file.groups or (file.rows or 0,):
            position += group
            borders.append(position)
    count = min(count, rows)
    cuts = [0]
    for i in range(1, count):
        even = rows * i // count
        near = min(borders, key=lambda border: abs(border - even))
        cuts.append(near if abs(near - even) * 4 * count <= rows and near > cuts[-1] else even)
    cuts.append(rows)
    partitions = []
    for low, high in pairwise(cuts):
        pieces, start = [], 0
        for file in files:
            n = file.rows or 0
            first, last = max(low - start, 0), min(high - start, n)
            if first < last:
                pieces.append(
                    Piece(
                        path=file.path,
                        own=own,
                        start=first,
                        stop=last,
                        offset=offset + start + first,
                        role=role,
                        constants=dict(file.constants),
                    )
                )
            start += n
        if pieces:
            partitions.append(tuple(pieces))
    return tuple(partitions)
