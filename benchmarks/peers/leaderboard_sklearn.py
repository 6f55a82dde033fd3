"""The models that a job compares, in a plain loop of scikit-learn over two processes.

    python treadle/benchmarks/peers/leaderboard_sklearn.py FOLDER

FOLDER is what `treadle.benchmarks.leaderboard_data` wrote. One line of JSON about cost and quality goes to standard
output. Every model uses one thread: the two processes have one each.
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from importlib import import_module
from pathlib import Path
from typing import Any

STARTED = time.perf_counter()

import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
from sklearn.compose import ColumnTransformer  # noqa: E402
from sklearn.impute import SimpleImputer  # noqa: E402
from sklearn.model_selection import StratifiedKFold, cross_validate  # noqa: E402
from sklearn.pipeline import Pipeline, make_pipeline  # noqa: E402
from sklearn.preprocessing import OneHotEncoder, StandardScaler  # noqa: E402

JOBS = 2
METRICS = ["accuracy", "roc_auc", "average_precision", "recall", "precision", "f1"]


def features_of(work: dict[str, Any]) -> ColumnTransformer:
    """The job's features, as a dense matrix: several of the models take no other."""
    return ColumnTransformer(
        [
            ("numeric", make_pipeline(SimpleImputer(strategy="median"), StandardScaler()), work["numeric"]),
            (
                "text",
                make_pipeline(
                    SimpleImputer(strategy="most_frequent"),
                    OneHotEncoder(handle_unknown="ignore", sparse_output=False),
                ),
                work["text"],
            ),
        ],
        sparse_threshold=0.0,
    )


def main(folder: Path) -> dict[str, Any]:
    """Cross-validates every model; one that fails has an error and no metrics."""
    imported = time.perf_counter()
    work = json.loads((folder / "work.json").read_text(encoding="utf-8"))
    frame = pd.read_parquet(folder / "train.parquet")
    target = frame.pop("target")
    for column in work["text"]:
        # The imputer knows a missing text as NaN only.
        frame[column] = frame[column].astype(object).where(frame[column].notna(), np.nan)
    folds = StratifiedKFold(work["folds"], shuffle=True, random_state=work["seed"])
    models: dict[str, dict[str, Any]] = {}
    for model in work["models"]:
        models[model["name"]] = _compared(model, features_of(work), frame, target, folds)
    done = time.perf_counter()
    return {"import_seconds": imported - STARTED, "loop_seconds": done - imported, "models": models}


def _compared(
    model: dict[str, Any], features: ColumnTransformer, frame: pd.DataFrame, target: pd.Series, folds: StratifiedKFold
) -> dict[str, Any]:
    began = time.perf_counter()
    module, _, name = model["class"].partition(":")
    kind = getattr(import_module(module), name)
    metrics = [*METRICS, *(["neg_log_loss"] if hasattr(kind, "predict_proba") else [])]
    pipeline = Pipeline([("features", features), ("model", kind(**model["params"]))])
    try:
        found = cross_validate(pipeline, frame, target, cv=folds, n_jobs=JOBS, scoring=metrics, error_score="raise")
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"[:300], "wall_seconds": time.perf_counter() - began}
    return {
        "wall_seconds": time.perf_counter() - began,
        "fit_seconds": found["fit_time"].tolist(),
        "score_seconds": found["score_time"].tolist(),
        "auc": float(found["test_roc_auc"].mean()),
        "error": None,
    }


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    print(json.dumps(main(Path(sys.argv[1]))))
