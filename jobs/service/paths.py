"""Keeps jobs to the folders and URLs that the operator allows."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from urllib.parse import unquote, urlsplit

from treadle.errors import RequestError, listed, shortened
from treadle.jobs.example_data import SCHEME
from treadle.jobs.spec import JobSpec

ROOT, TRACKING = "artifacts.root", "tracking.uri"
FOLDERS = ("inputs", "mlartifacts", "mlflow.db", "models", "runs", "stages", "tables")
"""What an artifacts root has in it; see treadle.engine.store."""


class PathRefused(RequestError):
    """A path leads out of the allowed roots."""


def confine(spec: JobSpec, root: str, allowed: Sequence[str], closed: Sequence[str] = ()) -> None:
    """Refuses a spec that reads from or writes to other places than `allowed`, with all below them.

    Links and `..` are followed first, also those of the folders on the way to a file that is not there yet, and those
    in folders. A glob is followed as far as it is fixed; what it matches is looked at, too. Relative paths start at
    the working folder.

    Parameters
    ----------
    closed : files and folders of the service's own, which are refused although they lie in an allowed folder.

    Raises
    ------
    PathRefused
        Names the first one.
    RequestError
        What is given as a path cannot be one.
    """
    folders = [os.path.realpath(_bare(place)) for place in allowed if _is_local(place)]
    urls = [place.rstrip("/") for place in allowed if not _is_local(place)]
    own = [os.path.realpath(place) for place in closed]
    for where, path in _paths(spec, root):
        if "\0" in path:
            raise RequestError(f"{where}: a path has no NUL characters; take them out.")
        if "::" in path:
            # fsspec reads what stands before it, which is not what the system takes the whole for.
            raise PathRefused(f"{where}: chained addresses (with '::') are not for jobs of a service.")
        if path.startswith(SCHEME) and where != ROOT:
            continue
        if not _is_local(path):
            _check_address(where, path)
            if not any(_below_url(path, url) for url in urls):
                raise _refusal(where, path, allowed)
            continue
        bare = os.path.join(os.getcwd(), _bare(path))
        for real in _written(bare) if where == ROOT else _real(where, bare):
            if not any(_below(real, folder) for folder in folders) or any(_below(real, place) for place in own):
                raise _refusal(where, path, allowed)
        if where != ROOT and any(_below(place, os.path.realpath(bare)) for place in own):
            raise PathRefused(f"{where}: {shortened(path)} holds files of the service itself; name a folder in it.")


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
    if spec.tracking.uri is not None:
        yield TRACKING, spec.tracking.uri.removeprefix("sqlite:///")
    yield ROOT, root


def _is_local(path: str) -> bool:
    return "://" not in path or path.startswith("file:///")


def _bare(path: str) -> str:
    return path.removeprefix("file://") if path.startswith("file:///") else path


def _below(path: str, folder: str) -> bool:
    """Whether a path is a folder, or lies in it; both are real ones."""
    return os.path.commonpath([path, folder]) == folder


def _real(where: str, path: str) -> Iterator[str]:
    """Where a path really leads, with all links in it, and what it matches as a glob."""
    import glob

    # Also of a glob: the engine takes it as it is when there is a file of that name.
    yield os.path.realpath(path)
    yield from _links_below(path)
    fixed = re.split(r"[*?\[]", path, maxsplit=1)[0]
    if fixed == path:
        return
    yield os.path.realpath(fixed[: fixed.rfind("/") + 1])
    # `..` behind a wildcard leads out of what it matched.
    if ".." in path[len(fixed) :].split("/"):
        yield "/"
    if any("**" in part and part != "**" for part in path.split("/")):
        raise RequestError(f"{where}: {shortened(path)} is no glob: '**' stands for folders, between slashes.")
    try:
        for match in glob.iglob(path, recursive=True, include_hidden=True):
            yield os.path.realpath(match)
    except re.error as error:
        raise RequestError(f"{where}: {shortened(path)} is no glob: {error}.") from None


def _written(root: str) -> Iterator[str]:
    """Where an artifacts root really is, and links in the folders that are written to."""
    yield os.path.realpath(root)
    for name in FOLDERS:
        folder = os.path.join(root, name)
        yield os.path.realpath(folder)
        yield from _links_below(folder)


def _links_below(folder: str) -> Iterator[str]:
    """Where links in a folder lead, and those in the folders that they lead to."""
    left, seen = [folder], set()
    while left:
        for parent, folders, files in os.walk(left.pop()):
            for name in (*folders, *files):
                if os.path.islink(inside := os.path.join(parent, name)) and inside not in seen:
                    seen.add(inside)
                    yield (real := os.path.realpath(inside))
                    if real not in seen and os.path.isdir(real):
                        seen.add(real)
                        left.append(real)


def _check_address(where: str, path: str) -> None:
    try:
        place = urlsplit(path).netloc
    except ValueError:
        raise RequestError(f"{where}: {shortened(path)} is no address; look at the part between // and /.") from None
    if "@" in place:
        raise PathRefused(
            f"{where}: the address has credentials in it, which would be written to manifests and logs. Leave them "
            "out: the service takes them from its environment."
        )


def _below_url(path: str, url: str) -> bool:
    # Some servers, and libraries that ask them, take %2e for a dot.
    steps = re.split(r"[/\\]", unquote(path))
    return ".." not in steps and (path == url or path.startswith(f"{url}/"))


def _refusal(where: str, path: str, allowed: Sequence[str]) -> PathRefused:
    return PathRefused(
        f"{where}: {shortened(path)} is outside of what jobs of this service may use. Allowed: [{listed(allowed)}], "
        "with everything below; the operator adds others with --allow-root."
    )
