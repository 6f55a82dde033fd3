"""One run of benchmarks/exact.yaml by Treadle, in a process of its own; one line of JSON about it on standard output.

python -m treadle.benchmarks.exact_job DATA ROOT [MEMORY]
"""

from __future__ import annotations

import json
import sys
from importlib.resources import files
from pathlib import Path
from typing import Any

from treadle.jobs.plan import make_plan
from treadle.jobs.runner import execute
from treadle.jobs.spec import load_spec

BEFORE = ("read", "etl", "split", "features")


def main(data: Path, root: Path, memory: str | None = None) -> dict[str, Any]:
    """The job on what `treadle make-data transactions` wrote to `data`: what each model cost, and its passes."""
    spec = Path(str(files("treadle.benchmarks"))) / "exact.yaml"
    paths = [f"data.path={data}/transactions", f"tables.0.with.path={data}/customers"]
    limit = [f"cluster.memory={memory}"] if memory else []
    run = execute(make_plan(load_spec(spec, [*paths, *limit]), str(root)))
    stages = {record["stage"]: record for record in run.manifest["stages"]}
    rows, names = run.table("features").rows, run.model.document.features
    board = run.leaderboard.set_index("model")
    # A pass ends with one summary of all partitions.
    events = map(json.loads, (root / "runs" / run.id / "events.jsonl").read_text(encoding="utf-8").splitlines())
    passes = [e["stage"] for e in events if e["event"] == "progress" and e.get("total") == 1]
    return {
        "rows": int(board["rows_used"].max()),
        "table_rows": rows,
        "features": len(names),
        "before": {key: sum(stages[name][key] for name in BEFORE) for key in ("wall_seconds", "cpu_seconds")},
        "models": {
            name: {
                "wall_seconds": stages[f"train:{name}"]["wall_seconds"],
                "cpu_seconds": stages[f"train:{name}"]["cpu_seconds"],
                "passes": passes.count(f"train:{name}"),
                "auc": float(row["auc"]),
            }
            for name, row in board.iterrows()
        },
        "peak_bytes": max(stages[f"train:{name}"]["peak_bytes"] for name in board.index),
        "parts": [str(path) for path in run.table("features").files()],
    }


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:])))
