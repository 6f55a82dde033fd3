"""Profiles: what one pass finds, held against pandas and Polars, in every division of the rows."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from treadle.engine.backend import DTYPES
from treadle.engine.operation import ROW_ID
from treadle.engine.profile.columns import Limits
from treadle.engine.profile.describe import SHARES, describe
from treadle.engine.profile.document import ColumnProfile, Profile
from treadle.engine.profile.statistics import Statistics, gather_table, merge_tables
from treadle.engine.profile.texts import DATE_FORMATS, forms_of
from treadle.engine.relational.cast import cast
from treadle.errors import DataError

KINDS = {"n": "int", "x": "float", "b": "bool", "t": "text", "ts": "timestamp", "empty": "float", "void": "text"}
SMALL = Limits(quantiles=12, levels=6)


def frame_of(rows: Sequence[tuple[Any, ...]], kinds: Mapping[str, str]) -> pd.DataFrame:
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(kinds)
    frame = pd.DataFrame(
        {
            name: pd.Series(list(values), dtype=object).astype(DTYPES[kind])
            for (name, kind), values in zip(kinds.items(), columns, strict=True)
        }
    )
    frame.insert(0, ROW_ID, np.arange(len(frame)))
    return frame


def divided(frame: pd.DataFrame, cuts: Sequence[int]) -> list[pd.DataFrame]:
    edges = [0, *sorted(min(cut, len(frame)) for cut in cuts), len(frame)]
    return [frame.iloc[low:high] for low, high in itertools.pairwise(edges)]


def statistics_of(
    frames: Sequence[pd.DataFrame], kinds: Mapping[str, str], target: str | None = None, limits: Limits | None = None
) -> Statistics:
    """Merged in pairs, as the merges of a tree."""
    parts = [gather_table(frame, kinds, target, limits) for frame in frames]
    while len(parts) > 1:
        parts = [merge_tables(parts[i : i + 2]) for i in range(0, len(parts), 2)]
    return merge_tables(parts)


def profile_of(
    frames: Sequence[pd.DataFrame], kinds: Mapping[str, str], target: str | None = None, limits: Limits | None = None
) -> Profile:
    found = statistics_of(frames, kinds, target, limits)
    return describe(found, kinds, target, path="made", format_="parquet", files=1, bytes_=0, quarantined=0)


def assert_alike(one: Any, other: Any, where: str = "") -> None:
    """Equal, but for the last digits of floats."""
    if isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key, value in one.items():
            assert_alike(value, other[key], f"{where}.{key}")
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other), where
        for i, (a, b) in enumerate(zip(one, other, strict=True)):
            assert_alike(a, b, f"{where}.{i}")
    elif isinstance(one, float) and isinstance(other, float):
        assert one == pytest.approx(other, rel=1e-9, abs=1e-7), where
    else:
        assert one == other, where


cells = (
    st.none() | st.integers(-3, 9),
    st.none() | st.integers(-4, 4).map(lambda n: n / 2) | st.sampled_from([math.inf, 1e6]),
    st.none() | st.booleans(),
    st.none() | st.sampled_from(["", " ", "a", "A", "ab ", "7", "1.5", "2024-03-01", "01/02/2024", "true", "ünï"]),
    st.none() | st.integers(-400, 900).map(lambda n: pd.Timestamp("2024-01-01") + pd.Timedelta(hours=7 * n)),
    st.none(),
    st.none(),
)
tables = st.lists(st.tuples(*cells), max_size=40)
cuts = st.lists(st.integers(0, 40), max_size=4)


@given(tables, cuts)
@settings(max_examples=15, deadline=None)
def test_a_profile_is_what_pandas_says_of_the_whole(rows: list[tuple[Any, ...]], at: list[int]) -> None:
    frame = frame_of(rows, KINDS)
    profile = profile_of(divided(frame, at), KINDS)
    assert profile.rows == len(frame)
    assert profile.duplicate_rows == int(frame.drop(columns=ROW_ID).duplicated().sum())
    for column in profile.columns:
        series = frame[column.name]
        known = series.dropna()
        assert (column.rows, column.nulls) == (len(series), int(series.isna().sum()))
        assert (column.distinct, column.exact) == (known.nunique(), True)
        assert column.unique == ("yes" if len(known) and known.is_unique else "no")
        check_top(column, known)
        if column.number is not None:
            check_numbers(column, known.astype("float64"))
        if column.text is not None:
            check_texts(column, known)
        if column.time is not None:
            check_times(column, known)
    check_correlations(profile, frame)


def check_top(column: ColumnProfile, known: pd.Series) -> None:
    counts = known.value_counts()
    shown = {pd.Timestamp(str(top.value)) if column.kind == "timestamp" else top.value: top.count for top in column.top}
    assert column.top_error == 0
    assert all(counts[value] == count for value, count in shown.items())
    finite = counts[[not (isinstance(v, float) and math.isinf(v)) for v in counts.index]]
    assert [top.count for top in column.top] == sorted(finite.tolist(), reverse=True)[: len(column.top)]


def check_numbers(column: ColumnProfile, known: pd.Series) -> None:
    number = column.number
    assert number is not None
    finite = known[np.isfinite(known)]
    assert (number.zeros, number.negatives) == (int((known == 0).sum()), int((known < 0).sum()))
    assert number.infinities == len(known) - len(finite)
    want = {"minimum": finite.min(), "maximum": finite.max(), "mean": finite.mean(), "std": finite.std()}
    for name, value in want.items():
        assert (getattr(number, name) if len(finite) else None) == (
            None if pd.isna(value) else pytest.approx(value, rel=1e-9, abs=1e-9)
        )
    for share in SHARES:
        found = number.quantiles[f"{share:g}"]
        if not number.infinities:  # NumPy's are NaN next to infinite values
            assert found == (pytest.approx(np.quantile(known, share), rel=1e-12) if len(known) else None)
    if len(finite) and finite.nunique() > 1:
        apart = finite - finite.mean()
        assert number.skewness == pytest.approx((apart**3).mean() / apart.var(ddof=0) ** 1.5, rel=1e-6, abs=1e-6)
        assert number.kurtosis == pytest.approx((apart**4).mean() / apart.var(ddof=0) ** 2 - 3, rel=1e-6, abs=1e-6)
    if number.histogram is not None:
        histogram = number.histogram
        inside = finite[(finite >= histogram.edges[0]) & (finite <= histogram.edges[-1])]
        assert list(histogram.counts) == np.histogram(inside, histogram.edges)[0].tolist()
        assert sum(histogram.counts) + histogram.below + histogram.above == len(finite)


def check_texts(column: ColumnProfile, known: pd.Series) -> None:
    text = column.text
    assert text is not None
    lengths = known.str.len()
    assert (text.empty, text.blank) == (int((known == "").sum()), int((known.str.isspace()).sum()))
    assert text.padded == int(((known.str.strip() != known) & (known.str.strip() != "")).sum())
    if len(known):
        assert (text.shortest, text.longest) == (lengths.min(), lengths.max())
        assert text.mean_length == pytest.approx(lengths.mean())
        assert text.median_length == lengths.median()


def check_times(column: ColumnProfile, known: pd.Series) -> None:
    time = column.time
    assert time is not None
    assert time.midnights == int((known == known.dt.normalize()).sum())
    assert time.days == known.dt.normalize().nunique()
    if not len(known):
        assert (time.first, time.last, time.longest_gap, time.periods) == (None, None, None, None)
        return
    assert time.first is not None
    assert time.last is not None
    assert (pd.Timestamp(time.first), pd.Timestamp(time.last)) == (known.min(), known.max())
    gaps = known.drop_duplicates().sort_values().diff().dropna()
    assert (time.longest_gap.seconds if time.longest_gap else None) == (
        gaps.max().total_seconds() if len(gaps) else None
    )
    assert time.periods is not None
    assert sum(time.periods.counts) == len(known)
    rule = {"hour": "h", "day": "D", "week": "W-SUN", "month": "M", "quarter": "Q", "year": "Y"}[time.periods.unit]
    by_period = known.dt.to_period(rule).value_counts()
    counted = {
        pd.Period(start, freq=rule): n for start, n in zip(time.periods.starts, time.periods.counts, strict=True)
    }
    assert {period: n for period, n in counted.items() if n} == by_period.to_dict()


def check_correlations(profile: Profile, frame: pd.DataFrame) -> None:
    names = profile.correlations.columns
    assert names == tuple(name for name, kind in KINDS.items() if kind in ("int", "float", "bool"))
    numbers = frame[list(names)].astype("float64").replace([math.inf, -math.inf], math.nan)
    for i, one in enumerate(names):
        for j, other in enumerate(names):
            both = numbers[[one]].dropna() if one == other else numbers[[one, other]].dropna()
            constant = len(both) < 2 or both.nunique().min() < 2
            want = None if constant else pytest.approx(both[one].corr(both[other]), abs=1e-6)
            assert profile.correlations.matrix[i][j] == want


@given(tables, cuts, st.sampled_from([None, "n", "x", "b", "t"]))
@settings(max_examples=15, deadline=None)
def test_no_division_changes_a_profile(rows: list[tuple[Any, ...]], at: list[int], target: str | None) -> None:
    frame = frame_of(rows, KINDS)
    whole = profile_of([frame], KINDS, target)
    assert_alike(profile_of(divided(frame, at), KINDS, target).model_dump(), whole.model_dump())


@given(tables, cuts)
@settings(max_examples=15, deadline=None)
def test_tables_that_are_full_keep_their_bounds(rows: list[tuple[Any, ...]], at: list[int]) -> None:
    frame = frame_of(rows, KINDS)
    whole, parts = (profile_of(frames, KINDS, None, SMALL) for frames in ([frame], divided(frame, at)))
    for one, other in zip(whole.columns, parts.columns, strict=True):
        # Which top values are kept, and their bound, depend on the division; all else does not.
        plain = {"top", "top_error"}
        assert_alike(other.model_dump(exclude=plain), one.model_dump(exclude=plain))
        known = frame[one.name].dropna()
        counts = {str(value): n for value, n in known.value_counts().items()}
        for column in (one, other):
            assert column.top_error * (SMALL.levels + 1) <= len(known)
            if column.kind != "timestamp":
                for top in column.top:
                    assert counts[str(top.value)] - column.top_error <= top.count <= counts[str(top.value)]


def test_strict_json_even_of_nothing() -> None:
    for rows in ([], [(None,) * len(KINDS)] * 3, [(1, math.inf, None, "", None, None, None)]):
        for target in (None, "n", "t"):
            profile = profile_of([frame_of(rows, KINDS)], KINDS, target)
            text = profile.model_dump_json()
            assert "NaN" not in text
            assert "Infinity" not in text
            assert Profile.model_validate_json(text) == profile


def loaded(path: Path) -> tuple[pd.DataFrame, dict[str, str]]:
    """Real data as the engine reads them, with row numbers."""
    import pyarrow.parquet as pq

    from treadle.engine.backend import Backend, converted, kind_of_arrow

    table = pq.read_table(path)
    kinds = {field.name: kind_of_arrow(field.type) or "text" for field in table.schema}
    for i, (name, kind) in enumerate(kinds.items()):
        table = table.set_column(i, name, converted(table.column(name), kind))
    frame = Backend().frame(table)
    frame.insert(0, ROW_ID, np.arange(len(frame)))
    return frame, kinds


@pytest.mark.parametrize("name", ["adult/adult_train", "housing/housing"])
def test_real_data_are_as_polars_describes_them(name: str, shared_data: Path) -> None:
    path = shared_data / f"{name}.parquet"
    frame, kinds = loaded(path)
    table = polars.read_parquet(path)
    profile = profile_of(divided(frame, [10, 5000, 5000, 17_001]), kinds)
    described = table.describe(percentiles=[0.01, 0.25, 0.5, 0.99], interpolation="linear")
    rows = {row["statistic"]: row for row in described.iter_rows(named=True)}
    for column in profile.columns:
        series = table[column.name]
        assert column.nulls == series.null_count()
        assert column.distinct == series.drop_nulls().n_unique()
        counts = {row[0]: row[1] for row in series.drop_nulls().value_counts().iter_rows()}
        assert [top.count for top in column.top] == sorted(counts.values(), reverse=True)[: len(column.top)]
        assert all(counts[top.value] == top.count for top in column.top)
        if column.number is None:
            continue
        number = column.number
        found = {"mean": number.mean, "std": number.std, "min": number.minimum, "max": number.maximum}
        found |= {f"{float(share):.0%}": value for share, value in number.quantiles.items()}
        for statistic in ("mean", "std", "min", "1%", "25%", "50%", "99%", "max"):
            assert found[statistic] == pytest.approx(float(rows[statistic][column.name]), rel=1e-12)
        assert number.skewness == pytest.approx(series.skew(bias=True), rel=1e-9)
        assert number.kurtosis == pytest.approx(series.kurtosis(bias=True), rel=1e-9)
    names = list(profile.correlations.columns)
    complete = table.select(names).drop_nulls() if not table.select(names).null_count().sum_horizontal()[0] else None
    if complete is not None:
        want = complete.corr().to_numpy()
        np.testing.assert_allclose(np.array(profile.correlations.matrix, dtype=float), want, atol=1e-9)
    else:
        pairwise = table.select(names).to_pandas().corr().to_numpy()
        np.testing.assert_allclose(np.array(profile.correlations.matrix, dtype=float), pairwise, atol=1e-9)


def test_many_values_are_estimated_within_the_stated_error() -> None:
    rng = np.random.default_rng(8)
    rows = 300_000
    skewed = rng.zipf(1.3, rows) % 1_000_000
    frame = pd.DataFrame(
        {
            ROW_ID: np.arange(rows),
            "key": pd.array(rng.permutation(rows) * 7, dtype="Int64"),
            "x": rng.lognormal(size=rows),
            "words": pd.Series([f"w{n}" for n in skewed], dtype="str"),
        }
    )
    kinds = {"key": "int", "x": "float", "words": "text"}
    profile = profile_of(divided(frame, [100_000, 180_000]), kinds)
    key, x, words = profile.columns
    assert (key.unique, key.distinct, x.unique, words.unique) == ("likely", rows, "likely", "no")
    true = np.unique(skewed)
    assert words.distinct == pytest.approx(true.size, rel=4 * words.distinct_error)
    counts = dict(zip(*np.unique(skewed, return_counts=True), strict=True))
    for top in words.top:
        count = counts[int(str(top.value)[1:])]
        assert count - words.top_error <= top.count <= count
    assert words.top_error <= rows / 2**14
    assert x.number is not None
    assert 0 < x.number.quantile_error < 1e-4
    for share in SHARES:
        want = np.quantile(frame["x"], share)
        assert x.number.quantiles[f"{share:g}"] == pytest.approx(want, rel=2 * x.number.quantile_error)
    assert profile.duplicate_rows == 0
    twice = pd.concat([frame, frame.iloc[:60_000].assign(**{ROW_ID: np.arange(rows, rows + 60_000)})])
    found = profile_of(divided(twice, [150_000]), kinds)
    assert found.duplicate_rows == pytest.approx(60_000, abs=4 * found.duplicate_rows_error)
    assert found.column("key").unique == "no"


def test_wide_tables_take_no_more_memory() -> None:
    assert Limits.of(32) == Limits() == Limits(quantiles=131_072, levels=16_384)
    assert Limits.of(1000) == Limits(quantiles=4096, levels=512)
    for columns in (1, 30, 300, 3000):
        limits = Limits.of(columns)
        assert columns * (16 * limits.quantiles + 128 * limits.levels) <= 2 * 64 * 2**20 or limits == Limits(
            2**10, 2**9
        )


WORDS = """1|-1|+2.0| 3 |1e3|1.5|9223372036854775807|9223372036854775808|1e400|.5|5.|0x1f|1_000|inf|nan||007|true|False
TRUE|yes|t|2024-01-02|2024-1-2|2024-02-30|2024-01-02T03:04:05Z|2024-01-02 03:04|20240102|31/12/2024|12/31/2024|ten
31.12.2024 10:00|5 Mar 2024|Mar 5, 2024|12 Main St"""
WORD_LIST = WORDS.replace("\n", "|").split("|")


def takes(word: str, kind: Any, formats: Sequence[str] = ()) -> bool:
    """Whether the operation `cast` takes a text."""
    try:
        cast(pd.Series([word], dtype="str", name="c"), kind, formats)
    except DataError:
        return False
    return True


@given(st.lists(st.sampled_from(WORD_LIST) | st.text("0123456789-/.: eE+", max_size=12), max_size=10))
@settings(max_examples=15, deadline=None)
def test_forms_are_what_a_cast_takes(words: list[str]) -> None:
    forms = forms_of(words)
    nothing = np.zeros(len(words), dtype=np.bool_)
    for i, word in enumerate(words):
        for kind in ("int", "float", "timestamp"):
            # Infinity is a number to SQL, and a word to whoever keeps it as text.
            assert forms.get(kind, nothing)[i] == (takes(word, kind) and "inf" not in word)
        assert forms.get("bool", nothing)[i] == (word.lower() in ("true", "false"))


@pytest.mark.parametrize("form", DATE_FORMATS)
def test_formats_of_dates_are_those_that_a_cast_takes(form: str) -> None:
    written = [pd.Timestamp(text).strftime(form) for text in ("2024-12-31 23:59:58", "1999-01-02 03:04:05")]
    words = [*written, *WORD_LIST, written[0].replace("2024", "24"), written[0].replace("31", "32")]
    found = forms_of(words)[form]
    assert found[:2].all()
    assert found.tolist() == [takes(word, "timestamp", (form,)) for word in words]
