"""One run of benchmarks/etl.yaml by Treadle, in a process of its own; one line of JSON about it on standard output.

python -m treadle.benchmarks.etl_job DATA ROOT [MEMORY]
"""

from __future__ import annotations

import json
import sys
import time
from importlib.resources import files
from pathlib import Path
from typing import Any

from treadle.benchmarks.peers.etl_result import described
from treadle.jobs.plan import make_plan
from treadle.jobs.runner import execute
from treadle.jobs.spec import load_spec


def main(data: Path, root: Path, memory: str | None = None) -> dict[str, Any]:
    """The job from planning to the manifest, on what `treadle make-data transactions` wrote to `data`."""
    started = time.perf_counter()
    spec = Path(str(files("treadle.benchmarks"))) / "etl.yaml"
    paths = [f"data.path={data}/transactions", f"tables.0.with.path={data}/customers"]
    limit = [f"cluster.memory={memory}"] if memory else []
    plan = make_plan(load_spec(spec, [*paths, *limit]), str(root))
    planned = time.perf_counter() - started
    run = execute(plan)
    return {
        "plan_seconds": planned,
        "cluster_start_seconds": run.manifest["cluster_start_seconds"],
        "stages": {record["stage"]: record for record in run.manifest["stages"]},
        "peak_bytes": max(record["peak_bytes"] for record in run.manifest["stages"]),
        "features": described(run.table("features").files()),
    }


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:])))
