"""Columns of text as bytes: hashes of values, which of the known values they are, and their tokens.

A column is UTF-8 bytes with the offsets of its values, as Arrow has it, and a flag a value that says
whether it is there. The hash of a value is that of its bytes, alike on every machine:
h = 0x9E3779B97F4A7C15 * length, then h = f(h xor word) for each of its words of 8 bytes, the first
byte lowest and the last word filled up with zeros, where f is splitmix64's finaliser.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from treadle.kernels.counting import read_only

SPACE = 32
NULL, UNSEEN = -1, -2
"""Codes of a null, and of a value that is not among the known ones."""
SLOTS_A_VALUE = 4
"""Of a table by hash, at least: most values are found where they are looked for first."""
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)
_ALL = np.uint64(0xFFFF_FFFF_FFFF_FFFF)


@dataclass(frozen=True, eq=False)
class Texts:
    """Values of a text column: `offsets` (values + 1,) int64 into `data`, uint8; `valid` (values,) bool, or (0,)."""

    offsets: NDArray[np.int64]
    data: NDArray[np.uint8]
    valid: NDArray[np.bool_]

    def __post_init__(self) -> None:
        for name in ("offsets", "data", "valid"):
            object.__setattr__(self, name, read_only(getattr(self, name)))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def parts(self) -> tuple[NDArray[Any], ...]:
        return self.offsets, self.data, self.valid


@dataclass(frozen=True, eq=False)
class Known:
    """Distinct values, and a table by hash in which others are looked up."""

    texts: Texts
    hashes: NDArray[np.uint64]
    """(values,)"""
    slots: NDArray[np.int32]
    """A power of two of them, each with the number of a value from 1, or 0."""


def known(distinct: Texts) -> Known:
    """Of values without nulls, each once."""
    hashes = hash_texts(distinct)
    slots = np.zeros(1 << max(SLOTS_A_VALUE * len(distinct), 1).bit_length(), dtype=np.int32)
    _insert(hashes, slots)
    return Known(distinct, hashes, slots)


def find(values: Known, texts: Texts) -> NDArray[np.int32]:
    """The position of every text among the known values; NULL for a null, UNSEEN for others."""
    codes = np.empty(len(texts), dtype=np.int32)
    offsets, data, _ = values.texts.parts
    _find(*texts.parts, offsets, data, read_only(values.hashes), read_only(values.slots), codes)
    return codes


def hash_texts(texts: Texts) -> NDArray[np.uint64]:
    """The hash of every value, 0 of a null."""
    hashes = np.zeros(len(texts), dtype=np.uint64)
    _hash_all(*texts.parts, hashes)
    return hashes


def count_tokens(texts: Texts) -> NDArray[np.int64]:
    """How many runs of bytes other than a space each value has; 0 for a null."""
    counts = np.zeros(len(texts), dtype=np.int64)
    _tokens(*texts.parts, counts, np.empty((0, 0), np.float32))
    return counts


def hash_tokens(texts: Texts, buckets: int) -> NDArray[np.float32]:
    """(values, buckets): how many tokens of each value have a hash that is the bucket, modulo `buckets`."""
    out = np.zeros((len(texts), buckets), dtype=np.float32)
    _tokens(*texts.parts, np.empty(len(texts), np.int64), out)
    return out


@numba.njit(nogil=True, cache=True, forceinline=True)
def _finalised(state):  # type: ignore[no-untyped-def]
    state = (state ^ (state >> np.uint64(30))) * _FIRST
    state = (state ^ (state >> np.uint64(27))) * _SECOND
    return state ^ (state >> np.uint64(31))


@numba.njit(nogil=True, cache=True, forceinline=True)
def _word(data, at):  # type: ignore[no-untyped-def]
    """Eight bytes from `at` on; the compiler makes one load of it."""
    low = np.uint64(data[at]) | np.uint64(data[at + 1]) << np.uint64(8)
    low |= np.uint64(data[at + 2]) << np.uint64(16) | np.uint64(data[at + 3]) << np.uint64(24)
    high = np.uint64(data[at + 4]) << np.uint64(32) | np.uint64(data[at + 5]) << np.uint64(40)
    high |= np.uint64(data[at + 6]) << np.uint64(48) | np.uint64(data[at + 7]) << np.uint64(56)
    return low | high


@numba.njit(nogil=True, cache=True, forceinline=True)
def _last_word(data, at, count):  # type: ignore[no-untyped-def]
    """The `count` bytes from `at` on, 1 to 8, filled up with zeros."""
    if at + np.uint64(8) <= np.uint64(len(data)):
        return _word(data, at) & (_ALL >> (np.uint64(64) - (count << np.uint64(3))))
    word = np.uint64(0)
    for i in range(count):
        word |= np.uint64(data[at + np.uint64(i)]) << np.uint64(8 * i)
    return word


@numba.njit(nogil=True, cache=True, forceinline=True)
def _hash(data, start, end):  # type: ignore[no-untyped-def]
    at, left = np.uint64(start), np.uint64(end - start)
    state = left * _GOLDEN
    while left > np.uint64(8):
        state = _finalised(state ^ _word(data, at))
        at += np.uint64(8)
        left -= np.uint64(8)
    return _finalised(state ^ _last_word(data, at, left)) if left else state


@numba.njit(nogil=True, cache=True)
def _hash_all(offsets, data, valid, hashes):  # type: ignore[no-untyped-def]
    for i in range(len(hashes)):
        if len(valid) == 0 or valid[i]:
            hashes[i] = _hash(data, offsets[i], offsets[i + 1])


@numba.njit(nogil=True, cache=True, forceinline=True)
def _same(data, start, end, other, other_start, other_end):  # type: ignore[no-untyped-def]
    """Whether values of equal hashes are equal: of equal length they are if all words but the last are.

    Each step of the hash is a bijection of the word, so that the last words do not differ alone.
    """
    if end - start != other_end - other_start:
        return False
    a, b, left = np.uint64(start), np.uint64(other_start), np.uint64(end - start)
    while left > np.uint64(8):
        if _word(data, a) != _word(other, b):
            return False
        a += np.uint64(8)
        b += np.uint64(8)
        left -= np.uint64(8)
    return True


@numba.njit(nogil=True, cache=True)
def _insert(hashes, slots):  # type: ignore[no-untyped-def]
    mask = np.uint64(len(slots) - 1)
    for i in range(len(hashes)):
        slot = hashes[i] & mask
        while slots[slot]:
            slot = (slot + np.uint64(1)) & mask
        slots[slot] = i + 1


@numba.njit(nogil=True, cache=True)
def _find(offsets, data, valid, known_offsets, known_data, hashes, slots, codes):  # type: ignore[no-untyped-def]
    mask = np.uint64(len(slots) - 1)
    for i in range(len(codes)):
        if len(valid) and not valid[i]:
            codes[i] = NULL
            continue
        start, end = offsets[i], offsets[i + 1]
        state = _hash(data, start, end)
        slot = state & mask
        codes[i] = UNSEEN
        while slots[slot]:
            k = np.uint64(slots[slot] - 1)
            if hashes[k] == state and _same(
                data, start, end, known_data, known_offsets[k], known_offsets[k + np.uint64(1)]
            ):
                codes[i] = np.int32(k)
                break
            slot = (slot + np.uint64(1)) & mask


@numba.njit(nogil=True, cache=True)
def _tokens(offsets, data, valid, counts, out):  # type: ignore[no-untyped-def]
    """Counts the tokens of each value, and by bucket of their hashes where `out` has columns."""
    for i in range(len(counts)):
        counts[i] = 0
        if len(valid) and not valid[i]:
            continue
        at, end = offsets[i], offsets[i + 1]
        while at < end:
            if data[at] == SPACE:
                at += 1
                continue
            start = at
            while at < end and data[at] != SPACE:
                at += 1
            counts[i] += 1
            if out.shape[1]:
                out[i, _hash(data, start, at) % np.uint64(out.shape[1])] += np.float32(1)
