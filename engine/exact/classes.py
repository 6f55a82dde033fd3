"""What a spec says of classes, by their codes: weights and prior probabilities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from treadle.engine.exact.params import ClassWeight
from treadle.errors import DataError, did_you_mean, listed


def check_classes(counts: np.ndarray | Sequence[float], classes: Sequence[Any]) -> None:
    """Raises DataError when the training rows lack a class."""
    lacking = [name for name, count in zip(classes, counts, strict=True) if not count]
    if lacking:
        raise DataError(f"no training row is of class {listed(map(repr, lacking))}; choose another split")


def class_factors(weight: ClassWeight, classes: Sequence[Any], counts: np.ndarray) -> np.ndarray:
    """What the rows of a class count, (classes,); `counts` are their rows, weighted.

    Raises
    ------
    DataError
        A class is named that there is not.
    """
    if weight is None:
        return np.ones(len(classes))
    if weight == "balanced":
        balanced: np.ndarray = counts.sum() / (len(classes) * counts)
        return balanced
    return np.array(weights_by_code(weight, classes, "class_weight"))


def weights_by_code(given: Mapping[str, Any], classes: Sequence[Any], what: str) -> list[Any]:
    """Weights that name classes, in the order of their codes; 1 for a class that is not named. Raises DataError."""
    names = [_name(value) for value in classes]
    for name in given:
        if name not in names:
            raise DataError(
                f"{what} names '{name}', which is no class of the target. Classes: "
                f"[{listed(names)}].{did_you_mean(name, names)}"
            )
    return [given.get(name, 1.0) for name in names]


def class_priors(
    priors: tuple[float, ...] | None, classes: Sequence[Any], counts: np.ndarray
) -> tuple[np.ndarray, list[str]]:
    """Probabilities (classes,) that sum to 1, and what is to be said of them; `counts` decide without priors.

    Priors are in the sorted order of the classes, as scikit-learn has them; codes are in another order when the
    positive class is not the last.

    Raises
    ------
    DataError
        They are not one for each class.
    """
    if priors is None:
        return counts / counts.sum(), []
    if len(priors) != len(classes):
        raise DataError(
            f"priors has {len(priors)} numbers; it has one for each class, in sorted order: "
            f"[{listed(map(_name, sorted(classes)))}]"
        )
    order = sorted(range(len(classes)), key=lambda code: classes[code])
    found = np.empty(len(classes))
    found[order] = priors
    said = [] if abs(sum(priors) - 1) <= 1e-5 else [f"priors sum to {sum(priors):g}, and were divided by that"]
    return found / found.sum(), said


def _name(value: Any) -> str:
    """As a key of a spec has it."""
    return str(value).lower() if isinstance(value, bool) else str(value)
