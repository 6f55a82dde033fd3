"""XGBoost: boosters and the scikit-learn wrappers, tree and DART boosters.

A row goes left when float32(x) < threshold. A categorical node sends the codes of its set to the
right, and negative, unknown and too large codes to the left (XGBoost, `src/common/categorical.h`).
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

from treadle.kernels.forest import LEAF, Forest, Tree
from treadle.kernels.importers import compiled, unsupported

_NUMBERS = {"i": ">i1", "U": ">u1", "I": ">i2", "l": ">i4", "L": ">i8", "d": ">f4", "D": ">f8"}


def read(model: Any) -> Forest:
    """The forest of a Booster or of a wrapper, which stops at its best iteration as its `predict` does."""
    import xgboost

    booster, rounds = model, 0
    if isinstance(model, xgboost.XGBModel):
        if not model.__sklearn_is_fitted__():
            raise unsupported(model, "it is not fitted", "Call fit first.")
        if not np.isnan(model.missing):
            raise unsupported(model, f"it takes {model.missing} for missing", "Train it with NaN for missing values.")
        booster = model.get_booster()
        rounds = getattr(model, "best_iteration", -1) + 1
    if not isinstance(booster, xgboost.Booster):
        raise unsupported(model, "it is no booster", "Pass the booster or the fitted estimator.")
    content = _Ubjson(booster.save_raw("ubj")).value()
    learner = content["learner"]
    name = learner["gradient_booster"]["name"]
    if name != "gbtree":
        raise unsupported(model, f"its booster is '{name}', which has no trees")
    parts = learner["gradient_booster"]["model"]
    n_features = int(learner["learner_model_param"]["num_feature"])
    base = _base(content, n_features)
    count = int(parts["iteration_indptr"][rounds]) if rounds else len(parts["trees"])
    drops = parts.get("weight_drop", [])
    trees: list[Tree] = []
    for number, part in enumerate(parts["trees"][:count]):
        weight = float(drops[number]) if len(drops) else 1.0
        trees += _trees(part, int(parts["tree_info"][number]), weight)
    forest = compiled(
        model,
        trees,
        source=f"xgboost {'.'.join(map(str, content['version']))}",
        n_features=n_features,
        n_outputs=len(base),
        dtype=np.float32,
        base=base,
    )
    row = xgboost.DMatrix(np.full((1, n_features), np.nan, dtype=np.float32))
    theirs = booster.predict(row, output_margin=True, iteration_range=(0, rounds), validate_features=False).ravel()
    ours, size = _margin_of_missing(forest)
    if ours.shape != theirs.shape or not (np.abs(ours - theirs) <= 1e-5 * size + 1e-6).all():
        objective = learner["objective"]["name"]
        raise unsupported(model, f"with objective '{objective}' its margin is {theirs}, and its trees give {ours}")
    return forest


def _base(content: dict[str, Any], n_features: int) -> NDArray[np.float64]:
    """The margin of the same model without trees: no table of what each objective does to base_score."""
    import xgboost

    empty = {
        "cats": {"enc": [], "feature_segments": [], "sorted_idx": []},
        "gbtree_model_param": {"num_parallel_tree": "1", "num_trees": "0"},
        "iteration_indptr": [0],
        "tree_info": [],
        "trees": [],
    }
    learner = content["learner"] | {
        # Without trees a base score that would be estimated counts as not estimated yet, and is not transformed.
        "learner_model_param": content["learner"]["learner_model_param"] | {"boost_from_average": "0"},
        "feature_names": [],
        "feature_types": [],
        "gradient_booster": {"model": empty, "name": "gbtree"},
    }
    text = json.dumps({"learner": learner, "version": content["version"]}, default=np.ndarray.tolist)
    stump = xgboost.Booster(model_file=bytearray(text.encode()))
    row = xgboost.DMatrix(np.zeros((1, n_features), dtype=np.float32))
    return stump.predict(row, output_margin=True).ravel().astype(np.float64)


def _trees(part: dict[str, Any], output: int, weight: float) -> list[Tree]:
    """One tree, or one an output where leaves hold a value for each output."""
    left, right = np.asarray(part["left_children"]), np.asarray(part["right_children"])
    inner = left >= 0
    threshold = np.asarray(part["split_conditions"], dtype=np.float64)
    missing_right = np.asarray(part["default_left"]) == 0
    outputs = int(part["tree_param"]["size_leaf_vector"])
    if outputs > 1:
        # Here a leaf's right child is its row in the matrix of leaf weights.
        vectors = np.asarray(part["leaf_weights"], dtype=np.float64).reshape(-1, outputs)
        values = np.where(inner, 0.0, vectors[np.where(inner, 0, right)].T)
    else:
        values = np.where(inner, 0.0, threshold)[None, :]
    codes = np.asarray(part["categories"])
    sets = {}
    for node, start, size in zip(
        part["categories_nodes"], part["categories_segments"], part["categories_sizes"], strict=True
    ):
        members = codes[start : start + size]
        bits = np.zeros(max(1, int(members.max(initial=-1)) + 1) + 2, dtype=bool)
        bits[members] = True
        bits[-1] = missing_right[node]
        sets[int(node)] = bits
    return [
        Tree(
            feature=np.where(inner, np.asarray(part["split_indices"]), LEAF),
            threshold=threshold,
            left=left,
            right=right,
            missing_right=missing_right,
            cover=np.asarray(part["sum_hessian"], dtype=np.float64),
            value=weight * value,
            output=output + number,
            goes_right=sets,
        )
        for number, value in enumerate(values)
    ]


def _margin_of_missing(forest: Forest) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Margins (outputs,) of a row without any value, and the sums of the sizes of what was added."""
    node = forest.tree_start[:-1].copy()
    while (inner := forest.feature[node] != LEAF).any():
        step = np.where(forest.missing_right[node], forest.right[node], node + 1)
        node = np.where(inner, step, node)
    margin, size = forest.base.copy(), np.abs(forest.base)
    np.add.at(margin, forest.tree_output, forest.value[node])
    np.add.at(size, forest.tree_output, np.abs(forest.value[node]))
    return margin, size


class _Ubjson:
    """Universal Binary JSON as XGBoost writes it; typed arrays become NumPy arrays, without parsing numbers.

    Source: the UBJSON specification, draft 12, https://ubjson.org.
    """

    def __init__(self, data: bytes | bytearray) -> None:
        self.data, self.at = bytes(data), 0

    def take(self, size: int) -> bytes:
        self.at += size
        return self.data[self.at - size : self.at]

    def value(self) -> Any:
        kind = self.take(1).decode()
        if kind == "{":
            return self.members()
        if kind == "[":
            return self.elements()
        if kind == "S":
            return self.take(self.value()).decode()
        if kind in _NUMBERS:
            return self.numbers(kind, 1)[0].item()
        return {"T": True, "F": False, "Z": None}[kind]

    def members(self) -> dict[str, Any]:
        found = {}
        while self.data[self.at] != ord("}"):
            key = self.take(self.value()).decode()
            found[key] = self.value()
        self.at += 1
        return found

    def elements(self) -> Any:
        if self.data[self.at] == ord("$"):
            kind = self.take(3)[1:2].decode()
            return self.numbers(kind, self.value())
        self.at += 1
        return [self.value() for _ in range(self.value())]

    def numbers(self, kind: str, count: int) -> NDArray[Any]:
        found = np.frombuffer(self.data, _NUMBERS[kind], count, self.at)
        self.at += found.nbytes
        return found.astype(found.dtype.newbyteorder("="))
