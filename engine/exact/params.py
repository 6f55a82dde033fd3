"""Parameters of the exactly trained models: scikit-learn's names, and what is said to those that mean nothing here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from treadle.engine.job import Model as ModelConfig
from treadle.errors import RequestError

Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
AtLeastZero = Annotated[Number, Field(ge=0)]
Positive = Annotated[Number, Field(gt=0)]
Share = Annotated[Number, Field(ge=0, le=1)]
Flag = Annotated[bool, Field(strict=True)]
Priors = tuple[Positive, ...] | None
"""Probabilities of the classes, in their sorted order."""
ClassWeight = dict[str, Positive] | Literal["balanced"] | None
"""By class; a class that is not named has 1. Balanced: rows / (classes * rows of the class)."""

CLOSED = "it is solved in closed form from sums over all rows"
TRANSFORM = "it is for reducing dimensions, which is not done here"


class Params(BaseModel):
    """A model's parameters as it is trained here, with scikit-learn's defaults."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    none_of_ours: ClassVar[Mapping[str, str]] = {}
    """Parameters of scikit-learn's that it does not have -> why."""


class LinearRegression(Params):
    fit_intercept: Flag = True
    tol: AtLeastZero = 1e-6
    """Share of the largest singular value below which a direction of the features is left out."""
    none_of_ours = {"copy_X": "rows are never changed"}


class Ridge(Params):
    alpha: AtLeastZero = 1.0
    fit_intercept: Flag = True
    class_weight: ClassWeight = None
    none_of_ours = {"solver": CLOSED, "tol": CLOSED, "max_iter": CLOSED, "copy_X": "rows are never changed"}


class LogisticRegression(Params):
    penalty: Literal["l2"] | None = "l2"
    C: Annotated[float, Field(strict=True, gt=0)] | None = 1.0
    """The inverse of the penalty's strength; infinite for none, which JSON has no number for: None."""
    l1_ratio: Literal[0] | None = 0
    fit_intercept: Flag = True
    class_weight: ClassWeight = None
    tol: AtLeastZero = 1e-10
    """Stops when a Newton step is expected to lower the mean loss by less; that step is still made."""
    max_iter: Annotated[int, Field(strict=True, ge=1)] = 100
    """Newton steps."""
    none_of_ours = {
        "solver": "with an L2 penalty, or none, it is trained by Newton steps over all workers",
        "dual": "it is trained in the primal form",
        "intercept_scaling": "the intercept is not penalised",
    }


class Discriminant(Params):
    solver: Literal["svd", "lsqr", "eigen"] = "svd"
    shrinkage: Share | None = None
    priors: Priors = None
    tol: AtLeastZero = 1e-4
    none_of_ours = {
        "n_components": TRANSFORM,
        "store_covariance": "nothing reads it",
        "covariance_estimator": "it is an object of Python",
    }


class Quadratic(Params):
    solver: Literal["svd", "eigen"] = "svd"
    shrinkage: Share | None = None
    priors: Priors = None
    reg_param: Share = 0.0
    tol: AtLeastZero = 1e-4
    none_of_ours = {"store_covariance": "nothing reads it", "covariance_estimator": "it is an object of Python"}


class NaiveBayes(Params):
    priors: Priors = None
    var_smoothing: AtLeastZero = 1e-9


EXACT: Mapping[str, type[Params]] = {
    "logistic_regression": LogisticRegression,
    "linear_regression": LinearRegression,
    "ridge": Ridge,
    "lda": Discriminant,
    "qda": Quadratic,
    "naive_bayes": NaiveBayes,
}


def trains_exactly(config: ModelConfig) -> bool:
    """Whether a model is trained on all rows where they lie; an L1 penalty or positive coefficients are not."""
    params = config.params
    l1 = params.get("penalty") in ("l1", "elasticnet") or params.get("l1_ratio") not in (None, 0)
    return config.name in EXACT and not l1 and params.get("positive") is not True


def params_of(config: ModelConfig) -> Any:
    """The parameters of an exactly trained model, an object of its class in `EXACT`.

    Raises
    ------
    RequestError
        One is not what it may be, or is scikit-learn's and means nothing here.
    """
    kind = EXACT[config.name]
    params = {name: value for name, value in config.params.items() if name != "positive"}
    for name, reason in kind.none_of_ours.items():
        if name in params:
            raise RequestError(f"models: parameter '{name}' of {config.name} has no meaning: {reason}. Leave it out.")
    if params.get("shrinkage") == "auto":
        raise RequestError(
            f"models: shrinkage of {config.name} is 'auto', which needs more than one pass over the rows gathers; "
            "use a number from 0 to 1."
        )
    try:
        found = kind.model_validate(params)
    except ValidationError as error:
        where = str(error.errors()[0]["loc"][0])
        # One for each kind of value that it may be.
        said = [one["msg"].removeprefix("Input ") for one in error.errors() if one["loc"][0] == where]
        raise RequestError(
            f"models: {where} of {config.name} is {params.get(where)!r}; it {', or '.join(dict.fromkeys(said))}."
        ) from error
    if getattr(found, "shrinkage", None) is not None and found.solver == "svd":  # type: ignore[attr-defined]
        allowed = "lsqr or eigen" if config.name == "lda" else "eigen"
        raise RequestError(f"models: shrinkage of {config.name} is for the solver {allowed}, and it has svd.")
    return found
