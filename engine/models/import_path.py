"""Classes of users' own, by import path, with scikit-learn's interface: `package.module:Class`.

A spec that names code has it run, and so has a bundle whose model is of such a class. Neither is done unless whoever
runs the process has named the module in the variable TREADLE_ALLOW_CODE. Every process decides by its own variable:
the driver, the workers, and whoever loads the bundle.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import importlib.util
import inspect
import os

from treadle.errors import RequestError, did_you_mean, listed

VARIABLE = "TREADLE_ALLOW_CODE"
"""Modules whose classes may be named, and those below them, with commas between."""


def allowed_modules() -> tuple[str, ...]:
    """What `VARIABLE` names."""
    return tuple(name for part in os.environ.get(VARIABLE, "").split(",") if (name := part.strip()))


def check_allowed(path: str) -> None:
    """Refuses a class of a module that is not allowed; nothing is imported.

    Raises
    ------
    RequestError
        Says how it would be allowed.
    """
    module = path.partition(":")[0]
    if not is_allowed(module):
        allowed = f"Allowed are [{listed(allowed_modules())}]" if allowed_modules() else "No module is allowed"
        raise RequestError(
            f"models: estimator '{path}' is code, which is run only when its module is allowed. {allowed}; set "
            f"{VARIABLE}={module} where jobs run and models are loaded, of a service with allow_code."
        )


def is_allowed(module: str) -> bool:
    return any(module == name or module.startswith(f"{name}.") for name in allowed_modules())


def own_class(path: str) -> type:
    """The class of an import path.

    Raises
    ------
    RequestError
        Its module is not allowed, cannot be imported, or has no such estimator.
    """
    from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin

    check_allowed(path)
    module, _, name = path.partition(":")
    try:
        found = getattr(importlib.import_module(module), name, None)
    except Exception as error:  # whatever its code does
        raise RequestError(f"models: estimator '{path}' cannot be imported ({told(error)}).") from error
    if found is None:
        names = [other for other, one in vars(importlib.import_module(module)).items() if inspect.isclass(one)]
        raise RequestError(f"models: {module} has no '{name}'. Classes: [{listed(names)}].{did_you_mean(name, names)}")
    kinds = (ClassifierMixin, RegressorMixin)
    if not (inspect.isclass(found) and issubclass(found, BaseEstimator) and issubclass(found, kinds)):
        raise RequestError(
            f"models: estimator '{path}' is no estimator: it has to be a class derived from scikit-learn's "
            "BaseEstimator, and from ClassifierMixin or RegressorMixin."
        )
    return found


def does_classes(estimator: type) -> bool:
    """Whether it is a classifier; RequestError when it gives neither probabilities nor a decision function."""
    from sklearn.base import ClassifierMixin

    if not issubclass(estimator, ClassifierMixin):
        return False
    if not (hasattr(estimator, "predict_proba") or hasattr(estimator, "decision_function")):
        raise RequestError(
            f"models: estimator {estimator.__name__} only predicts classes; give it predict_proba or "
            "decision_function, which rows are ranked by."
        )
    return True


def source_digest(path: str) -> str:
    """Of the file that the class's module is in: other code is another model."""
    check_allowed(path)
    spec = importlib.util.find_spec(path.partition(":")[0])
    if spec is None or spec.origin is None:
        own_class(path)
        raise RequestError(f"models: estimator '{path}' is not in a file.")
    with open(spec.origin, "rb") as file:
        return hashlib.blake2b(file.read(), digest_size=16).hexdigest()


@functools.cache
def takes_weights(path: str) -> bool:
    """Whether `fit` takes sample_weight."""
    return "sample_weight" in inspect.signature(own_class(path).fit).parameters  # type: ignore[attr-defined]


def told(error: Exception) -> str:
    """An exception of somebody else's code."""
    return f"{type(error).__name__}: {error}"
