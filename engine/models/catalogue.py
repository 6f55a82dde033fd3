"""The catalogue: what can be trained for which task, from which library, with which parameters.

A new scikit-learn model is one entry here and its name in `treadle.engine.job.MODEL_NAMES`.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from treadle.engine.exact.params import params_of, trains_exactly
from treadle.engine.job import MODEL_NAMES, Job
from treadle.engine.job import Model as ModelConfig
from treadle.engine.models.base import Task
from treadle.engine.models.boosted import BOOSTERS, OWN_PARAMS, objection
from treadle.errors import RequestError, did_you_mean, listed

Family = Literal["boosted", "forest", "gaussian", "linear"]
CLASSES: frozenset[Task] = frozenset({"binary", "multiclass"})
NUMBERS: frozenset[Task] = frozenset({"regression"})
NOT_OURS_TO_SET = frozenset(
    {
        "self",
        "n_jobs",
        "nthread",
        "device",
        "objective",
        "verbosity",
        "verbose",
        "enable_categorical",
        "callbacks",
    }
    | {
        "early_stopping_rounds",
        "eval_metric",
        "missing",
        "feature_types",
        "kwargs",
        "random_state",
        "warm_start",
        "num_class",
    }
    | {
        "base_score",
        "validate_parameters",
        "interaction_constraints",
        "monotone_constraints",
        "importance_type",
    }
)
"""Parameters that the engine sets, or that need support in the stages around a model."""
XGBOOST_NAMES = frozenset({"eta", "lambda", "alpha", "seed"})
"""Native names that XGBoost's scikit-learn interface spells differently."""


@dataclass(frozen=True)
class Entry:
    """How one model is made."""

    family: Family
    tasks: frozenset[Task]
    estimators: Mapping[str, str]
    """`classification` and `regression` -> `module:class`."""
    defaults: Mapping[str, Any] = field(default_factory=dict)

    def estimator(self, task: Task) -> Any:
        """The library's class."""
        module, _, name = self.estimators["regression" if task == "regression" else "classification"].partition(":")
        return getattr(importlib.import_module(module), name)


def _entry(family: Family, classifier: str | None, regressor: str | None, **defaults: Any) -> Entry:
    estimators = {"classification": classifier, "regression": regressor}
    tasks = (CLASSES if classifier else frozenset()) | (NUMBERS if regressor else frozenset())
    return Entry(family, tasks, {k: v for k, v in estimators.items() if v}, defaults)


CATALOGUE: Mapping[str, Entry] = {
    "xgboost": _entry("boosted", "xgboost:XGBClassifier", "xgboost:XGBRegressor"),
    "logistic_regression": _entry("linear", "sklearn.linear_model:LogisticRegression", None, max_iter=1000),
    "random_forest": _entry(
        "forest", "sklearn.ensemble:RandomForestClassifier", "sklearn.ensemble:RandomForestRegressor"
    ),
    "extra_trees": _entry("forest", "sklearn.ensemble:ExtraTreesClassifier", "sklearn.ensemble:ExtraTreesRegressor"),
    "decision_tree": _entry("forest", "sklearn.tree:DecisionTreeClassifier", "sklearn.tree:DecisionTreeRegressor"),
    "linear_regression": _entry("linear", None, "sklearn.linear_model:LinearRegression"),
    "ridge": _entry("linear", "sklearn.linear_model:RidgeClassifier", "sklearn.linear_model:Ridge"),
    "lda": _entry("linear", "sklearn.discriminant_analysis:LinearDiscriminantAnalysis", None),
    "qda": _entry("gaussian", "sklearn.discriminant_analysis:QuadraticDiscriminantAnalysis", None),
    "naive_bayes": _entry("gaussian", "sklearn.naive_bayes:GaussianNB", None),
}
assert tuple(CATALOGUE) == MODEL_NAMES


def check_models(job: Job, task: Task | None) -> None:
    """Refuses a model that does not fit the task (when it is known) and parameters that its library does not have."""
    for config in job.models:
        entry = CATALOGUE[config.name]
        if task is not None and task not in entry.tasks:
            fitting = [name for name, other in CATALOGUE.items() if task in other.tasks]
            raise RequestError(
                f"models: '{config.name}' does not do {'regression' if task == 'regression' else 'classification'}, "
                f"which the target '{job.data.target}' asks for. "
                f"Models that do: [{listed(fitting)}]."
            )
        _check_params(config, entry, task or sorted(entry.tasks)[0])


def _check_params(config: ModelConfig, entry: Entry, task: Task) -> None:
    if not config.params:
        return
    known = set(inspect.signature(entry.estimator(task).__init__).parameters)
    if entry.family == "boosted":
        known |= _known_to_booster(config)
    allowed = sorted(known - NOT_OURS_TO_SET)
    for name in config.params:
        if name not in allowed:
            reason = "is set by the engine" if name in NOT_OURS_TO_SET and name in known else "is not known to it"
            raise RequestError(
                f"models: parameter '{name}' of {config.name} {reason}. Allowed: [{listed(allowed, 40)}]."
                f"{did_you_mean(name, allowed)}"
            )
    if trains_exactly(config):
        params_of(config)
    if entry.family == "boosted":
        trees = config.params.get("n_estimators", 1)
        if type(trees) is not int or trees < 1:
            raise RequestError(f"models: n_estimators of {config.name} is {trees!r}; it is a whole number, 1 or more.")
        if said := objection(config.params, task):
            raise RequestError(f"models: params of {config.name}: XGBoost says: {said}")


def _known_to_booster(config: ModelConfig) -> set[str]:
    """The parameters that XGBoost has for some booster, with those that only the chosen one has."""
    booster = config.params.get("booster", BOOSTERS[0])
    if booster not in BOOSTERS:
        raise RequestError(
            f"models: booster of {config.name} is {booster!r}. Allowed: [{listed(BOOSTERS)}]."
            f"{did_you_mean(str(booster), BOOSTERS)}"
        )
    base = importlib.import_module("xgboost").XGBModel
    return set(inspect.signature(base.__init__).parameters) | XGBOOST_NAMES | OWN_PARAMS[str(booster)]
