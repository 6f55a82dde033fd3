"""The importer of treelite: the compiled margin is that of its own predictor, on rows that are hard to route.

cuML's forests come through treelite; cuML itself is stood in for by an object that hands out a model.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import xgboost as xgb
from sklearn import ensemble

from tests.kernels.forest_margin import assert_margin, probes, row_counts
from tests.kernels.test_importers import BINARY, EXACT, FULL, SINGLE, THREE, TYPES, X, Y
from treadle.errors import UnsupportedModel
from treadle.kernels.importers import read_model

treelite = pytest.importorskip("treelite")

SKLEARN = [
    (ensemble.RandomForestRegressor(n_estimators=20, max_depth=6), Y),
    (ensemble.RandomForestClassifier(n_estimators=20, max_depth=6), BINARY),
    (ensemble.ExtraTreesClassifier(n_estimators=20, max_depth=6), THREE),
    (ensemble.GradientBoostingRegressor(n_estimators=20), Y),
    (ensemble.GradientBoostingClassifier(n_estimators=20), THREE),
]


def margin(model: Any, rows: Any) -> Any:
    found = treelite.gtil.predict(model, rows, nthread=1, pred_margin=True).reshape(len(rows), -1)
    # The probabilities of two classes are one output here.
    return found[:, 1:] if found.shape[1] == 2 else found


@pytest.mark.parametrize(("estimator", "label"), SKLEARN, ids=lambda value: type(value).__name__)
def test_models_from_scikit_learn(estimator: Any, label: Any) -> None:
    model = treelite.sklearn.import_model(estimator.set_params(random_state=0).fit(FULL, label))
    forest = read_model(model)
    assert forest.dtype == np.float64
    rows = probes(forest, FULL)
    assert_margin(forest, rows, margin(model, rows), EXACT)


@pytest.mark.parametrize(
    ("label", "params"),
    [
        (Y, {"objective": "reg:squarederror"}),
        (BINARY, {"objective": "binary:logistic"}),
        (THREE, {"objective": "multi:softprob", "num_class": 3}),
    ],
    ids=["regression", "two classes", "three classes"],
)
def test_models_from_xgboost(label: Any, params: dict[str, Any]) -> None:
    booster = xgb.train(params | {"max_depth": 4, "nthread": 1}, xgb.DMatrix(X, label), 20)
    model = treelite.frontend.from_xgboost(booster)
    forest = read_model(model)
    assert forest.dtype == np.float32
    rows = probes(forest, X)
    assert_margin(forest, rows, margin(model, rows), SINGLE)
    np.testing.assert_allclose(forest.cover, read_model(booster).cover, rtol=1e-6)


class Source:
    """What has a method that gives a treelite model."""

    def __init__(self, name: str, model: Any) -> None:
        setattr(self, name, lambda: model)


@pytest.mark.parametrize("name", ["as_treelite", "convert_to_treelite_model"])
def test_objects_that_hand_out_a_model(name: str) -> None:
    estimator = ensemble.RandomForestClassifier(n_estimators=5, max_depth=4, random_state=0).fit(FULL, BINARY)
    forest = read_model(Source(name, treelite.sklearn.import_model(estimator)))
    rows = probes(forest, FULL, inf=False, nan=False).astype(np.float32)
    assert_margin(forest, rows, estimator.predict_proba(rows)[:, 1], EXACT)


def test_cover_is_the_number_of_training_rows() -> None:
    estimator = ensemble.ExtraTreesRegressor(n_estimators=3, max_depth=5, random_state=0).fit(FULL, Y)
    forest = read_model(treelite.sklearn.import_model(estimator))
    assert (forest.cover == row_counts(forest, FULL.astype(np.float32))).all()


def built(op: str = "<", values: Any = (1.0, 2.0, 4.0), **cover: int) -> Any:
    """A tree of two splits at 0.5 with a covers of 3 a leaf."""
    from treelite.model_builder import Metadata, ModelBuilder, PostProcessorFunc, TreeAnnotation

    builder = ModelBuilder(
        threshold_type="float32",
        leaf_output_type="float32",
        metadata=Metadata(
            num_feature=2,
            task_type="kRegressor",
            average_tree_output=False,
            num_target=1,
            num_class=[1],
            leaf_vector_shape=(1, 1),
        ),
        tree_annotation=TreeAnnotation(num_tree=1, target_id=[0], class_id=[0]),
        postprocessor=PostProcessorFunc(name="identity"),
        base_scores=[10.0],
    )
    builder.start_tree()
    for node, feature in ((0, 0), (1, 1)):
        builder.start_node(node)
        builder.numerical_test(
            feature_id=feature,
            threshold=0.5,
            default_left=False,
            opname=op,
            left_child_key=2 + node,
            right_child_key=1 + 3 * node,
        )
        if cover:
            builder.data_count(9 - 3 * node)
        builder.end_node()
    for node, value in zip((2, 3, 4), values, strict=True):
        builder.start_node(node)
        builder.leaf(value)
        if cover:
            builder.data_count(cover["count"])
        builder.end_node()
    builder.end_tree()
    return builder.commit()


@pytest.mark.parametrize("op", ["<", "<="])
def test_both_comparisons_and_counts_for_covers(op: str) -> None:
    model = built(op, count=3)
    forest = read_model(model)
    sides = [0.5, float(np.nextafter(np.float32(0.5), 0)), float(np.nextafter(np.float32(0.5), 1)), np.nan]
    rows = np.array([[a, b] for a in sides for b in sides], dtype=np.float32)
    assert_margin(forest, rows, margin(model, rows), EXACT)
    assert forest.cover.tolist() == [9, 3, 6, 3, 3]


REFUSED = {
    "no cover": (built, r"treelite\.Model .* neither sum_hess nor data_count"),
    "other comparisons": (lambda: built(">", count=3), r"other operators than < and <="),
    "categories": (
        lambda: treelite.frontend.from_xgboost(
            xgb.train({"nthread": 1, "max_cat_to_onehot": 1}, xgb.DMatrix(X, Y, feature_types=TYPES), 5)
        ),
        r"treelite\.Model .* categorical splits\. Pass the model that it was imported from",
    ),
    "several targets": (
        lambda: treelite.sklearn.import_model(ensemble.RandomForestRegressor(n_estimators=2).fit(FULL, np.c_[Y, Y])),
        r"several targets at once",
    ),
    "no treelite model": (lambda: Source("as_treelite", [1]), r"Source .* it gives a list, no treelite\.Model"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals_say_what_and_why(case: str) -> None:
    make, message = REFUSED[case]
    with pytest.raises(UnsupportedModel, match=message):
        read_model(make())
