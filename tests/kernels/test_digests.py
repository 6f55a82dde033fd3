"""Digests: the same for the same content however it is divided; uniform; without collisions on real keys."""

from __future__ import annotations

import itertools

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from treadle.kernels.digests import fold, hash_texts
from treadle.kernels.distinct import estimate, relative_error, sketch


def hashes(texts: list[str]) -> np.ndarray:
    array = pa.array(texts, pa.large_string())
    _, offsets, data = array.buffers()
    raw = np.frombuffer(data, np.uint8) if data is not None else np.zeros(0, np.uint8)
    return hash_texts(raw, np.frombuffer(offsets, np.int64)[: len(texts) + 1])


def hash_by_definition(text: str) -> int:
    """In Python integers, from the constants of the kernel's docstring and source."""
    mask = (1 << 64) - 1

    def mixed(state: int) -> int:
        for _ in range(2):
            state = ((state ^ (state >> 32)) * 0xD6E8FEB86659FD93) & mask
        return state ^ (state >> 32)

    raw = text.encode()
    state = (0x9E3779B97F4A7C15 + len(raw) * 0xA0761D6478BD642F) & mask
    for start in range(0, len(raw), 8):
        state = mixed(state ^ int.from_bytes(raw[start : start + 8], "little"))
    return mixed(state)


@given(st.lists(st.text(max_size=20), max_size=20))
@settings(deadline=None)  # The first example compiles.
def test_a_hash_is_that_of_the_text_alone(texts: list[str]) -> None:
    found = hashes(texts)
    assert found.tolist() == [hash_by_definition(text) for text in texts]
    assert len(set(found.tolist())) == len(set(texts))


def test_similar_keys_do_not_collide_and_are_uniform() -> None:
    texts = [f"customer-{number:07d}" for number in range(100_000)] + [f"{number}" for number in range(100_000)]
    found = hashes(texts)
    assert np.unique(found).size == len(texts)
    assert estimate(sketch(found)) / len(texts) - 1 < 4 * relative_error()
    ones = np.unpackbits(found.view(np.uint8)).reshape(-1, 64).mean(axis=0)
    assert np.abs(ones - 0.5).max() < 0.01
    counts = np.bincount((found >> np.uint64(54)).astype(np.int64), minlength=1024)
    assert counts.std() < 1.15 * (len(texts) / 1024) ** 0.5


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
