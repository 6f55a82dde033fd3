"""A cluster's folder for temporary files, which does not outlive its driver for long."""

from __future__ import annotations

import contextlib
import fcntl
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

PREFIX = "treadle-"
LOCK = "driver.lock"
"""Locked while the driver lives; the system lets go of it however the driver ends."""


@contextlib.contextmanager
def scratch_folder() -> Iterator[str]:
    """A new folder, removed at the end; what drivers that were killed left behind is removed first."""
    sweep()
    with tempfile.TemporaryDirectory(prefix=PREFIX, ignore_cleanup_errors=True) as folder:
        unlocked = Path(folder, f"{LOCK}.new")
        with open(unlocked, "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            unlocked.rename(Path(folder, LOCK))  # only now, so that no sweep finds it unlocked
            yield folder


def sweep() -> None:
    """Removes the folders of drivers that are gone."""
    for path in Path(tempfile.gettempdir()).glob(f"{PREFIX}*/{LOCK}"):
        with contextlib.suppress(OSError), open(path) as lock:  # its driver lives, or is another user's
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(path.parent, ignore_errors=True)
