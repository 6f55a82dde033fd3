"""Slow, obvious versions of what the kernels compute, written from the definitions."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction


def splitmix64(state: int, outputs: int) -> list[int]:
    """The first outputs of the published generator, in Python integers."""
    mask = (1 << 64) - 1
    found = []
    for _ in range(outputs):
        state = (state + 0x9E3779B97F4A7C15) & mask
        z = state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        found.append(z ^ (z >> 31))
    return found


def coarsest_table(keys: Sequence[int], limit: int) -> tuple[list[int], list[int], int]:
    """Bucket lower ends, counts and shift, by trying every shift from 0."""
    for shift in range(65):
        counts = Counter(key >> shift << shift for key in keys)
        if len(counts) <= limit:
            break
    return sorted(counts), [counts[key] for key in sorted(counts)], shift


def pairwise_auc(scores: Sequence[float], labels: Sequence[int]) -> float:
    """Share of (positive, negative) pairs in the right order, ties half."""
    positives = [s for s, label in zip(scores, labels, strict=True) if label]
    negatives = [s for s, label in zip(scores, labels, strict=True) if not label]
    if not positives or not negatives:
        return math.nan
    won = sum((p > n) + 0.5 * (p == n) for p in positives for n in negatives)
    return won / (len(positives) * len(negatives))


def exact_total(values: Sequence[float]) -> Fraction:
    """The sum as a fraction."""
    return sum((Fraction(value) for value in values), Fraction(0))


def exact_r2(predicted: Sequence[float], target: Sequence[float]) -> Fraction:
    """R squared in fractions; the target is not constant."""
    mean = exact_total(target) / len(target)
    pairs = zip(predicted, target, strict=True)
    errors = sum(((Fraction(p) - Fraction(t)) ** 2 for p, t in pairs), Fraction(0))
    return 1 - errors / sum(((Fraction(t) - mean) ** 2 for t in target), Fraction(0))
