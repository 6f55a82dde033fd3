"""What a run was made by, beside its spec and its inputs: Treadle's own code, the libraries, the variables.

All of it is read from files, without importing anything: some tens of milliseconds, once a process.
"""

from __future__ import annotations

import configparser
import functools
import hashlib
import os
import platform
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from treadle import errors
from treadle.versions import version_of

VARIABLES = (
    "BLIS_NUM_THREADS",
    "CUBLAS_WORKSPACE_CONFIG",
    "CUDA_VISIBLE_DEVICES",
    "KMP_DETERMINISTIC_REDUCTION",
    "MKL_CBWR",
    "MKL_NUM_THREADS",
    "NUMBA_CPU_FEATURES",
    "NUMBA_CPU_NAME",
    "NUMBA_DISABLE_JIT",
    "NUMBA_ENABLE_AVX",
    "NUMBA_ENABLE_CUDASIM",
    "NUMBA_NUM_THREADS",
    "NUMBA_OPT",
    "NUMBA_THREADING_LAYER",
    "OMP_DYNAMIC",
    "OMP_NUM_THREADS",
    "OPENBLAS_CORETYPE",
    "OPENBLAS_NUM_THREADS",
    "PYTHONHASHSEED",
    "VECLIB_MAXIMUM_THREADS",
)
"""Variables that may change numbers. No others are kept: they may be secrets."""
_SET = {name: os.environ[name] for name in VARIABLES if name in os.environ}
"""As this process began: Dask sets some of them here when it starts workers, for these."""
_DISTRIBUTION = re.compile(r"(.+?)-([^-]+)(?:-py[^-]*)?\.(?:dist-info|egg-info)")
_HASH = re.compile(r"[0-9a-f]{40,64}")
GIT_SECONDS = 5.0
"""Longest that git may take to say whether a checkout has changes."""


def code() -> dict[str, Any]:
    """Treadle's own code: its version, a digest of its sources, and the commit where it runs from a checkout.

    `dirty` is None where nobody could tell: without a checkout, or without git.
    """
    return dict(_code())


def environment() -> dict[str, Any]:
    """Python, the platform, every installed distribution with its version, and the variables that change numbers."""
    return {
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
        "platform": _platform(),
        "processor": _processor(),
        "distributions": dict(_distributions()),
        "variables": dict(_SET),
    }


def differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """How code, libraries and variables of one manifest are others than those of an earlier one, a line each.

    Of either only the keys `code` and `environment` are looked at.
    """
    lacking = [name for name in ("code", "environment") if name not in then]
    if lacking:
        return [f"the run did not record its {name}" for name in lacking]
    old_code, new_code = then["code"], now["code"]
    found = []
    if old_code["sources"] != new_code["sources"]:
        was, now_is = (f"treadle {one['version']} ({said_of_code(one)})" for one in (old_code, new_code))
        found.append(f"code: {now_is}, and was {was}")
    old, new = then["environment"], now["environment"]
    plain = ("python", "implementation", "platform", "processor")
    found += [f"{name}: {new[name]}, and was {old[name]}" for name in plain if old[name] != new[name]]
    for kind, absent in (("distributions", "absent"), ("variables", "not set")):
        before, after = old[kind], new[kind]
        found += [
            f"{name}: {after.get(name, absent)}, and was {before.get(name, absent)}"
            for name in sorted({*before, *after})
            if before.get(name) != after.get(name)
        ]
    return found


def said_of_code(code_: Mapping[str, Any]) -> str:
    """For a line: `commit 0123456789ab with changes, sources 89abcdef`."""
    commit = (
        "" if code_["commit"] is None else f"commit {code_['commit'][:12]}{' with changes' * bool(code_['dirty'])}, "
    )
    return f"{commit}sources {code_['sources'][:12]}"


@functools.cache
def _code() -> dict[str, Any]:
    package = Path(str(errors.__file__)).resolve().parent
    folder = package.parent
    git = _git_folder(folder)
    return {
        "version": version_of("treadle"),
        "sources": sources_digest(package),
        "commit": None if git is None else _commit(git),
        "dirty": None if git is None else _dirty(folder),
        "repository": None if git is None else _repository(git),
    }


def sources_digest(package: Path) -> str:
    """Of the names and the content of all Python files of a package, wherever it is installed: 32 hex digits."""
    digest = hashlib.blake2b(digest_size=16)
    found: list[tuple[str, str]] = []
    for folder, folders, names in os.walk(package, followlinks=True):
        # In a checkout the package's folders are links; what is compiled is no source.
        folders[:] = [name for name in folders if name != "__pycache__"]
        found += [(os.path.relpath(f"{folder}/{n}", package), f"{folder}/{n}") for n in names if n.endswith(".py")]
    for name, path in sorted(found):
        with open(path, "rb") as file:
            content = file.read()
        digest.update(f"{name}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()


def _git_folder(checkout: Path) -> Path | None:
    """Where git keeps a checkout, when the package runs from one; a work tree has a file in place of the folder."""
    there = checkout / ".git"
    if there.is_dir():
        return there
    if not there.is_file():
        return None
    named = there.read_text(encoding="utf-8").strip().removeprefix("gitdir:").strip()
    folder = (checkout / named).resolve()
    return folder if folder.is_dir() else None


def _common(git: Path) -> Path:
    """The folder that all work trees of a repository share."""
    named = git / "commondir"
    return (git / named.read_text(encoding="utf-8").strip()).resolve() if named.is_file() else git


def _commit(git: Path) -> str | None:
    """The commit that is checked out; None where it cannot be read."""
    try:
        head = (git / "HEAD").read_text(encoding="utf-8").strip()
        if not head.startswith("ref:"):
            return head if _HASH.fullmatch(head) else None
        name = head.removeprefix("ref:").strip()
        for folder in (git, _common(git)):
            if (folder / name).is_file():
                return (folder / name).read_text(encoding="utf-8").strip()
        for line in (_common(git) / "packed-refs").read_text(encoding="utf-8").splitlines():
            value, _, ref = line.partition(" ")
            if ref == name:
                return value
    except OSError:
        pass
    return None


def _repository(git: Path) -> str | None:
    """The URL of the remote `origin`, without a user's name or password; None where there is none."""
    config = configparser.ConfigParser(strict=False, interpolation=None, allow_no_value=True)
    try:
        config.read_string((_common(git) / "config").read_text(encoding="utf-8"))
    except (OSError, configparser.Error):
        return None
    url = config.get('remote "origin"', "url", fallback=None)
    if url is None or "://" not in url:
        return url
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _dirty(checkout: Path) -> bool | None:
    """Whether tracked files have changes that no commit has; only git itself knows, and it may not be there."""
    command = ["git", "-c", "core.fsmonitor=false", "status", "--porcelain", "--untracked-files=no"]
    try:
        done = subprocess.run(
            command,
            cwd=checkout,
            capture_output=True,
            check=True,
            timeout=GIT_SECONDS,
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return bool(done.stdout.strip())


@functools.cache
def _platform() -> str:
    return platform.platform()


@functools.cache
def _processor() -> str:
    """The model of the processor: vector instructions, and with them last digits, differ from one to another."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            for line in file:
                name, _, value = line.partition(":")
                if name.strip() in ("model name", "Model"):
                    return value.strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


@functools.cache
def _distributions() -> dict[str, str]:
    """Names as PyPI normalises them -> versions, from the names of the folders: reading metadata takes long."""
    found: dict[str, str] = {}
    for folder in sys.path:
        try:
            names = os.listdir(folder or ".")
        except OSError:
            continue
        for name in names:
            matched = _DISTRIBUTION.fullmatch(name)
            if matched:
                found.setdefault(re.sub(r"[-_.]+", "-", matched[1]).lower(), matched[2])
    return dict(sorted(found.items()))
