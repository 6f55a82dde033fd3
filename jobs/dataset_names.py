"""How OpenLineage calls files, folders and tables: a namespace, that of where they lie, and a name in it."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import fsspec

WILD = "*?["


@dataclass(frozen=True)
class Named:
    """A dataset: `file` and an absolute path, or `s3://bucket` and a key."""

    namespace: str
    name: str
    uri: str

    def holds(self, path: str) -> bool:
        """Whether a file's path is that of the dataset, in its folder, or matched by its glob."""
        other = of_path(path).name
        inside = other.startswith(f"{self.name.rstrip('/')}/")
        return other == self.name or inside or fnmatch.fnmatch(other, self.name)


def of_path(path: str) -> Named:
    """The dataset of an absolute path or a URL."""
    parts = urlsplit(path) if "://" in path else None
    if parts is None or parts.scheme == "file":
        bare = path.removeprefix("file://")
        return Named("file", bare, f"file://{bare}")
    host = parts.netloc.rpartition("@")[2]  # never a user's name or password
    return Named(f"{parts.scheme}://{host}", parts.path.lstrip("/") or "/", f"{parts.scheme}://{host}{parts.path}")


def named(path: str, fs: fsspec.AbstractFileSystem) -> Named:
    """The dataset of a path as a file system understands it."""
    return of_path(path if "file" in fs.protocol else fs.unstrip_protocol(path))


def input_names(manifest: Mapping[str, Any]) -> dict[str, list[Named]]:
    """The datasets of every input of a run, by the section of the spec that names it: one a path of the spec."""
    spec = manifest["spec"]
    found = {}
    for one in manifest["inputs"]:
        kind, _, place = one["section"].partition(".")
        holder = spec[kind][int(place)]["with" if kind == "tables" else "in"] if place else spec[kind]
        paths = [holder["path"]] if isinstance(holder["path"], str) else holder["path"]
        found[one["section"]] = [of_path(path) for path in paths]
    return found


def without_secrets(value: Any) -> Any:
    """A spec whose URLs have no user's name, password or query, as events leave this machine."""
    if isinstance(value, Mapping):
        return {name: without_secrets(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_secrets(inner) for inner in value]
    if isinstance(value, str) and "://" in value:
        parts = urlsplit(value)
        return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="").geturl()
    return value
