"""What `treadle bench gpu` found of the GPUs of this machine: by it `device: auto` decides whether jobs run on them.

A GPU that computes is no proof that whole jobs come out right on it, with its driver and these libraries. The check
runs such jobs on both sides and compares; a file in the home folder keeps what it was true of, and any of it that is
another now makes it void.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from treadle.cluster.hardware import Check, GpuReport
from treadle.jobs.lineage.environment import code
from treadle.jobs.service.settings import home

FILE = "gpu-proof.json"
REMEDY = "treadle bench gpu checks them, in eight minutes"


def keep(report: GpuReport) -> Path:
    """Notes that all was right on these GPUs; where."""
    path = home() / FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    when = datetime.now(UTC).isoformat(timespec="seconds")
    path.write_text(json.dumps({"when": when, "of": _facts(report)}, indent=2), encoding="utf-8")
    return path


def forget() -> None:
    """Notes that something was wrong."""
    (home() / FILE).unlink(missing_ok=True)


def proof(report: GpuReport) -> Check:
    """Whether whole jobs are known to run as they should on GPUs that were found."""
    try:
        found = json.loads((home() / FILE).read_text(encoding="utf-8"))
        when, before = str(found["when"]), dict(found["of"])
    except (OSError, ValueError, KeyError, TypeError):
        said = "no job was checked on the GPUs of this machine: device: auto stays on the CPU, device: cuda tries them"
        return Check("jobs", None, said, REMEDY)
    other = [name for name, now in _facts(report).items() if before.get(name) != now]
    if other:
        said = f"jobs on GPUs were checked on {when}, with another {' and '.join(other)}: device: auto stays on the CPU"
        return Check("jobs", None, said, REMEDY)
    return Check("jobs", True, f"treadle bench gpu found all right on {when}")


def _facts(report: GpuReport) -> Mapping[str, Any]:
    """What a job on GPUs depends on."""
    return {
        "treadle": code()["sources"],
        "driver": report.driver,
        "set of GPUs": [gpu.uuid for gpu in report.gpus],
        "set of libraries": dict(report.libraries),
    }
