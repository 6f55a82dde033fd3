"""How far each column tells the target, from tables by group that merge.

The target is taken as classes where it is text, bool or a whole number of few values, and as a number
where it is int or float. Text and bool columns are groups, and so is whether a value is null: a column that is
filled in after the event gives the target away by its nulls alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from treadle.engine.job import MAX_CLASSES
from treadle.engine.profile.columns import Cells
from treadle.kernels.association import (
    GroupMoments,
    Pairs,
    correlation_ratio,
    cramers_v,
    group_moments,
    merge_moments,
    merge_pairs,
    pairs,
)

LEVELS = 1000
"""Values of a column up to which they are groups."""
PAIRS = 10_000
"""Pairs of a value and a class that are counted."""
_NULL = np.uint64(0x2545F4914F6CDD1D)
Groups = tuple[NDArray[np.uint64], NDArray[np.int64]]
"""Distinct keys, and the code of every row, negative for none."""


@dataclass(frozen=True, eq=False)
class Links:
    """Tables by column; None where there were too many groups.

    With the target as classes: `spread`, of int and float columns by class; `pairs`, of the others' values and
    classes; `null_pairs`, of nulls and classes. With the target as a number: `by_level`, the target by the values of
    text and bool columns; `by_null`, by whether a value is null.
    """

    spread: Mapping[str, GroupMoments | None]
    pairs: Mapping[str, Pairs | None]
    null_pairs: Mapping[str, Pairs | None]
    by_level: Mapping[str, GroupMoments | None]
    by_null: Mapping[str, GroupMoments | None]


def gather_links(
    cells: Mapping[str, Cells], numbers: Mapping[str, NDArray[np.float64]], kinds: Mapping[str, str], target: str
) -> Links:
    """Of one partition: its columns as keys, and those that are numbers as such."""
    classes = _classes(cells[target], kinds[target])
    others = [name for name in kinds if name != target]
    levels = {name: _levels(cells[name]) for name in others if cells[name].groups is not None}
    spread: dict[str, GroupMoments | None] = {}
    together: dict[str, Pairs | None] = {}
    null_pairs: dict[str, Pairs | None] = {}
    by_level: dict[str, GroupMoments | None] = {}
    by_null: dict[str, GroupMoments | None] = {}
    if kinds[target] != "float":
        for name in others:
            if kinds[name] in ("int", "float"):
                spread[name] = None if classes is None else group_moments(*classes, numbers[name], MAX_CLASSES)
        null_pairs = _by_null(cells, others, lambda groups: None if classes is None else pairs(groups, classes, PAIRS))
        for name, groups in levels.items():
            together[name] = None if classes is None else pairs(groups, classes, PAIRS)
    if kinds[target] in ("int", "float"):
        for name, groups in levels.items():
            by_level[name] = group_moments(*groups, numbers[target], LEVELS)
        by_null = _by_null(cells, others, lambda groups: group_moments(*groups, numbers[target], LEVELS))
    return Links(spread, together, null_pairs, by_level, by_null)


def merge_links(parts: Sequence[Links]) -> Links:
    """Of several disjoint parts, at least one."""

    def merged(which: str, merge: Callable[[Sequence[Any], int], Any], limit: int) -> dict[str, Any]:
        names = getattr(parts[0], which)
        return {name: merge([getattr(part, which)[name] for part in parts], limit) for name in names}

    return Links(
        spread=merged("spread", merge_moments, MAX_CLASSES),
        pairs=merged("pairs", merge_pairs, PAIRS),
        null_pairs=merged("null_pairs", merge_pairs, PAIRS),
        by_level=merged("by_level", merge_moments, LEVELS),
        by_null=merged("by_null", merge_moments, LEVELS),
    )


def strength(links: Links, name: str, classes: bool) -> tuple[str, float | None]:
    """The measure of how far a column's values tell the target, and its value between 0 and 1, None if unknown.

    Of an int or float column and a target that is a number, Pearson's correlation is the measure, not known here.
    """
    if classes:
        if name in links.spread:
            return "correlation_ratio", _number(links.spread[name], correlation_ratio)
        return "cramers_v", _number(links.pairs.get(name), cramers_v)
    return "correlation_ratio", _number(links.by_level.get(name), correlation_ratio)


def null_strength(links: Links, name: str, classes: bool) -> float | None:
    """How far it tells the target whether a column is null, between 0 and 1; None without nulls or values."""
    if classes:
        return _number(links.null_pairs.get(name), cramers_v)
    return _number(links.by_null.get(name), correlation_ratio)


def _number(table: Any, measure: Callable[[Any], float]) -> float | None:
    found = math.nan if table is None else measure(table)
    return None if math.isnan(found) else min(found, 1.0)


def _classes(cells: Cells, kind: str) -> Groups | None:
    """The target's classes; None when there are too many."""
    if kind == "float":
        return None
    if cells.groups is not None and cells.codes is not None:
        keys, codes = cells.groups, cells.codes
    else:
        keys = np.unique(cells.keys[cells.known])
        codes = np.where(cells.known, np.searchsorted(keys, cells.keys), -1)
    return None if keys.size > MAX_CLASSES else (keys, codes)


def _levels(cells: Cells) -> Groups:
    """The values of a column as groups, null among them."""
    assert cells.groups is not None
    assert cells.codes is not None
    return np.append(cells.groups, _NULL), np.where(cells.codes < 0, cells.groups.size, cells.codes)


def _by_null[T](cells: Mapping[str, Cells], names: Sequence[str], table: Callable[[Groups], T]) -> dict[str, T]:
    """A table by whether a column is null, of each; that of columns without nulls is the same, and made once."""
    keys = np.array([0, 1], dtype=np.uint64)
    found: dict[str, T] = {}
    without: T | None = None
    for name in names:
        known = cells[name].known
        if not known.all():
            found[name] = table((keys, (~known).astype(np.int64)))
            continue
        if without is None:
            without = table((keys, np.zeros(known.size, dtype=np.int64)))
        found[name] = without
    return found
