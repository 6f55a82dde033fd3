"""The exact models on the diabetes data, with given folds, against metrics that others computed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics

from treadle.engine.exact.fit import fit
from treadle.engine.job import Model as ModelConfig
from treadle.engine.models.base import Model
from treadle.engine.passes import OverRows, Rows

CONVERGED = "Logistic Regression, converged, "
MODELS = {
    "Ridge Classifier": "ridge",
    "Linear Discriminant Analysis": "lda",
    "Naive Bayes": "naive_bayes",
    f"{CONVERGED}unscaled (C=1)": "logistic_regression",
    f"{CONVERGED}standardised per fold (C=1)": "logistic_regression",
}


def diabetes(folder: Path) -> tuple[Any, Any, Any]:
    """Features as the reference has them (the number of pregnancies by level, after the others), target, folds."""
    frame = pd.read_parquet(folder / "diabetes/diabetes.parquet")
    split = json.loads((folder / "diabetes/split_seed123.json").read_text())
    levels = pd.get_dummies(frame.pop("Number of times pregnant").astype(str), dtype=float)
    assert levels.shape[1] == 17
    target = frame.pop("Class variable").to_numpy(dtype=np.float64)
    matrix = np.c_[frame.to_numpy(dtype=np.float64), levels.to_numpy()].astype(np.float32)
    return matrix[split["train"]], target[split["train"]], np.array(split["fold"])


def measured(model: Model, matrix: Any, target: Any, has_probabilities: bool) -> dict[str, float]:
    scores = model.scores(model.margin(matrix))
    classes = model.classes(scores)
    return {
        "Accuracy": metrics.accuracy_score(target, classes),
        "AUC": metrics.roc_auc_score(target, scores) if has_probabilities else 0.0,
        "Recall": metrics.recall_score(target, classes),
        "Prec.": metrics.precision_score(target, classes),
        "F1": metrics.f1_score(target, classes),
        "Kappa": metrics.cohen_kappa_score(target, classes),
    }


@pytest.mark.parametrize("name", MODELS)
def test_every_metric_of_every_fold_is_that_of_the_reference(shared_data: Path, name: str) -> None:
    reference = json.loads((shared_data / "reference.json").read_text())["leaderboard_diabetes"]
    expected = (reference["extra"] if name in reference["extra"] else reference["models"])[name]["folds"]
    matrix, target, folds = diabetes(shared_data)
    for fold in range(10):
        train = np.flatnonzero(folds != fold)
        rows = matrix.copy()
        if "standardised" in name:
            wide = matrix[train].astype(np.float64)
            scale = np.where(wide.std(axis=0) > 0, wide.std(axis=0), 1.0)
            rows = ((matrix - wide.mean(axis=0)) / scale).astype(np.float32)
        parts = [Rows(rows, target, part) for part in np.array_split(train, 3)]
        model, said = fit(ModelConfig(name=MODELS[name]), "binary", ("0", "1"), OverRows(parts))
        assert said == []
        test = folds == fold
        found = measured(model, rows[test], target[test], "Ridge" not in name)
        for metric, value in found.items():
            assert value == pytest.approx(expected[metric][fold], abs=1e-6), (fold, metric)
