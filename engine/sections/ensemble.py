"""The section `ensemble` of a spec: how models that were compared are made into one more."""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated, Literal

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from treadle.engine.sections.base import Section
from treadle.errors import did_you_mean, listed

ENSEMBLE = "ensemble"
"""How the leaderboard calls it."""
STEPS = 25
Kind = Literal["greedy", "blend", "stack"]


class Ensemble(Section):
    """One model made of others, by what they predicted for the rows of folds that they were not trained on."""

    kind: Kind = "greedy"
    """greedy: an average of models selected by the metric; blend: by weights with the least loss; stack: a model."""
    size: Annotated[int, Field(strict=True, ge=1, le=1000)] | None = None
    """Steps of the greedy selection, `STEPS` when absent."""
    models: Annotated[tuple[str, ...], Field(min_length=2)] | None = None
    """Titles of those that it is made of; all that were compared when absent."""

    @model_validator(mode="after")
    def _keys_agree(self) -> Ensemble:
        if self.size is not None and self.kind != "greedy":
            raise PydanticCustomError(
                "ensemble",
                "size is how many steps kind: greedy takes, and the kind is {kind}; leave size out",
                {"kind": self.kind},
            )
        twice = [name for name in self.models or () if (self.models or ()).count(name) > 1]
        if twice:
            raise PydanticCustomError("ensemble", "models: '{name}' is there twice", {"name": twice[0]})
        return self

    @property
    def steps(self) -> int:
        return self.size or STEPS


def check_ensemble(ensemble: Ensemble | None, titles: Collection[str], preset: bool) -> None:
    """Refuses, as a mistake of the spec, an ensemble that cannot be made of the models with these titles."""
    if ensemble is None:
        return
    if not titles:
        raise PydanticCustomError("ensemble", "ensemble: there are no models to make it of; name some in models")
    if ENSEMBLE in titles:
        raise PydanticCustomError(
            "ensemble",
            "models: the label '{name}' is that of the ensemble's own row; choose another",
            {"name": ENSEMBLE},
        )
    if not preset and len(titles) < 2:
        raise PydanticCustomError(
            "ensemble",
            "ensemble: it is made of two models or more, and models names {name} alone",
            {"name": next(iter(titles))},
        )
    for name in ensemble.models or ():
        if name not in titles:
            raise PydanticCustomError(
                "ensemble",
                "ensemble.models: '{name}' is none of the models that are compared: [{allowed}].{hint}",
                {"name": name, "allowed": listed(titles, 30), "hint": did_you_mean(name, list(titles))},
            )
