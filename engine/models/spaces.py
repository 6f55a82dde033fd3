"""Where tuning looks for better parameters, by model: ranges that are wide and yet train in bearable time.

A parameter that the spec sets for a model stays as it is, unless the spec's `tune.space` names it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from treadle.engine.job import Job
from treadle.engine.job import Model as ModelConfig
from treadle.engine.models.base import Task
from treadle.engine.models.boosted import is_linear
from treadle.engine.models.catalogue import CATALOGUE, NEED_PROBABILITIES, candidates, check_params, entry_of
from treadle.engine.sections.tune import Dimension
from treadle.errors import RequestError, listed

Space = Mapping[str, Dimension]


def _range(low: float, high: float) -> Dimension:
    return Dimension(low=low, high=high, log=False)


def _log(low: float, high: float) -> Dimension:
    return Dimension(low=low, high=high, log=True)


def _choice(*values: Any) -> Dimension:
    return Dimension(choices=values)


_BOOSTED = {"n_estimators": _log(50, 500), "learning_rate": _log(0.01, 0.3)}
_TREES = {"max_features": _range(0.1, 1.0), "min_samples_leaf": _log(1, 50), "max_depth": _range(4, 32)}
SPACES: Mapping[str, Space] = {
    "xgboost": {
        **_BOOSTED,
        "max_depth": _range(2, 10),
        "min_child_weight": _log(0.1, 30.0),
        "subsample": _range(0.5, 1.0),
        "colsample_bytree": _range(0.3, 1.0),
        "reg_lambda": _log(1e-3, 100.0),
        "reg_alpha": _log(1e-4, 10.0),
    },
    "lightgbm": {
        **_BOOSTED,
        "num_leaves": _log(4, 256),
        "min_child_samples": _log(5, 200),
        "subsample": _range(0.5, 1.0),
        # LightGBM draws no rows without it.
        "subsample_freq": _choice(1),
        "colsample_bytree": _range(0.3, 1.0),
        "reg_lambda": _log(1e-3, 100.0),
        "reg_alpha": _log(1e-4, 10.0),
    },
    "catboost": {
        "iterations": _log(50, 500),
        "learning_rate": _log(0.01, 0.3),
        "depth": _range(3, 8),
        "l2_leaf_reg": _log(0.5, 50.0),
        "random_strength": _log(0.1, 10.0),
        "rsm": _range(0.3, 1.0),
    },
    "gradient_boosting": {
        **_BOOSTED,
        "max_depth": _range(2, 8),
        "min_samples_leaf": _log(1, 100),
        "subsample": _range(0.5, 1.0),
        "max_features": _range(0.1, 1.0),
    },
    "ada_boost": {"n_estimators": _log(25, 400), "learning_rate": _log(0.01, 2.0)},
    "random_forest": _TREES,
    "extra_trees": _TREES,
    "decision_tree": {"max_depth": _range(2, 24), "min_samples_leaf": _log(1, 200), "max_features": _range(0.3, 1.0)},
    "logistic_regression": {"C": _log(1e-4, 1e3)},
    "linear_svm": {"C": _log(1e-4, 1e2)},
    "ridge": {"alpha": _log(1e-4, 1e4)},
    "linear_regression": {},
    "lasso": {"alpha": _log(1e-4, 1e3)},
    "elastic_net": {"alpha": _log(1e-4, 1e3), "l1_ratio": _range(0.05, 1.0)},
    "huber": {"epsilon": _range(1.05, 3.0), "alpha": _log(1e-6, 1e2)},
    "k_neighbours": {
        "n_neighbors": _log(1, 100),
        "weights": _choice("uniform", "distance"),
        "metric": _choice("euclidean", "manhattan"),
    },
    # With svd it has no shrinkage.
    "lda": {"solver": _choice("lsqr"), "shrinkage": _range(0.0, 1.0)},
    "qda": {"reg_param": _range(0.0, 1.0)},
    "naive_bayes": {"var_smoothing": _log(1e-12, 1.0)},
    "mlp": {
        "hidden_layer_sizes": _log(16, 256),
        "alpha": _log(1e-6, 1.0),
        "learning_rate_init": _log(1e-4, 1e-1),
    },
    "dummy": {},
}
"""By catalogue name and parameter; a model that has none has nothing to tune."""
assert SPACES.keys() == CATALOGUE.keys()
OF_LINEAR_BOOSTERS = frozenset({"n_estimators", "learning_rate", "reg_lambda", "reg_alpha"})
SAME = (
    frozenset({"learning_rate", "eta"}),
    frozenset({"iterations", "n_estimators"}),
    frozenset({"depth", "max_depth"}),
    frozenset({"l2_leaf_reg", "reg_lambda", "lambda"}),
    frozenset({"reg_alpha", "alpha"}),
    frozenset({"rsm", "colsample_bylevel"}),
)
"""Names of one parameter: a library refuses two of them together."""


def space_of(config: ModelConfig, overrides: Mapping[str, Mapping[str, Dimension]]) -> dict[str, Dimension]:
    """What is tuned of a model: the catalogue's space without what its params set, then the spec's own."""
    own: dict[str, Dimension] = {**overrides.get(config.name, {}), **overrides.get(config.title, {})}
    table = SPACES.get(config.name, {})
    linear = config.name == "xgboost" and is_linear(config.params)
    settled = {other for name in (*config.params, *own) for other in _same(name)}
    kept = {
        name: dimension
        for name, dimension in table.items()
        if name not in settled and not (linear and name not in OF_LINEAR_BOOSTERS)
    }
    return kept | {name: _completed(dimension, table.get(name)) for name, dimension in own.items()}


def _same(name: str) -> set[str]:
    return {name}.union(*(names for names in SAME if name in names))


def _completed(dimension: Dimension, known: Dimension | None) -> Dimension:
    """What the spec leaves open of a range is as in the catalogue: the scale, and whether the numbers are whole."""
    low, high = dimension.low, dimension.high
    if low is None or high is None:
        return dimension
    log = dimension.log
    if log is None:
        log = known is not None and bool(known.log) and low > 0
    if known is not None and known.choices is None and not known.whole:
        low, high = float(low), float(high)
    return Dimension(low=low, high=high, log=log)


def tunable(job: Job, configs: Iterable[ModelConfig]) -> tuple[ModelConfig, ...]:
    """The models that tuning may choose from: those that the spec names, or all that have something to tune."""
    assert job.tune is not None
    if isinstance(job.tune.models, tuple):
        return tuple(config for config in configs if config.title in job.tune.models)
    return tuple(config for config in configs if space_of(config, job.tune.space))


def check_tuning(job: Job, task: Task | None) -> None:
    """Refuses models that cannot be tuned and spaces that a model does not have; `task` is None while not known.

    Raises
    ------
    RequestError
        Of the first model or parameter that is refused.
    """
    if job.tune is None:
        return
    configs = job.listed_models
    if task is not None:
        configs = candidates(job, task)
    found = tunable(job, configs)
    if task is not None and isinstance(job.tune.models, tuple):
        there = {config.title for config in configs}
        absent = [title for title in job.tune.models if title not in there]
        if absent:
            raise RequestError(f"tune.models: '{absent[0]}' is none of the models of this task: [{listed(there, 30)}].")
    if configs and not found:
        raise RequestError(
            f"tune: none of the models [{listed(config.title for config in configs)}] has something to tune; name "
            "parameters in tune.space, or leave tune out."
        )
    for config in found:
        space = space_of(config, job.tune.space)
        if not space:
            raise RequestError(
                f"tune.models: '{config.title}' has nothing to tune; name parameters in tune.space, or leave it out."
            )
        if task in ("binary", "multiclass") and isinstance(job.tune.models, tuple):
            metric = job.metric_for(task)
            if metric in NEED_PROBABILITIES and not entry_of(config).probabilities:
                raise RequestError(
                    f"tune.models: '{config.title}' gives no probabilities, which the metric '{metric}' needs; leave "
                    "it out, or choose another metric."
                )
        own = {**job.tune.space.get(config.name, {}), **job.tune.space.get(config.title, {})}
        for name in own:
            _check_names(config, name, own)
            _check_whole(config, name, space[name])
            for value in space[name].ends:
                _check_value(config, name, value, task)


def _check_names(config: ModelConfig, name: str, own: Iterable[str]) -> None:
    """Refuses a parameter that the spec has under another name, too: which of the two counts is up to the library."""
    for other in (*config.params, *own):
        if other != name and other in _same(name):
            raise RequestError(
                f"tune.space: {name} and {other} of '{config.title}' are the same parameter; name it {other} in both "
                "params and tune.space, or leave one of them out."
            )


def _check_whole(config: ModelConfig, name: str, dimension: Dimension) -> None:
    """Refuses bounds with a fraction of what the catalogue knows to be whole: libraries would fail in every trial."""
    known = SPACES.get(config.name, {}).get(name)
    if known is None or not known.whole or dimension.choices is not None or dimension.whole:
        return
    raise RequestError(
        f"tune.space: {name} of '{config.title}' is a whole number, and its bounds are {dimension.low} and "
        f"{dimension.high}; write them without a fraction, as in [{known.low}, {known.high}]."
    )


def _check_value(config: ModelConfig, name: str, value: Any, task: Task | None) -> None:
    tried = config.model_copy(update={"params": {**config.params, name: value}})
    try:
        check_params(tried, task)
    except RequestError as error:
        raise RequestError(f"tune.space: {str(error).removeprefix('models: ')}") from error
