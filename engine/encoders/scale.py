"""clip, scale and bin: numbers brought into a range, to a common scale, or into bins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from treadle.engine.encoders.base import Fitted, Kind, Operation, Statistic, Titles, all_null, infinite
from treadle.engine.encoders.columns import Training, numbers

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from treadle.engine.encoders.columns import Column


class FittedClip(Fitted):
    op: Literal["clip"] = "clip"
    lower: dict[str, float]
    upper: dict[str, float]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.lower)

    def place(self, name: str, kind: Kind) -> Titles:
        return [(name, "number")]

    def effect(self, name: str, column: Column, training: Training | None) -> Sequence[Column]:
        return [np.clip(numbers(column), self.lower[name], self.upper[name])]


class Clip(Operation):
    """Brings what lies beyond two quantiles of the training rows to these."""

    op: Literal["clip"]
    lower: Annotated[float, Field(ge=0, lt=1)] = 0.01
    upper: Annotated[float, Field(gt=0, le=1)] = 0.99

    @model_validator(mode="after")
    def _in_order(self) -> Clip:
        if self.lower >= self.upper:
            raise PydanticCustomError("clip", "lower: it is a smaller share than upper")
        return self

    def statistic(self) -> Statistic | None:
        return "sketch"

    def fit(self, names: Sequence[str], statistics: Mapping[str, Any]) -> Fitted:
        found = {name: _quantiles("clip", name, statistics[name], [self.lower, self.upper]) for name in names}
        return FittedClip(
            lower={name: float(low) for name, (low, _) in found.items()},
            upper={name: float(high) for name, (_, high) in found.items()},
        )

    def outline(self, names: Sequence[str]) -> Fitted:
        return FittedClip(lower=dict.fromkeys(names, 0.0), upper=dict.fromkeys(names, 0.0))


class FittedScale(Fitted):
    op: Literal["scale"] = "scale"
    centre: dict[str, float]
    width: dict[str, float]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.centre)

    def effect(self, name: str, column: Column, training: Training | None) -> Sequence[Column]:
        return [(numbers(column) - self.centre[name]) / self.width[name]]


class FittedQuantiles(Fitted):
    """scale with method quantile: the rank of a value among the fitted quantiles, between 0 and 1."""

    op: Literal["quantiles"] = "quantiles"
    quantiles: dict[str, tuple[float, ...]]

    @property
    def operation(self) -> str:
        return "scale"

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.quantiles)

    def effect(self, name: str, column: Column, training: Training | None) -> Sequence[Column]:
        found, quantiles = numbers(column), np.array(self.quantiles[name])
        ranks = np.linspace(0.0, 1.0, len(quantiles))
        # Where quantiles are equal, one of the two gives the lowest rank and the other the highest.
        middle = 0.5 * (np.interp(found, quantiles, ranks) - np.interp(-found, -quantiles[::-1], -ranks[::-1]))
        middle = np.where(found <= quantiles[0], 0.0, np.where(found >= quantiles[-1], 1.0, middle))
        return [np.where(np.isnan(found), np.nan, middle)]


class Scale(Operation):
    """Shifts and divides: to mean 0 and (population) deviation 1, to the range 0 to 1, or to median 0 and
    interquartile range 1. Or, with `quantile`, gives ranks from 0 to 1."""

    op: Literal["scale"]
    method: Literal["standard", "minmax", "robust", "quantile"] = "standard"
    quantiles: Annotated[int, Field(ge=2, le=10_000)] = 1000
    """How many are kept with method quantile, at most one a training row."""

    @model_validator(mode="after")
    def _quantiles_go_with_quantile(self) -> Scale:
        if "quantiles" in self.model_fields_set and self.method != "quantile":
            raise PydanticCustomError("quantiles", "quantiles: it goes with method: quantile only")
        return self

    def statistic(self) -> Statistic | None:
        return "moments" if self.method in ("standard", "minmax") else "sketch"

    def fit(self, names: Sequence[str], statistics: Mapping[str, Any]) -> Fitted:
        if self.method == "quantile":
            return FittedQuantiles(quantiles={name: self._ranked(name, statistics[name]) for name in names})
        fitted = {name: self._centre_and_width(name, statistics[name]) for name in names}
        return FittedScale(
            centre={name: centre for name, (centre, _) in fitted.items()},
            # A constant column would divide by zero; it becomes zero everywhere instead.
            width={name: width or 1.0 for name, (_, width) in fitted.items()},
        )

    def outline(self, names: Sequence[str]) -> Fitted:
        return FittedScale(centre=dict.fromkeys(names, 0.0), width=dict.fromkeys(names, 1.0))

    def _ranked(self, name: str, sketch: Any) -> tuple[float, ...]:
        shares = np.linspace(0.0, 1.0, max(min(self.quantiles, sketch.total), 1))
        # Interpolation may round to below what went before.
        return tuple(np.maximum.accumulate(_quantiles("scale", name, sketch, shares)).tolist())

    def _centre_and_width(self, name: str, found: Any) -> tuple[float, float]:
        if self.method == "robust":
            low, middle, high = _quantiles("scale", name, found, [0.25, 0.5, 0.75]).tolist()
            return middle, high - low
        if found.count == 0:
            raise all_null("scale", name)
        if np.isinf(found.minimum) or np.isinf(found.maximum):
            raise infinite("scale", name)
        if self.method == "standard":
            return found.mean, found.std
        return found.minimum, found.maximum - found.minimum


class FittedBin(Fitted):
    op: Literal["bin"] = "bin"
    edges: dict[str, tuple[float, ...]]
    """Between the bins, ascending: a value is in the bin of its number of edges that are not above it."""

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.edges)

    def place(self, name: str, kind: Kind) -> Titles:
        return [(name, "number")]

    def effect(self, name: str, column: Column, training: Training | None) -> Sequence[Column]:
        found = numbers(column)
        codes = np.searchsorted(np.array(self.edges[name]), found, side="right").astype(np.float64)
        return [np.where(np.isnan(found), np.nan, codes)]


class Bin(Operation):
    """The number of the bin, from 0: bins of equal width between minimum and maximum, or between quantiles.

    Edges are those of numpy.linspace or numpy.quantile over the training rows; equal ones count once. A
    bin has its lower edge, the last one both; what lies beyond is in the first or last bin.
    """

    op: Literal["bin"]
    method: Literal["width", "quantile"] = "width"
    bins: Annotated[int, Field(ge=2, le=1000)] = 10

    def statistic(self) -> Statistic | None:
        return "moments" if self.method == "width" else "sketch"

    def fit(self, names: Sequence[str], statistics: Mapping[str, Any]) -> Fitted:
        return FittedBin(edges={name: tuple(self._edges(name, statistics[name])[1:-1].tolist()) for name in names})

    def outline(self, names: Sequence[str]) -> Fitted:
        return FittedBin(edges=dict.fromkeys(names, ()))

    def _edges(self, name: str, found: Any) -> NDArray[np.float64]:
        if self.method == "quantile":
            return np.unique(_quantiles("bin", name, found, np.linspace(0.0, 1.0, self.bins + 1)))
        if found.count == 0:
            raise all_null("bin", name)
        if np.isinf(found.minimum) or np.isinf(found.maximum):
            raise infinite("bin", name)
        return np.unique(np.linspace(found.minimum, found.maximum, self.bins + 1))


def _quantiles(operation: str, name: str, sketch: Any, shares: Sequence[float] | NDArray[Any]) -> NDArray[np.float64]:
    """Quantiles of a column; refused when there are none, or infinite ones."""
    if sketch.total == 0:
        raise all_null(operation, name)
    found: NDArray[np.float64] = sketch.quantiles_float(np.asarray(shares, dtype=np.float64))
    if not np.isfinite(found).all():
        raise infinite(operation, name)
    return found
