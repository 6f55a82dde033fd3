"""What the engine asks of XGBoost: objectives, parameters, threads."""

from __future__ import annotations

import contextlib
import json
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import numpy as np

from treadle.engine.models.base import Link, Task
from treadle.errors import DataError
from treadle.signals import delayed

if TYPE_CHECKING:
    import xgboost

LINKS: Mapping[str, Link] = {"binary": "logistic", "multiclass": "softmax", "regression": "identity"}
OBJECTIVES = {"binary": "binary:logistic", "multiclass": "multi:softprob", "regression": "reg:squarederror"}
LOSSES: Mapping[str, str] = {"binary": "logloss", "multiclass": "mlogloss", "regression": "rmse"}
"""What XGBoost measures when it is not told what: of each objective the loss that it minimises, or its root."""
XGBOOST_FILE = "model.ubj"
"""XGBoost's own file, in UBJSON."""
BOOSTERS = ("gbtree", "dart", "gblinear")
DROPOUT = frozenset({"sample_type", "normalize_type", "rate_drop", "one_drop", "skip_drop"})
DROPS = ("rate_drop", "one_drop", "skip_drop")
"""Those of them that make XGBoost drop trees, unless they are 0."""
OWN_PARAMS: Mapping[str, frozenset[str]] = {
    "gbtree": DROPOUT,
    "dart": DROPOUT,
    "gblinear": frozenset({"updater", "feature_selector", "top_k"}),
}
"""By booster: native parameters that XGBoost's scikit-learn interface does not name."""


def said_by(error: Exception) -> str:
    """The first line of what a library raised, without the place in XGBoost's C++ sources."""
    first = (str(error).splitlines() or [""])[0]
    return re.sub(r"^\[[0-9:]+\] [^ ]+: (Check failed: )?", "", first)


_limit: ContextVar[int | None] = ContextVar("threads of a task", default=None)


@contextlib.contextmanager
def threads_limited(threads: int) -> Iterator[None]:
    """Leaves a task, this thread of a worker, so many threads: its neighbours have the others."""
    token = _limit.set(threads)
    try:
        yield
    finally:
        _limit.reset(token)


def task_threads() -> int:
    """Threads that a task may use: those of its Dask worker, or fewer; all cores (0) outside of one."""
    from distributed import get_worker

    if (limit := _limit.get()) is not None:
        return limit
    try:
        return get_worker().state.nthreads
    except ValueError:
        return 0


def use_task_threads() -> None:
    """Lets the kernels use the threads of the Dask worker that runs this, or all cores elsewhere."""
    import numba

    numba.set_num_threads(min(task_threads() or numba.config.NUMBA_NUM_THREADS, numba.config.NUMBA_NUM_THREADS))


def quiet() -> AbstractContextManager[None]:
    """XGBoost on the threads of the task, without remarks on standard error."""
    import xgboost

    return xgboost.config_context(verbosity=0, nthread=task_threads())


def is_linear(params: Mapping[str, Any]) -> bool:
    """Whether a model of such parameters has no trees. Workers would train it each on its own rows only."""
    return params.get("booster") == "gblinear"


def drops_trees(params: Mapping[str, Any]) -> bool:
    """Whether a model of such parameters leaves trees out while it trains, and weighs them again each time.

    XGBoost goes by them alone: the booster dart without any of them is gbtree.
    """
    return any(params.get(name) for name in DROPS)


def native_params(params: Mapping[str, Any], task: Task, classes: int, seed: int) -> tuple[int, dict[str, Any]]:
    """Rounds of boosting, and the parameters of `xgboost.train`."""
    rest = dict(params)
    rounds = int(rest.pop("n_estimators", 100))
    # The default updater of gblinear gives another model every time. Of trees, a round draws its rows and features
    # by seed and number of the round, so that it draws the same wherever training began.
    chosen = {"updater": "coord_descent"} if is_linear(params) else {"tree_method": "hist", "seed_per_iteration": True}
    engine = {"objective": OBJECTIVES[task], **({"num_class": classes} if task == "multiclass" else {})}
    return rounds, {"seed": seed, **chosen, **rest, **engine}


def train_booster(
    matrix: np.ndarray,
    target: np.ndarray,
    params: Mapping[str, Any],
    rounds: int,
    weight: np.ndarray | None = None,
) -> bytes:
    """A booster as UBJSON, trained on float32 rows (rows, features) with `native_params`.

    Raises
    ------
    DataError
        As `refuse_other_device`.
    """
    import xgboost

    threads = task_threads()
    if is_linear(params):
        data = xgboost.DMatrix(matrix, target, weight=weight, nthread=threads)
    else:
        bins = params.get("max_bin")
        data = xgboost.QuantileDMatrix(matrix, target, weight=weight, max_bin=bins, nthread=threads)
    own = {**params, "nthread": threads}
    booster = xgboost.train(own, data, num_boost_round=rounds)
    refuse_other_device(booster, params)
    return bytes(booster.save_raw("ubj"))


def refuse_other_device(booster: xgboost.Booster, params: Mapping[str, Any]) -> None:
    """Raises DataError where XGBoost trained without the GPU that the parameters ask for: it merely warns."""
    used = json.loads(booster.save_config())["learner"]["generic_param"]["device"]
    if not used.startswith(params.get("device", "cpu")):
        raise DataError(f"XGBoost was to train on {params['device']}, and did on {used}; look at treadle doctor")


def objection(params: Mapping[str, Any], task: Task) -> str | None:
    """What XGBoost says against a model's parameters when it trains one round on a few rows."""
    import xgboost

    classes = 3 if task == "multiclass" else 2
    rows = np.random.default_rng(0).normal(size=(30, 2)).astype(np.float32)
    _, native = native_params(params, task, classes, 0)
    # Ctrl-C that came within XGBoost's callbacks would be lost, and XGBoost would complain of half its rows.
    with delayed(), warnings.catch_warnings(record=True) as caught, xgboost.config_context(verbosity=1):
        warnings.simplefilter("always")
        try:
            train_booster(rows, np.arange(len(rows)) % classes, native, 1)
        except (xgboost.core.XGBoostError, TypeError, ValueError) as error:
            return said_by(error)
    unused = [line for w in caught for line in str(w.message).splitlines() if line.endswith("are not used.")]
    return f"{unused[0]} Leave them out, or choose another booster." if unused else None
