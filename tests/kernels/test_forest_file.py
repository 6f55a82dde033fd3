"""The forest file: what is read is what was written, in place, and damage of any kind is one StorageError."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from treadle.errors import StorageError
from treadle.kernels.forest import Forest, Tree, build_forest
from treadle.kernels.forest_file import check_forest, load_forest, save_forest

ARRAYS = [item.name for item in dataclasses.fields(Forest) if "NDArray" in item.type]


def small_forest(dtype: Any = np.float32) -> Forest:
    """Three trees: numeric splits with a NaN cut, a category set, and a leaf alone."""
    numeric = Tree(
        feature=np.array([0, 1, -1, -1, -1]),
        threshold=np.array([0.5, np.nan, 0, 0, 0]),
        left=np.array([1, 3, 0, 0, 0]),
        right=np.array([2, 4, 0, 0, 0]),
        missing_right=np.array([True, False, False, False, False]),
        cover=np.array([10.0, 6, 4, 5, 1]),
        value=np.array([0.0, 0, 0.25, -1, 3]),
    )
    categorical = Tree(
        feature=np.array([2, 1, -1, -1, -1]),
        threshold=np.array([0, -0.25, 0, 0, 0]),
        left=np.array([1, 3, 0, 0, 0]),
        right=np.array([2, 4, 0, 0, 0]),
        missing_right=np.zeros(5, dtype=bool),
        cover=np.array([10.0, 7, 3, 2, 5]),
        value=np.array([0.0, 0, 1, 2, -0.125]),
        output=1,
        goes_right={0: np.array([True, False, True, False, True])},
    )
    leaf = Tree(*(np.array(values) for values in ([-1], [0.0], [0], [0], [False], [10.0], [0.5])), output=1)
    return build_forest(
        [numeric, categorical, leaf],
        source="a test",
        n_features=3,
        n_outputs=2,
        dtype=dtype,
        base=[0.1, -0.2],
        zero_missing=np.array([False, True, False]),
    )


def stored(forest: Forest) -> bytes:
    file = io.BytesIO()
    save_forest(forest, file)
    return file.getvalue()


def assert_same(found: Forest, expected: Forest) -> None:
    for item in dataclasses.fields(Forest):
        ours, theirs = getattr(found, item.name), getattr(expected, item.name)
        if isinstance(theirs, np.ndarray):
            assert ours.dtype == theirs.dtype
            assert ours.tobytes() == theirs.tobytes()
            assert not ours.flags.writeable
        else:
            assert ours == theirs


EMPTY = build_forest([], source="nothing", n_features=0)


@pytest.mark.parametrize(
    "forest", [small_forest(), small_forest(np.float64), EMPTY], ids=["float32", "float64", "empty"]
)
@pytest.mark.parametrize("given_as", ["path", "text path", "bytes", "buffer"])
def test_a_forest_comes_back_bit_for_bit(forest: Forest, given_as: str, tmp_path: Path) -> None:
    content = stored(forest)
    path = tmp_path / "forest.arrow"
    path.write_bytes(content)
    source: Any = {"path": path, "text path": str(path), "bytes": content, "buffer": pa.py_buffer(content)}[given_as]
    assert_same(load_forest(source), forest)


def test_a_file_is_read_in_place(tmp_path: Path) -> None:
    path = tmp_path / "forest.arrow"
    path.write_bytes(stored(small_forest()))
    before = pa.total_allocated_bytes()
    forest = load_forest(path)
    assert pa.total_allocated_bytes() == before
    for name in ARRAYS:
        array = getattr(forest, name)
        assert not array.flags.owndata
        assert array.flags.aligned
        assert not array.flags.writeable
    # The map outlives the name.
    path.unlink()
    assert_same(forest, small_forest())


def damaged(**arrays: Any) -> Forest:
    return dataclasses.replace(small_forest(), **arrays)


def changed(name: str, at: int, value: Any) -> Forest:
    array = getattr(small_forest(), name).copy()
    array[at] = value
    return damaged(**{name: array})


def bytes_as_bools(*values: int) -> NDArray[np.bool_]:
    return np.array(values, dtype=np.uint8).view(np.bool_)


# Nodes 0 to 4: feature 0, feature 1, leaf, leaf, leaf (preorder); 5 to 9: feature 2, feature 1, leaves; 10: a leaf.
# Cuts: 0.5 of feature 0, then -0.25 and NaN of feature 1.
DAMAGES: dict[str, Callable[[], Forest]] = {
    "base not finite": lambda: changed("base", 0, np.nan),
    "base too long": lambda: damaged(base=np.zeros(3)),
    "no outputs": lambda: damaged(base=np.zeros(0), n_outputs=0),
    "tree starts late": lambda: changed("tree_start", 0, 1),
    "tree without nodes": lambda: changed("tree_start", 1, 10),
    "trees in disorder": lambda: changed("tree_start", 1, 11),
    "tree start negative": lambda: changed("tree_start", 1, -5),
    "trees end early": lambda: changed("tree_start", 3, 10),
    "tree starts in the middle": lambda: changed("tree_start", 1, 4),
    "tree start missing": lambda: damaged(tree_start=np.array([0, 11])),
    "output negative": lambda: changed("tree_output", 0, -1),
    "output too large": lambda: changed("tree_output", 0, 2),
    "feature below a leaf's": lambda: changed("feature", 0, -2),
    "feature too large": lambda: changed("feature", 0, 3),
    "leaf made inner": lambda: changed("feature", 2, 0),
    "last leaf made inner": lambda: changed("feature", 10, 0),
    "inner made leaf": lambda: changed("feature", 1, -1),
    "rank too large": lambda: changed("rank", 0, 2),
    "rank negative": lambda: changed("rank", 0, -1),
    "rank at a leaf": lambda: changed("rank", 2, 1),
    "set too large": lambda: changed("rank", 5, 1),
    "set negative": lambda: changed("rank", 5, -1),
    "rank too short": lambda: damaged(rank=np.zeros(10, dtype=np.int32)),
    "right is the parent": lambda: changed("right", 0, 0),
    "right is the left child": lambda: changed("right", 1, 2),
    "right in the next tree": lambda: changed("right", 0, 5),
    "right child missing at the end of a tree": lambda: damaged(
        tree_start=np.array([0, 5, 9, 10, 11]), tree_output=np.zeros(4, dtype=np.int32)
    ),
    "right before the tree": lambda: changed("right", 5, 4),
    "right negative": lambda: changed("right", 1, -1),
    "right too large": lambda: changed("right", 5, 11),
    "right too large at a leaf": lambda: changed("right", 10, 11),
    "right of another type": lambda: damaged(right=small_forest().right.astype(np.int64)),
    "missing_right no flag": lambda: damaged(missing_right=bytes_as_bools(2, *[0] * 10)),
    "missing_right too short": lambda: damaged(missing_right=np.zeros(10, dtype=bool)),
    "cover not finite": lambda: changed("cover", 3, np.inf),
    "cover too short": lambda: damaged(cover=np.zeros(10)),
    "value not finite": lambda: changed("value", 3, np.nan),
    "value too long": lambda: damaged(value=np.zeros(12)),
    "cuts start late": lambda: changed("cut_start", 0, 1),
    "cut start too large": lambda: changed("cut_start", 1, 99),
    "cut start negative": lambda: changed("cut_start", 1, -1),
    "cuts end early": lambda: changed("cut_start", 3, 2),
    "cut start missing": lambda: damaged(cut_start=np.array([0, 3])),
    "cuts in disorder": lambda: changed("cuts", 2, -1.0),
    "cuts repeated": lambda: changed("cuts", 2, -0.25),
    "NaN cut first": lambda: changed("cuts", 1, np.nan),
    "cuts of another type": lambda: damaged(cuts=small_forest().cuts.astype(np.float64)),
    "cuts in two dimensions": lambda: damaged(cuts=small_forest().cuts[:, None]),
    "fewer codes": lambda: changed("categories", 2, 2),
    "more codes": lambda: changed("categories", 2, 4),
    "most codes": lambda: changed("categories", 2, np.iinfo(np.int32).max),
    "codes of a numeric feature": lambda: changed("categories", 0, 3),
    "no codes": lambda: changed("categories", 2, 0),
    "negative codes": lambda: changed("categories", 2, -1),
    "categories too short": lambda: damaged(categories=np.zeros(2, dtype=np.int32)),
    "set starts late": lambda: changed("set_start", 0, 1),
    "sets end late": lambda: changed("set_start", 1, 6),
    "no set starts": lambda: damaged(set_start=np.zeros(0, dtype=np.int64)),
    "set too short": lambda: damaged(set_right=np.zeros(4, dtype=bool), set_start=np.array([0, 4])),
    "set_right no flag": lambda: damaged(set_right=bytes_as_bools(1, 0, 1, 0, 255)),
    "zero_missing too short": lambda: damaged(zero_missing=np.zeros(2, dtype=bool)),
    "zero_missing no flag": lambda: damaged(zero_missing=bytes_as_bools(0, 2, 0)),
    "half precision": lambda: damaged(dtype=np.dtype(np.float16), cuts=small_forest().cuts.astype(np.float16)),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_forest_is_refused(damage: str) -> None:
    with pytest.raises(StorageError, match="is damaged: .+\\. Compile the model again\\.$"):
        check_forest(DAMAGES[damage]())


def test_the_undamaged_forest_passes() -> None:
    for forest in (small_forest(), small_forest(np.float64), EMPTY):
        check_forest(forest)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("value not finite", "value has entries that are not finite"),
        ("right is the parent", "right does not make trees"),
        ("set_right no flag", "set_right holds other numbers than 0 and 1"),
    ],
)
def test_a_file_with_a_damaged_forest_is_refused(damage: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "forest.arrow"
    path.write_bytes(stored(DAMAGES[damage]()))
    with pytest.raises(
        StorageError, match=f"forest file '.*forest.arrow' cannot be read: {message}.* Compile the model"
    ):
        load_forest(path)


def table_of(content: bytes) -> pa.Table:
    return pa.ipc.open_file(content).read_all()


def rewritten(table: pa.Table) -> bytes:
    file = io.BytesIO()
    with pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)
    return file.getvalue()


def with_metadata(**changes: str | None) -> bytes:
    table = table_of(stored(small_forest()))
    metadata = {key.decode(): value.decode() for key, value in table.schema.metadata.items()} | changes
    return rewritten(
        table.replace_schema_metadata({key: value for key, value in metadata.items() if value is not None})
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cannot be read"),
        (b"no Arrow at all", "cannot be read"),
        (rewritten(pa.table({"x": [1]})), "it holds no forest"),
        (with_metadata(treadle_forest="2"), "it is of version 2, and this Treadle reads version 1"),
        (with_metadata(n_outputs=None), "its metadata are incomplete"),
        (with_metadata(n_features="-3"), "its metadata are incomplete"),
        (with_metadata(n_features="9" * 5000), "its metadata are incomplete"),
        (with_metadata(n_features="4"), "cut_start has 4 entries, not 5"),
        (with_metadata(dtype="object"), "its metadata are incomplete"),
        (with_metadata(dtype="float64"), "column 'cuts' is large_list<item: float>"),
        (rewritten(table_of(stored(small_forest())).drop_columns(["cover"])), "column 'cover' is missing"),
        (rewritten(table_of(stored(small_forest())).slice(0, 0)), "it has 0 batches"),
        (rewritten(pa.concat_tables([table_of(stored(small_forest()))] * 2).combine_chunks()), "it has 2 rows"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_file_that_is_no_forest_is_refused(content: bytes, message: str) -> None:
    with pytest.raises(StorageError, match=message):
        load_forest(content)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="nowhere.arrow"):
        load_forest(tmp_path / "nowhere.arrow")


def test_nulls_are_refused() -> None:
    table = table_of(stored(small_forest()))
    column = pa.array([[None, 1.0]], pa.large_list(pa.float64()))
    with pytest.raises(StorageError, match="column 'base' has nulls"):
        load_forest(rewritten(table.set_column(table.schema.get_field_index("base"), "base", column)))


CONTENT = stored(small_forest())


@given(st.integers(0, len(CONTENT) - 1))
def test_a_truncated_file_is_refused(length: int) -> None:
    with pytest.raises(StorageError):
        load_forest(CONTENT[:length])


@given(st.lists(st.tuples(st.integers(0, len(CONTENT) - 1), st.integers(0, 255)), min_size=1, max_size=4))
def test_changed_bytes_are_refused_or_leave_a_valid_forest(changes: list[tuple[int, int]]) -> None:
    content = bytearray(CONTENT)
    for at, byte in changes:
        content[at] = byte
    try:
        forest = load_forest(bytes(content))
    except StorageError:
        return
    check_forest(forest)


@given(st.data())
def test_any_single_change_is_refused_or_harmless(data: st.DataObject) -> None:
    """Whatever passes the check can be walked from every root to every leaf without leaving the arrays."""
    name = data.draw(st.sampled_from(ARRAYS))
    array = getattr(small_forest(), name).copy()
    at = data.draw(st.integers(0, len(array) - 1))
    if array.dtype.kind == "i":
        array[at] = data.draw(
            st.integers(-3, 13) | st.sampled_from([np.iinfo(array.dtype).min, np.iinfo(array.dtype).max])
        )
    elif array.dtype.kind == "f":
        array[at] = data.draw(st.floats(width=32))
    else:
        array.view(np.uint8)[at] = data.draw(st.integers(0, 255))
    forest = damaged(**{name: array})
    try:
        check_forest(forest)
    except StorageError:
        return
    for tree in range(forest.n_trees):
        start, end = forest.tree_start[tree], forest.tree_start[tree + 1]
        met, waiting = [], [start]
        while waiting:
            node = waiting.pop()
            assert start <= node < end
            met.append(node)
            feature = forest.feature[node]
            if feature < 0:
                continue
            waiting += [forest.right[node], node + 1]
            if codes := forest.categories[feature]:
                assert 0 <= forest.set_start[forest.rank[node]] <= len(forest.set_right) - codes - 2
            else:
                assert 0 <= forest.rank[node] < forest.cut_start[feature + 1] - forest.cut_start[feature]
        assert met == list(range(start, end))
