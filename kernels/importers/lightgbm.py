"""LightGBM: boosters and the scikit-learn wrappers, read from the text form of the model.

A row goes left when x <= threshold, in float64. What counts as missing belongs to a node: nothing
(NaN is then zero), zeros, or NaN; zeros are what is at most kZeroThreshold in size, everywhere. A
categorical node sends the codes of its set to the left, everything else to the right, NaN and
negative codes too (LightGBM, `include/LightGBM/tree.h`). In the random forest mode the margin is
the sum over trees, as it is in `predict(raw_score=True)` and `predict(pred_contrib=True)`; only
`predict` itself averages.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from treadle.kernels.forest import LEAF, ZERO_BOUND, Forest, Tree, next_up
from treadle.kernels.importers import bits_of, compiled, unsupported

_CATEGORICAL, _DEFAULT_LEFT = 1, 2
_NONE, _ZERO, _NAN = 0, 1, 2


def read(model: Any) -> Forest:
    """The forest of a Booster or of a wrapper, up to the best iteration as `predict` goes."""
    import lightgbm

    booster = model
    if isinstance(model, lightgbm.LGBMModel):
        if not model.__sklearn_is_fitted__():
            raise unsupported(model, "it is not fitted", "Call fit first.")
        booster = model.booster_
    if not isinstance(booster, lightgbm.Booster):
        raise unsupported(model, "it is no booster", "Pass the booster or the fitted estimator.")
    text = booster.model_to_string(num_iteration=booster.best_iteration).partition("\nend of trees")[0]
    head, *parts = [
        dict(line.partition("=")[::2] for line in block.splitlines() if line) for block in text.split("\nTree=")
    ]
    if any(part.get("is_linear", "0") != "0" for part in parts):
        raise unsupported(model, "it has linear models in its leaves (linear_tree)", "Train without linear_tree.")
    outputs = int(head["num_tree_per_iteration"])
    n_features = int(head["max_feature_idx"]) + 1
    splits = [_splits(part) for part in parts]
    return compiled(
        model,
        [_tree(part, rules, i % outputs) for i, (part, rules) in enumerate(zip(parts, splits, strict=True))],
        source=f"lightgbm {lightgbm.__version__}",
        n_features=n_features,
        n_outputs=outputs,
        dtype=np.float64,
        zero_missing=_zero_missing(model, splits, n_features),
    )


def _numbers(part: dict[str, str], key: str, kind: Any) -> NDArray[Any]:
    return np.array(part.get(key, "").split(), dtype=kind)


def _splits(part: dict[str, str]) -> tuple[NDArray[np.int64], NDArray[np.uint8], NDArray[np.uint8]]:
    """Features, decision bits and missing types of the inner nodes."""
    decision = _numbers(part, "decision_type", np.int8).view(np.uint8)
    return _numbers(part, "split_feature", np.int64), decision, (decision >> 2 & 3).astype(np.uint8)


def _zero_missing(
    model: Any, splits: list[tuple[NDArray[np.int64], NDArray[np.uint8], NDArray[np.uint8]]], n_features: int
) -> NDArray[np.bool_]:
    seen = np.zeros((3, n_features), dtype=bool)
    for feature, decision, missing in splits:
        numeric = decision & _CATEGORICAL == 0
        seen[missing[numeric], feature[numeric]] = True
    mixed = np.flatnonzero(seen[_ZERO] & seen[_NAN])
    if len(mixed):
        raise unsupported(model, f"feature {mixed[0]} is missing when zero in one node and when NaN in another")
    return seen[_ZERO]


def _tree(
    part: dict[str, str],
    splits: tuple[NDArray[np.int64], NDArray[np.uint8], NDArray[np.uint8]],
    output: int,
) -> Tree:
    """Inner nodes in LightGBM's order, then the leaves."""
    feature, decision, missing = splits
    inner = len(feature)
    value = _numbers(part, "leaf_value", np.float64)
    cover = np.concatenate([_numbers(part, "internal_count", np.float64), _numbers(part, "leaf_count", np.float64)])
    at = _numbers(part, "threshold", np.float64)
    # Rows arrive with what is near zero made zero: the cut must not lie inside.
    cut = next_up(at, np.float64)
    cut = np.where((at >= -ZERO_BOUND) & (at < 0), -ZERO_BOUND, cut)
    cut = np.where((at >= 0) & (at < ZERO_BOUND), np.nextafter(ZERO_BOUND, 1), cut)
    # A NaN that is not a missing value is a zero; for features whose zeros are missing it is that.
    as_zero = missing == _NONE
    missing_right = np.where(as_zero, ~(at >= 0), decision & _DEFAULT_LEFT == 0)
    leaves = np.zeros(len(value))
    sets = {}
    words, bounds = _numbers(part, "cat_threshold", np.uint32), _numbers(part, "cat_boundaries", np.int64)
    for node in np.flatnonzero(decision & _CATEGORICAL):
        number = int(at[node])
        sets[int(node)] = np.append(~bits_of(words[bounds[number] : bounds[number + 1]]), [True, True])
        missing_right[node] = True

    def child(key: str) -> NDArray[np.int64]:
        index = _numbers(part, key, np.int64)
        return np.concatenate([np.where(index < 0, inner + ~index, index), leaves]).astype(np.int64)

    return Tree(
        feature=np.concatenate([feature, np.full(len(value), LEAF)]),
        threshold=np.concatenate([cut, leaves]),
        left=child("left_child"),
        right=child("right_child"),
        missing_right=np.concatenate([missing_right, leaves]).astype(bool),
        cover=cover if len(cover) == inner + len(value) else np.zeros(inner + len(value)),
        value=np.concatenate([np.zeros(inner), value]),
        output=output,
        goes_right=sets,
    )
