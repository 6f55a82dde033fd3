"""Hashes: published answers, bijectivity, uniformity, independence of seeds."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from tests.kernels import reference
from treadle.kernels.hashing import mix64, uniform

GOLDEN = 0x9E3779B97F4A7C15
UINT64 = np.iinfo(np.uint64)


def test_answers_published_for_splitmix64() -> None:
    # Outputs 1 to 5 for the seed 1234567, as printed by the authors' C code.
    published = [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]
    states = np.array([(1234567 + n * GOLDEN) % 2**64 for n in range(5)], dtype=np.uint64)
    assert mix64(states, 0).tolist() == published == reference.splitmix64(1234567, 5)
    assert mix64(np.zeros(1, dtype=np.uint64), 0).tolist() == [0xE220A8397B1DCDAF]


@pytest.mark.parametrize("seed", [1, 42, -1, 2**64 - 1, 2**80 + 7])
def test_a_seed_moves_the_state_by_its_own_hash(seed: int) -> None:
    offset = (reference.splitmix64(seed - GOLDEN & 2**64 - 1, 1)[0]) % 2**64
    expected = [reference.splitmix64((value + offset) % 2**64, 1)[0] for value in (0, 1, 2**64 - 1)]
    assert mix64(np.array([0, 1, 2**64 - 1], dtype=np.uint64), seed).tolist() == expected


@pytest.mark.parametrize("seed", [0, 7, 2**63])
def test_distinct_values_never_collide(seed: int) -> None:
    random = np.random.default_rng(5).integers(0, UINT64.max, 100_000, dtype=np.uint64, endpoint=True)
    values = np.union1d(np.arange(100_000, dtype=np.uint64), random)
    assert np.unique(mix64(values, seed)).size == values.size


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("step", [1, 1 << 20, 1 << 44])
def test_regular_values_become_uniform(seed: int, step: int) -> None:
    numbers = uniform(mix64(np.arange(1 << 16, dtype=np.uint64) * np.uint64(step), seed))
    counts = np.histogram(numbers, bins=256, range=(0.0, 1.0))[0]
    assert 1e-4 < stats.chisquare(counts).pvalue < 1 - 1e-4


@pytest.mark.parametrize(("one", "other"), [(0, 1), (1, 2), (41, 42), (0, -1)])
def test_seeds_are_independent(one: int, other: int) -> None:
    values = np.arange(1 << 16, dtype=np.uint64)
    a, b = mix64(values, one), mix64(values, other)
    assert abs(np.corrcoef(uniform(a), uniform(b))[0, 1]) < 4 / 256
    bits_that_differ = np.bitwise_count(a ^ b)
    assert bits_that_differ.mean() == pytest.approx(32, abs=4 * 4 / 256)


def test_each_input_bit_flips_half_of_the_output() -> None:
    values = np.arange(4096, dtype=np.uint64)
    for bit in range(64):
        flipped = mix64(values, 3) ^ mix64(values ^ np.uint64(1 << bit), 3)
        assert np.bitwise_count(flipped).mean() == pytest.approx(32, abs=1.5)


def test_uniform_covers_zero_to_below_one() -> None:
    ends = uniform(np.array([0, 2**11 - 1, 2**11, 2**64 - 1], dtype=np.uint64))
    assert ends.tolist() == [0.0, 0.0, 2.0**-53, 1.0 - 2.0**-53]


def test_shape_is_kept_and_the_input_untouched() -> None:
    values = np.arange(6, dtype=np.uint64).reshape(2, 3)
    assert mix64(values, 9).shape == (2, 3)
    assert values.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert mix64(values[:0], 9).shape == (0, 3)
