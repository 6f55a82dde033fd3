"""On a worker: the rows of one fold and of the others, with features that are fitted on the others only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from treadle.engine.artifacts import SplitRule
from treadle.engine.blocks import Block, Part
from treadle.engine.encoders import Kind
from treadle.engine.job import Job
from treadle.engine.recipe import Recipe, fit, make_block
from treadle.engine.relational.keys import hash_keys
from treadle.engine.rows import SAMPLE_SEED, HereRows
from treadle.engine.store import Store

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False)
class FoldData:
    """What trials of a fold share; the threads of a worker look at the same arrays."""

    names: tuple[str, ...]
    """Features, in the order of the matrices."""
    matrix: np.ndarray
    """float32 (rows, features), C order: those to train on."""
    target: np.ndarray
    """float64 (rows,)."""
    test_matrix: np.ndarray
    """float32 (rows of the fold, features)."""
    test_target: np.ndarray
    null: tuple[str, ...]
    """Features that are null in some row."""
    keys: np.ndarray
    """uint64 (rows,): hashes of the ids, by which samples of the rows to train on are drawn."""
    weight: np.ndarray | None = None
    """float64 (rows,): what rows to train on count; 1 when None."""
    gathered: dict[str, Any] = field(default_factory=dict)
    """Moments of the rows to train on, for all models that are solved from them."""
    samples: dict[int, FoldData] = field(default_factory=dict)

    def sample(self, rows: int, task: str) -> FoldData:
        """The same with so many rows to train on, by class as in all of them; a smaller sample is part of a larger."""
        if rows not in self.samples:
            drawn = np.sort(nested_order(self.keys, self.target, task)[:rows])
            part = replace(
                self,
                matrix=self.matrix[drawn],
                target=self.target[drawn],
                keys=self.keys[drawn],
                weight=None if self.weight is None else self.weight[drawn],
                gathered={},
                samples={},
            )
            self.samples.setdefault(rows, part)  # another thread may have been quicker
        return self.samples[rows]


def nested_order(keys: np.ndarray, target: np.ndarray, task: str) -> np.ndarray:
    """int64 (rows,): places by which any first so many rows have about the share of every class that all have."""
    rank = np.empty(len(keys))
    codes = np.zeros(len(keys)) if task == "regression" else target
    for code in np.unique(codes):
        (mine,) = np.nonzero(codes == code)
        # The first of each class comes early, so that small samples have all classes.
        rank[mine[np.argsort(keys[mine], kind="stable")]] = np.arange(len(mine)) / len(mine)
    return np.lexsort((keys, rank))


def fold_data(
    frames: Sequence[pd.DataFrame],
    roles: Sequence[str],
    job: Job,
    rule: SplitRule,
    inputs: Mapping[str, Kind],
    store: Store,
    path: str,
) -> FoldData:
    """Of all prepared rows; `rule` is that of the fold. Ids and targets of the fold's rows are written to `path`.

    Rows keep the order of the frames.
    """
    import pandas as pd

    rows = list(zip(frames, roles, strict=True))
    fitted, kinds = fit(HereRows(rows), job, rule, inputs)
    names = tuple(kinds)
    recipe = Recipe(job, rule, tuple(inputs), tuple(fitted))
    blocks: list[Block] = [make_block(frame, role, recipe, names) for frame, role in rows]
    trained = [block.take(~block.test) for block in blocks]
    tested = [block.take(block.test) for block in blocks]
    matrix, target, *weight = _together(trained)
    test_matrix, test_target, *_ = _together(tested)
    ids = pa.chunked_array([block.ids for block in tested])
    store.write_parquet(path, pa.table({"id": ids, "target": pa.array(test_target)}))
    has_nulls = np.any([np.isnan(rows).any(axis=0) for rows in (matrix, test_matrix)], axis=0)
    null = tuple(name for name, has in zip(names, has_nulls, strict=True) if has)
    keys = hash_keys(pd.Series(pa.chunked_array([block.ids for block in trained]).to_pandas()), job.seed + SAMPLE_SEED)
    return FoldData(names, matrix, target, test_matrix, test_target, null, keys, weight[0] if weight else None)


def _together(blocks: Sequence[Block]) -> Part:
    return tuple(np.concatenate(arrays) for arrays in zip(*(block.part for block in blocks), strict=True))
