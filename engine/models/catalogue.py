"""The catalogue: what can be trained for which task, from which library, with which parameters.

A new scikit-learn model is one entry here and its name in `treadle.engine.job.MODEL_NAMES`.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from treadle.engine.exact.params import params_of, trains_exactly
from treadle.engine.job import MODEL_NAMES, Job
from treadle.engine.job import Model as ModelConfig
from treadle.engine.models.base import Task
from treadle.engine.models.boosted import BOOSTERS, OWN_PARAMS, drops_trees, is_linear, objection
from treadle.engine.models.by_cuml import Cuml
from treadle.engine.models.constraints import MONOTONE, check_constraints
from treadle.engine.models.import_path import does_classes, own_class, source_digest, takes_weights
from treadle.engine.models.parameters import CATBOOST, LIGHTGBM
from treadle.errors import RequestError, did_you_mean, listed
from treadle.versions import version_of

Family = Literal["boosted", "additive", "forest", "linear", "gaussian", "network", "neighbours", "constant", "own"]
"""`boosted` is XGBoost, over all workers; trees are `additive` before the link, or averaged in a `forest`."""
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
        "monotonic_cst",
        "importance_type",
    }
    | {
        "algorithm",
        "estimator",
        "metric_params",
    }
)
"""Parameters that the engine sets, or that need support in the stages around a model."""
XGBOOST_NAMES = frozenset({"eta", "lambda", "alpha", "seed"})
"""Native names that XGBoost's scikit-learn interface spells differently."""
NEED_PROBABILITIES = frozenset({"log_loss", "brier"})


@dataclass(frozen=True)
class Entry:
    """How one model is made."""

    family: Family
    tasks: frozenset[Task]
    estimators: Mapping[str, str]
    """`classification` and `regression` -> `module:class`."""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    nulls: bool = False
    """Whether rows with nulls are taken; else they are refused before training."""
    probabilities: bool = True
    """Whether it gives probabilities of classes; else its margin only ranks and decides."""
    weights: bool = True
    """Whether its library takes weights of rows; else a job with `data.weight` does without it."""
    library: str = "scikit-learn"
    """The distribution that trains it."""
    extra: str | None = None
    """Treadle's extra that installs the library, where it is optional."""
    params: frozenset[str] | None = None
    """Parameters that may be set; when None all that the library's class names and the engine does not set."""
    monotone: bool = False
    """Whether it takes `monotone_constraints`, by feature."""
    effort: int = 1
    """About how long training takes beside the others, on a few thousand rows: from 1 to 100."""
    cuml: Cuml | None = None
    """What trains it on a GPU; None where cuML has no such model, or training does no more than keep the rows."""

    def estimator(self, task: Task) -> Any:
        """The library's class."""
        module, _, name = self.estimators["regression" if task == "regression" else "classification"].partition(":")
        return getattr(importlib.import_module(module), name)

    @property
    def installed(self) -> bool:
        """Whether its library is."""
        return importlib.util.find_spec(self.library.replace("scikit-learn", "sklearn")) is not None

    def version(self) -> str:
        """Of the library; RequestError says how to install it where it is missing."""
        try:
            return version_of(self.library)
        except importlib.metadata.PackageNotFoundError as error:
            raise RequestError(
                f"models: {self.library} is not installed, which trains one of them. Install it, here and where the "
                f"workers run, with pip install 'treadle[{self.extra}]', or leave the model out."
            ) from error

    def known(self, task: Task) -> set[str]:
        """Names of the parameters of the library's class."""
        return set(inspect.signature(self.estimator(task).__init__).parameters)


class OwnEntry(Entry):
    """An estimator of the user's own."""

    @property
    def path(self) -> str:
        """Its import path."""
        return next(iter(self.estimators.values()))

    def estimator(self, task: Task) -> Any:
        return own_class(self.path)

    @property
    def installed(self) -> bool:
        return True

    def version(self) -> str:
        """Of its code."""
        return source_digest(self.path)


def entry_of(config: ModelConfig) -> Entry:
    """How a model of a spec is made.

    Raises
    ------
    RequestError
        It is an estimator of the user's own whose module is not allowed, or that is none.
    """
    if config.estimator is None:
        return CATALOGUE[config.name]
    found = own_class(config.estimator)
    classes = does_classes(found)
    return OwnEntry(
        "own",
        CLASSES if classes else NUMBERS,
        {"classification" if classes else "regression": config.estimator},
        probabilities=hasattr(found, "predict_proba"),
        weights=takes_weights(config.estimator),
        library=config.estimator,
        effort=10,
    )


def _entry(family: Family, classifier: str | None, regressor: str | None, **more: Any) -> Entry:
    estimators = {"classification": classifier, "regression": regressor}
    tasks = (CLASSES if classifier else frozenset()) | (NUMBERS if regressor else frozenset())
    return Entry(family, tasks, {k: v for k, v in estimators.items() if v}, **more)


def _sklearn(family: Family, module: str, classifier: str | None, regressor: str | None, **more: Any) -> Entry:
    paths = [None if name is None else f"sklearn.{module}:{name}" for name in (classifier, regressor)]
    return _entry(family, *paths, **more)


CATALOGUE: Mapping[str, Entry] = {
    "xgboost": _entry(
        "boosted",
        "xgboost:XGBClassifier",
        "xgboost:XGBRegressor",
        nulls=True,
        monotone=True,
        library="xgboost",
        effort=8,
    ),
    "lightgbm": _entry(
        "additive",
        "lightgbm:LGBMClassifier",
        "lightgbm:LGBMRegressor",
        # Else histograms are built by rows or columns as a race of both decides, and round differently.
        defaults={"verbosity": -1, "deterministic": True, "force_col_wise": True},
        nulls=True,
        library="lightgbm",
        extra="boosters",
        params=LIGHTGBM,
        monotone=True,
        effort=6,
    ),
    "catboost": _entry(
        "additive",
        "catboost:CatBoostClassifier",
        "catboost:CatBoostRegressor",
        defaults={"logging_level": "Silent", "allow_writing_files": False},
        nulls=True,
        library="catboost",
        extra="boosters",
        params=CATBOOST,
        monotone=True,
        effort=100,
    ),
    "gradient_boosting": _sklearn(
        "additive", "ensemble", "GradientBoostingClassifier", "GradientBoostingRegressor", effort=30
    ),
    "ada_boost": _sklearn("additive", "ensemble", "AdaBoostClassifier", None, effort=10),
    "random_forest": _sklearn(
        "forest",
        "ensemble",
        "RandomForestClassifier",
        "RandomForestRegressor",
        nulls=True,
        monotone=True,
        effort=16,
        cuml=Cuml("cuml.ensemble:RandomForestClassifier", "cuml.ensemble:RandomForestRegressor", forest=True),
    ),
    "extra_trees": _sklearn(
        "forest", "ensemble", "ExtraTreesClassifier", "ExtraTreesRegressor", nulls=True, monotone=True, effort=16
    ),
    "decision_tree": _sklearn(
        "forest", "tree", "DecisionTreeClassifier", "DecisionTreeRegressor", nulls=True, monotone=True
    ),
    "logistic_regression": _sklearn(
        "linear",
        "linear_model",
        "LogisticRegression",
        None,
        defaults={"max_iter": 1000},
        cuml=Cuml("cuml.linear_model:LogisticRegression"),
    ),
    "linear_svm": _sklearn(
        "linear",
        "svm",
        "LinearSVC",
        None,
        probabilities=False,
        # As liblinear does, for which the intercept is one more coefficient.
        cuml=Cuml("cuml.svm:LinearSVC", params={"penalized_intercept": True}),
    ),
    "ridge": _sklearn(
        "linear",
        "linear_model",
        "RidgeClassifier",
        "Ridge",
        probabilities=False,
        cuml=Cuml(regressor="cuml.linear_model:Ridge"),
    ),
    "linear_regression": _sklearn(
        "linear", "linear_model", None, "LinearRegression", cuml=Cuml(regressor="cuml.linear_model:LinearRegression")
    ),
    "lasso": _sklearn(
        "linear", "linear_model", None, "Lasso", cuml=Cuml(regressor="cuml.linear_model:Lasso", weights=True)
    ),
    "elastic_net": _sklearn(
        "linear", "linear_model", None, "ElasticNet", cuml=Cuml(regressor="cuml.linear_model:ElasticNet", weights=True)
    ),
    "huber": _sklearn("linear", "linear_model", None, "HuberRegressor"),
    "k_neighbours": _sklearn(
        "neighbours",
        "neighbors",
        "KNeighborsClassifier",
        "KNeighborsRegressor",
        defaults={"algorithm": "brute"},
        weights=False,
    ),
    "lda": _sklearn("linear", "discriminant_analysis", "LinearDiscriminantAnalysis", None),
    "qda": _sklearn("gaussian", "discriminant_analysis", "QuadraticDiscriminantAnalysis", None),
    "naive_bayes": _sklearn("gaussian", "naive_bayes", "GaussianNB", None),
    "mlp": _sklearn("network", "neural_network", "MLPClassifier", "MLPRegressor", effort=40),
    "dummy": _sklearn(
        "constant",
        "dummy",
        "DummyClassifier",
        "DummyRegressor",
        nulls=True,
        params=frozenset({"strategy", "quantile"}),
    ),
}
assert tuple(CATALOGUE) == MODEL_NAMES
CHOICES: Mapping[tuple[str, str], tuple[str, ...]] = {
    ("dummy", "strategy"): ("prior", "most_frequent", "mean", "median", "quantile"),
    ("lightgbm", "boosting_type"): ("gbdt", "dart"),
    ("k_neighbours", "metric"): ("minkowski", "euclidean", "manhattan", "chebyshev"),
    ("k_neighbours", "weights"): ("uniform", "distance"),
}
"""Where a library takes more than the engine can keep to: answers drawn at random, averages, functions."""


FAST = 20
"""The most effort of a model of the preset `fast`."""


def candidates(job: Job, task: Task) -> tuple[ModelConfig, ...]:
    """The models that a job trains: those that it lists, or those of its preset that do the task, with its weights."""
    if not isinstance(job.models, str):
        return job.models
    return tuple(
        ModelConfig(name=name)
        for name in _of_preset(job, task)
        if CATALOGUE[name].installed and _takes_weights(job, CATALOGUE[name])
    )


def left_out(job: Job, task: Task) -> list[str]:
    """What is to be said of models of a preset that are left out, though they do the task."""
    if not isinstance(job.models, str):
        return []
    # Of all, since `fast` says nothing of which libraries there are.
    lacking = [name for name, entry in CATALOGUE.items() if task in entry.tasks and not entry.installed]
    without = [name for name in _of_preset(job, task) if not _takes_weights(job, CATALOGUE[name])]
    said = [f"models: [{listed(lacking)}] left out: their libraries are not installed"] if lacking else []
    return said + ([f"models: [{listed(without)}] left out: they take no weights (data.weight)"] if without else [])


def _of_preset(job: Job, task: Task) -> list[str]:
    names = [name for name, entry in CATALOGUE.items() if task in entry.tasks]
    return [name for name in names if job.models == "all" or CATALOGUE[name].effort <= FAST]


def _takes_weights(job: Job, entry: Entry) -> bool:
    return entry.weights or job.data.weight is None


def nulls_refused(config: ModelConfig, columns: Sequence[str]) -> str:
    """Why a model that takes no nulls cannot be trained on such features."""
    remedy = f"{{op: impute, columns: [{listed(columns)}]}}"
    return f"features have nulls, which {config.name} does not take; add {remedy} to features"


def check_models(job: Job, task: Task | None) -> None:
    """Refuses a model that does not fit the task (when it is known) and parameters that its library does not have.

    Raises
    ------
    RequestError
        Of the first model that is refused, also when its library is not installed or takes no weights, or when no
        model can have the metric that chooses the best.
    """
    for config in job.listed_models:
        entry = entry_of(config)
        if task is not None and task not in entry.tasks:
            fitting = [name for name, other in CATALOGUE.items() if task in other.tasks]
            raise RequestError(
                f"models: '{config.name}' does not do {'regression' if task == 'regression' else 'classification'}, "
                f"which the target '{job.data.target}' asks for. "
                f"Models that do: [{listed(fitting, 30)}]."
            )
        if not _takes_weights(job, entry):
            raise RequestError(
                f"models: '{config.name}' takes no weights, and data.weight is '{job.data.weight}': {entry.library} "
                "trains it on rows that all count the same. Leave one of the two out."
            )
        entry.version()
        check_params(config, task)
        _check_boosting(config, job.compared is not None)
    listed_models = job.listed_models
    calibrated = job.decision.calibrate is not None
    if task in CLASSES and not calibrated and not any(entry_of(c).probabilities for c in listed_models):
        metric = job.metric_for(str(task))
        if metric in NEED_PROBABILITIES and listed_models:
            raise RequestError(
                f"metric: '{metric}' needs probabilities, and none of the models gives them "
                f"([{listed(config.title for config in listed_models)}]). Choose another metric, such as accuracy "
                "or auc."
            )


def check_params(config: ModelConfig, task: Task | None) -> None:
    """Refuses parameters that a model's library does not have, and values that are known to be wrong.

    Raises
    ------
    RequestError
        Of the first parameter that is refused.
    """
    if not config.params:
        return
    entry = entry_of(config)
    tasks = [task] if task else sorted(entry.tasks)
    known = set().union(*(entry.known(task) for task in tasks))
    if entry.family == "boosted":
        known |= _known_to_booster(config)
    ours = {MONOTONE} if entry.monotone and not is_linear(config.params) else set()
    allowed = sorted(ours | ((known - NOT_OURS_TO_SET if entry.params is None else entry.params) - {MONOTONE}))
    check_constraints(config)
    for name, value in config.params.items():
        if name not in allowed:
            reason = "is set by the engine" if name in NOT_OURS_TO_SET and name in known else "is not known to it"
            raise RequestError(
                f"models: parameter '{name}' of {config.name} {reason}. Allowed: [{listed(allowed, 40)}]."
                f"{did_you_mean(name, allowed)}"
            )
        choices = CHOICES.get((config.name, name))
        if choices is not None and value not in choices:
            raise RequestError(
                f"models: {name} of {config.name} is {value!r}. Allowed: [{listed(choices)}]."
                f"{did_you_mean(str(value), choices)}"
            )
    if trains_exactly(config):
        params_of(config)
    if entry.family == "boosted":
        trees = config.params.get("n_estimators", 1)
        if type(trees) is not int or trees < 1:
            raise RequestError(f"models: n_estimators of {config.name} is {trees!r}; it is a whole number, 1 or more.")
        if said := objection({k: v for k, v in config.params.items() if k != MONOTONE}, tasks[0]):
            raise RequestError(f"models: params of {config.name}: XGBoost says: {said}")


def _check_boosting(config: ModelConfig, by_folds: bool) -> None:
    """Refuses early stopping and continued training of boosters that cannot be cut, or gone on from, at a round."""
    for key in ("early_stopping", "continue_from"):
        if by_folds and getattr(config, key) is not None:
            raise RequestError(
                f"models: {key} of {config.title}: models that are compared by folds are trained without it. Leave it "
                "out, or compare."
            )
    linear = "its booster gblinear has no trees; choose gbtree"
    if config.early_stopping is not None:
        if is_linear(config.params):
            raise RequestError(f"models: early_stopping of {config.title}: {linear}, or leave early_stopping out.")
        if drops_trees(config.params):
            raise RequestError(
                f"models: early_stopping of {config.title}: with dropout (rate_drop, one_drop or skip_drop) later "
                "rounds weigh earlier trees anew, so that the best round is gone when it is known. Leave one of the "
                "two out."
            )
    if config.continue_from is not None and is_linear(config.params):
        raise RequestError(f"models: continue_from of {config.title}: {linear}, or leave continue_from out.")


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
