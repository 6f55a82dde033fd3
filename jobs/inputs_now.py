"""The inputs of a run as they are now: what is missing or has changed since its manifest named them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from treadle.errors import RequestError


@dataclass(frozen=True)
class Stale:
    """A file of an input that is not what it was."""

    section: str
    """Of the spec, which names the input."""
    path: str
    said: str
    """`is missing` or `has changed`, and how."""

    @property
    def text(self) -> str:
        return f"'{self.path}' ({self.section}) {self.said}"


def stale_inputs(manifest: Mapping[str, Any], most: int | None = None) -> Iterator[Stale]:
    """The files of a run's inputs that are missing or have another digest now, in the manifest's order.

    `most` bytes are read of them at most, of files that are here; of all others only sizes are looked at. Without it
    all are read.
    """
    read = 0
    for found in manifest["inputs"]:
        for file in found["files"]:
            read += file["bytes"]
            is_far = "://" in file["path"] and not file["path"].startswith("file://")
            said = stale(file, by_size=most is not None and (is_far or read > most))
            if said is not None:
                yield Stale(found["section"], file["path"], said)


def stale(file: Mapping[str, Any], by_size: bool = False) -> str | None:
    """What became of a file of an input, as a manifest records it; None when it is as it was."""
    from treadle.engine.digests import identify
    from treadle.engine.inputs import filesystem

    try:
        fs, bare = filesystem(file["path"])
        fs.invalidate_cache()
        size = fs.size(bare)
        if size != file["bytes"]:
            return f"has changed: {size:,} bytes, and {file['bytes']:,} before"
        if by_size:
            return None
        digest = identify(fs, bare, whole=file.get("whole", True)).digest
    except FileNotFoundError:
        return "is missing"
    except (OSError, RequestError) as error:
        return f"cannot be looked at: {error}"
    if digest == file["digest"]:
        return None
    return f"has changed: digest {digest[:12]}, and {file['digest'][:12]} before"


def unsure_inputs(manifest: Mapping[str, Any]) -> Iterator[str]:
    """The paths of large files that have another time now, and of which only the ends were looked at."""
    from treadle.engine.inputs import filesystem
    from treadle.engine.store import stamp

    for found in manifest["inputs"]:
        for file in found["files"]:
            if not file.get("whole", True):
                fs, bare = filesystem(file["path"])
                if stamp(fs, bare) != file["stamp"]:
                    yield file["path"]
