"""`treadle auto` within a budget, beside a search without one: all models by all folds, and many trials of the best.

Both have the same features, test rows and folds, and are measured on the test rows, which neither looks at.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import treadle
from treadle.benchmarks.machine import described
from treadle.benchmarks.report import Say, written
from treadle.engine.meter import Meter
from treadle.errors import DataError, RequestError, did_you_mean, listed

LIBRARIES = ("treadle", "dask", "distributed", "optuna", "scikit-learn", "xgboost", "lightgbm", "catboost", "numpy")
FOLDS = 5


@dataclass(frozen=True)
class DataSet:
    """Where a folder of data has it, and how far behind the best model a search may be."""

    file: str
    target: str
    metric: str
    apart: float
    """Of AUC as it is; of an error as a share."""


DATA_SETS = {
    "adult": DataSet("adult/adult_train.parquet", "income", "auc", 0.003),
    "housing": DataSet("housing/housing.parquet", "median_house_value", "rmse", 0.02),
}


def run(
    name: str, budget: str, data: Path, tuned: int, trials: int, workers: int | None, out: Path | None, say: Say
) -> dict[str, Any]:
    """Measures both searches on a data set, which the folder `data` has; writes and returns the result.

    `tuned` and `trials` are those of the search without a budget.

    Raises
    ------
    RequestError
        The data set or the budget is not known.
    DataError
        The folder lacks the data set.
    TreadleError
        A search did not end well.
    """
    if name not in DATA_SETS:
        raise RequestError(
            f"bench auto: '{name}' is no data set. Allowed: [{listed(DATA_SETS)}].{did_you_mean(name, DATA_SETS)}"
        )
    chosen = DATA_SETS[name]
    path = data / chosen.file
    if not path.is_file():
        raise DataError(f"bench auto: {path} is not there; --data names the folder that has {chosen.file}.")
    with tempfile.TemporaryDirectory() as scratch:
        with Meter() as meter:
            found = treadle.auto(
                str(path), chosen.target, budget, metric=chosen.metric, folds=FOLDS, workers=workers, root=scratch
            )
        searched = _side(found.run.manifest, meter)
        say(_line(f"auto, {budget}", searched, chosen))
        spec = Path(scratch) / "found.yaml"
        spec.write_text(found.spec, encoding="utf-8")
        whole = (
            "models=all", f"tune={{models: {tuned}, trials: {trials}}}", "ensemble={kind: greedy}", "explain.rows=none",
        )  # fmt: skip
        with Meter() as meter:
            run = treadle.run(treadle.load_spec(spec, whole), root=scratch)
        exhaustive = _side(run.manifest, meter)
        say(_line("without a budget", exhaustive, chosen))
    behind = _behind(searched, exhaustive, chosen)
    say(f"behind by {behind:.4f}; aim: at most {chosen.apart:g}")
    result = {
        "benchmark": "auto",
        "data_set": name,
        "budget": budget,
        "folds": FOLDS,
        "metric": chosen.metric,
        **described(LIBRARIES),
        "auto": searched,
        "spec": found.spec.replace(str(path), chosen.file),
        "exhaustive": {"tuned": tuned, "trials": trials, **exhaustive},
        "behind": behind,
        "aim": chosen.apart,
    }
    written(result, f"auto-{name}-cpu", out, whole=True, say=say)
    return result


def _side(manifest: Mapping[str, Any], meter: Meter) -> dict[str, Any]:
    """What a search found, and what it cost."""
    evaluation = manifest["results"]["evaluate"]
    stages = {record["stage"]: record["wall_seconds"] for record in manifest["stages"]}
    return {
        "wall_seconds": meter.cost.wall_seconds,
        "stages": stages,
        "best": evaluation["best"],
        "test": evaluation["held_out"],
        "leaderboard": [
            {key: row.get(key) for key in ("model", evaluation["metric"], "error")} for row in evaluation["rows"]
        ],
        "ensemble": (manifest["results"].get("ensemble") or {}).get("ensemble"),
    }


def _behind(searched: Mapping[str, Any], exhaustive: Mapping[str, Any], chosen: DataSet) -> float:
    """On the test rows; less than 0 where the search with a budget is better."""
    ours, best = (side["test"][chosen.metric] for side in (searched, exhaustive))
    return float(best - ours if chosen.metric == "auc" else ours / best - 1.0)


def _line(what: str, side: Mapping[str, Any], chosen: DataSet) -> str:
    folds = side["leaderboard"][0][chosen.metric]
    return (
        f"{what:<18}{side['wall_seconds']:>8.1f} s  {side['best']}: {chosen.metric} {folds:.4f} by folds, "
        f"{side['test'][chosen.metric]:.4f} on the test rows"
    )
