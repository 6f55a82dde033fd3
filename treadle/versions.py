"""Versions of libraries, read from their metadata once in a process: that takes milliseconds each."""

from __future__ import annotations

import functools
import importlib.metadata


@functools.cache
def version_of(library: str) -> str:
    """The installed version; raises importlib.metadata.PackageNotFoundError when there is none."""
    return importlib.metadata.version(library)
