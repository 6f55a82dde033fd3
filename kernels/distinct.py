"""How many distinct values there are, from registers that merge: HyperLogLog.

A sketch is 2**precision registers of one byte. The top `precision` bits of a value's 64-bit hash
choose its register, which keeps the largest rank (1 + leading zeros of the other bits) it has seen.
Registers of parts merge by their maximum, so that no order, grouping or repetition changes them:
they are those of the set of hashes. Hashes must be uniform, such as `mix64` of distinct keys.

Of many groups, most of which have few values, only registers that are not zero are kept, as entries: sorted
uint64, group << (precision + 6) | register << 6 | rank, one a register.

Source: Flajolet, Fusy, Gandouet and Meunier, "HyperLogLog: the analysis of a near-optimal
cardinality estimation algorithm", AofA 2007; the estimator is algorithm 6 of Ertl, "New cardinality
estimation algorithms for HyperLogLog sketches", arXiv:1702.01284 (2017), which has no bias to be
corrected by tables, at small numbers either.
"""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

PRECISION = 14
LEAST_PRECISION, MOST_PRECISION = 4, 18
RANK_BITS = 6
_RANK = np.uint64((1 << RANK_BITS) - 1)
DENSE_BYTES = 2**24
"""Registers of all groups that are filled in memory before those that are not zero are kept."""
_ALPHA = 1.0 / (2.0 * math.log(2.0))


def sketch(hashes: NDArray[np.uint64], precision: int = PRECISION) -> NDArray[np.uint8]:
    """The registers (2**precision,) of hashes (n,); none give zeros."""
    registers = np.zeros(_registers(precision), dtype=np.uint8)
    _add(np.ascontiguousarray(hashes, dtype=np.uint64), registers, precision)
    return registers


def sketch_groups(
    hashes: NDArray[np.uint64], codes: NDArray[Any], n_groups: int, precision: int = PRECISION
) -> NDArray[np.uint8]:
    """The registers (n_groups, 2**precision) of hashes (n,) by group.

    `codes` (n,) are the groups, whole numbers below `n_groups`; negative ones are left out. The
    memory is n_groups * 2**precision bytes: with many groups take a precision of 10 or so.
    """
    groups = np.ascontiguousarray(codes, dtype=np.int64)
    if groups.shape != np.shape(hashes):
        raise ValueError(f"a code for each hash is needed, not {groups.shape} for {np.shape(hashes)}")
    if groups.size and int(groups.max()) >= n_groups:
        raise ValueError(f"code {int(groups.max())} is not below the number of groups, {n_groups}")
    registers = np.zeros((n_groups, _registers(precision)), dtype=np.uint8)
    _add_groups(np.ascontiguousarray(hashes, dtype=np.uint64), groups, registers, precision)
    return registers


def entries_of(
    hashes: NDArray[np.uint64], codes: NDArray[Any], n_groups: int, precision: int = PRECISION
) -> NDArray[np.uint64]:
    """The entries (m,) of hashes (n,) by group: those of `sketch_groups`, in memory of the order of n.

    `n_groups` is below 2**(58 - precision).
    """
    shift = np.uint64(precision + RANK_BITS)
    if n_groups << precision <= DENSE_BYTES:
        registers = sketch_groups(hashes, codes, n_groups, precision).ravel()
        places = np.flatnonzero(registers)
        return places.astype(np.uint64) << np.uint64(RANK_BITS) | registers[places].astype(np.uint64)
    kept = codes >= 0
    hashes, groups = np.ascontiguousarray(hashes, dtype=np.uint64)[kept], codes[kept].astype(np.uint64)
    return merge_entries(groups << shift | _entries(hashes, precision))


def merge_entries(entries: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The entries of several parts, one after the other in any order, as those of all hashes."""
    entries = np.sort(entries)
    if not len(entries):
        return entries
    places = entries >> np.uint64(RANK_BITS)
    return entries[np.append(places[1:] != places[:-1], True)]


def estimate_entries(entries: NDArray[np.uint64], n_groups: int, precision: int = PRECISION) -> NDArray[np.float64]:
    """`estimate` of each group, float64 (n_groups,)."""
    _registers(precision)
    return _estimate_entries(np.ascontiguousarray(entries, dtype=np.uint64), n_groups, precision)


def merge(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The registers of both parts' hashes, of one group or of several; both need the same shape."""
    if a.shape != b.shape:
        raise ValueError(f"registers merge when they are as many; these are {a.shape} and {b.shape}")
    return np.maximum(a, b)


def estimate(registers: NDArray[np.uint8]) -> Any:
    """The number of distinct hashes: a float for (2**p,) registers, float64 (n_groups,) for (n_groups, 2**p).

    The relative standard error is `relative_error(p)`, less for few; zero registers give 0.0.
    """
    size = registers.shape[-1]
    precision = size.bit_length() - 1
    if size != 1 << precision or not LEAST_PRECISION <= precision <= MOST_PRECISION:
        raise ValueError(f"{size} registers are no sketch; there are 2**4 to 2**18")
    lines = np.ascontiguousarray(registers.reshape(-1, size), dtype=np.uint8)
    found = _estimate(lines, precision)
    return float(found[0]) if registers.ndim == 1 else found.reshape(registers.shape[:-1])


def relative_error(precision: int = PRECISION) -> float:
    """The standard error of an estimate as a share of the number: sqrt(3 ln 2 - 1) / sqrt(2**precision).

    0.0081 with 14 bits, 0.032 with 10.
    """
    return math.sqrt((3.0 * math.log(2.0) - 1.0) / _registers(precision))


def _registers(precision: int) -> int:
    if not LEAST_PRECISION <= precision <= MOST_PRECISION:
        raise ValueError(f"the precision lies between {LEAST_PRECISION} and {MOST_PRECISION} bits, not {precision}")
    return 1 << precision


@numba.njit(cache=True)
def _note(hash_, registers, precision):  # type: ignore[no-untyped-def]
    """Raises the register of a hash to its rank, if it is below that."""
    register = hash_ >> np.uint64(64 - precision)
    rest = hash_ << np.uint64(precision)
    rank = registers[register]
    # Most hashes end here, once registers are filled: a larger rank begins with that many zeros.
    if rank == 0 or (rank <= 64 - precision and rest >> np.uint64(64 - rank) == 0):
        rank += 1
        top = np.uint64(1 << 63) >> np.uint64(rank - 1)
        while rank <= 64 - precision and not rest & top:
            top >>= np.uint64(1)
            rank += 1
        registers[register] = rank


@numba.njit(cache=True)
def _add(hashes, registers, precision):  # type: ignore[no-untyped-def]
    for i in range(hashes.size):
        _note(hashes[i], registers, precision)


@numba.njit(cache=True)
def _add_groups(hashes, codes, registers, precision):  # type: ignore[no-untyped-def]
    for i in range(hashes.size):
        if codes[i] >= 0:
            _note(hashes[i], registers[codes[i]], precision)


@numba.njit(cache=True)
def _entries(hashes, precision):  # type: ignore[no-untyped-def]
    """register << 6 | rank of each hash."""
    found = np.empty(hashes.size, np.uint64)
    for i in range(hashes.size):
        rest = hashes[i] << np.uint64(precision)
        rank, top = 1, np.uint64(1 << 63)
        while rank <= 64 - precision and not rest & top:
            top >>= np.uint64(1)
            rank += 1
        found[i] = hashes[i] >> np.uint64(64 - precision) << np.uint64(RANK_BITS) | np.uint64(rank)
    return found


@numba.njit(cache=True)
def _estimate(registers, precision):  # type: ignore[no-untyped-def]
    n, size = registers.shape
    found = np.zeros(n, np.float64)
    counts = np.zeros(64 - precision + 2, np.int64)
    for group in range(n):
        counts[:] = 0
        for i in range(size):
            counts[registers[group, i]] += 1
        found[group] = _estimated(counts, precision)
    return found


@numba.njit(cache=True)
def _estimate_entries(entries, n_groups, precision):  # type: ignore[no-untyped-def]
    found = np.zeros(n_groups, np.float64)
    counts = np.zeros(64 - precision + 2, np.int64)
    i = 0
    for group in range(n_groups):
        counts[:] = 0
        counts[0] = 1 << precision
        while i < entries.size and entries[i] >> np.uint64(precision + RANK_BITS) == np.uint64(group):
            counts[0] -= 1
            counts[entries[i] & _RANK] += 1
            i += 1
        found[group] = _estimated(counts, precision)
    return found


@numba.njit(cache=True)
def _estimated(counts, precision):  # type: ignore[no-untyped-def]
    """The estimate of a sketch of which `counts[rank]` registers have that rank."""
    size, bits = 1 << precision, 64 - precision
    if counts[0] == size:
        return 0.0
    total = size * _tau(1.0 - counts[bits + 1] / size)
    for rank in range(bits, 0, -1):
        total = 0.5 * (total + counts[rank])
    return _ALPHA * size * size / (total + size * _sigma(counts[0] / size))


@numba.njit(cache=True)
def _sigma(x):  # type: ignore[no-untyped-def]
    """x + the sum over k >= 1 of x**(2**k) * 2**(k - 1), for x below 1."""
    power, total, weight, before = x, x, 1.0, -1.0
    while total != before:
        power *= power
        before = total
        total += power * weight
        weight += weight
    return total


@numba.njit(cache=True)
def _tau(x):  # type: ignore[no-untyped-def]
    """A third of (1 - x - the sum over k >= 1 of (1 - x**(2**-k))**2 * 2**-k)."""
    if x == 0.0 or x == 1.0:
        return 0.0
    root, total, weight, before = x, 1.0 - x, 1.0, -1.0
    while total != before:
        root = math.sqrt(root)
        before = total
        weight *= 0.5
        total -= (1.0 - root) ** 2 * weight
    return total / 3.0
