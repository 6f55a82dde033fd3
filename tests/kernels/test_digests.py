"""Digests: the same for the same content however it is divided; uniform; without collisions on real keys."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from treadle.kernels.digests import fold

columns = st.lists(st.none() | st.integers(0, 3) | st.integers(0, 2**64 - 1), max_size=30)


def folded(values: list[int | None], cuts: list[int], into: np.ndarray | None = None) -> tuple[int, np.ndarray]:
    """The digest of a column from parts, and the digests of its rows."""
    keys = np.array([value or 0 for value in values], dtype=np.uint64)
    known = np.array([value is not None for value in values], dtype=np.bool_)
    rows = np.zeros(len(values), dtype=np.uint64) if into is None else into
    edges = [0, *sorted(min(cut, len(values)) for cut in cuts), len(values)]
    total = 0
    for low, high in itertools.pairwise(edges):
        total += int(fold(keys[low:high], known[low:high], low, rows[low:high]))
    return total % 2**64, rows


@given(columns, columns, st.lists(st.integers(0, 30), max_size=4))
@settings(deadline=None)
def test_a_column_has_one_digest_in_every_division(
    one: list[int | None], two: list[int | None], cuts: list[int]
) -> None:
    whole, rows = folded(one, [])
    parts, rows_of_parts = folded(one, cuts)
    assert whole == parts
    assert rows.tolist() == rows_of_parts.tolist()
    if len(one) == len(two):
        assert (folded(two, cuts)[0] == whole) == (one == two)
    assert (folded(one[::-1], cuts)[0] == whole) == (one == one[::-1])


def test_rows_are_equal_when_all_their_columns_are() -> None:
    one: list[int | None] = [1, 1, None, 0, None, 2]
    two: list[int | None] = [2, 2, None, None, 0, 1]
    rows = folded(two, [3], into=folded(one, [2])[1])[1]
    assert rows[0] == rows[1]
    assert np.unique(rows).size == 5
