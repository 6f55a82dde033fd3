"""interactions: products of numeric features."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from treadle.engine.encoders.base import MAX_LEVELS, Fitted, Kind, Operation, distinct
from treadle.engine.encoders.columns import Training, numbers
from treadle.errors import RequestError

if TYPE_CHECKING:
    from treadle.engine.encoders.columns import Columns


class FittedInteractions(Fitted):
    op: Literal["interactions"] = "interactions"
    products: tuple[tuple[str, ...], ...]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for factors in self.products for name in factors))

    def kinds(self, kinds: Mapping[str, Kind]) -> dict[str, Kind]:
        return distinct("interactions", [*kinds.items(), *((_title(factors), "number") for factors in self.products)])

    def needs(self, wanted: set[str]) -> set[str]:
        products = [factors for factors in self.products if _title(factors) in wanted]
        return (wanted - {_title(factors) for factors in products}).union(*products)

    def apply(self, columns: Columns, training: Training | None = None) -> Columns:
        found = {name: numbers(columns[name]) for name in self.names if name in columns}
        products = [factors for factors in self.products if found.keys() >= set(factors)]
        return {**columns, **{_title(f): functools.reduce(np.multiply, (found[name] for name in f)) for f in products}}


class Interactions(Operation):
    """Adds the products of its columns, `a*b`: of every two, or with a higher degree also of more, all different."""

    op: Literal["interactions"]
    degree: Literal[2, 3, 4] = 2

    def fit(self, names: Sequence[str], statistics: Mapping[str, Any]) -> Fitted:
        names = tuple(dict.fromkeys(names))
        number = sum(math.comb(len(names), degree) for degree in range(2, self.degree + 1))
        if number > MAX_LEVELS:
            raise RequestError(
                f"interactions: {len(names)} columns have {number} products of up to {self.degree}, more than "
                f"{MAX_LEVELS}; name fewer columns."
            )
        degrees = range(2, self.degree + 1)
        return FittedInteractions(products=tuple(p for d in degrees for p in itertools.combinations(names, d)))


def _title(factors: Sequence[str]) -> str:
    return "*".join(factors)
