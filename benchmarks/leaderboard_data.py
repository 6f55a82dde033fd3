"""What `treadle bench leaderboard` measures on: rows, features and models, written down for every side alike."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from treadle.engine.models.catalogue import CATALOGUE
from treadle.errors import DataError, RequestError, did_you_mean, listed

if TYPE_CHECKING:
    import pandas as pd

CLASSIFIERS = (
    "logistic_regression",
    "ridge",
    "lda",
    "qda",
    "naive_bayes",
    "k_neighbours",
    "linear_svm",
    "decision_tree",
    "random_forest",
    "extra_trees",
    "gradient_boosting",
    "ada_boost",
    "xgboost",
    "lightgbm",
    "catboost",
)
FOLDS = 10
SEED = 7
TEST_SHARE = 0.3
"""Rows that no side sees while it compares."""
STAND_IN = "breast_cancer"
"""Of scikit-learn: what is measured where no folder of data is given."""


@dataclass(frozen=True)
class DataSet:
    """Where a folder of data has it."""

    file: str
    target: str
    positive: int | str


DATA_SETS = {
    "diabetes": DataSet("diabetes/diabetes.parquet", "Class variable", 1),
    "adult": DataSet("adult/adult_train.parquet", "income", ">50K"),
}


def models_of(names: Sequence[str]) -> tuple[str, ...]:
    """The classifiers of these names, in the catalogue's spelling; all when there are none.

    Raises
    ------
    RequestError
        A name is no classifier of the benchmark.
    """
    for name in names:
        if name not in CLASSIFIERS:
            raise RequestError(
                f"bench leaderboard: '{name}' is none of its models. Allowed: [{listed(CLASSIFIERS, 20)}]."
                f"{did_you_mean(name, CLASSIFIERS)}"
            )
    return tuple(name for name in CLASSIFIERS if not names or name in names)


def written_down(
    name: str, data: Path | None, models: Sequence[str], folder: Path, folds: int = FOLDS
) -> dict[str, Any]:
    """Writes train.parquet, test.parquet and work.json, which is returned, to a folder.

    Every side reads the same training rows and makes its folds itself. Columns have names that every library takes,
    the target is called `target`, 1 for the positive class and else 0.

    Raises
    ------
    DataError
        The folder of data lacks the data set.
    """
    from sklearn.model_selection import train_test_split

    frame = _rows(name, data)
    train, test = train_test_split(frame, test_size=TEST_SHARE, stratify=frame["target"], random_state=SEED)
    folder.mkdir(parents=True, exist_ok=True)
    train.to_parquet(folder / "train.parquet", index=False)
    test.to_parquet(folder / "test.parquet", index=False)
    features = frame.drop(columns="target")
    work = {
        "data_set": name if data is not None else STAND_IN,
        "rows": len(train),
        "numeric": list(features.select_dtypes("number")),
        "text": list(features.select_dtypes(exclude="number")),
        "folds": folds,
        "seed": SEED,
        "models": [estimator_of(model) for model in models],
    }
    (folder / "work.json").write_text(json.dumps(work), encoding="utf-8")
    return work


def _rows(name: str, data: Path | None) -> pd.DataFrame:
    import pandas as pd
    from sklearn.datasets import load_breast_cancer

    if data is None:
        frame = load_breast_cancer(as_frame=True).frame
        target: str = "target"
        positive: int | str = 1
    else:
        found = DATA_SETS[name]
        path = data / found.file
        if not path.is_file():
            raise DataError(f"bench leaderboard: {path} is not there; --data names the folder that has {found.file}.")
        frame = pd.read_parquet(path)
        target, positive = found.target, found.positive
    labels = (frame.pop(target) == positive).astype("int64")
    frame.columns = [re.sub(r"\W+", "_", column).strip("_") for column in frame.columns]
    return frame.assign(target=labels)


def estimator_of(name: str) -> dict[str, Any]:
    """A model as its library's class and parameters: those that the catalogue gives it, on one thread.

    But for how neighbours are searched for: which ones are found does not depend on it, and scikit-learn chooses the
    fastest, which for many features is not the catalogue's k-d tree.
    """
    entry = CATALOGUE[name]
    if entry.family == "boosted":
        params: dict[str, Any] = {"tree_method": "hist", "random_state": SEED, "n_jobs": 1}
    else:
        known = entry.known("binary")
        engine = {"random_state": SEED, "thread_count": 1, "n_jobs": 1}
        # Linear models use no threads of their own, and say so to those who set n_jobs.
        taken = {k: v for k, v in engine.items() if k in known and not (entry.family == "linear" and k == "n_jobs")}
        params = {**{k: v for k, v in entry.defaults.items() if k != "algorithm"}, **taken}
    return {"name": name, "class": entry.estimators["classification"], "params": params}
