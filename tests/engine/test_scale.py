"""clip, scale, bin and interactions: against scikit-learn, NumPy and pandas on the whole data."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from sklearn.preprocessing import KBinsDiscretizer, PolynomialFeatures, QuantileTransformer, RobustScaler

from tests.engine.parts import applied, fitted_on, job_of
from treadle.engine.features import check
from treadle.errors import DataError, RequestError

NUMBERS = st.lists(
    st.sampled_from([None, 0.0, -0.0, 1.0, 2.5, -1e7, 1e-3]) | st.integers(-9, 9), min_size=1, max_size=30
)


def made(section: dict[str, Any], train: Any, asked: Any) -> np.ndarray:
    """Column `x` after the operation, fitted on two partitions and one without rows."""
    frames = [pd.DataFrame({"x": pd.Series(values, dtype="float64")}) for values in (train, asked)]
    cut = len(frames[0]) // 3
    parts = [frames[0].iloc[a:b].reset_index(drop=True) for a, b in ((0, cut), (cut, cut), (cut, None))]
    fitted, _, inputs = fitted_on([{"columns": ["x"], **section}], *parts)
    return applied(fitted, inputs, frames[1])["x"].to_numpy()


def column(values: Any) -> np.ndarray:
    return np.array([[np.nan if value is None else value] for value in values], dtype=np.float64)


@settings(max_examples=25, deadline=None)
@given(NUMBERS, NUMBERS)
def test_robust_scaling_is_scikit_learns(train: list[Any], asked: list[Any]) -> None:
    train = [*train, 3.0]
    expected = RobustScaler().fit(column(train)).transform(column(asked))[:, 0]
    np.testing.assert_allclose(made({"op": "scale", "method": "robust"}, train, asked), expected, rtol=1e-12)


@pytest.mark.parametrize("quantiles", [2, 7, 1000])
def test_quantile_scaling_is_scikit_learns(quantiles: int) -> None:
    rng = np.random.default_rng(quantiles)
    for train in (rng.lognormal(size=5000), rng.integers(0, 4, 300).astype(float), np.full(5, 2.0), rng.normal(size=3)):
        asked = np.r_[train[:50], train.min() - 1, train.max() + 1, np.nan, rng.normal(size=50), np.inf, -np.inf]
        scaler = QuantileTransformer(n_quantiles=min(quantiles, len(train)), subsample=None)
        found = made({"op": "scale", "method": "quantile", "quantiles": quantiles}, train, asked)
        scaler.fit(train[:, None])
        finite = np.isfinite(asked)
        np.testing.assert_allclose(found[finite], scaler.transform(asked[finite, None])[:, 0], atol=1e-9)
        assert np.isnan(found[np.isnan(asked)]).all()
        assert found[-2:].tolist() == [1.0, 0.0]


@settings(max_examples=25, deadline=None)
@given(NUMBERS, NUMBERS, st.sampled_from([(0.0, 1.0), (0.01, 0.99), (0.25, 0.3)]))
def test_clip_is_pandas(train: list[Any], asked: list[Any], ends: tuple[float, float]) -> None:
    train = [*train, 3.0]
    known = pd.Series(train, dtype="float64").dropna()
    expected = pd.Series(asked, dtype="float64").clip(*(np.quantile(known, q) for q in ends))
    found = made({"op": "clip", "lower": ends[0], "upper": ends[1]}, train, asked)
    np.testing.assert_array_equal(found, expected)


def test_clip_caps_a_few_infinite_values() -> None:
    train = [*range(100), np.inf, -np.inf]
    found = made({"op": "clip", "lower": 0.05, "upper": 0.95}, train, train)
    assert (found.min(), found.max()) == (np.quantile(sorted(train), 0.05), np.quantile(sorted(train), 0.95))


@pytest.mark.parametrize("bins", [2, 5, 40])
@pytest.mark.parametrize("method", ["width", "quantile"])
def test_bins_are_scikit_learns(method: str, bins: int) -> None:
    rng = np.random.default_rng(bins)
    for train in (rng.normal(size=3000), rng.integers(0, 50, 700).astype(float)):
        asked = np.r_[train[:200], train.min() - 1, train.max() + 1, rng.normal(size=50)]
        found = made({"op": "bin", "method": method, "bins": bins}, np.r_[train, np.nan], np.r_[asked, np.nan])
        how: dict[str, Any] = {"strategy": "uniform"} if method == "width" else {"strategy": "quantile"}
        encoder = KBinsDiscretizer(bins, encode="ordinal", quantile_method="linear", subsample=None, **how)
        np.testing.assert_array_equal(found[:-1], encoder.fit(train[:, None]).transform(asked[:, None])[:, 0])
        assert np.isnan(found[-1])


def test_few_values_make_fewer_bins() -> None:
    assert made({"op": "bin", "method": "quantile", "bins": 4}, [1, 1, 1, 1, 2, 9], [0, 1, 1.5, 2, 9, 10]).tolist() == [
        *(0, 0, 0, 1, 1, 1),
    ]
    for method in ("width", "quantile"):
        assert made({"op": "bin", "method": method}, [5, 5, None], [4, 5, 6]).tolist() == [0, 0, 0]
    one = made({"op": "scale", "method": "quantile"}, [5], [4, 5, 6, None])
    np.testing.assert_array_equal(one, [0.0, 0.0, 1.0, np.nan])
    assert made({"op": "scale", "method": "robust"}, [7, 7, 7, 1], [7, 1, 9]).tolist() == [0.0, -4.0, 4 / 3]


def test_constant_columns() -> None:
    for section in ({"op": "scale", "method": "robust"}, {"op": "bin"}, {"op": "bin", "method": "quantile"}):
        assert made(section, [0.1] * 7, [0.1, 0.1]).tolist() == [0, 0]
    assert made({"op": "clip"}, [0.1] * 7, [0.1, 5.0]).tolist() == [0.1, 0.1]


def test_the_sample_may_be_large_and_distinct() -> None:
    train = np.random.default_rng(3).lognormal(size=200_000)
    found = made({"op": "scale", "method": "quantile", "quantiles": 500}, train, train)
    ranks = (np.argsort(np.argsort(train)) + 0.5) / len(train)
    assert abs(found - ranks).max() < 2e-3


@pytest.mark.parametrize("degree", [2, 3, 4])
def test_interactions_are_scikit_learns(degree: int) -> None:
    frame = pd.DataFrame(np.random.default_rng(1).normal(size=(9, 5)), columns=[*"abcde"])
    section = {"op": "interactions", "columns": ["d", "a", "b", "c"], "degree": degree}
    fitted, kinds, inputs = fitted_on([section], frame)
    found = applied(fitted, inputs, frame)
    maker = PolynomialFeatures(degree, interaction_only=True, include_bias=False)
    expected = maker.fit_transform(frame[["d", "a", "b", "c"]])
    names = [name.replace(" ", "*") for name in maker.get_feature_names_out()]
    assert list(found) == list(kinds) == [*"abcde", *names[4:]]
    np.testing.assert_allclose(found[names], expected, rtol=1e-12)


def test_interactions_with_null_and_with_what_was_made_before() -> None:
    frame = pd.DataFrame({"a": [1.0, np.nan, 3.0], "b": pd.array([2, 3, None], dtype="Int64"), "c": ["x", "y", "x"]})
    frame = frame.astype({"c": "str"})
    sections: list[dict[str, Any]] = [
        {"op": "one_hot", "columns": ["c"]},
        {"op": "interactions", "columns": ["a", "b", "c=x"]},
        {"op": "scale", "columns": ["a*c=x"], "method": "minmax"},
    ]
    fitted, kinds, inputs = fitted_on(sections, frame)
    found = applied(fitted, inputs, frame)
    np.testing.assert_array_equal(found["a*b"], [2.0, np.nan, np.nan])
    np.testing.assert_array_equal(found["b*c=x"], [2.0, 0.0, np.nan])
    np.testing.assert_array_equal(found["a*c=x"], [0.0, np.nan, 1.0])
    assert list(found) == list(kinds)


@pytest.mark.parametrize(
    "section",
    [{"op": "clip"}, {"op": "bin"}, *({"op": "scale", "method": method} for method in ("robust", "quantile"))],
    ids=["clip", "bin", "robust", "quantile"],
)
def test_what_cannot_be_learnt_from_is_refused(section: dict[str, Any]) -> None:
    with pytest.raises(DataError, match=f"{section['op']}: column 'x' is null in every training row"):
        made(section, [None, None], [1.0])
    with pytest.raises(DataError, match=f"{section['op']}: column 'x' holds infinite values"):
        made(section, [np.inf, 1.0, np.inf], [1.0])


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({"op": "clip", "lower": 0.9, "upper": 0.2}, "lower: it is a smaller share than upper"),
        ({"op": "clip", "upper": 1.5}, "less than or equal to 1"),
        ({"op": "scale", "quantiles": 9}, "quantiles: it goes with method: quantile only"),
        ({"op": "scale", "method": "quantile", "quantiles": 1}, "greater than or equal to 2"),
        ({"op": "bin", "bins": 1}, "greater than or equal to 2"),
        ({"op": "interactions", "degree": 5}, "2, 3 or 4"),
    ],
)
def test_configurations_that_make_no_sense(section: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        job_of([{"columns": ["x"], **section}])


def test_too_many_products_are_refused_before_anything_runs() -> None:
    kinds = {f"x{i}": "float" for i in range(50)}
    with pytest.raises(RequestError, match="interactions: 50 columns have 1225 products of up to 2, more than 1000"):
        check(job_of([{"op": "interactions", "columns": "numeric"}]), {**kinds, "y": "float"})
    with pytest.raises(RequestError, match=r"interactions: there would be two features called 'x0\*x1'; rename"):
        check(job_of([{"op": "interactions", "columns": ["x0", "x1"]}] * 2), {**kinds, "y": "float"})
