"""scikit-learn: decision trees, forests, both kinds of gradient boosting, and AdaBoost of trees.

All but HistGradientBoosting compare float32(x) <= threshold in float64; that one compares
float64, and its categories go through an ordinal encoder that puts the categorical
columns first.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from treadle.kernels.forest import LEAF, Forest, Tree, next_up
from treadle.kernels.importers import bits_of, compiled, unsupported

_LARGEST_CODE = 65_535


def read(model: Any) -> Forest:
    """The forest of a fitted estimator.

    The margin of a tree or forest classifier is the probability: of `classes_[1]` when there are
    two classes, else one output a class. Of boosted ones it is the decision function.
    """
    from sklearn import ensemble, tree
    from sklearn.exceptions import NotFittedError
    from sklearn.utils.validation import check_is_fitted

    readers = [
        ((ensemble.HistGradientBoostingClassifier, ensemble.HistGradientBoostingRegressor), _hist_boosting),
        ((ensemble.GradientBoostingClassifier, ensemble.GradientBoostingRegressor), _boosting),
        ((ensemble.AdaBoostClassifier,), _votes),
        ((ensemble.RandomForestClassifier, ensemble.RandomForestRegressor), _averaged),
        ((ensemble.ExtraTreesClassifier, ensemble.ExtraTreesRegressor), _averaged),
        ((tree.DecisionTreeClassifier, tree.DecisionTreeRegressor), _averaged),
    ]
    for kinds, reader in readers:
        if isinstance(model, kinds):
            try:
                check_is_fitted(model)
            except NotFittedError as error:
                raise unsupported(model, "it is not fitted", "Call fit first.") from error
            return reader(model)
    if isinstance(model, ensemble.IsolationForest):
        raise unsupported(model, "its score comes from the lengths of paths, not from leaf values")
    if isinstance(model, ensemble.AdaBoostRegressor):
        raise unsupported(model, "it predicts a median of trees, which no sum over trees is")
    raise unsupported(model, "it is no tree, forest or boosting")


def _source() -> str:
    import sklearn

    return f"scikit-learn {sklearn.__version__}"


def _averaged(model: Any) -> Forest:
    """Trees and forests: the mean of leaf values or class fractions."""
    if model.n_outputs_ > 1:
        raise unsupported(model, f"it was trained on {model.n_outputs_} targets at once", "Train one model a target.")
    members = getattr(model, "estimators_", [model])
    classes = len(getattr(model, "classes_", ()))
    # A classifier's leaves hold the fractions of its classes.
    columns = [1] if classes == 2 else range(max(1, classes))
    trees = [
        _tree(member.tree_, member.tree_.value[:, 0, column] / len(members), output)
        for member in members
        for output, column in enumerate(columns)
    ]
    return compiled(model, trees, source=_source(), n_features=model.n_features_in_, n_outputs=len(columns))


def _boosting(model: Any) -> Forest:
    """GradientBoosting: a constant from the initial estimator, and steps of the learning rate."""
    from sklearn.dummy import DummyClassifier, DummyRegressor

    first = model.init_
    constant = isinstance(first, DummyRegressor) or (
        isinstance(first, DummyClassifier) and first.strategy in ("prior", "most_frequent", "constant")
    )
    if not (constant or isinstance(first, str)):
        raise unsupported(
            model, f"its init is a {type(first).__name__}, which depends on the row", "Train without init."
        )
    base = model._raw_predict_init(np.zeros((1, model.n_features_in_), dtype=np.float32))[0]
    trees = [
        _tree(member.tree_, model.learning_rate * member.tree_.value[:, 0, 0], output)
        for stage in model.estimators_
        for output, member in enumerate(stage)
    ]
    return compiled(model, trees, source=_source(), n_features=model.n_features_in_, n_outputs=len(base), base=base)


def _votes(model: Any) -> Forest:
    """AdaBoost: every tree votes for its leaf's most frequent class, against the others."""
    from sklearn.tree import DecisionTreeClassifier

    other = next((member for member in model.estimators_ if not isinstance(member, DecisionTreeClassifier)), None)
    if other is not None:
        raise unsupported(model, f"it boosts a {type(other).__name__}", "Train it on decision trees.")
    classes = len(model.classes_)
    weights = model.estimator_weights_[: len(model.estimators_)] / model.estimator_weights_.sum()
    # With two classes the decision is that of the second less that of the first, which is its negative.
    columns, scale = ([1], 2.0) if classes == 2 else (range(classes), 1.0)
    trees = []
    for member, weight in zip(model.estimators_, weights, strict=True):
        voted = member.tree_.value[:, 0, :].argmax(axis=1)
        for output, column in enumerate(columns):
            vote = np.where(voted == column, 1.0, -1.0 / (classes - 1))
            trees.append(_tree(member.tree_, scale * weight * vote, output))
    return compiled(model, trees, source=_source(), n_features=model.n_features_in_, n_outputs=len(columns))


def _tree(tree: Any, value: NDArray[np.float64], output: int) -> Tree:
    return Tree(
        feature=np.where(tree.children_left < 0, LEAF, tree.feature),
        threshold=next_up(tree.threshold, np.float32),
        left=tree.children_left,
        right=tree.children_right,
        missing_right=tree.missing_go_to_left == 0,
        cover=tree.weighted_n_node_samples,
        value=value,
        output=output,
    )


def _hist_boosting(model: Any) -> Forest:
    features = np.arange(model.n_features_in_)
    codes: list[NDArray[np.int64]] = []
    if model._preprocessor is not None:
        mask = model.is_categorical_
        features = np.concatenate([features[mask], features[~mask]])
        if mask.any():
            encoder = model._preprocessor.named_transformers_["encoder"]
            codes = [
                _codes(model, int(i), kinds) for i, kinds in zip(np.flatnonzero(mask), encoder.categories_, strict=True)
            ]
    trees = [
        _hist_tree(member, features, codes, output)
        for stage in model._predictors
        for output, member in enumerate(stage)
    ]
    base = model._baseline_prediction.ravel()
    return compiled(
        model,
        trees,
        source=_source(),
        n_features=model.n_features_in_,
        n_outputs=len(base),
        dtype=np.float64,
        base=base,
    )


def _codes(model: Any, feature: int, categories: NDArray[Any]) -> NDArray[np.int64]:
    """The codes in the data of the encoder's numbers 0, 1, 2, ...; a missing category, which is last, left out."""
    if categories.dtype.kind in "biuf":
        known = categories[~np.isnan(categories)] if categories.dtype.kind == "f" else categories.astype(np.int64)
        if ((known >= 0) & (known <= _LARGEST_CODE) & (known == np.floor(known))).all():
            return known.astype(np.int64)
    raise unsupported(
        model,
        f"categories of feature {feature} are no whole numbers from 0 to {_LARGEST_CODE}",
        "Encode them as 0, 1, 2, ... before training.",
    )


def _hist_tree(predictor: Any, features: NDArray[np.int64], codes: list[NDArray[np.int64]], output: int) -> Tree:
    nodes = predictor.nodes
    leaf = nodes["is_leaf"] == 1
    missing_right = nodes["missing_go_to_left"] == 0
    sets = {}
    for node in np.flatnonzero(~leaf & (nodes["is_categorical"] == 1)):
        # Codes that were not in the training data go where missing values go.
        known = codes[nodes["feature_idx"][node]]
        bits = np.full(int(known.max()) + 3, missing_right[node])
        left = bits_of(predictor.raw_left_cat_bitsets[nodes["bitset_idx"][node]])
        bits[known] = ~np.isin(np.arange(len(known)), np.flatnonzero(left))
        sets[int(node)] = bits
    return Tree(
        feature=np.where(leaf, LEAF, features[nodes["feature_idx"]]),
        threshold=next_up(nodes["num_threshold"], np.float64),
        left=nodes["left"],
        right=nodes["right"],
        missing_right=missing_right,
        cover=nodes["count"],
        value=nodes["value"],
        output=output,
        goes_right=sets,
    )
