"""On a worker: the rows of one fold and of the others, with features that are fitted on the others only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from treadle.engine.artifacts import SplitRule
from treadle.engine.blocks import Block, Part
from treadle.engine.encoders import Kind
from treadle.engine.job import Job
from treadle.engine.recipe import Recipe, fit, make_block
from treadle.engine.rows import HereRows
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
    weight: np.ndarray | None = None
    """float64 (rows,): what rows to train on count; 1 when None."""
    gathered: dict[str, Any] = field(default_factory=dict)
    """Moments of the rows to train on, for all models that are solved from them."""


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
    rows = list(zip(frames, roles, strict=True))
    fitted, kinds = fit(HereRows(rows), job, rule, inputs)
    names = tuple(kinds)
    recipe = Recipe(job, rule, tuple(inputs), tuple(fitted))
    blocks: list[Block] = [make_block(frame, role, recipe, names) for frame, role in rows]
    matrix, target, *weight = _together([block.take(~block.test) for block in blocks])
    tested = [block.take(block.test) for block in blocks]
    test_matrix, test_target, *_ = _together(tested)
    ids = pa.chunked_array([block.ids for block in tested])
    store.write_parquet(path, pa.table({"id": ids, "target": pa.array(test_target)}))
    has_nulls = np.any([np.isnan(rows).any(axis=0) for rows in (matrix, test_matrix)], axis=0)
    null = tuple(name for name, has in zip(names, has_nulls, strict=True) if has)
    return FoldData(names, matrix, target, test_matrix, test_target, null, weight[0] if weight else None)


def _together(blocks: Sequence[Block]) -> Part:
    return tuple(np.concatenate(arrays) for arrays in zip(*(block.part for block in blocks), strict=True))
