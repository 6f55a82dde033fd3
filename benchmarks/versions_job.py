"""fraud.yaml under a root where it may have run before, in a process of its own; one line of JSON about it.

python -m treadle.benchmarks.versions_job DATA ROOT DEVICE [execute]
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from importlib.resources import files
from pathlib import Path
from typing import Any

from treadle.jobs import runner
from treadle.jobs.plan import make_plan
from treadle.jobs.run import load_run
from treadle.jobs.spec import load_spec

READS = 5


def main(data: str, root: str, device: str, how: str = "run") -> dict[str, Any]:
    """As `treadle run` does it, or, to `execute`, even when nothing has changed; and its manifest read."""
    started = time.perf_counter()
    spec = Path(str(files("treadle.jobs"))) / "examples" / "fraud.yaml"
    paths = [f"data.path={data}/transactions", f"tables.0.with.path={data}/customers", f"device={device}"]
    if how == "execute":
        run = runner.execute(make_plan(load_spec(spec, paths), root))
    else:
        run = runner.run(spec, root=root, overrides=paths)
    seconds = time.perf_counter() - started
    reads = []
    for _ in range(READS):
        began = time.perf_counter()
        load_run(root, run.id)
        reads.append(time.perf_counter() - began)
    return {
        "seconds": seconds,
        "cluster_start_seconds": run.manifest["cluster_start_seconds"],
        "reused": run.reused,
        "statuses": {stage["stage"]: stage["status"] for stage in run.manifest["stages"]},
        "manifest_seconds": statistics.median(reads),
        "manifest_bytes": Path(run.path(f"runs/{run.id}/manifest.json")).stat().st_size,
    }


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
