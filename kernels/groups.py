"""Groups: parts of a tree small enough for a table of all that a row can be to them.

A group is a subtree together with the path to it. What it wants to know of a row are its digits, one a
feature: whether the row stays on the path (else state 0), and then between which of the subtree's
thresholds the value lies. All conditions of a digit reach up to the same bin, so that a value past the
path's interval counts as little as one before it: `digit = sum of (low_i <= bin <= high)`. The number
of a row's state is mixed-radix, the sum over all conditions of `stride * (low <= bin <= high)`.

A missing value takes the state of values that go the same ways; a LOW or HIGH column often gives that
for nothing, otherwise a condition on the MISSING column adds it. Categories are classes of codes that
go the same ways. `Groups.sample` holds one bin (or code) of each state of each digit: what a state
means is found by sending its samples down the tree.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from treadle.kernels.binning import HIGH, KINDS, LOW, MISSING, Bins, make_bins
from treadle.kernels.forest import LEAF, Forest

DIGITS = 16
"""Most features of a group: each has two states or more, or is constant."""
ABSENT = -1
"""The sample of a missing numeric value."""


@dataclass(frozen=True, eq=False)
class Groups:
    """The groups of some trees, in the order of the trees. All arrays are on the host."""

    bins: Bins
    group: NDArray[np.int64]
    """(groups + 1, 5): the subtree's nodes from and to, states, first digit, first condition; the last row ends all."""
    digit: NDArray[np.int64]
    """(digits, 4): feature, states, stride, first of its samples."""
    sample: NDArray[np.int64]
    """By state: a bin, `ABSENT`, or a category's code."""
    condition: NDArray[np.int64]
    """(conditions, 4): column, low, high, stride."""


@dataclass(frozen=True, eq=False)
class Shape:
    """What the arrays of a forest imply for each node; (nodes,) int64 host arrays."""

    parent: NDArray[np.int64]
    """-1 for a root."""
    end: NDArray[np.int64]
    """The node after the last of the subtree."""
    same: NDArray[np.int64]
    """The nearest ancestor that splits on the same feature; -1 for none, and for leaves."""
    unique: NDArray[np.int64]
    """Different features on the path to the node."""


def tree_shape(forest: Forest) -> Shape:
    return Shape(*_shape(forest.tree_start, forest.feature, forest.right))


@numba.njit(cache=True)
def _shape(tree_start, feature, right):  # type: ignore[no-untyped-def]
    n = len(feature)
    parent = np.full(n, -1, np.int64)
    end = np.zeros(n, np.int64)
    same = np.full(n, -1, np.int64)
    unique = np.zeros(n, np.int64)
    for t in range(len(tree_start) - 1):
        for i in range(tree_start[t], tree_start[t + 1]):
            if feature[i] == LEAF:
                continue
            parent[i + 1] = parent[right[i]] = i
            j = parent[i]
            while j >= 0 and feature[j] != feature[i]:
                j = parent[j]
            same[i] = j
            unique[i + 1] = unique[right[i]] = unique[i] + (j < 0)
        for i in range(tree_start[t + 1] - 1, tree_start[t] - 1, -1):
            end[i] = i + 1 if feature[i] == LEAF else end[right[i]]
    return parent, end, same, unique


def node_arrays(forest: Forest, shape: Shape) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """What the compiled functions of this module take as `nodes` and `sets`."""
    wide = [array.astype(np.int64) for array in (forest.feature, forest.rank, forest.right)]
    nodes = (*wide, forest.missing_right, shape.parent, shape.end)
    return nodes, (forest.categories.astype(np.int64), forest.set_start, forest.set_right)


def make_groups(forest: Forest, shape: Shape, trees: NDArray[np.bool_], most_states: int) -> Groups:
    """Divides the chosen trees into groups of at most `most_states` states.

    Raises
    ------
    ValueError
        A leaf alone has more: 2 to the power of the different features on its path.
    """
    cuts = np.diff(forest.cut_start)
    nodes, sets = node_arrays(forest, shape)
    done, group, digit, sample, condition, tables, table = _make_groups(
        forest.tree_start, nodes, sets, cuts, trees, most_states
    )
    if not done:
        raise ValueError(f"a leaf has more than {most_states} states")
    # Conditions on a table of their own carry its number, negative; equal tables become one column.
    first = KINDS * forest.n_features + len(forest.set_start) - 1
    known: dict[tuple[int, bytes], int] = {}
    kept: list[tuple[int, NDArray[Any]]] = []
    wide = np.empty(len(tables), dtype=np.int64)
    for i, (feature, start) in enumerate(tables.tolist()):
        entries = table[start : start + forest.categories[feature] + 2]
        number = known.setdefault((feature, entries.tobytes()), len(kept))
        if number == len(kept):
            kept.append((feature, entries))
        wide[i] = first + number
    own = condition[:, 0] < 0
    condition[own, 0] = wide[-condition[own, 0] - 1]
    bins = make_bins(forest, condition[:, 0], kept)
    condition[:, 0] = bins.narrow[condition[:, 0]]
    return Groups(bins, group, digit, sample, condition)


@numba.njit(cache=True)
def with_room(array, needed):  # type: ignore[no-untyped-def]
    """The array, or a copy of it with more rows, so that there are `needed` of them."""
    if needed <= len(array):
        return array
    larger = np.zeros((max(needed, 2 * len(array)), array.shape[1]), array.dtype)
    larger[: len(array)] = array
    return larger


@numba.njit(cache=True)
def decides_right(node, sample, nodes, sets):  # type: ignore[no-untyped-def]
    """Whether a sample of the node's feature goes right there."""
    feature, rank, _, missing_right, _, _ = nodes
    categories, set_start, set_right = sets
    if categories[feature[node]] > 0:
        return set_right[set_start[rank[node]] + sample]
    return missing_right[node] if sample == ABSENT else sample > rank[node]


@numba.njit(cache=True)
def stays(node, f, sample, nodes, sets):  # type: ignore[no-untyped-def]
    """Whether a sample of feature f reaches the node, as far as that feature decides."""
    feature, _, _, _, parent, _ = nodes
    child, above = node, parent[node]
    while above >= 0:
        if feature[above] == f and decides_right(above, sample, nodes, sets) != (child != above + 1):
            return False
        child, above = above, parent[above]
    return True


@numba.njit(cache=True)
def _alike(g, f, one, other, nodes, sets):  # type: ignore[no-untyped-def]
    """Whether two samples of feature f are the same to the group at node g."""
    inside = stays(g, f, one, nodes, sets)
    if inside != stays(g, f, other, nodes, sets):
        return False
    if inside:
        for i in range(g, nodes[5][g]):
            if nodes[0][i] == f and decides_right(i, one, nodes, sets) != decides_right(i, other, nodes, sets):
                return False
    return True


@numba.njit(cache=True)
def _find_digit(digits, count, f, top):  # type: ignore[no-untyped-def]
    """The place of feature f among the digits, which are features, low and high ends; a new one, or -1 when full."""
    for d in range(count):
        if digits[d, 0] == f:
            return d, count
    if count == DIGITS:
        return -1, count
    digits[count] = (f, -1, top, 0)
    return count, count + 1


@numba.njit(cache=True)
def _gather(g, most_states, nodes, sets, cuts, digits, lows, classes):  # type: ignore[no-untyped-def]
    """The digits of the group at node g: fills their arrays and returns their number, or -1 when it is too large.

    `digits` rows are feature, low and high end (the ranks between which the path lies), and whether the path
    constrains it; `lows[d]` the number of conditions, then their low ends, then the state of a missing value.
    """
    feature, rank, _, _, parent, end = nodes
    categories = sets[0]
    count = 0
    child, above = g, parent[g]
    while above >= 0:
        f = feature[above]
        d, count = _find_digit(digits, count, f, cuts[f])
        if d < 0:
            return -1
        digits[d, 3] = 1
        if categories[f] == 0:
            if child == above + 1:
                digits[d, 2] = min(digits[d, 2], rank[above])
            else:
                digits[d, 1] = max(digits[d, 1], rank[above])
        child, above = above, parent[above]
    for i in range(g, end[g]):
        if feature[i] >= 0:
            d, count = _find_digit(digits, count, feature[i], cuts[feature[i]])
            if d < 0:
                return -1
    total = 1
    for d in range(count):
        f = digits[d, 0]
        if categories[f] > 0:
            states = 0
            for code in range(categories[f] + 2):
                classes[d, code] = states
                for c in range(states):
                    if _alike(g, f, lows[d, 2 + c], code, nodes, sets):
                        classes[d, code] = c
                        break
                if classes[d, code] == states:
                    if states == most_states:
                        return -1
                    lows[d, 2 + states] = code
                    states += 1
            lows[d, 0] = states - 1
        else:
            low, high = digits[d, 1], digits[d, 2]
            n = 0
            if digits[d, 3] and low < high:
                lows[d, 2] = low + 1
                n = 1
            for i in range(g, end[g]):
                if feature[i] == f and low < rank[i] < high:
                    place = n
                    while place > 0 and lows[d, 1 + place] > rank[i] + 1:
                        place -= 1
                    if place > 0 and lows[d, 1 + place] == rank[i] + 1:
                        continue
                    if n == most_states:
                        return -1
                    for later in range(n, place, -1):
                        lows[d, 2 + later] = lows[d, 1 + later]
                    lows[d, 2 + place] = rank[i] + 1
                    n += 1
            lows[d, 0] = n
            states = n + 1
            lows[d, 1] = states
            for s in range(states):
                if _alike(g, f, ABSENT, _sample(digits[d], lows[d], s), nodes, sets):
                    lows[d, 1] = s
                    break
            if lows[d, 1] == states:
                states += 1
        total *= states
        if total > most_states:
            return -1
    return count


@numba.njit(cache=True)
def _sample(digit, low, state):  # type: ignore[no-untyped-def]
    """A bin of a numeric digit's state."""
    if state > 0:
        return ABSENT if state > low[0] else low[1 + state]
    if digit[3] == 0:
        return 0
    return digit[1] if digit[1] >= 0 else digit[2] + 1


@numba.njit(cache=True)
def _conditions(found, n, digit, low, stride, top):  # type: ignore[no-untyped-def]
    """Appends the conditions of a numeric digit."""
    f, high, count, absent = digit[0], digit[2], low[0], low[1]
    kind, extra = LOW, 0
    first = low[2] if count else 1
    if absent == count and count > 0 and high == top:
        kind = HIGH
    elif not (absent == 1 and first == 0):
        # In this column no condition holds for a missing value.
        kind, extra = LOW if first > 0 else HIGH, absent
    for i in range(count):
        found[n] = (KINDS * f + kind, low[2 + i], high, stride)
        n += 1
    if extra:
        found[n] = (KINDS * f + MISSING, 1, 1, stride * extra)
        n += 1
    return n


@numba.njit(cache=True)
def _make_groups(tree_start, nodes, sets, cuts, trees, most_states):  # type: ignore[no-untyped-def]
    feature, right, end = nodes[0], nodes[2], nodes[5]
    categories = sets[0]
    group = np.zeros((64, 5), np.int64)
    digit = np.zeros((64, 4), np.int64)
    sample = np.zeros((64, 1), np.int64)
    condition = np.zeros((64, 4), np.int64)
    tables = np.zeros((16, 2), np.int64)
    table = np.zeros((16, 1), np.int64)
    n_group, n_digit, n_sample, n_condition, n_tables, n_table = 0, 0, 0, 0, 0, 0
    digits = np.zeros((DIGITS, 4), np.int64)
    lows = np.zeros((DIGITS, most_states + 3), np.int64)
    classes = np.zeros((DIGITS, 2 + (categories.max() if len(categories) else 0)), np.int64)
    waiting = np.zeros(len(feature) + 1, np.int64)
    done = True
    for t in range(len(tree_start) - 1):
        depth = 0
        if trees[t]:
            waiting[0] = tree_start[t]
            depth = 1
        while depth > 0:
            depth -= 1
            g = waiting[depth]
            count = _gather(g, most_states, nodes, sets, cuts, digits, lows, classes)
            if count < 0:
                if feature[g] < 0:
                    done = False
                    break
                waiting[depth], waiting[depth + 1] = right[g], g + 1
                depth += 2
                continue
            first_digit, first_condition, stride = n_digit, n_condition, 1
            for d in range(count):
                f, n = digits[d, 0], lows[d, 0]
                condition = with_room(condition, n_condition + n + 2)
                sample = with_room(sample, n_sample + n + 2)
                digit = with_room(digit, n_digit + 1)
                states = n + 1
                if categories[f] > 0:
                    codes = categories[f] + 2
                    table = with_room(table, n_table + codes)
                    table[n_table : n_table + codes, 0] = classes[d, :codes]
                    tables = with_room(tables, n_tables + 1)
                    tables[n_tables] = (f, n_table)
                    n_tables += 1
                    n_table += codes
                    for s in range(1, states):
                        condition[n_condition] = (-n_tables, s, n, stride)
                        n_condition += 1
                    for s in range(states):
                        sample[n_sample + s, 0] = lows[d, 2 + s]
                else:
                    n_condition = _conditions(condition, n_condition, digits[d], lows[d], stride, cuts[f])
                    states += lows[d, 1] == states
                    for s in range(states):
                        sample[n_sample + s, 0] = _sample(digits[d], lows[d], s)
                digit[n_digit] = (f, states, stride, n_sample)
                n_digit += 1
                n_sample += states
                stride *= states
            group = with_room(group, n_group + 2)
            group[n_group] = (g, end[g], stride, first_digit, first_condition)
            n_group += 1
    group[n_group] = (0, 0, 0, n_digit, n_condition)
    return (
        done,
        group[: n_group + 1].copy(),
        digit[:n_digit].copy(),
        sample[:n_sample, 0].copy(),
        condition[:n_condition].copy(),
        tables[:n_tables].copy(),
        table[:n_table, 0].copy(),
    )
