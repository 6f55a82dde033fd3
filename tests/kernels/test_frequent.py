"""Bounded tables of counts: exact while they can be, within their bound beyond, the same for every division."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from treadle.kernels import frequent, tally
from treadle.kernels.frequent import Frequent
from treadle.kernels.hashing import mix64
from treadle.kernels.tally import Sample, sample

LIMIT = 5
rows_of_keys = st.lists(st.integers(0, 12) | st.sampled_from([2**64 - 1, 2**63]), max_size=80)


def counted(keys: list[int]) -> tuple[np.ndarray, np.ndarray]:
    counts = Counter(keys)
    return np.array(list(counts), dtype=np.uint64), np.array(list(counts.values()), dtype=np.int64)


def in_a_random_tree[T](
    keys: list[int], make: Callable[[Any, Any, int], T], merge: Callable[[list[T]], T], pick: random.Random
) -> T:
    parts: list[list[int]] = [[] for _ in range(pick.randint(1, 6))]
    for key in keys:
        pick.choice(parts).append(key)
    made = [make(*counted(part), LIMIT) for part in parts]
    while len(made) > 1:
        pick.shuffle(made)
        taken = pick.randint(2, min(3, len(made)))
        made = [*made[taken:], merge(made[:taken])]
    return made[0]


def content(table: Frequent | Sample) -> tuple[list[int], list[int]]:
    assert (table.keys.dtype, table.counts.dtype) == (np.dtype(np.uint64), np.dtype(np.int64))
    return table.keys.tolist(), table.counts.tolist()


@given(rows_of_keys, st.randoms(use_true_random=False))
def test_frequent_values_are_within_the_stated_bound(keys: list[int], pick: random.Random) -> None:
    found = in_a_random_tree(keys, frequent.frequent, frequent.merge_all, pick)
    true = Counter(keys)
    kept = dict(zip(*content(found), strict=True))
    assert len(kept) <= LIMIT
    assert found.exact == (len(true) <= LIMIT)
    assert found.error * (LIMIT + 1) <= len(keys) - sum(kept.values())
    for key, count in true.items():
        assert count - found.error <= kept.get(key, 0) <= count
    assert set(kept) <= set(true)
    if found.exact:
        assert kept == true


@given(rows_of_keys, st.randoms(use_true_random=False))
def test_a_sample_has_the_smallest_keys_with_their_true_counts(keys: list[int], pick: random.Random) -> None:
    found = in_a_random_tree(keys, sample, tally.merge_all, pick)
    true = Counter(keys)
    smallest = sorted(true)[:LIMIT]
    assert content(found) == (smallest, [true[key] for key in smallest])
    assert found.complete == (len(true) <= LIMIT)
    assert content(sample(*counted(keys), LIMIT)) == content(found)


def test_the_top_is_ordered_by_count_and_then_by_key() -> None:
    table = frequent.frequent(*counted([7, 7, 7, 3, 3, 1, 9, 9]), LIMIT)
    assert table.top(3) == [(7, 3), (3, 2), (9, 2)]
    assert table.top(10) == [(7, 3), (3, 2), (9, 2), (1, 1)]


def test_a_sample_of_hashes_tells_the_share_of_repeated_values() -> None:
    rng = np.random.default_rng(2)
    keys = mix64(np.arange(200_000, dtype=np.uint64), 1)
    counts = np.where(rng.random(200_000) < 0.03, 2, 1)
    assert sample(keys, counts, 4096).repeated == pytest.approx(0.03, abs=4 * (0.03 / 4096) ** 0.5)
    assert sample(keys, np.ones(200_000, dtype=np.int64), 4096).repeated == 0.0
    assert sample(keys[:0], counts[:0], 4096).repeated == 0.0


def test_refusals() -> None:
    none = np.array([], dtype=np.uint64), np.array([], dtype=np.int64)
    for make, merge in ((frequent.frequent, frequent.merge_all), (sample, tally.merge_all)):
        with pytest.raises(ValueError, match="room for at least 1 value, not 0"):
            make(*none, 0)
        with pytest.raises(ValueError, match="merge when all have one limit; these have \\[2, 3\\]"):
            merge([make(*none, 2), make(*none, 3)])  # type: ignore[list-item]
