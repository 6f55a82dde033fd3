"""What every feature operation is: configuration that is fitted, and its fitted form."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict

from treadle.engine.encoders.columns import Training
from treadle.errors import DataError, RequestError, column_not_found, listed

if TYPE_CHECKING:
    from treadle.engine.encoders.columns import Column, Columns

Kind = Literal["number", "indicator", "text", "timestamp"]
Statistic = Literal["moments", "sketch", "levels", "targets"]
Level = str | int | float | bool
Selector = Literal["numeric", "categorical", "all"]
Titles = list[tuple[str, Kind]]
MAX_LEVELS = 1000
"""One column a level costs memory in every later stage; past this many, ordinal is the answer."""


class Fitted(BaseModel):
    """A fitted operation: a pure function of one partition's columns."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @property
    def operation(self) -> str:
        """As a spec calls it."""
        return str(getattr(self, "op", ""))

    @property
    def names(self) -> tuple[str, ...]:
        """The columns that it works on."""
        raise TypeError(f"{type(self).__name__} works on no columns")

    def place(self, name: str, kind: Kind) -> Titles:
        """What stands in the place of one of its columns, with the kinds of it."""
        return [(name, kind)]

    def added(self, name: str) -> Titles:
        """What it makes of one of its columns beside that, after all others."""
        return []

    def effect(self, name: str, column: Column, training: Training | None) -> Sequence[Column]:
        """What it makes of one of its columns: as many as `place` and `added` name, in their order."""
        raise TypeError(f"{type(self).__name__} has no effect of its own")

    def kinds(self, kinds: Mapping[str, Kind]) -> dict[str, Kind]:
        """The columns after it, with their kinds, in order."""
        own, out, last = set(self.names), [], []
        for name, kind in kinds.items():
            out += self.place(name, kind) if name in own else [(name, kind)]
            last += self.added(name) if name in own else []
        return distinct(self.operation, [*out, *last])

    def needs(self, wanted: set[str]) -> set[str]:
        """The columns from which the wanted ones can be made."""
        made: set[str] = set()
        touched: set[str] = set()
        for name in self.names:
            titles = {title for title, _ in [*self.place(name, "number"), *self.added(name)]}
            made |= titles
            if titles & wanted:
                touched.add(name)
        return (wanted - made) | touched

    def apply(self, columns: Columns, training: Training | None = None) -> Columns:
        """The columns after it; without training rows no row is one that it was fitted on."""
        return self.placed(columns, lambda name, column: self.effect(name, column, training))

    def placed(self, columns: Columns, effect: Callable[[str, Column], Sequence[Any]]) -> Any:
        """The columns after it, with what an effect makes of each of its own."""
        own: set[str] = set(self.names)
        out: Columns = {}
        last: Columns = {}
        for name, column in columns.items():
            if name not in own:
                out[name] = column
                continue
            titles = [title for title, _ in self.place(name, "number")]
            made = effect(name, column)
            out.update(zip(titles, made, strict=False))
            last.update(zip([title for title, _ in self.added(name)], made[len(titles) :], strict=True))
        return {**out, **last}


class Operation(BaseModel):
    """An operation to fit; `columns` are names, or a selector that is resolved where it stands."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    columns: Selector | tuple[str, ...]

    def statistic(self) -> Statistic | None:
        """What has to be gathered of each of its columns; None when nothing has to be."""
        return None

    def accepted(self) -> frozenset[Kind]:
        return frozenset({"number", "indicator"})

    def fit(self, names: Sequence[str], statistics: Mapping[str, Any]) -> Fitted:
        """The fitted operation, from one statistic for each of the columns `names`."""
        raise TypeError(f"{type(self).__name__} cannot be fitted")

    def outline(self, names: Sequence[str]) -> Fitted:
        """The fitted operation as far as it is known without data; a level is called '?'."""
        return self.fit(names, {})

    def resolve(self, kinds: Mapping[str, Kind], where: str) -> tuple[str, ...]:
        """The columns it works on, checked to exist and to be of a kind that it accepts."""
        if isinstance(self.columns, str):
            wanted = {"numeric": {"number"}, "categorical": {"text"}, "all": self.accepted()}[self.columns]
            return tuple(name for name, kind in kinds.items() if kind in wanted & self.accepted())
        for name in self.columns:
            if name not in kinds:
                raise column_not_found(name, f"the input of {where}", kinds)
            if kinds[name] not in self.accepted():
                raise RequestError(
                    f"{where}: column '{name}' is a {kinds[name]}; it works on {listed(sorted(self.accepted()))}."
                )
        return self.columns


def distinct(operation: str, kinds: Titles) -> dict[str, Kind]:
    """The columns after an operation, unless one that it makes would take the place of another."""
    out = dict(kinds)
    if len(out) < len(kinds):
        names = [name for name, _ in kinds]
        twice = next(name for name in names if names.count(name) > 1)
        raise RequestError(f"{operation}: there would be two features called '{twice}'; rename a column in tables.")
    return out


def all_null(operation: str, column: str) -> DataError:
    return DataError(
        f"{operation}: column '{column}' is null in every training row, so there is nothing to learn from; drop it."
    )


def infinite(operation: str, column: str) -> DataError:
    return DataError(
        f"{operation}: column '{column}' holds infinite values in the training rows; filter or cap them in tables, "
        "or make them null."
    )
