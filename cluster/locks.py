"""Locks on files, which the system lets go of however the process that holds them ends."""

from __future__ import annotations

import contextlib
import fcntl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from treadle.cluster.private import private

PROBE_SECONDS = 1.0
"""For which a lock that is taken may only be looked at: `is_locked` holds it for a moment."""
BETWEEN_SECONDS = 0.02


def is_locked(path: Path) -> bool:
    """Whether a process holds the lock of a file; raises OSError when the file is there, and cannot be opened."""
    try:
        with open(path) as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


@contextlib.contextmanager
def locked(path: Path, *, shared: bool = False, seconds: float = PROBE_SECONDS, mine: bool = True) -> Iterator[IO[str]]:
    """The file, for reading and appending, locked during the block; it is made when it is not there.

    Parameters
    ----------
    shared : with others who share it.
    seconds : how long to wait for the lock.
    mine : whether a file that is made is for the user alone, whatever the umask allows.

    Raises
    ------
    BlockingIOError
        Another process holds the lock.
    OSError
        The file cannot be opened.
    """
    with open(path, "a+", opener=private if mine else None) as file:
        deadline = time.monotonic() + seconds
        while True:
            try:
                fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise
            time.sleep(BETWEEN_SECONDS)
        yield file
