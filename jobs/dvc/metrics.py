"""Numbers of a job's newest run in files that `dvc metrics` and `dvc plots` read."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from treadle.engine.job import CLASSIFICATION_METRICS, REGRESSION_METRICS
from treadle.engine.store import storage_errors
from treadle.errors import RequestError, did_you_mean, listed
from treadle.jobs.run import Run, list_runs, load_run
from treadle.jobs.spec import root_of

METRICS, LEADERBOARD, IMPORTANCE = "metrics.json", "leaderboard.json", "importance.json"
TOP = 30
"""Features of the plot."""


def write_metrics(job: str, root: str | None, out: Path) -> dict[str, Path]:
    """Writes the files of a job's newest run that succeeded; returns their paths by name.

    The same outcome makes the same files, byte by byte: what only tells of the machine, such as seconds, is left out.

    Raises
    ------
    RequestError
        No run of this job has succeeded under the root.
    """
    root = root_of(root)
    rows = list_runs(root)
    done = [row["run"] for row in rows if row["job"] == job and row["status"] == "succeeded"]
    if not done:
        jobs = sorted({row["job"] for row in rows if row["status"] == "succeeded"})
        raise RequestError(
            f"No run of job '{job}' has succeeded under {root}. Jobs: [{listed(jobs)}].{did_you_mean(job, jobs)}"
        )
    run = load_run(root, done[0])
    found: dict[str, Any] = {METRICS: metrics_of(run)}
    evaluation = run.manifest["results"].get("evaluate")
    if evaluation is not None:
        metric = evaluation["metric"]
        measured = [row for row in evaluation["rows"] if _is_number(row.get(metric))]
        found[LEADERBOARD] = [{"model": row["model"], "metric": metric, "value": row[metric]} for row in measured]
        found[IMPORTANCE] = [
            {"feature": name, "contribution": value} for name, value in list(run.importance.items())[:TOP]
        ]
    written = {}
    with storage_errors(str(out)):
        out.mkdir(parents=True, exist_ok=True)
        for name, document in found.items():
            written[name] = out / name
            written[name].write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return written


def metrics_of(run: Run) -> dict[str, Any]:
    """The best model's metrics, those on the test rows where the leaderboard is of folds, and rows of the tables."""
    found: dict[str, Any] = {}
    results = run.manifest["results"]
    if (evaluation := results.get("evaluate")) is not None:
        row = next(row for row in evaluation["rows"] if row["model"] == evaluation["best"])
        found["best"] = evaluation["best"]
        found |= _metrics(row)
        if evaluation["held_out"]:
            found["test"] = _metrics(evaluation["held_out"])
        found["rows"] = {"train": results["split"]["train_rows"], "test": results["split"]["test_rows"]}
    found["tables"] = {record["name"]: record["rows"] for record in run.manifest["tables"]}
    return found


def _metrics(row: dict[str, Any]) -> dict[str, float]:
    names = [*CLASSIFICATION_METRICS, *REGRESSION_METRICS]
    known = [key for name in names for key in (name, f"{name}_std")]
    return {name: row[name] for name in known if _is_number(row.get(name))}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
