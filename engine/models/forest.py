"""scikit-learn's trees and forests, in XGBoost's layout.

A fitted forest is kept as boosters of the same trees, one an output: XGBoost reads and checks
them without running code (loading scikit-learn's own trees means trusting their memory), predicts
without scikit-learn, and has exact contributions. Leaf values are float32, so that a probability
differs from scikit-learn's by about 2e-7.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from treadle.engine.models.base import Model, Task, in_row_blocks
from treadle.engine.models.boosted import (
    CONTRIBUTION_ROWS,
    booster_contributions,
    read_booster,
    task_threads,
    write_booster,
)
from treadle.engine.store import Store


class ForestModel(Model):
    """A decision tree or an average of trees; the margin is the probability, or the value."""

    format: ClassVar[str] = "forest"

    def __init__(self, task: Task, boosters: Sequence[Any]) -> None:
        self.task = task
        self.link = "identity"
        self.boosters = tuple(boosters)
        """The positive class, every class of several, or the value."""
        self.features = self.boosters[0].num_features()
        self.outputs = len(self.boosters)

    @classmethod
    def of(cls, task: Task, estimator: Any) -> ForestModel:
        """From a fitted scikit-learn tree or forest."""
        trees = [tree.tree_ for tree in getattr(estimator, "estimators_", [estimator])]
        outputs = {"binary": [1], "regression": [0]}.get(task) or range(trees[0].value.shape[2])
        return cls(task, [as_booster(trees, o, task != "regression", int(estimator.n_features_in_)) for o in outputs])

    @property
    def method(self) -> str:
        import xgboost

        return f"TreeSHAP, path-dependent (the same trees in XGBoost {xgboost.__version__})"

    def _margin(self, matrix: np.ndarray) -> np.ndarray:
        margins = [b.inplace_predict(matrix, predict_type="margin").astype(np.float64) for b in self.boosters]
        return np.stack(margins, axis=1) if self.task == "multiclass" else margins[0]

    def _contributions(self, matrix: np.ndarray) -> np.ndarray:
        outputs = [
            in_row_blocks(functools.partial(booster_contributions, b), matrix, CONTRIBUTION_ROWS) for b in self.boosters
        ]
        return np.stack(outputs, axis=1) if self.task == "multiclass" else outputs[0]

    def save(self, store: Store, folder: str) -> dict[str, Any]:
        paths = [f"{folder}/model.{number}.ubj" for number in range(len(self.boosters))]
        return {"digests": [write_booster(b, store, path) for b, path in zip(self.boosters, paths, strict=True)]}

    @classmethod
    def load(cls, store: Store, folder: str, document: dict[str, Any]) -> ForestModel:
        return cls(
            document["task"],
            [read_booster(store, f"{folder}/model.{i}.ubj", digest) for i, digest in enumerate(document["digests"])],
        )


def as_booster(trees: list[Any], output: int, normalise: bool, features: int) -> Any:
    """scikit-learn's trees as an XGBoost booster whose margin is their mean.

    scikit-learn goes left on `x <= t` for a float32 x and a float64 t, XGBoost on `x < t` in
    float32; so t becomes the next float32 above its rounding down.

    Parameters
    ----------
    trees
        `sklearn.tree._tree.Tree` objects.
    output
        The class, or 0 for regression.
    normalise
        Leaf values are shares of the classes (they need not add up to 1 in every version).
    """
    import xgboost

    documents = [_tree(tree, output, normalise, len(trees), features, number) for number, tree in enumerate(trees)]
    count = len(documents)
    learner = {
        "attributes": {},
        "feature_names": [],
        "feature_types": [],
        "gradient_booster": {
            "model": {
                "gbtree_model_param": {"num_parallel_tree": "1", "num_trees": str(count)},
                "iteration_indptr": list(range(count + 1)),
                "tree_info": [0] * count,
                "trees": documents,
            },
            "name": "gbtree",
        },
        "learner_model_param": {
            "base_score": "[0E0]",
            "boost_from_average": "0",
            "num_class": "0",
            "num_feature": str(features),
            "num_target": "1",
        },
        "objective": {"name": "reg:squarederror", "reg_loss_param": {"scale_pos_weight": "1"}},
    }
    raw = json.dumps({"learner": learner, "version": [3, 0, 0]}).encode()
    booster = xgboost.Booster(model_file=bytearray(raw))
    booster.set_param({"nthread": task_threads()})
    return booster


def _tree(tree: Any, output: int, normalise: bool, count: int, features: int, number: int) -> dict[str, Any]:
    order = _siblings_adjacent(tree)
    position = np.empty(tree.node_count, dtype=np.int64)
    position[order] = np.arange(tree.node_count)
    left, right = tree.children_left[order], tree.children_right[order]
    leaf = left < 0
    left, right = np.where(leaf, -1, position[left]), np.where(leaf, -1, position[right])
    values = tree.value[order, 0, :].astype(np.float64)
    values = values[:, output] / (values.sum(axis=1) if normalise else 1.0) / count
    thresholds = tree.threshold[order]
    down = thresholds.astype(np.float32)
    down = np.where(down.astype(np.float64) > thresholds, np.nextafter(down, np.float32(-np.inf)), down)
    conditions = np.where(leaf, values.astype(np.float32), np.nextafter(down, np.float32(np.inf)))
    nodes = tree.node_count
    parents = np.full(nodes, 2**31 - 1, dtype=np.int64)
    inner = np.flatnonzero(~leaf)
    parents[left[inner]] = inner
    parents[right[inner]] = inner
    return {
        "base_weights": values.astype(np.float32).tolist(),
        "categories": [],
        "categories_nodes": [],
        "categories_segments": [],
        "categories_sizes": [],
        "default_left": tree.missing_go_to_left[order].astype(int).tolist(),
        "id": number,
        "left_children": left.tolist(),
        "loss_changes": [0.0] * nodes,
        "parents": parents.tolist(),
        "right_children": right.tolist(),
        "split_conditions": conditions.tolist(),
        "split_indices": np.where(leaf, 0, tree.feature[order]).tolist(),
        "split_type": [0] * nodes,
        "sum_hessian": tree.weighted_n_node_samples[order].tolist(),
        "tree_param": {
            "num_deleted": "0",
            "num_feature": str(features),
            "num_nodes": str(nodes),
            "size_leaf_vector": "1",
        },
    }


def _siblings_adjacent(tree: Any) -> np.ndarray:
    """The nodes level by level: XGBoost's predictor takes the right child to follow the left one."""
    levels = [np.zeros(1, dtype=np.int64)]
    while True:
        inner = levels[-1][tree.children_left[levels[-1]] >= 0]
        if not len(inner):
            return np.concatenate(levels)
        levels.append(np.stack([tree.children_left[inner], tree.children_right[inner]], axis=1).ravel())
