"""Models trained on a GPU by cuML, where it has them, and on the host else, which is told with the reason.

An estimator is made as for the host, and cuML takes its parameters or refuses them. What cuML has trained becomes
scikit-learn's again, or a forest: nothing of cuML is kept, and nothing of it is needed for predictions. cuML is
imported here only, by the paths that the catalogue has.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from treadle.engine.backend import Backend
from treadle.engine.device import ALONE, is_out_of_memory
from treadle.engine.models.base import Task
from treadle.engine.models.boosted import said_by

NO_CODE = "trained on the host, since there is no code for GPUs"
REFUSALS = (ValueError, TypeError, NotImplementedError)
"""What cuML raises of parameters and data that it does not take.

Anything else, such as what CUDA says of a broken device, is the model's error, as on the host.
"""


class Refused(Exception):
    """A library does not take what a model is, or its rows, on a GPU; says why."""


@dataclass(frozen=True)
class Cuml:
    """cuML's classes, `module:class`, that train as a model of the catalogue."""

    classifier: str | None = None
    regressor: str | None = None
    weights: bool = False
    """Whether weights of rows count as they do in scikit-learn."""
    forest: bool = False
    """Whether it is compiled as cuML has it."""
    params: Mapping[str, Any] = field(default_factory=dict)
    """What cuML is told beside the estimator's parameters, so that it trains the same."""

    def path(self, task: Task) -> str | None:
        """Of the class for a task, if there is one."""
        return self.regressor if task == "regression" else self.classifier

    def objection(self, task: Task, estimator: Any, matrix: np.ndarray, weight: np.ndarray | None) -> str | None:
        """Why it need not be tried, if so, with an estimator of scikit-learn's and rows to train on."""
        if self._path(task) is None:
            return NO_CODE
        if np.isnan(matrix).any():
            return "trained on the host, since features have nulls, which cuML does not take"
        if not self.weights and (weight is not None or getattr(estimator, "class_weight", None) is not None):
            # Nodes of its trees hold numbers of rows only, by which contributions are computed; and a penalty beside
            # a loss that it minimises by gradients weighs the same when all weights are doubled.
            return "trained on the host, since cuML counts weights of rows and classes in another way"
        return None

    def fit(self, task: Task, estimator: Any, matrix: np.ndarray, labels: np.ndarray, weights: Any) -> Any:
        """cuML's estimator, with the parameters of one of scikit-learn's, fitted on the current GPU.

        Raises
        ------
        Refused
            cuML is not installed, or takes not these parameters or rows.
        """
        path = self._path(task)
        assert path is not None
        module, _, name = path.partition(":")
        try:
            found = getattr(importlib.import_module(module), name).from_sklearn(estimator)
            return found.set_params(**self.params).fit(matrix, labels, **weights)
        except ImportError as error:
            raise Refused(f"cuML cannot be imported ({said_by(error)})") from error
        except REFUSALS as error:
            raise Refused(f"cuML says: {said_by(error)}") from error

    def _path(self, task: Task) -> str | None:
        return self.regressor if task == "regression" else self.classifier


def fit_where(
    backend: Backend,
    title: str,
    cuml: Cuml | None,
    task: Task,
    estimator: Any,
    matrix: np.ndarray,
    labels: np.ndarray,
    weight: np.ndarray | None,
) -> Any:
    """An estimator, fitted where the backend computes: itself, or what cuML made of it, where it has such models."""
    weights = {} if weight is None else {"sample_weight": weight}
    if backend.name == "cpu":
        return estimator.fit(matrix, labels, **weights)
    why = NO_CODE if cuml is None else cuml.objection(task, estimator, matrix, weight)

    def on_device() -> Any:
        assert cuml is not None
        fitted = cuml.fit(task, estimator, matrix, labels, weights)
        # A forest stays, and is compiled from its treelite model: by `as_sklearn` covers of nodes are NaN, and leaves
        # are copied one by one in Python.
        return fitted if cuml.forest else fitted.as_sklearn()

    return on_device_or_host(
        backend, title, len(matrix), why, on_device, lambda: estimator.fit(matrix, labels, **weights)
    )


def on_device_or_host[Made](
    backend: Backend,
    title: str,
    rows: int,
    why: str | None,
    on_device: Callable[[], Made],
    on_host: Callable[[], Made],
) -> Made:
    """What one of two functions makes of so many rows, by the backend; the host's where the other one cannot.

    It cannot where it raises `Refused`, or the device has too little memory, and is not tried when it is known
    `why` not; each is told.
    """
    if backend.name == "cpu":
        return on_host()
    if why is None:
        try:
            with ALONE:
                return on_device()
        except Exception as error:
            if is_out_of_memory(error):
                why = f"trained on the host, since {rows:,} rows are too many for the memory of the GPU"
            elif isinstance(error, Refused):
                why = f"trained on the host, since {error}"
            else:
                raise
    # Outside of the handler, whose traceback would keep the memory of the GPU.
    backend.fell_back(title, why)
    return on_host()
