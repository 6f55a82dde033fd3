"""Files and folders that nobody but the user may read, whatever the umask allows."""

from __future__ import annotations

import os
from pathlib import Path


def private(path: str | os.PathLike[str], flags: int) -> int:
    """An `opener` for `open`; a file that is there already keeps its mode."""
    return os.open(path, flags, 0o600)


def private_folder(path: Path) -> None:
    """Makes a folder where there is none, with those above it; raises OSError where a file is in the way."""
    for folder in (*reversed(path.parents), path):
        if not folder.is_dir():
            folder.mkdir(exist_ok=True, mode=0o700)
