"""Training rows dealt out to the workers: one shard a worker, the same rows in the same order every time.

Distributed training depends on which rows a worker has (its histograms and quantiles). Shards are
cut by row number, so a model depends on the number of workers, and neither on the partitions nor on
where the scheduler happened to place them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from treadle.engine.blocks import Block, Part
from treadle.engine.context import Context
from treadle.engine.relational.keys import hash_keys
from treadle.kernels.hashing import uniform

if TYPE_CHECKING:
    import xgboost
    from distributed import Future

Cut = tuple[int, int, int]
"""Of a part (its number) the rows from the first number up to the second."""
HELD_BACK = 2
"""Added to the seed, so that rows are not held back by the hash that the split draws by."""


@dataclass
class Shard:
    """A worker's rows, with what XGBoost has made of them so far, which stays where it is."""

    train: Part
    held: Part
    """Rows that are held back, to stop by their loss; none where nothing is."""
    made: dict[str, xgboost.DMatrix] = field(default_factory=dict)
    """What XGBoost trains on, and the rows that are held back."""
    live: tuple[int, xgboost.Booster] | None = None
    """A booster as it was after so many rounds."""

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "made": {}, "live": None}

    def __sizeof__(self) -> int:
        """Bytes, for Dask: without XGBoost's own memory, which no spilling would free."""
        return sum(array.nbytes for array in (*self.train, *self.held))


def parts_of(block: Block, share: float, seed: int) -> tuple[Part, Part]:
    """On a worker: the training rows, and those among them that are held back, by a hash of the id."""
    import pandas as pd

    rows = block.take(~block.test)
    held = np.zeros(rows.rows, dtype=bool)
    if share > 0.0:
        held = uniform(hash_keys(pd.Series(rows.ids.to_pandas()), seed + HELD_BACK)) < share
    kept, back = rows.take(~held), rows.take(held)
    return kept.part, back.part


def sizes_of(parts: tuple[Part, Part]) -> tuple[int, int]:
    """On a worker: rows to train on, and rows that are held back."""
    return len(parts[0][1]), len(parts[1][1])


def mass_of(parts: tuple[Part, Part]) -> tuple[float, float]:
    """On a worker: what the rows to train on count together, and those that are held back, where they have weights."""
    return float(parts[0][2].sum()), float(parts[1][2].sum())


def assemble(parts: Sequence[tuple[Part, Part]], train: Sequence[Cut], held: Sequence[Cut]) -> Shard:
    """On a worker: the rows that the cuts name, one after the other."""
    return Shard(_joined([part[0] for part in parts], train), _joined([part[1] for part in parts], held))


def _joined(parts: Sequence[Part], cuts: Sequence[Cut]) -> Part:
    if len(cuts) == 1:
        ((number, low, high),) = cuts
        return tuple(array[low:high] for array in parts[number])
    # An empty one first, which there always is, so that no cuts are no rows.
    taken = [tuple(array[low:high] for array in parts[number]) for number, low, high in ((0, 0, 0), *cuts)]
    return tuple(np.concatenate(arrays) for arrays in zip(*taken, strict=True))


def cuts_of(sizes: Sequence[int], share: int, shares: int) -> list[Cut]:
    """The cuts that make one of several equal shares of all rows of parts of such sizes."""
    total = sum(sizes)
    low, high = total * share // shares, total * (share + 1) // shares
    cuts, start = [], 0
    for number, size in enumerate(sizes):
        first, last = max(low - start, 0), min(high - start, size)
        if first < last:
            cuts.append((number, first, last))
        start += size
    return cuts


class Shards:
    """The shards of one training, made again only where they are lost.

    Parameters
    ----------
    blocks : gives the blocks of the run.
    share, seed : which training rows are held back.
    """

    def __init__(self, context: Context, blocks: Callable[[], Sequence[Future]], share: float, seed: int) -> None:
        self._context = context
        self._blocks = blocks
        self._held_back = share, seed
        self._made: list[tuple[str, Future]] = []
        """By shard: the worker that it was made for, and the shard."""
        self._workers = 0
        self._sizes: list[tuple[int, int]] = []
        self._parts: list[Future] = []
        """Only until shards are made of them."""

    @property
    def rows(self) -> tuple[int, int]:
        """Rows to train on, and rows that are held back."""
        if not self._sizes:
            self._sizes = self._context.gather(self._context.submit_like(sizes_of, self._submitted_parts()))
        return sum(train for train, _ in self._sizes), sum(held for _, held in self._sizes)

    @property
    def mass(self) -> tuple[float, float]:
        """What the rows of `rows` count, of blocks with weights."""
        masses = self._context.gather(self._context.submit_like(mass_of, self._submitted_parts()))
        return sum(train for train, _ in masses), sum(held for _, held in masses)

    def on(self, workers: Sequence[str]) -> list[Future]:
        """One shard a worker, fewer when there are fewer rows."""
        count = min(len(workers), self.rows[0])
        if self._workers != len(workers):
            self._made = []
        missing = [
            i
            for i, worker in enumerate(workers[:count])
            if i >= len(self._made)
            or self._made[i][0] != worker
            or self._made[i][1].status not in ("pending", "finished")
        ]
        if missing:
            parts = self._submitted_parts()
            kept = [None if i in missing else made for i, made in enumerate(self._made)]
            kept += [None] * (count - len(kept))
            self._made = [
                made or (worker, self._submit(parts, i, count, worker))
                for i, (made, worker) in enumerate(zip(kept, workers, strict=False))
            ]
            self._parts = []
        self._workers = len(workers)
        return [shard for _, shard in self._made]

    def _submitted_parts(self) -> list[Future]:
        if not self._parts:
            self._parts = self._context.submit_like(parts_of, self._blocks(), *self._held_back)
        return self._parts

    def _submit(self, parts: Sequence[Future], share: int, shares: int, worker: str) -> Future:
        train = cuts_of([size for size, _ in self._sizes], share, shares)
        held = cuts_of([size for _, size in self._sizes], share, shares)
        taken = sorted({number for number, _, _ in (*train, *held)})
        places = {number: place for place, number in enumerate(taken)}
        return self._context.client.submit(
            assemble,
            [parts[number] for number in taken],
            [(places[number], low, high) for number, low, high in train],
            [(places[number], low, high) for number, low, high in held],
            pure=False,
            workers=[worker],
            allow_other_workers=True,
        )
