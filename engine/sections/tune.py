"""The section `tune` of a spec: which models are tuned, for how long, and where good parameters are looked for.

Nothing here imports pandas or Optuna, so that a spec is checked quickly.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any

from pydantic import Field, JsonValue, field_validator, model_validator
from pydantic_core import PydanticCustomError

from treadle.engine.sections.base import Section, Span
from treadle.errors import did_you_mean, listed

Whole = Annotated[int, Field(strict=True)]
Real = Annotated[float, Field(strict=True, allow_inf_nan=False)]
TUNED = 3
"""Models that are tuned when the spec does not say which."""


class Dimension(Section):
    """The values of one parameter that are tried: from `low` to `high`, both included, or some `choices`.

    Bounds that are whole numbers are of a whole number.
    """

    low: Whole | Real | None = None
    high: Whole | Real | None = None
    log: Annotated[bool, Field(strict=True)] | None = None
    """Whether the logarithm is spread evenly; when absent, as the catalogue has it."""
    choices: tuple[JsonValue, ...] | None = None

    @model_validator(mode="after")
    def _is_a_range_or_choices(self) -> Dimension:
        if self.choices is not None:
            if self.model_fields_set & {"low", "high", "log"}:
                raise PydanticCustomError("dimension", "choices have no low, high or log; leave out one or the other")
            if not self.choices:
                raise PydanticCustomError("dimension", "choices: there are none; name one at least")
            return self
        if self.low is None or self.high is None:
            raise PydanticCustomError(
                "dimension", "low and high are needed, as in [3, 10] or {low: 0.01, high: 0.3, log: true}, or choices"
            )
        if not self.low < self.high:
            raise PydanticCustomError(
                "dimension",
                "low is {low} and high is {high}; low must be less. For one value alone: {choices: [{low}]}",
                {"low": str(self.low), "high": str(self.high)},
            )
        if self.log and self.low <= 0:
            raise PydanticCustomError(
                "dimension", "log: true needs a low above 0, and it is {low}", {"low": str(self.low)}
            )
        return self

    @property
    def whole(self) -> bool:
        """Whether the values of the range are whole numbers."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    @property
    def ends(self) -> tuple[Any, ...]:
        """The values that a model is asked about before it is tuned: both bounds, or all choices."""
        return (self.low, self.high) if self.choices is None else self.choices


class Tune(Section):
    """Better parameters of some models, found by trials on the folds."""

    models: tuple[str, ...] | Annotated[int, Field(ge=1)] = TUNED
    """Titles of models of the spec; or a number: so many of the best by `compare`."""
    trials: Annotated[int, Field(ge=1, le=10_000)] = 30
    """Of each model, beside the one with the params of the spec."""
    budget: Span | None = None
    """Wall clock, e.g. 90s or 10min, after which no round of trials begins; without end when absent."""
    space: dict[str, dict[str, Dimension]] = Field(default_factory=dict)
    """By title or catalogue name and parameter: in place of the catalogue's, or beside it."""

    @field_validator("models", mode="before")
    @classmethod
    def _are_titles_or_a_number(cls, value: Any) -> Any:
        is_number = isinstance(value, int) and not isinstance(value, bool)
        is_list = isinstance(value, (list, tuple)) and all(isinstance(title, str) for title in value)
        if not (is_number and value >= 1) and not (is_list and value):
            raise PydanticCustomError(
                "tune_models",
                "it is a list of models, as in [xgboost, ridge], or a number: so many of the best by compare",
            )
        return value

    @field_validator("space", mode="before")
    @classmethod
    def _ranges_may_be_lists(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        return {
            model: {name: _range(one) for name, one in params.items()} if isinstance(params, Mapping) else params
            for model, params in value.items()
        }


def _range(value: Any) -> Any:
    """`[3, 10]` is short for `{low: 3, high: 10}`."""
    if not isinstance(value, (list, tuple)):
        return value
    if len(value) != 2 or not all(isinstance(end, (int, float)) and not isinstance(end, bool) for end in value):
        raise PydanticCustomError(
            "dimension", "a list is [low, high], two numbers; values to choose from are {choices: [...]}"
        )
    return {"low": value[0], "high": value[1]}


def tuned_title(title: str) -> str:
    """What the leaderboard calls a model with the parameters that were found for it; at most 80 characters."""
    return f"{title[:74]}-tuned"


def check_titles(tune: Tune, models: Mapping[str, str]) -> None:
    """Refuses models that a spec does not have; `models` are its titles with their catalogue names.

    Raises
    ------
    PydanticCustomError
        Of the first title that is wrong.
    """
    if not models:
        raise PydanticCustomError("tune", "tune: there are no models to tune; name some in models")
    tuned = list(models) if isinstance(tune.models, int) else list(dict.fromkeys(tune.models))
    for title in tuned:
        if title not in models:
            raise _not_among("tune.models", title, models)
    for title in tune.space:
        if title not in tuned and title not in {models[one] for one in tuned}:
            raise _not_among("tune.space", title, tuned)
    taken = set(models)
    for title in tuned:
        if (new := tuned_title(title)) in taken:
            raise PydanticCustomError(
                "tune",
                "models: '{name}' is what the tuned '{title}' is called; give one of the two another label",
                {"name": new, "title": title},
            )
        taken.add(new)


def _not_among(where: str, title: str, titles: Iterable[str]) -> PydanticCustomError:
    known = list(titles)
    return PydanticCustomError(
        "tune",
        "{where}: '{title}' is none of the models [{titles}].{hint}",
        {"where": where, "title": title, "titles": listed(known, 30), "hint": did_you_mean(title, known)},
    )
