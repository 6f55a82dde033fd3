"""What the engine asks of XGBoost: objectives, parameters, threads."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from treadle.engine.models.base import Link

LINKS: Mapping[str, Link] = {"binary": "logistic", "multiclass": "softmax", "regression": "identity"}
OBJECTIVES = {"binary": "binary:logistic", "multiclass": "multi:softprob", "regression": "reg:squarederror"}


def said_by(error: Exception) -> str:
    """The first line of what a library raised, without the place in XGBoost's C++ sources."""
    first = (str(error).splitlines() or [""])[0]
    return re.sub(r"^\[[0-9:]+\] [^ ]+: (Check failed: )?", "", first)


def task_threads() -> int:
    """Threads that a task may use: those of its Dask worker; all cores (0) outside of one."""
    from distributed import get_worker

    try:
        return get_worker().state.nthreads
    except ValueError:
        return 0


def split_params(params: Mapping[str, Any]) -> tuple[int, dict[str, Any]]:
    """Number of trees, and the booster's parameters."""
    rest = dict(params)
    return int(rest.pop("n_estimators", 100)), rest
