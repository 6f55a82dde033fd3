"""Passes over training rows: a function of each part, its results merged in the order of the parts.

What a part sends is a summary of a size that does not depend on its rows, so that memory is bounded by a
partition however many there are; and summaries merge to the same for every partitioning, up to rounding.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from treadle.engine.backend import HOST, Backend
from treadle.engine.blocks import Block
from treadle.engine.context import FAN_IN
from treadle.engine.training_rows import TrainingRows
from treadle.engine.weights import check_mass
from treadle.errors import DataError
from treadle.kernels.scatter import KINDS, Kind, Scatter, merge_all, scatter, shape_of

SUMMARY_SHARE = 0.25
"""Share of a worker's memory that the summaries which a task merges may take."""


@dataclass(frozen=True)
class Rows:
    """Training rows of one part, which stay where they are among others."""

    matrix: np.ndarray
    """float32 (rows, features), C order, without nulls in the rows that count."""
    target: np.ndarray
    """float64 (rows,): class codes or values."""
    index: np.ndarray
    """int64: the rows that count."""
    weight: np.ndarray | None = None
    """float64 (rows,), not negative in the rows that count; 1 when None."""

    def only(self, index: np.ndarray) -> Rows:
        """Of the rows that count some, without the rows before and after them."""
        low, high = (int(index.min()), int(index.max()) + 1) if len(index) else (0, 0)
        weight = None if self.weight is None else self.weight[low:high]
        return Rows(self.matrix[low:high], self.target[low:high], index - low, weight)


class Passes(ABC):
    """Where training rows are gone over."""

    def __init__(self, found: dict[str, Any], kinds: Sequence[Kind], room: int) -> None:
        self.found = found
        """Scatter that was gathered, by what it is of: it serves several models."""
        self.kinds = kinds
        """What all models of the job want, so that one pass can serve them."""
        self.room = room
        """Bytes that a summary may take."""

    @abstractmethod
    def over(
        self, function: Callable[..., Any], merge: Callable[[list[Any]], Any], *args: Any, host: str | None = None
    ) -> Any:
        """The merged results of function(rows, *args) of every part; both are functions at the top of a module.

        They are computed where the backend computes, unless it is said why on the `host`.
        """

    def classes(self, classes: int, kind: Kind) -> Scatter:
        """Moments of the features by class, of at least that kind.

        Raises
        ------
        DataError
            There is not the memory for it, a feature has infinite values, or all rows have the weight 0.
        """
        wanted = max((kind, *self.kinds), key=KINDS.index)
        wanted = wanted if self._fits(wanted, classes) else kind
        for known in KINDS[KINDS.index(kind) :]:
            if f"classes {known}" in self.found:
                return self.found[f"classes {known}"]
        self.check(shape_of(wanted, classes, self.features))
        gathered: Scatter = self.over(classes_of, merge_all, classes, wanted)
        self.found[f"classes {wanted}"] = _finite(gathered)
        return self.found[f"classes {wanted}"]

    def with_target(self) -> Scatter:
        """Moments of the features and, as one more of them, the target. Raises as `classes`."""
        if "target" not in self.found:
            self.check((1, self.features + 1, self.features + 1))
            self.found["target"] = _finite(self.over(with_target_of, merge_all))
        return self.found["target"]

    @property
    @abstractmethod
    def features(self) -> int: ...

    def _fits(self, kind: Kind, classes: int) -> bool:
        return 8 * int(np.prod(shape_of(kind, classes, self.features), dtype=np.int64)) <= self.room

    def check(self, shape: tuple[int, ...]) -> None:
        """Refuses a summary, float64 of that shape, that a worker has no room for."""
        size = 8 * int(np.prod(shape, dtype=np.int64))
        if size > self.room:
            raise DataError(
                f"what is gathered of {self.features} features ({' x '.join(map(str, shape))} numbers) takes "
                f"{size / 2**20:,.0f} MiB a task, and a worker has room for {self.room / 2**20:,.0f} MiB; "
                "use fewer features, or give each worker more memory (fewer cluster.workers, or cluster.memory)"
            )


class OverRows(Passes):
    """In this process, one part after the other."""

    def __init__(
        self,
        parts: Sequence[Rows],
        kinds: Sequence[Kind] = (),
        room: int = 2**32,
        found: dict[str, Any] | None = None,
        backend: Backend = HOST,
    ) -> None:
        super().__init__({} if found is None else found, kinds, room)
        self.parts = parts
        self.backend = backend

    @property
    def features(self) -> int:
        return self.parts[0].matrix.shape[1]

    def over(
        self, function: Callable[..., Any], merge: Callable[[list[Any]], Any], *args: Any, host: str | None = None
    ) -> Any:
        return merge([_computed(rows, self.backend, host, function, merge, args) for rows in self.parts])


class OverBlocks(Passes):
    """On the workers that hold the blocks; what was gathered is kept for the other models of the run."""

    def __init__(self, training: TrainingRows, kinds: Sequence[Kind]) -> None:
        self.context = training.context
        room = int(self.context.room.memory * SUMMARY_SHARE / (FAN_IN + 1))
        super().__init__(training.found, kinds, room)
        self.blocks = training.blocks()
        self.names = training.names

    @property
    def features(self) -> int:
        return len(self.names)

    def over(
        self, function: Callable[..., Any], merge: Callable[[list[Any]], Any], *args: Any, host: str | None = None
    ) -> Any:
        how = self.context.backend, host, function, merge, args
        return self.context.reduce(self.context.submit_like(on_block, self.blocks, *how), merge)


def on_block(
    block: Block,
    backend: Backend,
    host: str | None,
    function: Callable[..., Any],
    merge: Callable[[list[Any]], Any],
    args: tuple[Any, ...],
) -> Any:
    """On a worker: a function of the training rows of a block."""
    rows = Rows(block.matrix, block.target, np.flatnonzero(~block.test), block.weight)
    return _computed(rows, backend, host, function, merge, args)


def _computed(
    rows: Rows,
    backend: Backend,
    host: str | None,
    function: Callable[..., Any],
    merge: Callable[[list[Any]], Any],
    args: tuple[Any, ...],
) -> Any:
    if host is None:
        return backend.sums(function, merge, rows, *args)
    backend.fell_back("sums over rows", host)
    return function(rows, *args)


def classes_of(rows: Rows, classes: int, kind: Kind) -> Scatter:
    """On a worker."""
    return scatter(rows.matrix, rows.target, classes, kind, rows.index, rows.weight)


def with_target_of(rows: Rows) -> Scatter:
    """On a worker."""
    return scatter(rows.matrix, rows.target, 1, "each", rows.index, rows.weight, rows.target[:, None])


def _finite(found: Scatter) -> Scatter:
    check_mass(found.weight.sum())
    check_finite(found.mean)
    return found


def check_finite(means: np.ndarray) -> None:
    """Raises DataError for features (the last axis) that have infinite values, for which means are not finite."""
    wrong = np.flatnonzero(~np.isfinite(np.atleast_2d(means)).all(axis=0))
    if len(wrong):
        raise DataError(
            f"{len(wrong)} features have infinite values (the first is number {wrong[0] + 1} of the table `features`); "
            "clip them, or derive finite ones in tables"
        )
