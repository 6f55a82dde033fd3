"""The kernels for devices against those of the host, which have the references.

They run where there is an NVIDIA GPU (`-m gpu`), and in Numba's simulator, which `test_simulator.py` starts:
there blocks have a few threads and grids a few blocks, so that every loop over rows takes several strides.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
from numba import config
from numpy.typing import NDArray

from tests.kernels.forests import Shape, chain_forest, matching_rows, random_forest
from treadle.errors import RequestError
from treadle.kernels.forest import Forest, build_forest
from treadle.kernels.predict import predict_margin
from treadle.kernels.treeshap import TreeExplainer

ROWS = 23
TOLERANCE = 2e-6
"""Of the largest contribution: both add float32 numbers, and not in the same order."""


def why_not() -> str:
    """Why the tests cannot run here, or nothing."""
    if config.ENABLE_CUDASIM:
        return ""
    if find_spec("numba_cuda") is None:
        return "numba-cuda is not installed"
    from numba import cuda

    return "" if cuda.is_available() else "there is no NVIDIA GPU"


pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(bool(why_not()), reason=why_not()),
    # The simulator's threads convert numbers as NumPy does.
    pytest.mark.filterwarnings("ignore:.*encountered in cast:RuntimeWarning"),
]


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    from treadle.kernels.cuda import arrays

    monkeypatch.setattr(arrays, "THREADS", 8)
    monkeypatch.setattr(arrays, "FEWEST_THREADS", 2)
    monkeypatch.setattr(arrays, "WANTED_BLOCKS", 2)
    monkeypatch.setattr(arrays, "MOST_BLOCKS", 2)


def device(rows: NDArray[Any]) -> Any:
    from numba import cuda

    return cuda.to_device(rows)


def host(values: Any) -> NDArray[Any]:
    return values.copy_to_host() if hasattr(values, "copy_to_host") else values.get()


def margins(forest: Forest, rows: Any) -> NDArray[Any]:
    from treadle.kernels.cuda.predict import predict_margin as predict_on_device

    return host(predict_on_device(forest, rows))


def explainer(host_explainer: TreeExplainer) -> Any:
    from treadle.kernels.cuda.treeshap import DeviceExplainer

    return DeviceExplainer(host_explainer)


def assert_same(found: NDArray[Any], expected: NDArray[Any]) -> None:
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE * max(1.0, np.abs(expected).max(initial=0.0)))


SHAPES = {
    "few features": Shape(n_features=4, n_trees=4, depth=4),
    "several outputs": Shape(n_features=6, n_trees=6, depth=3, n_outputs=3, growth=1.0),
    "categories": Shape(n_features=5, n_trees=4, depth=4, categorical=True),
    "zeros missing, float64": Shape(n_features=3, n_trees=3, depth=5, dtype="float64", zero_missing=True),
    "no cover": Shape(n_features=4, n_trees=4, depth=4, zero_cover=True, categorical=True),
    "12 features": Shape(n_features=12, n_trees=4, depth=4),
    "20 features": Shape(n_features=20, n_trees=4, depth=4, categorical=True, n_outputs=2),
    "deep": Shape(n_features=14, n_trees=2, depth=10, growth=0.7),
}
shapes = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())


@shapes
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_margins_are_the_hosts_to_the_bit(shape: Shape, dtype: str) -> None:
    rng = np.random.default_rng(1)
    forest = random_forest(rng, shape)
    rows = matching_rows(rng, forest, ROWS, dtype)
    np.testing.assert_array_equal(margins(forest, device(rows)), predict_margin(forest, rows))


@shapes
@pytest.mark.parametrize("method", ["auto", pytest.param("quadrature", marks=pytest.mark.slow)])
def test_values_are_the_hosts(shape: Shape, method: Any) -> None:
    rng = np.random.default_rng(2)
    forest = random_forest(rng, shape)
    rows = matching_rows(rng, forest, ROWS)
    ours = TreeExplainer(forest, method=method)
    found = host(explainer(ours).shap_values(device(rows)))
    assert found.dtype == np.float64
    assert_same(found, ours.shap_values(rows))


@shapes
def test_interactions_are_the_hosts(shape: Shape) -> None:
    rng = np.random.default_rng(3)
    forest = random_forest(rng, shape)
    rows = matching_rows(rng, forest, 7)
    ours = TreeExplainer(forest)
    assert_same(host(explainer(ours).interaction_values(device(rows))), ours.interaction_values(rows))


@pytest.mark.parametrize("name", ["few features", "several outputs", "20 features", "deep"])
def test_interventional_values_are_the_hosts(name: str) -> None:
    rng = np.random.default_rng(4)
    forest = random_forest(rng, SHAPES[name])
    rows = matching_rows(rng, forest, ROWS)
    ours = TreeExplainer(forest, background=matching_rows(rng, forest, 9))
    assert_same(host(explainer(ours).shap_values(device(rows))), ours.shap_values(rows))


def test_tables_and_walks_together_within_a_budget() -> None:
    rng = np.random.default_rng(5)
    forest = random_forest(rng, Shape(n_features=8, n_trees=6, depth=6))
    rows = matching_rows(rng, forest, ROWS)
    ours = TreeExplainer(forest, table_bytes=60_000)
    rest, tabled = ours.tabled
    assert rest.any()
    assert tabled is not None
    assert_same(host(explainer(ours).shap_values(device(rows))), ours.shap_values(rows))


@pytest.mark.parametrize("levels", [1, 8, 9, 70])
def test_chains(levels: int) -> None:
    rng = np.random.default_rng(levels)
    forest = chain_forest(rng, levels, n_features=10)
    rows = matching_rows(rng, forest, 9)
    ours = TreeExplainer(forest, method="quadrature")
    assert_same(host(explainer(ours).shap_values(device(rows))), ours.shap_values(rows))
    np.testing.assert_array_equal(margins(forest, device(rows)), predict_margin(forest, rows))


def test_many_trees_are_flushed_by_chunks() -> None:
    rng = np.random.default_rng(6)
    forest = random_forest(rng, Shape(n_features=3, n_trees=70, depth=2, n_outputs=2))
    rows = matching_rows(rng, forest, 5)
    for method in ("auto", "quadrature"):
        ours = TreeExplainer(forest, method=method)  # type: ignore[arg-type]
        assert_same(host(explainer(ours).shap_values(device(rows))), ours.shap_values(rows))


def test_more_than_255_cuts_take_16_bits() -> None:
    rng = np.random.default_rng(7)
    from tests.kernels.forests import built, search_tree

    cuts = np.sort(rng.normal(size=400)).astype(np.float32)
    forest = built([search_tree(0, cuts, rng.normal(size=401))], Shape(n_features=1))
    rows = matching_rows(rng, forest, ROWS)
    ours = TreeExplainer(forest)
    np.testing.assert_array_equal(margins(forest, device(rows)), predict_margin(forest, rows))
    assert_same(host(explainer(ours).shap_values(device(rows))), ours.shap_values(rows))


@pytest.mark.parametrize("name", ["few features", "20 features", pytest.param("deep", marks=pytest.mark.slow)])
def test_rows_in_blocks_and_columns_change_no_bit(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from treadle.kernels.cuda import predict, treeshap
    from treadle.kernels.cuda.arrays import DeviceRows

    rng = np.random.default_rng(8)
    forest = random_forest(rng, SHAPES[name])
    rows = matching_rows(rng, forest, ROWS, np.float32)
    one = explainer(TreeExplainer(forest))
    values, expected = host(one.shap_values(device(rows))), margins(forest, device(rows))
    for given in (device(np.asfortranarray(rows)), device(np.repeat(rows, 2, axis=0))[::2]):
        np.testing.assert_array_equal(host(one.shap_values(given)), values)
        np.testing.assert_array_equal(margins(forest, given), expected)
    # As a cuDF frame is read: an array for each column.
    parts = tuple(device(np.ascontiguousarray(rows[:, j : j + 1])) for j in range(forest.n_features))
    from treadle.kernels.cuda.arrays import Work
    from treadle.kernels.cuda.binning import bin_on_device

    trees = predict.upload_trees(forest, 0)
    together = host(bin_on_device(trees.bins, DeviceRows((device(rows),), ROWS, True), Work()))
    apart = host(bin_on_device(trees.bins, DeviceRows(parts, ROWS, False), Work()))
    stride = trees.bins.stride(ROWS)
    columns = trees.bins.bins.columns
    np.testing.assert_array_equal(together.reshape(columns, stride)[:, :ROWS], apart.reshape(columns, stride)[:, :ROWS])
    monkeypatch.setattr(predict, "BLOCK_BYTES", 5 * columns)
    monkeypatch.setattr(treeshap, "BLOCK_BYTES", 3000)
    np.testing.assert_array_equal(host(one.shap_values(device(rows))), values)
    np.testing.assert_array_equal(margins(forest, device(rows)), expected)


def test_float32_values_are_the_rounded_ones() -> None:
    rng = np.random.default_rng(9)
    forest = random_forest(rng, SHAPES["several outputs"])
    given = device(matching_rows(rng, forest, ROWS))
    one = explainer(TreeExplainer(forest))
    np.testing.assert_array_equal(host(one.shap_values(given, np.float32)), host(one.shap_values(given)).astype("f4"))


def test_streams_give_the_blocks_in_order() -> None:
    rng = np.random.default_rng(10)
    forest = random_forest(rng, SHAPES["few features"])
    rows = matching_rows(rng, forest, ROWS, np.float32)
    one = explainer(TreeExplainer(forest))
    expected = host(one.shap_values(device(rows), np.float32))
    for bounds in ([], [5], [1, 2, 3, 11], list(range(1, ROWS))):
        parts = list(one.stream_values(np.split(rows, bounds)))
        assert [len(part) for part in parts] == [len(part) for part in np.split(rows, bounds)]
        np.testing.assert_array_equal(np.concatenate(parts), expected)
    assert list(one.stream_values([])) == []


def test_no_rows_and_no_splits() -> None:
    rng = np.random.default_rng(11)
    forest = random_forest(rng, SHAPES["few features"])
    none = device(np.empty((0, 4), dtype=np.float32))
    assert margins(forest, none).shape == (0,)
    assert host(explainer(TreeExplainer(forest)).shap_values(none)).shape == (0, 5)
    bare = build_forest([], source="test", n_features=2, n_outputs=2, base=[0.5, -1.0])
    rows = device(np.zeros((3, 2)))
    assert margins(bare, rows).tolist() == [[0.5, -1.0]] * 3
    assert host(explainer(TreeExplainer(bare)).shap_values(rows)).tolist() == [[[0, 0, 0.5], [0, 0, -1.0]]] * 3
    assert not host(explainer(TreeExplainer(bare)).interaction_values(rows))[..., :2, :2].any()


def test_refusals() -> None:
    rng = np.random.default_rng(12)
    forest = random_forest(rng, SHAPES["few features"])
    with pytest.raises(RequestError, match=r"4 features, and the rows have the shape \(2, 3\)"):
        margins(forest, device(np.zeros((2, 3))))
    with pytest.raises(RequestError, match="int64 on a GPU"):
        margins(forest, device(np.zeros((2, 4), dtype=np.int64)))
    wide = chain_forest(rng, 11, n_features=11)
    with pytest.raises(RequestError, match="states in one group.*use method='auto'"):
        explainer(TreeExplainer(wide, method="tables")).shap_values(device(np.zeros((2, 11))))
