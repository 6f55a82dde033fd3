"""Keeps jobs to the folders and URLs that the operator allows."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from urllib.parse import urlsplit

from treadle.errors import RequestError, listed, shortened
from treadle.jobs.example_data import SCHEME
from treadle.jobs.spec import JobSpec


class PathRefused(RequestError):
    """A path leads out of the allowed roots."""


def confine(spec: JobSpec, root: str, allowed: Sequence[str]) -> None:
    """Refuses a spec that reads from or writes to other places than `allowed`, with all below them.

    Links and `..` are followed first, also those of the folders on the way to a file that is not there yet. A glob
    is followed as far as it is fixed; what it matches is looked at, too.

    Raises
    ------
    PathRefused
        Names the first one.
    """
    folders = [os.path.realpath(place) for place in allowed if "://" not in place]
    urls = [place.rstrip("/") for place in allowed if "://" in place]
    for where, path in _paths(spec, root):
        if path.startswith(SCHEME):
            continue
        if "://" in path and not path.startswith("file:///"):
            _refuse_credentials(where, path)
            if not any(_below_url(path, url) for url in urls):
                raise _refusal(where, path, allowed)
            continue
        for real in _real(path.removeprefix("file://")):
            if not any(os.path.commonpath([real, folder]) == folder for folder in folders):
                raise _refusal(where, path, allowed)


def _paths(spec: JobSpec, root: str) -> Iterator[tuple[str, str]]:
    """Everything in a spec that is a path: where it stands, and the path."""

    def each(where: str, paths: str | tuple[str, ...]) -> Iterator[tuple[str, str]]:
        yield from ((where, path) for path in ([paths] if isinstance(paths, str) else paths))

    yield from each("data.path", spec.data.path)
    for i, operation in enumerate(spec.tables):
        if operation.op in ("join", "union"):
            yield from each(f"tables.{i}.with.path", operation.with_.path)
    for i, expectation in enumerate(spec.contract):
        if expectation.expect == "known":
            yield from each(f"contract.{i}.in.path", expectation.in_.path)
    if spec.split is not None and spec.split.kind == "path":
        yield from each("split.path", spec.split.path)
    yield "artifacts.root", root


def _real(path: str) -> Iterator[str]:
    """Where a path really leads, and what it matches as a glob."""
    import glob

    fixed = re.split(r"[*?\[]", path, maxsplit=1)[0]
    if fixed == path:
        yield os.path.realpath(path)
        yield from _links_below(path)
        return
    yield os.path.realpath(fixed.rpartition("/")[0] or "/")
    # `..` behind a wildcard leads out of what it matched.
    if ".." in path[len(fixed) :].split("/"):
        yield "/"
    for match in glob.iglob(path, recursive=True):
        yield os.path.realpath(match)
        yield from _links_below(match)


def _links_below(folder: str) -> Iterator[str]:
    """Where links in a folder of files lead."""
    for parent, folders, files in os.walk(folder):
        for name in (*folders, *files):
            if os.path.islink(inside := os.path.join(parent, name)):
                yield os.path.realpath(inside)


def _below_url(path: str, url: str) -> bool:
    return ".." not in path.split("/") and (path == url or path.startswith(f"{url}/"))


def _refuse_credentials(where: str, path: str) -> None:
    if "@" in urlsplit(path).netloc:
        raise PathRefused(
            f"{where}: the address has credentials in it, which would be written to manifests and logs. Leave them "
            "out: the service takes them from its environment."
        )


def _refusal(where: str, path: str, allowed: Sequence[str]) -> PathRefused:
    return PathRefused(
        f"{where}: {shortened(path)} is outside of what jobs of this service may use. Allowed: [{listed(allowed)}], "
        "with everything below; the operator adds others with --allow-root."
    )
