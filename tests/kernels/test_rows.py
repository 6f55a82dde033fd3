"""Tables as rows of the kernels: the bits of a matrix, columns read where they lie, and what is refused."""

from __future__ import annotations

import decimal
import gc
import itertools
import math
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.kernels import tree_reference as reference
from tests.kernels.forests import Floats, Shape, built, matching_rows, random_forest, row_types, seeds, shapes, threads
from treadle.errors import RequestError
from treadle.kernels import rows as rows_module
from treadle.kernels.forest import Forest, compile_forest
from treadle.kernels.predict import predict_margin
from treadle.kernels.rows import Columns, Convertible, as_matrix, as_rows, blocks
from treadle.kernels.treeshap import TreeExplainer


def names(rows: Any) -> list[str]:
    return [f"f{j}" for j in range(rows.shape[1])]


def table(rows: Floats) -> pa.Table:
    return pa.table([pa.array(column) for column in rows.T], names=names(rows))


def with_nulls(rows: Floats) -> pa.Table:
    """Null in place of NaN."""
    return pa.table([pa.array(column, mask=np.isnan(column)) for column in rows.T], names=names(rows))


def in_chunks(whole: pa.Table) -> pa.Table:
    """The same table in chunks, one of them empty."""
    ends = [0, min(1, len(whole)), min(5, len(whole)), min(5, len(whole)), len(whole)]
    return pa.concat_tables([whole.slice(low, high - low) for low, high in itertools.pairwise(ends)])


def inside(whole: pa.Table) -> pa.Table:
    """The same table as a slice of a longer one."""
    return (
        pa.concat_tables([whole.slice(0, 3), whole, whole.slice(0, 2)])
        .combine_chunks()
        .slice(min(3, len(whole)), len(whole))
    )


def apart(rows: Floats) -> pd.DataFrame:
    """A frame of columns that do not lie in one array."""
    frame = pd.DataFrame(index=np.arange(len(rows)))
    for j, column in enumerate(rows.T):
        frame[f"f{j}"] = column.copy()
    return frame


def read_only(rows: Floats) -> Floats:
    kept = rows.copy()
    kept.flags.writeable = False
    return kept


def unaligned(rows: Floats) -> Floats:
    raw = np.zeros(rows.nbytes + 1, dtype=np.uint8)
    found = raw[1:].view(rows.dtype).reshape(rows.shape)
    found[:] = rows
    assert not found.flags.aligned or not rows.size
    return found


KINDS: dict[str, Callable[[Floats], Any]] = {
    "Fortran order": np.asfortranarray,
    "part of a wider array": lambda rows: np.pad(rows, 3)[3:-3, 3:-3],
    "every second row and column": lambda rows: np.repeat(np.repeat(rows, 2, axis=0), 2, axis=1)[::2, ::2],
    "backwards": lambda rows: np.ascontiguousarray(rows[::-1, ::-1])[::-1, ::-1],
    "read-only": read_only,
    "unaligned": unaligned,
    "other byte order": lambda rows: rows.astype(rows.dtype.newbyteorder()),
    "Arrow": table,
    "Arrow in chunks": lambda rows: in_chunks(table(rows)),
    "Arrow slice": lambda rows: inside(table(rows)),
    "Arrow with nulls": with_nulls,
    "Arrow with nulls in chunks": lambda rows: in_chunks(with_nulls(rows)),
    "Arrow slice with nulls": lambda rows: inside(with_nulls(rows)),
    "record batch": lambda rows: pa.record_batch(table(rows).to_pydict(), schema=table(rows).schema),
    "struct array": lambda rows: table(rows).to_struct_array().combine_chunks(),
    "pandas": pd.DataFrame,
    "pandas of Fortran order": lambda rows: pd.DataFrame(np.asfortranarray(rows)),
    "pandas columns": apart,
    "pandas with every second row": lambda rows: pd.DataFrame(np.repeat(rows, 2, axis=0)).iloc[::2],
    "nullable pandas": lambda rows: pd.DataFrame(rows).astype("Float64"),
    "pandas of Arrow": lambda rows: with_nulls(rows).to_pandas(types_mapper=pd.ArrowDtype),
    "polars": lambda rows: pl.DataFrame({f"f{j}": column for j, column in enumerate(rows.T)}),
    "polars with nulls": lambda rows: pl.DataFrame(with_nulls(rows)),
}


@pytest.fixture(params=["as it is", "as if it were large"])
def sizes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs a test a second time with limits under which the few rows of a test count as many."""
    if request.param != "as it is":
        monkeypatch.setattr(rows_module, "FEW_VALUES", 0)
        monkeypatch.setattr(rows_module, "CONVERTED_ROWS", 16)


def forest_of(seed: int, n_features: int = 5, **kwargs: Any) -> tuple[Forest, np.random.Generator]:
    rng = np.random.default_rng(seed)
    shape = Shape(n_features=n_features, n_trees=12, depth=5, categorical=True, zero_missing=True, **kwargs)
    return random_forest(rng, shape), rng


@pytest.mark.parametrize("kind", KINDS)
@given(shapes, seeds, row_types, st.integers(0, 70), st.booleans())
@settings(deadline=None, max_examples=12)
def test_any_kind_gives_the_bits_of_the_matrix(
    kind: str, shape: Shape, seed: int, dtype: str, size: int, large: bool
) -> None:
    rng = np.random.default_rng(seed)
    forest = random_forest(rng, shape)
    rows = matching_rows(rng, forest, size, dtype)
    expected = predict_margin(forest, rows)
    with pytest.MonkeyPatch.context() as patched:
        if large:
            patched.setattr(rows_module, "FEW_VALUES", 0)
            patched.setattr(rows_module, "CONVERTED_ROWS", 16)
        found = predict_margin(forest, KINDS[kind](rows))
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_allclose(found, reference.margins(forest, rows), rtol=1e-12, atol=1e-11)


@pytest.mark.usefixtures("sizes")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", ["tables", "quadrature"])
def test_any_kind_is_explained_as_the_matrix(kind: str, method: Any) -> None:
    forest, rng = forest_of(1, n_outputs=2)
    rows, background = matching_rows(rng, forest, 40), matching_rows(rng, forest, 6)
    given_rows, given_background = KINDS[kind](rows), KINDS[kind](background)
    ours = TreeExplainer(forest, method=method)
    np.testing.assert_array_equal(ours.shap_values(given_rows), ours.shap_values(rows))
    np.testing.assert_array_equal(ours.interaction_values(given_rows), ours.interaction_values(rows))
    expected = TreeExplainer(forest, background, method=method).shap_values(rows)
    found = TreeExplainer(forest, given_background, method=method).shap_values(given_rows)
    np.testing.assert_array_equal(found, expected)


MIXED: dict[str, list[Any]] = {
    "float32": [0.1, -0.5, math.nan, 3.0],
    "float64": [0.1, -0.5, math.nan, 1e300],
    "float16": [0.1, -0.5, math.nan, 2.0],
    "int8": [0, 1, -1, 127],
    "int64": [2**53 + 1, -(2**53) - 3, 2**63 - 1, 0],
    "uint64": [2**53 + 1, 2**64 - 1, 0, 3],
    "bool": [True, False, True, True],
    "Int64": [2**53 + 1, None, -(2**53) - 3, 0],
    "UInt8": [1, None, 0, 255],
    "Float32": [0.1, None, -0.5, 1.5],
    "Float64": [0.1, None, -0.5, 1e300],
    "boolean": [True, None, False, True],
    "Sparse[float64]": [0.0, math.nan, 0.5, 0.0],
    "float[pyarrow]": [0.1, None, -0.5, 1.5],
    "double[pyarrow]": [0.1, None, -0.5, 1e300],
    "int64[pyarrow]": [2**53 + 1, None, -(2**53) - 3, 0],
    "bool[pyarrow]": [True, None, False, True],
}
ROUNDED = {"float16": np.float16, "float32": np.float32, "Float32": np.float32, "float[pyarrow]": np.float32}


def floats(values: list[Any], rounded: Callable[[float], Any] = float) -> Floats:
    """Each value as Python's float, None as NaN."""
    return np.array([math.nan if value is None else float(rounded(float(value))) for value in values])


@pytest.mark.usefixtures("sizes")
@pytest.mark.parametrize("repeats", [1, 13])
@pytest.mark.parametrize("dtype", MIXED)
def test_a_pandas_column_of_any_type(dtype: str, repeats: int) -> None:
    values = MIXED[dtype] * repeats
    forest = built([], Shape(n_features=1))
    frame = pd.DataFrame({"a": pd.Series(values, dtype=dtype)})
    expected = floats(values, ROUNDED.get(dtype, float))
    np.testing.assert_array_equal(as_matrix(as_rows(forest, frame))[:, 0], expected)


@pytest.mark.usefixtures("sizes")
@pytest.mark.parametrize("forest_dtype", ["float32", "float64"])
def test_a_frame_of_many_types(forest_dtype: str) -> None:
    forest, _ = forest_of(2, n_features=len(MIXED), dtype=forest_dtype)
    frame = pd.DataFrame({dtype: pd.Series(values * 9, dtype=dtype) for dtype, values in MIXED.items()})
    matrix = np.stack([floats(values * 9, ROUNDED.get(dtype, float)) for dtype, values in MIXED.items()], axis=1)
    np.testing.assert_array_equal(as_matrix(as_rows(forest, frame)), matrix)
    np.testing.assert_array_equal(predict_margin(forest, frame), predict_margin(forest, matrix))


ARROW: dict[str, list[Any]] = {
    **{f"int{bits}": [0, 1, None, 1 - 2 ** (bits - 1), 2 ** (bits - 1) - 1] for bits in (8, 16, 32, 64)},
    **{f"uint{bits}": [0, 1, None, 2**bits - 1, 2**bits - 2] for bits in (8, 16, 32, 64)},
    "bool": [True, None, False, True, True],
    "float16": [np.float16(v) for v in (0.5, 2.0, math.nan, math.inf, -0.5)],
    "float": [0.5, None, math.nan, math.inf, -0.5],
    "double": [0.5, None, math.nan, math.inf, 1e300],
    "null": [None] * 5,
}


@pytest.mark.usefixtures("sizes")
@pytest.mark.parametrize("nulls", [True, False])
@pytest.mark.parametrize("shaped", [lambda whole: whole, in_chunks, inside], ids=["whole", "in chunks", "slice"])
@pytest.mark.parametrize("kind", ARROW)
def test_an_arrow_column_of_any_type(kind: str, shaped: Any, nulls: bool) -> None:
    values = [v for v in ARROW[kind] if nulls or v is not None] * 8
    column = pa.array(values, pa.type_for_alias(kind.replace("float16", "halffloat")))
    rows = as_rows(built([], Shape(n_features=1)), shaped(pa.table({"a": column})))
    np.testing.assert_array_equal(as_matrix(rows)[:, 0], floats(values))


def test_a_trained_model_reads_the_table_it_was_trained_on() -> None:
    xgboost = pytest.importorskip("xgboost")
    rng = np.random.default_rng(3)
    frame = pd.DataFrame(
        {
            "wide": rng.normal(size=400),
            "narrow": rng.normal(size=400).astype(np.float32),
            "whole": rng.integers(-5, 5, 400),
            "flag": rng.random(400) < 0.5,
            "some": pd.array(np.where(rng.random(400) < 0.3, None, rng.integers(0, 9, 400)), dtype="Int64"),
        }
    )
    target = frame["wide"] * frame["flag"] + frame["whole"] + frame["some"].fillna(-3).astype(float)
    data = xgboost.DMatrix(frame, target, nthread=1)
    booster = xgboost.train({"max_depth": 5, "nthread": 1}, data, 20)
    expected = booster.predict(data, output_margin=True)
    forest = compile_forest(booster)
    for given_rows in (frame, pa.Table.from_pandas(frame), pl.from_pandas(frame)):
        np.testing.assert_allclose(predict_margin(forest, given_rows), expected, rtol=1e-5, atol=1e-5)


def places(rows: Any) -> list[int]:
    """The addresses of the first row of columns that are read in place."""
    assert isinstance(rows, Columns)
    return (rows.place[:, 0] + rows.first * rows.place[:, 1]).tolist()


def address(column: Any) -> int:
    found: int = column.__array_interface__["data"][0]
    return found


def many(dtype: str = "float64") -> tuple[Forest, Floats]:
    """Rows half of which are more than what is copied because it is little."""
    forest, rng = forest_of(4)
    return forest, matching_rows(rng, forest, 2 * rows_module.FEW_VALUES // 5 + 100, dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_columns_are_read_where_they_lie(dtype: str) -> None:
    forest, rows = many(dtype)
    whole = table(rows)
    buffers = [column.chunk(0).buffers()[1].address for column in whole.columns]
    size = rows.itemsize
    assert places(as_rows(forest, whole)) == buffers
    assert places(as_rows(forest, whole.to_batches()[0])) == buffers
    assert places(as_rows(forest, whole.slice(7, 50))) == [start + 7 * size for start in buffers]
    assert places(as_rows(forest, whole)[7:][2:60]) == [start + 9 * size for start in buffers]
    few = table(rows[:1])
    assert places(as_rows(forest, few)) == [column.chunk(0).buffers()[1].address for column in few.columns]
    polar = pl.DataFrame(whole)
    assert places(as_rows(forest, polar)) == [address(column.to_numpy(allow_copy=False)) for column in polar]
    arrow_frame = whole.to_pandas(types_mapper=pd.ArrowDtype)
    assert places(as_rows(forest, arrow_frame)) == buffers


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_frames_and_matrices_are_read_where_they_lie(dtype: str) -> None:
    forest, rows = many(dtype)
    assert as_rows(forest, rows) is rows
    for matrix in (np.asfortranarray(rows), np.repeat(rows, 2, axis=1)[::-1, ::2], read_only(rows)):
        assert places(as_rows(forest, matrix)) == [address(matrix[:, j]) for j in range(5)]
    for frame in (apart(rows), pd.DataFrame(rows), pd.DataFrame(np.asfortranarray(rows)), pd.DataFrame(rows)[::2]):
        assert places(as_rows(forest, frame)) == [address(series.to_numpy()) for _, series in frame.items()]
    mixed = apart(rows).assign(f1=1)
    found = as_rows(forest, mixed)
    assert isinstance(found, Convertible)
    for j in (0, 2, 3, 4):
        assert np.shares_memory(found.columns[j], mixed[f"f{j}"].to_numpy())  # type: ignore[arg-type]


def test_what_is_not_aligned_is_not_read_in_place() -> None:
    forest, rows = many()
    matrix = as_rows(forest, unaligned(rows))
    assert isinstance(matrix, np.ndarray)
    assert matrix.flags.aligned
    raw = pa.py_buffer(b" " * 4 + rows[:30].T.tobytes())
    columns = [pa.Array.from_buffers(pa.float64(), 30, [None, raw.slice(4 + 240 * j)]) for j in range(5)]
    whole = pa.table(columns, names=names(rows))
    start = whole.column(0).chunk(0).buffers()[1].address
    assert start % 8
    found = as_rows(forest, whole)
    assert all(place % 8 == 0 for place in places(found))
    np.testing.assert_array_equal(as_matrix(found), rows[:30])


def test_columns_outlive_the_table_they_come_from() -> None:
    forest, rows = many()
    expected = predict_margin(forest, rows)
    kept = [as_rows(forest, KINDS[kind](rows)) for kind in ("Arrow", "polars", "pandas columns", "read-only")]
    gc.collect()
    noise = [np.full(len(rows), 0.5) for _ in range(50)]
    for found in kept:
        np.testing.assert_array_equal(predict_margin(forest, found[:]), expected)
    del noise


def test_a_large_table_is_never_converted_as_a_whole() -> None:
    count = 400_000
    forest, rng = forest_of(5)
    columns = [rng.integers(-2, 3, count) for _ in range(5)]
    frame = pd.DataFrame(dict(enumerate(columns)))
    halves = [pa.table([c[: count // 2] for c in columns], names=names(frame)) for _ in range(2)]
    given_tables = [frame, apart(np.stack(columns, axis=1)), pa.concat_tables(halves)]
    predict_margin(forest, frame[:100])
    with threads(1):
        for whole in given_tables:
            before = pa.total_allocated_bytes()
            tracemalloc.start()
            predict_margin(forest, whole)
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            # The margins take 3.2 MB, a matrix of float64 would take 16 MB more.
            assert peak < 8e6
            assert pa.total_allocated_bytes() - before < 4e6


@pytest.mark.parametrize("kind", ["Arrow with nulls in chunks", "nullable pandas", "pandas of Arrow", "polars"])
def test_threads_and_batches_change_no_bit(kind: str) -> None:
    forest, rng = forest_of(6)
    rows = matching_rows(rng, forest, 2 * rows_module.CONVERTED_ROWS + 77)
    given_rows = KINDS[kind](rows)
    assert isinstance(as_rows(forest, given_rows), Convertible) == (kind != "polars")
    expected = predict_margin(forest, rows)
    for count in (1, 2):
        with threads(count):
            np.testing.assert_array_equal(predict_margin(forest, given_rows), expected)
    ours = TreeExplainer(forest)
    parts = [ours.shap_values(given_rows[low : low + 9000]) for low in range(0, len(rows), 9000)]
    np.testing.assert_array_equal(ours.shap_values(given_rows), np.concatenate(parts))
    np.testing.assert_array_equal(np.concatenate(parts), ours.shap_values(rows))


@pytest.mark.usefixtures("sizes")
@pytest.mark.parametrize("kind", ["Fortran order", "Arrow", "Arrow with nulls in chunks", "nullable pandas"])
@pytest.mark.parametrize(("low", "high", "size"), [(0, 40, 7), (3, 39, 16), (5, 6, 100), (0, 40, 40), (8, 8, 4)])
def test_blocks_cover_each_row_once(kind: str, low: int, high: int, size: int) -> None:
    forest, rng = forest_of(7)
    rows = matching_rows(rng, forest, 40)
    at = low
    for first, part in blocks(as_rows(forest, KINDS[kind](rows)), low, high, size):
        assert first == at
        assert 0 < len(part) <= size
        np.testing.assert_array_equal(as_matrix(part), rows[first : first + len(part)])
        at += len(part)
    assert at == high


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_matrix_of_rows_is_new_and_as_narrow_as_they_are(dtype: str) -> None:
    forest, rows = many(dtype)
    for kind in ("Fortran order", "Arrow", "Arrow with nulls in chunks", "pandas columns"):
        given_rows = KINDS[kind](rows)
        matrix = as_matrix(as_rows(forest, given_rows)[10:])
        assert (matrix.dtype, matrix.flags.carray) == (rows.dtype, True)
        np.testing.assert_array_equal(matrix, rows[10:])
    assert not np.shares_memory(as_matrix(as_rows(forest, rows)), rows)
    columns = [np.array([0.1, j], dtype="float64" if j == 3 else dtype) for j in range(5)]
    mixed = as_matrix(as_rows(forest, pa.table(columns, names=names(rows))))
    assert mixed.dtype == np.float64
    np.testing.assert_array_equal(mixed, np.stack([column.astype("float64") for column in columns], axis=1))


def test_names_do_not_matter() -> None:
    forest, rng = forest_of(8)
    rows = matching_rows(rng, forest, 30)
    expected = predict_margin(forest, rows)
    for labels in (["x"] * 5, ["f4", "f3", "f2", "f1", "f0"], ["", "a b", "'", "é", "1"]):
        np.testing.assert_array_equal(predict_margin(forest, table(rows).rename_columns(labels)), expected)
        frame = apart(rows)
        frame.columns = pd.Index(labels)
        np.testing.assert_array_equal(predict_margin(forest, frame), expected)


def empty_tables() -> Iterator[Any]:
    none = np.empty((0, 5))
    schema = table(none).schema
    yield table(none)
    yield pa.Table.from_batches([], schema)
    yield pa.RecordBatch.from_pylist([], schema)
    yield pd.DataFrame(none)
    yield apart(none)
    yield pl.DataFrame(table(none))
    yield pa.table([pa.array([], kind) for kind in ("int8", "bool", "null", "float", "halffloat")], names=names(none))


@pytest.mark.usefixtures("sizes")
def test_tables_without_rows() -> None:
    forest, _ = forest_of(9)
    ours = TreeExplainer(forest)
    for none in empty_tables():
        assert predict_margin(forest, none).shape == (0,)
        assert ours.shap_values(none).shape == (0, 6)
        assert ours.interaction_values(none).shape == (0, 6, 6)


def test_rows_are_converted_once_for_several_uses() -> None:
    forest, rng = forest_of(10)
    found = as_rows(forest, in_chunks(with_nulls(matching_rows(rng, forest, 30))))
    assert as_rows(forest, found) is found
    with pytest.raises(RequestError, match=r"4 features.*\(30, 5\)"):
        as_rows(forest_of(10, n_features=4)[0], found)


@pytest.mark.parametrize(
    "rows",
    [
        pa.table({"a": [1.0], "b": [2.0]}),
        pa.record_batch({"a": [1.0], "b": [2.0]}),
        pd.DataFrame({"a": [1.0], "b": [2.0]}),
        pl.DataFrame({"a": [1.0], "b": ["text"]}),
    ],
    ids=["table", "record batch", "pandas", "polars"],
)
def test_a_wrong_number_of_columns(rows: Any) -> None:
    forest, _ = forest_of(11)
    for use in (predict_margin, lambda f, r: TreeExplainer(f).shap_values(r), TreeExplainer):
        with pytest.raises(RequestError, match=r"has 5 features.*shape \(1, 2\); give .* a table with so many columns"):
            use(forest, rows)


STRANGE: dict[str, tuple[Any, str]] = {
    "string": (pa.array(["x"]), "string"),
    "view": (pa.array(["x"], pa.string_view()), "string_view"),
    "dictionary": (pa.array(["x"]).dictionary_encode(), "dictionary.*codes that the forest was trained on"),
    "numbers": (pa.array([1.0]).dictionary_encode(), "dictionary.*codes that the forest was trained on"),
    "decimal": (pa.array([decimal.Decimal("1.5")]), "decimal.*cast"),
    "time": (pa.array([0], pa.timestamp("us")), "timestamp.*cast"),
    "list": (pa.array([[1.0]]), "list"),
    "struct": (pa.array([{"x": 1.0}]), "struct"),
}
STRANGE_PANDAS: dict[str, tuple[Any, str]] = {
    "str": (pd.Series(["x"]), "str"),
    "object": (pd.Series([1.5], dtype=object), "object.*cast"),
    "category": (pd.Series(["x"], dtype="category"), "category.*codes that the forest was trained on"),
    "numbers": (pd.Series([10.0], dtype="category"), "category.*codes that the forest was trained on"),
    "time": (pd.Series(pd.to_datetime(["2020-01-01"])), "datetime64"),
    "complex": (pd.Series([1j]), "complex128"),
    "Arrow decimal": (pd.Series([decimal.Decimal("1.5")], dtype=pd.ArrowDtype(pa.decimal128(3, 1))), "decimal.*cast"),
}


@pytest.mark.usefixtures("sizes")
@pytest.mark.parametrize("name", STRANGE)
def test_arrow_columns_that_are_no_numbers(name: str) -> None:
    column, kind = STRANGE[name]
    forest, _ = forest_of(12, n_features=2)
    message = rf"Column '{name}' of the rows, feature 1, is of type {kind}.* float32 or float64"
    for rows in (pa.table({"a": [1.0], name: column}), pa.record_batch({"a": [1.0], name: column})):
        with pytest.raises(RequestError, match=message):
            predict_margin(forest, rows)


@pytest.mark.usefixtures("sizes")
@pytest.mark.parametrize("alone", [True, False])
@pytest.mark.parametrize("name", STRANGE_PANDAS)
def test_pandas_columns_that_are_no_numbers(name: str, alone: bool) -> None:
    column, kind = STRANGE_PANDAS[name]
    forest, _ = forest_of(12, n_features=1 if alone else 2)
    frame = pd.DataFrame({name: column} if alone else {"a": [1.0], name: column})
    with pytest.raises(RequestError, match=rf"Column '{name}' of the rows, feature {1 - alone}, is of type .*{kind}"):
        predict_margin(forest, frame)


@pytest.mark.parametrize("rows", [pa.array([1.0, 2.0]), pa.chunked_array([[1.0]]), pl.Series([1.0])], ids=type)
def test_one_column_is_no_table(rows: Any) -> None:
    forest, _ = forest_of(13, n_features=1)
    with pytest.raises(RequestError, match=rf"Rows of type {type(rows).__name__} are no table: .* give a table"):
        predict_margin(forest, rows)
