"""Models compared by Treadle, in a process of its own; one line of JSON about it on standard output.

    python -m treadle.benchmarks.leaderboard_job FOLDER ROOT

FOLDER is what `treadle.benchmarks.leaderboard_data` wrote.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from treadle.jobs.plan import make_plan
from treadle.jobs.runner import execute
from treadle.jobs.spec import load_spec

WORKERS = 2


def spec_of(work: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The job: what it reads, its features and models; nothing is predicted or explained."""
    return {
        "apiVersion": "treadle/v1",
        "name": "leaderboard-bench",
        "device": "cpu",
        "seed": work["seed"],
        "data": {"path": str(folder / "train.parquet"), "target": "target"},
        "split": {"kind": "path", "path": str(folder / "test.parquet")},
        "features": [
            {"op": "impute", "columns": "numeric"},
            {"op": "impute", "columns": "categorical", "method": "mode"},
            {"op": "scale", "columns": "numeric"},
            {"op": "one_hot", "columns": "categorical"},
        ],
        "models": [model["name"] for model in work["models"]],
        "compare": {"folds": work["folds"]},
        "explain": {"rows": "none"},
        "predict": {"rows": "none"},
        "cluster": {"profile": "local", "workers": WORKERS, "threads": 1},
    }


def main(folder: Path, root: Path) -> dict[str, Any]:
    """The job from planning to the manifest."""
    started = time.perf_counter()
    work = json.loads((folder / "work.json").read_text(encoding="utf-8"))
    plan = make_plan(load_spec(spec_of(work, folder)), str(root))
    planned = time.perf_counter() - started
    run = execute(plan)
    folds = run.table("folds").to_pandas()
    return {
        "plan_seconds": planned,
        "cluster_start_seconds": run.manifest["cluster_start_seconds"],
        "stages": {record["stage"]: record for record in run.manifest["stages"]},
        "models": {
            name: {
                "fit_seconds": rows["train_seconds"].tolist(),
                "score_seconds": rows["predict_seconds"].tolist(),
                "auc": float(rows["auc"].mean()) if "auc" in rows else None,
                "error": next((error for error in rows["error"] if isinstance(error, str)), None),
            }
            for name, rows in folds.groupby("model")
        },
    }


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), Path(sys.argv[2]))))
