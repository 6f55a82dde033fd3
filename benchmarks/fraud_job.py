"""One run of fraud.yaml by Treadle, in a process of its own; one line of JSON about it on standard output.

python -m treadle.benchmarks.fraud_job DATA ROOT [DEVICE]
"""

from __future__ import annotations

import json
import sys
import time
from importlib.resources import files
from pathlib import Path
from typing import Any

from treadle.jobs.plan import make_plan
from treadle.jobs.runner import execute
from treadle.jobs.spec import load_spec


def main(data: Path, root: Path, device: str = "cpu") -> dict[str, Any]:
    """The job from planning to the manifest, on what `treadle make-data transactions` wrote to `data`."""
    started = time.perf_counter()
    spec = Path(str(files("treadle.jobs"))) / "examples" / "fraud.yaml"
    paths = [f"data.path={data}/transactions", f"tables.0.with.path={data}/customers"]
    plan = make_plan(load_spec(spec, [*paths, f"device={device}"]), str(root))
    planned = time.perf_counter() - started
    run = execute(plan)
    stages = {record["stage"]: record for record in run.manifest["stages"]}
    return {
        "plan_seconds": planned,
        "cluster_start_seconds": run.manifest["cluster_start_seconds"],
        "stages": stages,
        "fell_back": run.manifest["fell_back"],
        "auc": float(run.leaderboard["auc"].iloc[0]),
        "peak_bytes": max(record["peak_bytes"] for record in stages.values()),
        **{name: _most(stages, name) for name in ("device_peak_bytes", "device_used_bytes")},
    }


def _most(stages: dict[str, Any], field: str) -> int | None:
    """Of all stages; None on the CPU."""
    return max((record[field] for record in stages.values() if record[field] is not None), default=None)


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:])))
