"""The models that a job compares, by PyCaret's `compare_models`.

    /path/to/python -I benchmarks/peers/leaderboard_pycaret.py FOLDER

FOLDER is what `treadle.benchmarks.leaderboard_data` wrote. PyCaret needs an environment of its own, in which nothing
else of Treadle is: Python 3.11 at most and scikit-learn before 1.5. One line of JSON about cost and quality goes to
standard output.
"""

from __future__ import annotations

import json
import os
import sys
import time
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

STARTED = time.perf_counter()
JOBS = 2
# Models get these jobs too, beside those of the folds: without a limit their threads fight for the cores.
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"

import pandas as pd  # noqa: E402
from pycaret.classification import ClassificationExperiment  # noqa: E402

THEIRS = {
    "logistic_regression": "lr",
    "ridge": "ridge",
    "lda": "lda",
    "qda": "qda",
    "naive_bayes": "nb",
    "k_neighbours": "knn",
    "linear_svm": "svm",
    "decision_tree": "dt",
    "random_forest": "rf",
    "extra_trees": "et",
    "gradient_boosting": "gbc",
    "ada_boost": "ada",
    "xgboost": "xgboost",
    "lightgbm": "lightgbm",
    "catboost": "catboost",
}
"""PyCaret's models of the same kinds; parameters are its own."""
LIBRARIES = ("pycaret", "scikit-learn", "xgboost", "lightgbm", "catboost", "pandas", "numpy")


def main(folder: Path) -> dict[str, Any]:
    """Sets an experiment up, and compares the models; those that fail are missing from what it says of models."""
    imported = time.perf_counter()
    work = json.loads((folder / "work.json").read_text(encoding="utf-8"))
    train, test = (pd.read_parquet(folder / f"{name}.parquet") for name in ("train", "test"))
    experiment = ClassificationExperiment()
    experiment.setup(
        data=train,
        test_data=test,
        index=False,
        target="target",
        numeric_features=work["numeric"],
        categorical_features=work["text"],
        numeric_imputation="median",
        categorical_imputation="mode",
        max_encoding_ohe=1000,
        normalize=True,
        fold=work["folds"],
        fold_shuffle=True,
        session_id=work["seed"],
        n_jobs=JOBS,
        html=False,
        verbose=False,
    )
    ids = {THEIRS[model["name"]]: model["name"] for model in work["models"]}
    experiment.compare_models(include=list(ids), sort="AUC", turbo=False, errors="ignore", verbose=False)
    found = experiment.pull()
    done = time.perf_counter()
    return {
        "import_seconds": imported - STARTED,
        "loop_seconds": done - imported,
        "python": sys.version.split()[0],
        "versions": {name: version(name) for name in LIBRARIES},
        "models": {
            ids[key]: {"auc": float(row["AUC"]), "seconds": float(row["TT (Sec)"]), "error": None}
            for key, row in found.iterrows()
        },
    }


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    print(json.dumps(main(Path(sys.argv[1]))))
