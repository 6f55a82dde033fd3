"""Treelite models, and what hands them out: cuML's random forests.

Treelite keeps the comparison of the library that a model comes from, `<` or `<=`, and the type in
which it compares. The fields of nodes are read as arrays, which is exact and quicker than the JSON
dump.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from treadle.kernels.forest import LEAF, Forest, Tree, next_up
from treadle.kernels.importers import compiled, unsupported

# Numbers of treelite's Operator and TypeInfo.
_LESS, _LESS_EQUAL = 2, 3
_TYPES = {2: np.float32, 3: np.float64}


def read(model: Any) -> Forest:
    """The forest of a treelite.Model, or of an object with `as_treelite` or `convert_to_treelite_model`.

    The margin is treelite's without its postprocessor. An average of leaf vectors for two classes
    has one output, the probability of the second class.
    """
    import treelite

    content, of = model, ""
    for name in ("as_treelite", "convert_to_treelite_model"):
        if hasattr(model, name):
            content, of = getattr(model, name)(), f", of {type(model).__module__.partition('.')[0]}"
            break
    if not isinstance(content, treelite.Model):
        raise unsupported(model, f"it gives a {type(content).__name__}, no treelite.Model", "Pass a treelite.Model.")
    header = content.get_header_accessor()
    if int(header.get_field("num_target")[0]) > 1:
        raise unsupported(model, "it was trained on several targets at once", "Train one model a target.")
    classes = int(header.get_field("num_class")[0])
    average = bool(header.get_field("average_tree_output")[0])
    dtype = _TYPES[int(header.get_field("threshold_type")[0])]
    base = np.asarray(header.get_field("base_scores"), dtype=np.float64)
    wanted = [1] if average and classes == 2 else list(range(classes))
    class_id = np.asarray(header.get_field("class_id"))
    trees: list[Tree] = []
    for number in range(content.num_tree):
        rules, values = _tree(model, content.get_tree_accessor(number), dtype)
        # A leaf holds a value for each class, or one for the tree's class.
        first = max(0, int(class_id[number]))
        trees += [
            Tree(**rules, value=column, output=wanted.index(first + place))
            for place, column in enumerate(values.T)
            if first + place in wanted
        ]
    if average:
        members = np.bincount([tree.output for tree in trees], minlength=len(wanted))
        trees = [dataclasses.replace(tree, value=tree.value / members[tree.output]) for tree in trees]
    return compiled(
        model,
        trees,
        source=f"treelite {treelite.__version__}{of}",
        n_features=content.num_feature,
        n_outputs=len(wanted),
        dtype=dtype,
        base=base[wanted],
    )


def _tree(model: Any, part: Any, dtype: Any) -> tuple[dict[str, Any], NDArray[np.float64]]:
    """The rules of a tree, and its values (nodes, values of a leaf)."""
    left = np.array(part.get_field("cleft"), dtype=np.int64)
    inner = left >= 0
    comparison = np.array(part.get_field("cmp"))
    if part.get_field("has_categorical_split")[0]:
        raise unsupported(model, "it has categorical splits", "Pass the model that it was imported from.")
    if not np.isin(comparison[inner], (_LESS, _LESS_EQUAL)).all():
        raise unsupported(model, "it compares by other operators than < and <=")
    threshold = np.array(part.get_field("threshold"), dtype=np.float64)
    rules = {
        "feature": np.where(inner, part.get_field("split_index"), LEAF),
        "threshold": np.where(comparison == _LESS_EQUAL, next_up(threshold, dtype), threshold),
        "left": left,
        "right": np.array(part.get_field("cright"), dtype=np.int64),
        "missing_right": np.array(part.get_field("default_left")) == 0,
        "cover": _cover(model, part, len(left)),
    }
    vectors = np.array(part.get_field("leaf_vector"), dtype=np.float64)
    if len(vectors) == 0:
        return rules, np.array(part.get_field("leaf_value"), dtype=np.float64)[:, None]
    start, end = (np.array(part.get_field(f"leaf_vector_{side}"), dtype=np.int64) for side in ("begin", "end"))
    width = int((end - start).max())
    return rules, vectors[np.where(inner, 0, start)[:, None] + np.arange(width)]


def _cover(model: Any, part: Any, size: int) -> NDArray[np.float64]:
    for name in ("sum_hess", "data_count"):
        found = np.array(part.get_field(name), dtype=np.float64)
        present = np.array(part.get_field(f"{name}_present"))
        if len(found) == size and present.all():
            return found
    raise unsupported(
        model,
        "its nodes hold neither sum_hess nor data_count, which explanations need",
        "Import the model with one of them, or pass the model that it was imported from.",
    )
