"""Seeded 64-bit hashes: the same row gets the same number on every machine and in every partition."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15
_FIRST = 0xBF58476D1CE4E5B9
_SECOND = 0x94D049BB133111EB


def mix64(values: NDArray[np.uint64], seed: int) -> NDArray[np.uint64]:
    """splitmix64's output for the state `values + mixed seed`, element by element; same shape.

    For a fixed seed this is a bijection of the 64-bit integers, so distinct values never collide.
    Any Python integer is a seed (its low 64 bits count). The seed is itself finalised first, so
    that neighbouring seeds start far apart; seed 0 gives the published generator:
    `mix64([x + n * 0x9E3779B97F4A7C15], 0)` is output n of splitmix64 started at x, n from 0.

    Source: Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014,
    figure 16, with the constants of Vigna's public-domain splitmix64.c.
    """
    offset = np.uint64((_finalised(seed & _MASK) + _GOLDEN) & _MASK)
    with np.errstate(over="ignore"):
        mixed = np.asarray(values, dtype=np.uint64) + offset
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(_FIRST)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(_SECOND)
        return mixed ^ (mixed >> np.uint64(31))


def uniform(hashes: NDArray[np.uint64]) -> NDArray[np.float64]:
    """Numbers in [0, 1) from the top 53 bits: multiples of 2**-53, never 1.0; same shape."""
    return (hashes >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _finalised(state: int) -> int:
    """splitmix64's finaliser of one Python integer below 2**64."""
    state = ((state ^ (state >> 30)) * _FIRST) & _MASK
    state = ((state ^ (state >> 27)) * _SECOND) & _MASK
    return state ^ (state >> 31)
