"""Tables of contributions: for each state of each group, what its leaves give to each feature.

The Shapley values of one leaf depend only on which of the d features of its path a row satisfies: 2**d
patterns. With o in {0, 1} for a feature's pattern and z for how much the background satisfies it, a
coalition's share is the product over features of (o inside the coalition, z outside), and the Shapley
value of feature k is an integral over the probability p of being in the coalition (Owen 1972):

    phi_k = value * integral from 0 to 1 of (o_k - z_k) * product over j != k of (p * o_j + (1 - p) * z_j) dp

a polynomial of degree d - 1, which ceil(d / 2) Gauss-Legendre points integrate exactly. Path-dependent
values take for z the share of the training weight that follows the path (Lundberg et al. 2018).
Interventional values average over background rows, whose patterns are counted first; the sum over
patterns factorises by feature. Pairs, the Shapley interaction index halved, leave out two features.
"""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray

from treadle.kernels.forest import LEAF, Forest
from treadle.kernels.groups import DIGITS, Groups, Shape, node_arrays, stays
from treadle.kernels.simd import aligned

NARROW, WIDE = 8, 16
"""float32 entries of a table's line."""


@dataclass(frozen=True, eq=False)
class Tables:
    """Table entries of groups in lines of `width` float32. All arrays are on the host.

    A dense line holds all features (`targets` says which); a group's state has one. Otherwise a line
    holds 8 of the group's own slots, features or pairs of features, and the lines of the first 8 slots
    of all states come before those of the next 8.
    """

    width: int
    dense: bool
    entries: NDArray[np.float32]
    start: NDArray[np.int64]
    """(groups + 1,): first line of a group."""
    targets: NDArray[np.int64]
    """Dense: the feature of each slot. Else, by group and slot, padded to whole lines: the accumulator's row."""
    target_start: NDArray[np.int64]
    """(groups + 1,): first slot of a group (not dense)."""


def quadrature(degree: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Points and weights on [0, 1] that integrate polynomials of a degree exactly, in the fewest points."""
    points, weights = np.polynomial.legendre.leggauss(max(1, degree // 2 + 1))
    return 0.5 * (points + 1.0), 0.5 * weights


def table_lines(groups: Groups, features: int, pairs: bool) -> tuple[int, bool, NDArray[np.int64]]:
    """Width of a line, whether lines are dense, and the lines of each group (groups,)."""
    states = groups.group[:-1, 2]
    if features <= WIDE and not pairs:
        return (NARROW if features <= NARROW else WIDE), True, states.copy()
    digits = np.diff(groups.group[:, 3])
    slots = digits * (digits - 1) // 2 if pairs else digits
    return NARROW, False, states * -(-slots // NARROW)


def build_tables(
    forest: Forest,
    shape: Shape,
    groups: Groups,
    features: NDArray[np.int64],
    pairs: bool = False,
    background: NDArray[np.int64] | None = None,
) -> Tables:
    """Fills the tables of `groups`; `features` are the features of the accumulator's rows, ascending.

    With `background`, the states (groups, rows) of the background's rows, values are interventional.
    With `pairs`, slots are pairs i < j of features, at the accumulator's row i * features + j.
    """
    width, dense, lines = table_lines(groups, len(features), pairs)
    start = np.concatenate([[0], np.cumsum(lines)]).astype(np.int64)
    compact = np.full(forest.n_features, -1, dtype=np.int64)
    compact[features] = np.arange(len(features))
    slots = lines // np.maximum(groups.group[:-1, 2], 1) * width
    target_start = np.concatenate([[0], np.cumsum(slots)]).astype(np.int64)
    targets = np.zeros(0 if dense else int(target_start[-1]), dtype=np.int64)
    entries = aligned(int(start[-1]) * width, np.float32)
    entries[:] = 0.0
    rules = [quadrature(max(d - 1 - pairs, 0)) for d in range(DIGITS + 1)]
    count = np.array([len(p) for p, _ in rules])
    points, weights = (np.zeros((DIGITS + 1, count.max())) for _ in range(2))
    for d, (p, w) in enumerate(rules):
        points[d, : len(p)], weights[d, : len(w)] = p, w
    nodes, sets = node_arrays(forest, shape)
    _fill(
        nodes,
        sets,
        (forest.cover, forest.value),
        (groups.group, groups.digit, groups.sample),
        (points, weights, count),
        np.empty((0, 0), np.int64) if background is None else background,
        compact,
        len(features),
        pairs,
        dense,
        width,
        start,
        target_start,
        targets,
        entries,
    )
    return Tables(width, dense, entries, start, features.astype(np.int64) if dense else targets, target_start)


@numba.njit(cache=True)
def share(node, child, cover):  # type: ignore[no-untyped-def]
    """The share of a node's training weight that goes to a child; half, when there is no weight."""
    return cover[child] / cover[node] if cover[node] > 0.0 else 0.5


@numba.njit(cache=True)
def expected_values(tree_start, feature, right, cover, value):  # type: ignore[no-untyped-def]
    """(trees,): each tree's mean over the training weight, float64."""
    found = np.zeros(len(tree_start) - 1)
    mean = value.copy()
    for t in range(len(tree_start) - 1):
        for i in range(tree_start[t + 1] - 1, tree_start[t] - 1, -1):
            if feature[i] != LEAF:
                mean[i] = share(i, i + 1, cover) * mean[i + 1] + share(i, right[i], cover) * mean[right[i]]
        found[t] = mean[tree_start[t]]
    return found


@numba.njit(cache=True)
def _by_shares(d, z, value, points, weights, m, pairs, out):  # type: ignore[no-untyped-def]
    """out[pattern, k or pair] of one leaf, the background given by its shares z."""
    ratio = np.empty(d)
    for pattern in range(1 << d):
        out[pattern] = 0.0
        for q in range(m):
            p = points[q]
            whole = value * weights[q]
            for k in range(d):
                o = (pattern >> k) & 1
                f = p * o + (1.0 - p) * z[k]
                # A factor of zero makes all values zero, its own too, because then o = z = 0.
                ratio[k] = (o - z[k]) / f if f > 0.0 else 0.0
                whole *= f
            if pairs:
                slot = 0
                for k in range(d):
                    for j in range(k + 1, d):
                        out[pattern, slot] += 0.5 * whole * ratio[k] * ratio[j]
                        slot += 1
            else:
                for k in range(d):
                    out[pattern, k] += whole * ratio[k]


@numba.njit(cache=True)
def _by_patterns(d, shares, value, points, weights, m, out):  # type: ignore[no-untyped-def]
    """out[pattern, k] of one leaf, the background given by the share of its rows with each pattern (2**d,)."""
    n = 1 << d
    now = np.empty(n)
    out[:n, :d] = 0.0
    for q in range(m):
        p = points[q]
        for k in range(d):
            now[:] = shares
            # The factors of one feature after the other; they turn background patterns into row patterns.
            for j in range(d):
                bit = 1 << j
                for pattern in range(n):
                    if pattern & bit:
                        continue
                    without, having = now[pattern], now[pattern | bit]
                    if j == k:
                        now[pattern], now[pattern | bit] = -having, without
                    else:
                        now[pattern], now[pattern | bit] = (1.0 - p) * having, p * without + having
            for pattern in range(n):
                out[pattern, k] += weights[q] * value * now[pattern]


@numba.njit(cache=True)
def _leaf_digits(leaf, first, digit, nodes, cover, leaf_digit, z):  # type: ignore[no-untyped-def]
    """Digits of the features on a leaf's path, from the leaf upwards, and their shares z; returns how many."""
    feature, parent = nodes[0], nodes[4]
    d = 0
    child, node = leaf, parent[leaf]
    while node >= 0:
        here = first
        while digit[here, 0] != feature[node]:
            here += 1
        k = 0
        while k < d and leaf_digit[k] != here:
            k += 1
        if k == d:
            leaf_digit[k], z[k] = here, 1.0
            d += 1
        z[k] *= share(node, child, cover)
        child, node = node, parent[node]
    return d


@numba.njit(cache=True)
def _state_patterns(leaf, d, leaf_digit, first, end, digit, sample, nodes, sets, pattern_of):  # type: ignore[no-untyped-def]
    """Which pattern of the leaf's d features each state is, into pattern_of (states,)."""
    # Digit by digit, as many copies of what there is as the digit has states.
    pattern_of[0] = 0
    for i in range(first, end):
        f, n, stride = digit[i, 0], digit[i, 1], digit[i, 2]
        k = 0
        while k < d and leaf_digit[k] != i:
            k += 1
        for s in range(n - 1, -1, -1):
            bit = 0
            if k < d and stays(leaf, f, sample[digit[i, 3] + s], nodes, sets):
                bit = 1 << k
            for before in range(stride):
                pattern_of[s * stride + before] = pattern_of[before] | bit


@numba.njit(cache=True)
def _fill(  # type: ignore[no-untyped-def]
    nodes,
    sets,
    numbers,
    parts,
    rule,
    background,
    compact,
    features,
    pairs,
    dense,
    width,
    start,
    target_start,
    targets,
    entries,
):
    feature = nodes[0]
    cover, value = numbers
    group, digit, sample = parts
    points, weights, count = rule
    largest = group[:, 2].max()
    pattern_of = np.empty(largest, np.int64)
    leaf_digit = np.empty(DIGITS, np.int64)
    z = np.empty(DIGITS)
    for g in range(len(group) - 1):
        states, first = group[g, 2], group[g, 3]
        digits = group[g + 1, 3] - first
        slots = digits * (digits - 1) // 2 if pairs else digits
        sums = np.zeros((states, max(slots, 1)))
        counts = np.zeros(states)
        if len(background):
            for r in range(background.shape[1]):
                counts[background[g, r]] += 1.0 / background.shape[1]
        for leaf in range(group[g, 0], group[g, 1]):
            if feature[leaf] != LEAF or value[leaf] == 0.0:
                continue
            d = _leaf_digits(leaf, first, digit, nodes, cover, leaf_digit, z)
            _state_patterns(leaf, d, leaf_digit, first, first + digits, digit, sample, nodes, sets, pattern_of)
            found = np.empty((1 << d, max(1, d * (d - 1) // 2 if pairs else d)))
            m = count[d]
            if len(background):
                seen = np.zeros(1 << d)
                for s in range(states):
                    seen[pattern_of[s]] += counts[s]
                _by_patterns(d, seen, value[leaf], points[d], weights[d], m, found)
            else:
                _by_shares(d, z, value[leaf], points[d], weights[d], m, pairs, found)
            source = 0
            for k in range(d):
                if not pairs:
                    slot = leaf_digit[k] - first
                    for s in range(states):
                        sums[s, slot] += found[pattern_of[s], k]
                    continue
                for j in range(k + 1, d):
                    low, high = leaf_digit[k] - first, leaf_digit[j] - first
                    low, high = min(low, high), max(low, high)
                    slot = low * (2 * digits - low - 1) // 2 + high - low - 1
                    for s in range(states):
                        sums[s, slot] += found[pattern_of[s], source]
                    source += 1
        slot = 0
        for i in range(digits):
            a = compact[digit[first + i, 0]]
            for j in range(i + 1 if pairs else i, digits if pairs else i + 1):
                b = compact[digit[first + j, 0]]
                column = a if dense else slot
                base = start[g] * width + (column // width) * states * width + column % width
                for s in range(states):
                    entries[base + s * width] = sums[s, slot]
                if not dense:
                    targets[target_start[g] + slot] = min(a, b) * features + max(a, b) if pairs else a
                slot += 1
        if not dense:
            # What pads a line is zero everywhere and may be added to any row.
            for padding in range(target_start[g] + slot, target_start[g + 1]):
                targets[padding] = 0
