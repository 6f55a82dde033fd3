"""Training rows dealt out to the workers: one shard a worker, the same rows in the same order every time.

Distributed training depends on which rows a worker has (its histograms and quantiles). Shards are
cut by row number, so a model depends on the number of workers, and neither on the partitions nor on
where the scheduler happened to place them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from treadle.engine.blocks import Block
from treadle.engine.context import Context

if TYPE_CHECKING:
    from distributed import Future

Part = tuple[np.ndarray, np.ndarray]
"""A float32 matrix (rows, features), and the targets of its rows (float64)."""


def training_part(block: Block) -> Part:
    """On a worker: matrix and target of the training rows."""
    rows = block.take(~block.test)
    return rows.matrix, rows.target


def rows_of(part: Part) -> int:
    """On a worker."""
    return len(part[1])


def assemble(parts: Sequence[Part], bounds: Sequence[tuple[int, int]]) -> Part:
    """On a worker: rows low..high of every part, one after the other."""
    matrices = [matrix[low:high] for (matrix, _), (low, high) in zip(parts, bounds, strict=True)]
    targets = [target[low:high] for (_, target), (low, high) in zip(parts, bounds, strict=True)]
    if len(matrices) == 1:
        return matrices[0], targets[0]
    return np.concatenate(matrices), np.concatenate(targets)


def shards_of(context: Context, blocks: Sequence[Future], workers: Sequence[str]) -> list[tuple[Future, int]]:
    """One shard a worker (fewer when there are fewer rows), with its rows."""
    parts = context.submit_like(training_part, blocks)
    sizes = context.gather(context.submit_like(rows_of, parts))
    total = sum(sizes)
    shards = []
    for i, worker in enumerate(workers):
        low, high = total * i // len(workers), total * (i + 1) // len(workers)
        taken, bounds, start = [], [], 0
        for part, size in zip(parts, sizes, strict=True):
            first, last = max(low - start, 0), min(high - start, size)
            if first < last:
                taken.append(part)
                bounds.append((first, last))
            start += size
        if taken:
            shard = context.client.submit(
                assemble, taken, bounds, pure=False, workers=[worker], allow_other_workers=True
            )
            shards.append((shard, high - low))
    return shards
