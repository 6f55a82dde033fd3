"""What identifies a file of an input: its content, as far as that is looked at, and what its file system says of it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import fsspec

from treadle.engine.store import stamp
from treadle.errors import DataError

if TYPE_CHECKING:
    from treadle.engine.inputs import InputFile, Inspected

HASHED_WHOLE = 32 * 2**20
"""Files up to this size (bytes) are identified by all of their content, larger ones by their ends, unless asked."""
END = 2**20
"""Bytes of each end; that of a Parquet file holds its footer, with the statistics of every column."""
THREADS = 8


@dataclass(frozen=True)
class Identity:
    """Of a file."""

    bytes: int
    digest: str
    """Of the size and the content, or its ends; a copy of the file has the same."""
    whole: bool
    """Whether all of the content is in the digest."""
    stamp: str
    """What the file system says of this version of the file: a change that the digest does not show shows here."""


def identify(fs: fsspec.AbstractFileSystem, path: str, whole: bool = False) -> Identity:
    """Looks at a file; at all of it where it is small, or `whole` is asked for."""
    size = int(fs.size(path))
    digest = hashlib.blake2b(str(size).encode(), digest_size=16)
    whole = whole or size <= HASHED_WHOLE
    with fs.open(path, "rb") as file:
        if whole:
            while block := file.read(16 * END):
                digest.update(block)
        else:
            digest.update(file.read(END))
            file.seek(size - END)
            digest.update(file.read())
    return Identity(size, digest.hexdigest(), whole, stamp(fs, path))


def with_whole_digests(inspected: Inspected) -> Inspected:
    """The input with every file identified by all of its content."""

    def whole(file: InputFile) -> InputFile:
        if file.whole:
            return file
        fs, bare = fsspec.core.url_to_fs(file.path)
        found = identify(fs, bare, whole=True)
        return replace(file, digest=found.digest, whole=True, stamp=found.stamp)

    with ThreadPoolExecutor(THREADS) as pool:
        return replace(inspected, files=tuple(pool.map(whole, inspected.files)))


def check_unchanged(inputs: Iterable[Inspected]) -> None:
    """Looks at the files again.

    Raises
    ------
    DataError
        One has changed since it was inspected, so that what was made may be of both.
    """
    files = [file for inspected in inputs for file in inspected.files]
    with ThreadPoolExecutor(THREADS) as pool:
        changed = [path for path in pool.map(_changed, files) if path is not None]
    if changed:
        others = f", and {len(changed) - 1} more files," if len(changed) > 1 else ""
        raise DataError(
            f"The input {changed[0]}{others} was changed while the run was reading it; nothing was published. "
            "Run again, when it is written to no more."
        )


def _changed(file: InputFile) -> str | None:
    """The path of a file that is not what it was. One that is gone cannot be read in part, and says nothing."""
    fs, bare = fsspec.core.url_to_fs(file.path)
    try:
        fs.invalidate_cache()
        if stamp(fs, bare) == file.stamp:
            return None
        return None if identify(fs, bare, whole=file.whole).digest == file.digest else file.path
    except FileNotFoundError:
        return None
