"""Statistics of a whole table: of each column, of their pairs, of rows, and of what tells the target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from treadle.engine.artifacts import Piece
from treadle.engine.operation import ROW_ID
from treadle.engine.profile.columns import Cells, Column, Limits, gather, merge_columns
from treadle.engine.profile.links import Links, gather_links, merge_links
from treadle.engine.program import Program
from treadle.kernels import comoments, distinct, tally
from treadle.kernels.comoments import Comoments
from treadle.kernels.tally import Sample

if TYPE_CHECKING:
    import pandas as pd

SAMPLED_ROWS = 2**16
"""Distinct rows that are kept as a sample: up to so many, duplicates are counted exactly."""
CORRELATED = 200
"""Numeric columns whose pairs are correlated; a row costs their number squared."""


@dataclass(frozen=True, eq=False)
class Statistics:
    """What one pass over a table leaves behind. `row_registers` and `row_sample` are of the distinct rows."""

    rows: int
    columns: Mapping[str, Column]
    correlated: tuple[str, ...]
    """The columns of `pairs`, in their order."""
    pairs: Comoments
    row_registers: NDArray[np.uint8]
    row_sample: Sample
    links: Links | None


def correlated_columns(kinds: Mapping[str, str], target: str | None) -> tuple[str, ...]:
    """The target, if it is a number, and the first of the others."""
    numeric = [name for name, kind in kinds.items() if kind in ("int", "float", "bool")]
    return tuple(sorted(numeric, key=lambda name: name != target)[:CORRELATED])


def read_and_gather(
    partition: Sequence[Piece], program: Program, kinds: Mapping[str, str], target: str | None
) -> Statistics:
    """On a worker: of one partition of the input."""
    return gather_table(program.rows(partition), kinds, target)


def gather_table(
    frame: pd.DataFrame, kinds: Mapping[str, str], target: str | None, limits: Limits | None = None
) -> Statistics:
    """Of the rows of one partition, with their numbers in the column `__id__`, consecutive."""
    limits = limits or Limits.of(len(kinds))
    first_row = int(frame[ROW_ID].iloc[0]) if len(frame) else 0
    rows = np.zeros(len(frame), dtype=np.uint64)
    columns: dict[str, Column] = {}
    cells: dict[str, Cells] = {}
    for name, kind in kinds.items():
        columns[name], of_column = gather(frame[name], kind, first_row, rows, limits)
        if target is not None:
            cells[name] = of_column
    correlated = correlated_columns(kinds, target)
    numeric = [name for name, kind in kinds.items() if kind in ("int", "float", "bool")]
    wanted = correlated if target is None else numeric
    numbers = {name: frame[name].to_numpy("float64", na_value=np.nan) for name in wanted}
    distinct_rows, counts = np.unique(rows, return_counts=True)
    return Statistics(
        rows=len(frame),
        columns=columns,
        correlated=correlated,
        pairs=comoments.comoments([numbers[name] for name in correlated]),
        row_registers=distinct.sketch(distinct_rows),
        row_sample=tally.sample(distinct_rows, counts, SAMPLED_ROWS),
        links=None if target is None else gather_links(cells, numbers, kinds, target),
    )


def merge_tables(parts: Sequence[Statistics]) -> Statistics:
    """Of several disjoint parts of one table, at least one."""
    links = [part.links for part in parts if part.links is not None]
    return Statistics(
        rows=sum(part.rows for part in parts),
        columns={name: merge_columns([part.columns[name] for part in parts]) for name in parts[0].columns},
        correlated=parts[0].correlated,
        pairs=comoments.merge_all([part.pairs for part in parts]),
        row_registers=reduce(distinct.merge, (part.row_registers for part in parts)),
        row_sample=tally.merge_all([part.row_sample for part in parts]),
        links=merge_links(links) if links else None,
    )
