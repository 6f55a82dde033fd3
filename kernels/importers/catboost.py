"""CatBoost models on numeric features, oblivious and other trees, read from the JSON export.

A row goes right when float32(x) > border; a missing value compares as the export says for its
feature. In an oblivious tree the last split is the root, as in CatBoost's own Shapley values.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from treadle.kernels.forest import LEAF, Forest, Tree, next_up
from treadle.kernels.importers import compiled, unsupported


def read(model: Any) -> Forest:
    """The forest of a fitted CatBoost, CatBoostClassifier, CatBoostRegressor or CatBoostRanker."""
    import catboost

    if not isinstance(model, catboost.CatBoost):
        raise unsupported(model, "it is no model", "Pass the fitted CatBoost model.")
    if not model.is_fitted():
        raise unsupported(model, "it is not fitted", "Call fit first.")
    for kind, indices in (
        ("categorical", model.get_cat_feature_indices()),
        ("text", model.get_text_feature_indices()),
        ("embedding", model.get_embedding_feature_indices()),
    ):
        if len(indices):
            raise unsupported(model, f"feature {indices[0]} is a {kind} feature, which is no split by a threshold")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.json"
        model.save_model(str(path), format="json")
        content = json.loads(path.read_text())
    floats = content["features_info"]["float_features"]
    feature = np.array([item["flat_feature_index"] for item in floats], dtype=np.int64)
    # Without a treatment a NaN is compared as it is: it is above no border.
    missing_right = np.array([item["nan_value_treatment"] == "AsTrue" for item in floats], dtype=bool)
    scale, bias = content["scale_and_bias"]
    base = np.atleast_1d(np.asarray(bias, dtype=np.float64))
    trees: list[Tree] = []
    for part in content.get("oblivious_trees") or content.get("trees", []):
        if "leaf_values" in part:
            split, left, right, cover, value = _oblivious(part)
        else:
            split, left, right, cover, value = _other(part)
        if not len(cover):
            raise unsupported(model, "it holds no leaf weights, which explanations need", "Train it again.")
        rank = np.array([-1 if item is None else item["float_feature_index"] for item in split])
        border = np.array([0.0 if item is None else item["border"] for item in split], dtype=np.float32)
        trees += [
            Tree(
                feature=np.where(rank < 0, LEAF, feature[rank]),
                threshold=next_up(border, np.float32),
                left=left,
                right=right,
                missing_right=missing_right[rank],
                cover=cover,
                value=scale * column,
                output=output,
            )
            for output, column in enumerate(value.T)
        ]
    return compiled(
        model,
        trees,
        source=f"catboost {catboost.__version__}",
        n_features=len(model.feature_names_),
        n_outputs=len(base),
        base=base,
    )


_Nodes = tuple[list[Any], NDArray[np.int64], NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]
"""Splits (None at leaves), left and right children, covers (empty when unknown), values (nodes, outputs)."""


def _oblivious(part: dict[str, Any]) -> _Nodes:
    """A full tree, level by level: the children of node i are 2i + 1 and 2i + 2."""
    splits = part.get("splits") or []
    depth = len(splits)
    leaves, inner = 1 << depth, (1 << depth) - 1
    levels = [np.asarray(part.get("leaf_weights") or [], dtype=np.float64)]
    if len(levels[0]) == leaves:
        for _ in range(depth):
            levels.append(levels[-1].reshape(-1, 2).sum(axis=1))
    index = np.arange(inner + leaves)
    value = np.asarray(part["leaf_values"], dtype=np.float64).reshape(leaves, -1)
    return (
        [splits[depth - 1 - level] for level in range(depth) for _ in range(1 << level)] + [None] * leaves,
        2 * index + 1,
        2 * index + 2,
        np.concatenate(levels[::-1]),
        np.concatenate([np.zeros((inner, value.shape[1])), value]),
    )


def _other(root: dict[str, Any]) -> _Nodes:
    """A tree of nested nodes, numbered from the root in the order in which they are met."""
    nodes, left, right = [root], [-1], [-1]
    number = 0
    while number < len(nodes):
        node = nodes[number]
        if "split" in node:
            left[number], right[number] = len(nodes), len(nodes) + 1
            nodes += [node["left"], node["right"]]
            left += [-1, -1]
            right += [-1, -1]
        number += 1
    cover = np.array([float(node.get("weight", 0.0 if "split" in node else np.nan)) for node in nodes])
    for number in reversed(range(len(nodes))):  # children come after their parents
        if left[number] >= 0:
            cover[number] = cover[left[number]] + cover[right[number]]
    if np.isnan(cover[0]):
        cover = cover[:0]
    leaf = next(np.atleast_1d(node["value"]) for node in nodes if "value" in node)
    value = np.array([np.atleast_1d(node.get("value", np.zeros(len(leaf)))) for node in nodes], dtype=np.float64)
    return [node.get("split") for node in nodes], np.array(left), np.array(right), cover, value
