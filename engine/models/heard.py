"""What libraries warn of, thread by thread: `warnings.catch_warnings` is for a whole process.

Models are trained in several threads of a worker at once, and each is to be told of its own only.
"""

from __future__ import annotations

import contextlib
import threading
import warnings
from collections.abc import Iterator
from typing import Any, TextIO

_local = threading.local()
_lock = threading.Lock()
_before: Any = warnings.showwarning


@contextlib.contextmanager
def heard() -> Iterator[list[str]]:
    """A list that gets the first line of every warning of this thread, and not of threads that it starts."""
    global _before
    with _lock:
        # Whoever catches warnings for a while takes ours away, too.
        if warnings.showwarning is not _show:
            _before = warnings.showwarning
            warnings.showwarning = _show
            warnings.simplefilter("always")
    outer, _local.said = getattr(_local, "said", None), []
    try:
        yield _local.said
    finally:
        _local.said = outer


def _show(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    said = getattr(_local, "said", None)
    if said is not None:
        said.append(str(message).splitlines()[0])
    elif not issubclass(category, (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning)):
        # Those that Python does not show unless it is asked to.
        _before(message, category, filename, lineno, file, line)
