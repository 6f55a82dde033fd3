"""The compiled forest as a file: an Arrow IPC file that is read in place.

One row, with one large_list column for each array; flags are stored as bytes, because Arrow packs
booleans. The scalars are in the metadata of the schema. Nothing in such a file is executed.
"""

from __future__ import annotations

import os
from typing import Any, BinaryIO

import numba
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from treadle.errors import StorageError
from treadle.kernels.forest import Forest

_VERSION = "1"
_DTYPES: dict[str, np.dtype[Any]] = {"float32": np.dtype(np.float32), "float64": np.dtype(np.float64)}
# The arrays and their types; None is the type in which the forest compares.
_ARRAYS: dict[str, Any] = {
    "base": np.float64,
    "tree_start": np.int64,
    "tree_output": np.int32,
    "feature": np.int32,
    "rank": np.int32,
    "right": np.int32,
    "missing_right": np.bool_,
    "cover": np.float64,
    "value": np.float64,
    "cut_start": np.int64,
    "cuts": None,
    "categories": np.int32,
    "set_start": np.int64,
    "set_right": np.bool_,
    "zero_missing": np.bool_,
}


def save_forest(forest: Forest, file: BinaryIO) -> None:
    """Writes the forest to an open binary file."""
    columns = {}
    for name in _ARRAYS:
        array = getattr(forest, name)
        values = pa.array(array.view(np.uint8) if array.dtype == np.bool_ else array)
        columns[name] = pa.LargeListArray.from_arrays(pa.array([0, len(values)], pa.int64()), values)
    metadata = {
        "treadle_forest": _VERSION,
        "source": forest.source,
        "n_features": str(forest.n_features),
        "n_outputs": str(forest.n_outputs),
        "dtype": forest.dtype.name,
    }
    batch = pa.record_batch(columns).replace_schema_metadata(metadata)
    with pa.ipc.new_file(file, batch.schema) as writer:
        writer.write_batch(batch)


def load_forest(source: str | os.PathLike[str] | bytes | pa.Buffer) -> Forest:
    """The forest of a file that `save_forest` wrote, from its path or its content.

    A path is mapped into memory: the arrays are read-only views of the file, shared by all processes
    that map it, and the file must not be changed while the forest is in use.

    Raises
    ------
    StorageError
        The file cannot be read, is of another version, lacks a part, or holds no valid forest.
    """
    name = f"file '{os.fspath(source)}'" if isinstance(source, str | os.PathLike) else "content"
    try:
        if isinstance(source, str | os.PathLike):
            opened = pa.ipc.open_file(pa.memory_map(os.fspath(source)))
        else:
            opened = pa.ipc.open_file(source)
        forest = _forest(opened)
    except (OSError, pa.ArrowException, _Damaged) as error:
        raise StorageError(
            f"The forest {name} cannot be read: {error}. Compile the model again and save it with save_forest."
        ) from error
    return forest


def check_forest(forest: Forest) -> None:
    """Raises StorageError unless the forest is valid throughout: kernels read its arrays without checks."""
    try:
        _check(forest)
    except _Damaged as error:
        raise StorageError(f"{forest!r} is damaged: {error}. Compile the model again.") from error


class _Damaged(Exception):
    """What is wrong with a forest, to become part of a message."""


def _demand(holds: Any, fault: str) -> None:
    if not holds:
        raise _Damaged(fault)


def _forest(file: pa.RecordBatchFileReader) -> Forest:
    metadata = {
        key.decode(errors="replace"): value.decode(errors="replace")
        for key, value in (file.schema.metadata or {}).items()
    }
    version = metadata.get("treadle_forest")
    _demand(version, "it holds no forest")
    _demand(version == _VERSION, f"it is of version {version}, and this Treadle reads version {_VERSION}")
    sizes = [metadata.get(key, "") for key in ("n_features", "n_outputs")]
    whole = all(size.isdecimal() and len(size) < 10 for size in sizes)
    _demand(whole and "source" in metadata and metadata.get("dtype") in _DTYPES, "its metadata are incomplete")
    dtype = _DTYPES[metadata["dtype"]]
    _demand(file.num_record_batches == 1, f"it has {file.num_record_batches} batches, not one")
    batch = file.get_batch(0)
    batch.validate(full=True)
    _demand(batch.num_rows == 1, f"it has {batch.num_rows} rows, not one")
    arrays = {}
    for name, kind in _ARRAYS.items():
        kind = dtype if kind is None else np.dtype(kind)
        _demand(batch.schema.get_field_index(name) >= 0, f"column '{name}' is missing")
        column = batch.column(name)
        stored = pa.uint8() if kind == np.bool_ else pa.from_numpy_dtype(kind)
        _demand(column.type == pa.large_list(stored), f"column '{name}' is {column.type}, not a large_list of {stored}")
        values = column.flatten()
        _demand(column.null_count == 0 and values.null_count == 0, f"column '{name}' has nulls")
        arrays[name] = values.to_numpy(zero_copy_only=True).view(kind)
    forest = Forest(source=metadata["source"], n_features=int(sizes[0]), n_outputs=int(sizes[1]), dtype=dtype, **arrays)
    _check(forest)
    return forest


def _check(forest: Forest) -> None:
    for name, stored in _ARRAYS.items():
        array, kind = getattr(forest, name), np.dtype(stored or forest.dtype)
        _demand(array.dtype == kind and array.ndim == 1, f"{name} is no array of {kind} with one dimension")
        if kind == np.bool_:
            _demand(array.view(np.uint8).max(initial=0) <= 1, f"{name} holds other numbers than 0 and 1")
    _demand(forest.dtype in _DTYPES.values(), f"{forest.dtype} is no type to compare in")
    nodes, features = forest.n_nodes, forest.n_features
    for name, count in (
        ("base", forest.n_outputs),
        ("tree_start", forest.n_trees + 1),
        ("rank", nodes),
        ("right", nodes),
        ("missing_right", nodes),
        ("cover", nodes),
        ("value", nodes),
        ("cut_start", features + 1),
        ("categories", features),
        ("zero_missing", features),
    ):
        found = len(getattr(forest, name))
        _demand(found == count, f"{name} has {found} entries, not {count}")
    _demand(forest.n_outputs > 0, "it has no outputs")
    for name, end, above in (
        ("tree_start", nodes, np.greater),
        ("cut_start", len(forest.cuts), np.greater_equal),
        ("set_start", len(forest.set_right), np.greater_equal),
    ):
        starts = getattr(forest, name)
        fits = len(starts) and starts[0] == 0 and starts[-1] == end and above(starts[1:], starts[:-1]).all()
        _demand(fits, f"{name} does not lead from 0 up to {end}")
    for name, low, high in (
        ("tree_output", 0, forest.n_outputs),
        ("feature", -1, features),
        ("right", 0, nodes),
        ("categories", 0, np.iinfo(np.int32).max - 1),
    ):
        _demand(_within(getattr(forest, name), low, high), f"{name} has entries outside {low} to {high - 1}")
    for name in ("base", "cover", "value"):
        _demand(np.isfinite(getattr(forest, name)).all(), f"{name} has entries that are not finite")
    _check_ranks(forest)
    _check_cuts(forest)
    _demand(_is_preorder(forest.tree_start, forest.feature, forest.right), "right does not make trees of the nodes")


def _within(values: NDArray[Any], low: Any, high: Any) -> bool:
    return bool(((values >= low) & (values < high)).all())


def _check_ranks(forest: Forest) -> None:
    inner = np.flatnonzero(forest.feature >= 0)
    feature, rank = forest.feature[inner], forest.rank[inner]
    categorical = forest.categories[feature] > 0
    _demand(not forest.rank[forest.feature < 0].any(), "rank has entries at leaves")
    _demand(not np.diff(forest.cut_start)[forest.categories > 0].any(), "a categorical feature has cuts")
    cuts = np.diff(forest.cut_start)[feature]
    _demand(_within(rank[~categorical], 0, cuts[~categorical]), "rank has entries outside the cuts of their features")
    sets, codes = rank[categorical], forest.categories[feature[categorical]].astype(np.int64)
    _demand(_within(sets, 0, len(forest.set_start) - 1), "rank has entries outside the category sets")
    _demand(
        (np.diff(forest.set_start)[sets] == codes + 2).all(), "a category set is not as long as its feature's codes"
    )


def _check_cuts(forest: Forest) -> None:
    lower, upper = forest.cuts[:-1], forest.cuts[1:]
    rises = (lower < upper) | (np.isnan(upper) & ~np.isnan(lower))
    # Between the features the cuts begin anew.
    starts = forest.cut_start[(forest.cut_start > 0) & (forest.cut_start < len(forest.cuts))]
    rises[starts - 1] = True
    _demand(rises.all(), "the cuts of a feature are not sorted, or not unique")


@numba.njit(cache=True)
def _is_preorder(tree_start, feature, right):  # type: ignore[no-untyped-def]
    """Whether every tree's nodes are in preorder, each the child of exactly one parent."""
    waiting = np.empty(len(feature), np.int64)
    for tree in range(len(tree_start) - 1):
        depth = 0
        end = tree_start[tree + 1]
        for node in range(tree_start[tree], end):
            if feature[node] >= 0:
                waiting[depth] = right[node]
                depth += 1
            elif depth > 0:
                depth -= 1
                if waiting[depth] != node + 1 or node + 1 == end:
                    return False
            elif node + 1 != end:
                return False
        if depth > 0:
            return False
    return True
