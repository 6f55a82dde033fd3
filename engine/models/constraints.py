"""Monotone constraints: named by feature in a spec, by place in every library."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from treadle.engine.job import Model as ModelConfig
from treadle.errors import DataError, RequestError, did_you_mean, listed

MONOTONE = "monotone_constraints"
DIRECTIONS = (-1, 0, 1)


def check_constraints(config: ModelConfig) -> None:
    """Raises RequestError unless the constraints, if any, are a mapping of names to -1, 0 or 1."""
    given = config.params.get(MONOTONE, {})
    if not isinstance(given, Mapping):
        raise RequestError(
            f"models: {MONOTONE} of {config.name} is {given!r}; it is a mapping from features to 1 (the prediction "
            "rises with it), -1 (falls) or 0, e.g. {age: 1}."
        )
    for name, direction in given.items():
        if type(direction) is not int or direction not in DIRECTIONS:
            raise RequestError(
                f"models: {MONOTONE} of {config.name} is {direction!r} for '{name}'; it is 1 (the prediction rises "
                "with the feature), -1 (falls) or 0."
            )


def by_place(config: ModelConfig, features: Sequence[str]) -> ModelConfig:
    """The model with its constraints as its library has them, for features in the order of the matrix.

    Raises
    ------
    DataError
        A feature is named that there is not.
    """
    given = config.params.get(MONOTONE)
    if not isinstance(given, Mapping):
        return config
    for name in given:
        if name not in features:
            raise DataError(
                f"{MONOTONE} of {config.title}: there is no feature '{name}'. Features: [{listed(features)}]."
                f"{did_you_mean(name, features)}"
            )
    directions = [given.get(name, 0) for name in features]
    params = {name: value for name, value in config.params.items() if name != MONOTONE}
    if config.name == "xgboost":
        params[MONOTONE] = f"({','.join(map(str, directions))})"
    else:
        params[MONOTONE if config.name in ("lightgbm", "catboost") else "monotonic_cst"] = directions
    return config.model_copy(update={"params": params})
