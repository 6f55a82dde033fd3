"""scikit-learn's estimators on training rows that fit in memory, in a process of its own; JSON on standard output.

python -m treadle.benchmarks.peers.exact_sklearn ROWS FILE...

FILES are the table `features` of a run; training rows are taken from them in order, ROWS at most.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow.dataset as ds
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis, QuadraticDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.metrics import roc_auc_score
from sklearn.naive_bayes import GaussianNB

ESTIMATORS: dict[str, Any] = {
    "lda": LinearDiscriminantAnalysis(),
    "qda": QuadraticDiscriminantAnalysis(reg_param=0.01),
    "naive_bayes": GaussianNB(),
    "ridge": RidgeClassifier(),
    "logistic_regression": LogisticRegression(solver="newton-cholesky"),
}
"""With the params of benchmarks/exact.yaml; of logistic regression the solver that takes Newton steps."""


def main(rows: int, files: Sequence[str]) -> dict[str, Any]:
    """Seconds of fitting each on the training rows, and its AUC on as many test rows."""
    data = ds.dataset(list(files))
    sides = {}
    for side in ("train", "test"):
        table = data.filter(ds.field("split") == side).head(rows)
        target = table.column("fraud").to_numpy()
        sides[side] = (table.drop_columns(["id", "split", "fraud"]), target)
    matrix, test = (
        np.column_stack([column.to_numpy() for column in table.columns]).astype(np.float64)
        for table, _ in sides.values()
    )
    found = {}
    for name, estimator in ESTIMATORS.items():
        wall, cpu = time.perf_counter(), time.process_time()
        estimator.fit(matrix, sides["train"][1])
        found[name] = {"wall_seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - cpu}
        score = getattr(estimator, "decision_function", None)
        margin = score(test) if score else estimator.predict_proba(test)[:, 1]
        found[name]["auc"] = float(roc_auc_score(sides["test"][1], margin))
    return {"rows": len(matrix), "models": found}


if __name__ == "__main__":
    print(json.dumps(main(int(sys.argv[1]), sys.argv[2:])))
