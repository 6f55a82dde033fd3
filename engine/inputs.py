"""Inputs: which files a path names, what they hold, and how their rows are cut into partitions.

Only footers and heads are read here, so that planning a job on any amount of data is quick.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from treadle.engine.artifacts import Piece, Role
from treadle.engine.backend import kind_of_arrow
from treadle.engine.store import stamp
from treadle.errors import DataError, RequestError, did_you_mean, listed

if TYPE_CHECKING:
    from treadle.engine.csv import CsvOptions

HASHED_WHOLE = 32 * 2**20
"""Files up to this size (bytes) are identified by all of their content, larger ones by their ends, size and stamp."""
PARTITION_BYTES = 100 * 2**20
"""Memory of one partition's rows: large enough that tasks are few, small enough for several a worker."""
BYTES_OF_KIND = {"int": 9, "float": 8, "bool": 2, "timestamp": 8, "text": 24}
SUFFIXES = {
    "parquet": (".parquet", ".pq"),
    "csv": (".csv", ".csv.gz", ".csv.bz2", ".csv.zst", ".tsv", ".txt"),
}


@dataclass(frozen=True)
class InputFile:
    """One file: rows are None where only reading it all would tell (CSV)."""

    path: str
    bytes: int
    digest: str
    rows: int | None = None
    groups: tuple[int, ...] = ()
    """Rows of each Parquet row group."""


@dataclass(frozen=True)
class Inspected:
    """An input as its footers and heads describe it."""

    format: str
    files: tuple[InputFile, ...]
    kinds: dict[str, str]
    options: CsvOptions | None = None
    """How a CSV input is read."""

    @property
    def rows(self) -> int | None:
        counts = [file.rows for file in self.files]
        return None if None in counts else sum(count or 0 for count in counts)

    @property
    def bytes(self) -> int:
        return sum(file.bytes for file in self.files)

    @property
    def digest(self) -> str:
        return hashlib.blake2b("".join(f.digest for f in self.files).encode(), digest_size=16).hexdigest()


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


def find_files(paths: str | Sequence[str], format_: str | None = None) -> tuple[str, list[str]]:
    """Format and files, sorted, of paths that are files, folders, globs or URLs.

    Raises
    ------
    RequestError
        A path that does not exist, a glob that matches nothing, files of several formats.
    """
    files: list[str] = []
    if not paths:
        raise RequestError("The input's path is empty; name a file, folder, glob or URL.")
    for path in [paths] if isinstance(paths, str) else paths:
        fs, bare = filesystem(path)
        if any(c in bare for c in "*?[") and not fs.exists(bare):
            found = sorted(p for p in fs.glob(bare) if fs.isfile(p))
            if not found:
                raise RequestError(f"Nothing matches the glob '{path}'; look at the folder part and the ending.")
        elif fs.isdir(bare):
            if fs.exists(f"{bare}/_delta_log"):
                raise RequestError(
                    f"'{path}' is a Delta table, whose folder also keeps files of older versions; "
                    "write the version that you want as Parquet elsewhere, and read that."
                )
            found = sorted(p for p in fs.find(bare) if not _is_hidden(p.removeprefix(bare)))
            wanted = SUFFIXES.get(format_ or "", sum(SUFFIXES.values(), ()))
            found = [p for p in found if p.lower().endswith(wanted)]
            if not found:
                raise RequestError(f"The folder '{path}' holds no {format_ or 'Parquet or CSV'} file.")
        elif fs.exists(bare):
            found = [bare]
        else:
            raise RequestError(f"Input '{path}' was not found.{_near(fs, bare)}")
        files += [fs.unstrip_protocol(p) if "file" not in fs.protocol else p for p in found]
    formats = {format_} if format_ else {_guess(path) for path in files}
    if len(formats) > 1:
        raise RequestError(f"The input mixes formats ({listed(sorted(map(str, formats)))}); set data.format.")
    return formats.pop() or "parquet", files


def _is_hidden(path: str) -> bool:
    """Whether a path inside a folder is for other programs: `_SUCCESS`, `_delta_log/...`, `.ipynb_checkpoints/...`."""
    return any(part.startswith(("_", ".")) for part in path.split("/"))


def _near(fs: fsspec.AbstractFileSystem, path: str) -> str:
    folder, _, name = path.rpartition("/")
    if not fs.isdir(folder or "."):
        return f" The folder '{folder}' does not exist."
    return did_you_mean(name, [p.rsplit("/", 1)[-1] for p in fs.ls(folder or ".", detail=False)])


def _guess(path: str) -> str:
    for name, suffixes in SUFFIXES.items():
        if path.lower().endswith(suffixes):
            return name
    raise RequestError(f"The format of '{path}' cannot be told from its name; set data.format to parquet or csv.")


def inspect_parquet(files: Sequence[str]) -> Inspected:
    """Footers of Parquet files whose schemas agree.

    Raises
    ------
    DataError
        A corrupt file, a nested column, or files whose columns differ; each names file and column.
    """
    with ThreadPoolExecutor(8) as pool:
        read = list(pool.map(_footer, files))
    kinds = dict(read[0][1])
    holders = dict.fromkeys(kinds, files[0])
    for file, other in read[1:]:
        _same_columns(holders, kinds, file.path, other)
        # A column that is null throughout some files has its type from the others.
        for name in [name for name, kind in kinds.items() if kind == "null"]:
            kinds[name], holders[name] = other[name], file.path
    kinds = {name: "text" if kind == "null" else kind for name, kind in kinds.items()}
    return Inspected("parquet", tuple(file for file, _ in read), kinds)


def _footer(path: str) -> tuple[InputFile, dict[str, str]]:
    fs, bare = filesystem(path)
    try:
        with fs.open(bare, "rb") as file:
            metadata = pq.read_metadata(file)
            schema = metadata.schema.to_arrow_schema()
    except (pa.ArrowException, OSError) as error:
        reason = str(error).rstrip(".")
        raise DataError(f"'{path}' is no readable Parquet file: {reason}. Replace it or leave it out.") from error
    kinds: dict[str, str] = {}
    for field in schema:
        if field.name in kinds:
            raise DataError(f"'{path}' has two columns called '{field.name}'; rename one of them in the file.")
        kind = "null" if pa.types.is_null(field.type) else kind_of_arrow(field.type)
        if kind is None:
            raise DataError(
                f"Column '{field.name}' of '{path}' has type {field.type}, which Treadle does not take; "
                "flatten or drop it in the file."
            )
        if field.name in kinds:
            raise DataError(f"'{path}' has two columns called '{field.name}'; rename one of them in the file.")
        kinds[field.name] = kind
    groups = tuple(metadata.row_group(i).num_rows for i in range(metadata.num_row_groups))
    return InputFile(path, fs.size(bare), _digest(fs, bare), metadata.num_rows, groups), kinds


def _same_columns(holders: dict[str, str], kinds: dict[str, str], path: str, other: dict[str, str]) -> None:
    """Compares a file's columns with those found so far; `holders` are the files that the kinds are from."""
    for name in [*kinds, *other]:
        if name not in other or name not in kinds:
            first = next(iter(holders.values()))
            holder, lacker = (holders[name], path) if name in kinds else (path, first)
            raise DataError(f"The input's files differ: '{lacker}' has no column '{name}', which '{holder}' has.")
        if kinds[name] != other[name] and "null" not in (kinds[name], other[name]):
            raise DataError(
                f"The input's files differ: column '{name}' is {kinds[name]} in '{holders[name]}' and {other[name]} in "
                f"'{path}'; write both with one type."
            )


def file_of_text(path: str) -> InputFile:
    """A CSV file; its rows are not known before it is read."""
    fs, bare = filesystem(path)
    return InputFile(path, fs.size(bare), _digest(fs, bare))


def _digest(fs: fsspec.AbstractFileSystem, path: str) -> str:
    size = fs.size(path)
    digest = hashlib.blake2b(str(size).encode(), digest_size=16)
    with fs.open(path, "rb") as file:
        if size <= HASHED_WHOLE:
            digest.update(file.read())
        else:
            digest.update(file.read(2**20))
            file.seek(size - 2**20)
            digest.update(file.read())
            # A change in the middle that keeps the size shows in the file system's own stamp only.
            digest.update(stamp(fs, path).encode())
    return digest.hexdigest()


def row_bytes(kinds: dict[str, str]) -> int:
    """Estimated bytes of one row in memory."""
    return sum(BYTES_OF_KIND[kind] for kind in kinds.values()) + 8


def partition_count(rows: int, bytes_a_row: int, workers: int) -> int:
    """Partitions of about `PARTITION_BYTES`, a multiple of the workers once the rows are worth sharing."""
    by_size = math.ceil(rows * bytes_a_row / PARTITION_BYTES)
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
                    )
                )
            start += n
        if pieces:
            partitions.append(tuple(pieces))
    return tuple(partitions)
