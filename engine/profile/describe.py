"""From statistics to the profile's document."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from treadle.engine.job import MAX_CLASSES, NUMBERS_ARE_CLASSES_UP_TO
from treadle.engine.profile import links
from treadle.engine.profile.columns import Column
from treadle.engine.profile.document import (
    Association,
    ColumnProfile,
    Correlations,
    NumberProfile,
    Profile,
    Target,
    TextProfile,
    TimeProfile,
    Top,
)
from treadle.engine.profile.findings import findings
from treadle.engine.profile.histograms import (
    as_time,
    longest_gap,
    number_histogram,
    number_quantile,
    periods_of,
    table_of,
    time_quantile,
)
from treadle.engine.profile.statistics import Statistics
from treadle.kernels import distinct
from treadle.kernels.sketch import int64_of_key

SHARES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
SHOWN_VALUES = 20
"""Top values of a column in the profile."""
FLOAT_DIGITS = 52
"""Bits of a float64 after the first."""


def describe(
    found: Statistics,
    kinds: Mapping[str, str],
    target: str | None,
    *,
    path: str | tuple[str, ...],
    format_: str,
    files: int,
    bytes_: int,
    quarantined: int,
) -> Profile:
    """The profile of a table, and what is odd in it."""
    columns = tuple(describe_column(name, found.columns[name]) for name in kinds)
    duplicates, error = _duplicates(found)
    profile = Profile(
        path=path,
        format=format_,
        files=files,
        bytes=bytes_,
        rows=found.rows,
        quarantined=quarantined,
        duplicate_rows=duplicates,
        duplicate_rows_error=error,
        columns=columns,
        correlations=_correlations(found, kinds),
        target=None if target is None else _target(found, columns, target),
    )
    return profile.model_copy(update={"findings": findings(profile, found.columns)})


def describe_column(name: str, column: Column) -> ColumnProfile:
    """One column's part."""
    number, exact = column.distinct()
    unique = _unique(column, number, exact)
    top, top_error = column.most_frequent(SHOWN_VALUES)
    values = column.values([key for key, _ in top])
    if column.kind == "timestamp":
        values = [as_time(int(value)) for value in values]
    return ColumnProfile(
        name=name,
        kind=column.kind,  # type: ignore[arg-type]
        rows=column.rows,
        nulls=column.nulls,
        distinct=column.known if unique == "likely" else number,
        distinct_error=0.0 if exact else distinct.relative_error(),
        unique=unique,  # type: ignore[arg-type]
        top=tuple(
            Top(value=value, count=count)
            for value, (_, count) in zip(values, top, strict=True)
            if not (isinstance(value, float) and not math.isfinite(value))
        ),
        top_error=top_error,
        number=_number(column),
        text=_text(column),
        time=_time(column),
    )


def _unique(column: Column, number: int, exact: bool) -> str:
    """Of estimated columns: whether no value of the sample is repeated, and the estimate does not speak against it."""
    if exact:
        return "yes" if 0 < number == column.known else "no"
    enough = number >= column.known * (1 - 4 * distinct.relative_error())
    return "likely" if enough and column.sampled.repeated == 0 else "no"


def _duplicates(found: Statistics) -> tuple[int, float]:
    """Rows that equal an earlier one, and the standard error: from how often sampled distinct rows occur."""
    counts = found.row_sample.counts
    if found.row_sample.complete:
        return found.rows - counts.size, 0.0
    mean, spread = float(counts.mean()), float(counts.std())
    error = found.rows * max(spread / mean**2 / math.sqrt(counts.size), 1 / counts.size)
    return round(found.rows * (1 - 1 / mean)), error


def _number(column: Column) -> NumberProfile | None:
    numbers = column.numbers
    if numbers is None:
        return None
    values, counts = table_of(column)
    moments = numbers.moments
    skewness, kurtosis = _shape(values, counts)
    least = int if column.kind == "int" else float
    shift = numbers.quantiles.shift
    some = moments.count > 0
    ends = (values[0], values[-1]) if some and shift == 0 else (moments.minimum, moments.maximum)
    return NumberProfile(
        minimum=least(ends[0]) if some else None,
        maximum=least(ends[1]) if some else None,
        mean=_finite(moments.mean) if some else None,
        std=_finite(math.sqrt(moments.m2 / (moments.count - 1))) if moments.count > 1 else None,
        skewness=skewness,
        kurtosis=kurtosis,
        zeros=numbers.zeros,
        negatives=numbers.negatives,
        infinities=numbers.infinities,
        quantiles={f"{share:g}": number_quantile(column, share) for share in SHARES},
        quantile_error=0.0 if shift == 0 else 2.0 ** (shift - (0 if column.kind == "int" else FLOAT_DIGITS)),
        histogram=number_histogram(column),
    )


def _shape(values: np.ndarray, counts: np.ndarray) -> tuple[float | None, float | None]:
    """Skewness and excess kurtosis of distinct values with their counts."""
    rows = int(counts.sum())
    if rows == 0 or values[0] == values[-1]:
        return None, None
    weights = counts / rows
    with np.errstate(over="ignore", invalid="ignore"):
        apart = values.astype(np.float64) - float(np.dot(weights, values))
        second = float(np.dot(weights, apart**2))
        third, fourth = float(np.dot(weights, apart**3)), float(np.dot(weights, apart**4))
        if not 0 < second < math.inf:
            return None, None
        return _finite(third / second**1.5), _finite(fourth / second**2 - 3)


def _text(column: Column) -> TextProfile | None:
    texts = column.texts
    if texts is None:
        return None
    lengths = texts.lengths
    some = lengths.total > 0
    ordered = int64_of_key(lengths.keys)
    median = None
    if some:
        ranks = (lengths.total + 1) // 2, lengths.total // 2 + 1
        keys = np.array([lengths.rank_key(rank) for rank in ranks], dtype=np.uint64)
        median = float(int64_of_key(keys).mean())
    return TextProfile(
        shortest=int(ordered[0]) if some else None,
        mean_length=texts.characters / lengths.total if some else None,
        median_length=median,
        longest=int(ordered[-1]) if some else None,
        empty=texts.empty,
        blank=texts.blank,
        padded=texts.padded,
        leading_zeros=texts.zero_led,
        forms=dict(texts.forms),
    )


def _time(column: Column) -> TimeProfile | None:
    times = column.times
    if times is None:
        return None
    keys = times.quantiles.keys
    some = keys.size > 0
    ends = int64_of_key(keys[[0, -1]]).tolist() if some else []
    return TimeProfile(
        first=as_time(ends[0]) if some else None,
        last=as_time(ends[1]) if some else None,
        quantiles={f"{share:g}": time_quantile(column, share) for share in SHARES},
        quantile_error_seconds=0.0 if times.quantiles.shift == 0 else 2.0**times.quantiles.shift / 1e6,
        midnights=times.midnights,
        days=int(times.days.keys.size),
        longest_gap=longest_gap(times.quantiles),
        periods=periods_of(times),
    )


def _correlations(found: Statistics, kinds: Mapping[str, str]) -> Correlations:
    order = [name for name in kinds if name in found.correlated]
    places = [found.correlated.index(name) for name in order]
    matrix = found.pairs.correlations()[np.ix_(places, places)]
    numeric = [name for name, kind in kinds.items() if kind in ("int", "float", "bool")]
    return Correlations(
        columns=tuple(order),
        matrix=tuple(tuple(_finite(value) for value in line) for line in matrix.tolist()),
        left_out=tuple(name for name in numeric if name not in order),
    )


def _target(found: Statistics, columns: Sequence[ColumnProfile], target: str) -> Target:
    task = task_of(next(column for column in columns if column.name == target))
    associations = []
    pearson = found.pairs.correlations()
    for column in columns:
        if column.name == target or task is None or found.links is None:
            continue
        classes = task == "classification"
        measure, strength = links.strength(found.links, column.name, classes)
        if not classes and column.name in found.correlated and target in found.correlated:
            value = pearson[found.correlated.index(column.name), found.correlated.index(target)]
            measure, strength = "pearson", None if math.isnan(value) else abs(float(value))
        associations.append(
            Association(
                column=column.name,
                measure=measure,  # type: ignore[arg-type]
                strength=strength,
                null_strength=links.null_strength(found.links, column.name, classes),
            )
        )
    strongest = sorted(associations, key=lambda a: -max(a.strength or 0.0, a.null_strength or 0.0))
    return Target(column=target, task=task, associations=tuple(strongest))  # type: ignore[arg-type]


def task_of(column: ColumnProfile) -> str | None:
    """What the engine takes the target for: classification or regression; None when it can be neither."""
    if column.kind == "float":
        return "regression" if column.distinct > 1 else None
    if column.kind == "int" and column.distinct > NUMBERS_ARE_CLASSES_UP_TO:
        return "regression"
    return "classification" if column.kind != "timestamp" and 2 <= column.distinct <= MAX_CLASSES else None


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
