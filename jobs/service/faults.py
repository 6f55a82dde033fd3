"""Who is to blame when a job fails: what was asked for, the machine, or Treadle itself."""

from __future__ import annotations

import traceback

from treadle.errors import DataError, RequestError, TreadleError, unreachable
from treadle.jobs.service.folders import Fault


def fault_of(error: BaseException) -> tuple[Fault, str]:
    """The fault behind an exception, and what to tell of it.

    Another attempt helps against faults of the machine: a full disk, a cluster that went away, workers that were
    killed. It does not help against those of the spec or its data, nor against a bug.
    """
    if isinstance(error, (RequestError, DataError)):
        return "spec", str(error)
    if isinstance(error, TreadleError):
        return "machine", str(error)
    if (found := unreachable(error)) is not None:
        return "machine", str(found)
    told = "".join(traceback.format_exception_only(error)).strip()
    if isinstance(error, (OSError, MemoryError)) or type(error).__module__.partition(".")[0] == "distributed":
        return "machine", told
    return "unknown", f"{told}. This is a bug in Treadle; the log has the traceback."
