"""The section `decision` of a spec: how classes follow from what a model says of a row."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import Field, field_validator
from pydantic_core import PydanticCustomError

from treadle.engine.sections.base import Section
from treadle.errors import did_you_mean, listed, shortened

ThresholdMetric = Literal["accuracy", "f1", "kappa", "mcc"]
"""Those of classes that have a best threshold."""


class Costs(Section):
    """What a wrong prediction of each kind costs, in any unit; right ones cost nothing."""

    false_positive: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    false_negative: Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Decision(Section):
    """How classes follow from what a model says of a row."""

    calibrate: Literal["sigmoid", "isotonic"] | None = None
    """How probabilities are made of out-of-fold margins (sigmoid) or scores (isotonic); not at all when absent."""
    threshold: Annotated[float, Field(gt=0, lt=1)] | ThresholdMetric | Costs | None = None
    """The score above which a row is of the positive class, or what it is chosen by; `THRESHOLD` when absent."""

    @field_validator("threshold", mode="before")
    @classmethod
    def _is_a_share_or_has_a_best(cls, value: Any) -> Any:
        metrics = get_args(ThresholdMetric)
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if value is None or isinstance(value, (dict, Costs)) or (is_number and 0 < value < 1) or value in metrics:
            return value
        reasons = {
            "recall": "is best where every row is predicted as positive",
            "precision": "is best where hardly any row is predicted as positive",
            **dict.fromkeys(("auc", "average_precision"), "looks at the order of scores alone"),
            **dict.fromkeys(("log_loss", "brier"), "looks at probabilities and at no threshold"),
        }
        is_text, is_bool = isinstance(value, str), isinstance(value, bool)
        plain = str(value).lower() if is_number or is_bool else "a list"
        raise PydanticCustomError(
            "threshold",
            "{value} is not allowed{reason}. Allowed: a number above 0 and below 1, [{metrics}], or costs such as "
            "{costs}.{hint}",
            {
                "value": f"'{shortened(value)}'" if is_text else plain,
                "reason": f": it {reasons[value]}" if is_text and value in reasons else "",
                "metrics": listed(metrics),
                "costs": "{false_positive: 1, false_negative: 5}",
                "hint": did_you_mean(value, metrics) if is_text and value not in reasons else "",
            },
        )

    @property
    def needs_folds(self) -> bool:
        """Whether it is made of the scores of rows that a model was not trained on."""
        return self.calibrate is not None or not isinstance(self.threshold, float | None)
