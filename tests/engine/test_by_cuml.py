"""Models that cuML trains: what is given to it, what becomes of what it made, and what the host trains instead.

cuML needs a GPU for all but its constructors. A stand-in takes its place, which wraps scikit-learn's estimators; what
cuML says of parameters is asked of cuML itself where it is installed, and it trains where there is a GPU (`-m gpu`).
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.metrics import roc_auc_score

from tests.kernels.cuda.test_device import why_not
from treadle.engine import fitting
from treadle.engine.artifacts import SplitRule
from treadle.engine.backend import HOST, Backend
from treadle.engine.fitting import fit_estimator, make_estimator
from treadle.engine.job import Model as ModelConfig
from treadle.engine.models.base import Model, Task
from treadle.engine.models.catalogue import CATALOGUE
from treadle.engine.models.spaces import SPACES
from treadle.kernels.forest import compile_forest

SEED = 5
CUDA = Backend("cuda", topic="treadle/run/train")
NO_CUML = "cuML is not installed" if find_spec("cuml") is None else ""
FEW = {"n_estimators": 8, "max_depth": 4}
L1 = {"penalty": "l1", "solver": "liblinear"}
OF_CUML: list[tuple[str, Task, dict[str, Any]]] = [
    ("random_forest", "binary", FEW),
    ("random_forest", "multiclass", FEW),
    ("random_forest", "regression", {**FEW, "max_features": 0.5}),
    ("lasso", "regression", {"alpha": 0.01}),
    ("elastic_net", "regression", {"alpha": 0.01, "l1_ratio": 0.3}),
    ("linear_svm", "binary", {}),
    ("linear_svm", "multiclass", {"C": 0.1}),
    ("logistic_regression", "binary", {"l1_ratio": 1.0, "solver": "saga"}),
]


def matrix(seed: int, rows: int = 160) -> Any:
    return np.random.default_rng(seed).normal(size=(rows, 4)).astype(np.float32)


def target(rows: Any, task: Task) -> Any:
    if task == "regression":
        return 3.0 * rows[:, 0] + rows[:, 1].astype(np.float64) ** 2
    cuts = [0.0] if task == "binary" else [-0.5, 0.5]
    return np.digitize(rows[:, 0] + rows[:, 1] * rows[:, 2], cuts).astype(np.float64)


def rule(task: Task) -> Any:
    classes = {"binary": ("no", "yes"), "multiclass": ("a", "b", "c"), "regression": ()}[task]
    return SplitRule.model_construct(task=task, classes=classes)


class StandIn:
    """A class of cuML's."""

    made: list[StandIn]
    error: Exception | None
    """What `fit` raises."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.params: dict[str, Any] = {}
        self.weighted = False

    @classmethod
    def from_sklearn(cls, estimator: Any) -> StandIn:
        if getattr(estimator, "positive", False) or getattr(estimator, "criterion", "") == "log_loss":
            raise ValueError("`this` is not supported")
        cls.made.append(cls(clone(estimator)))
        return cls.made[-1]

    def set_params(self, **params: Any) -> StandIn:
        self.params = params
        return self

    def fit(self, rows: Any, labels: Any, sample_weight: Any = None) -> StandIn:
        if self.error is not None:
            raise self.error
        self.weighted = sample_weight is not None
        self.inner.fit(rows, labels, sample_weight)
        return self

    def as_sklearn(self) -> Any:
        return self.inner


class Forest(StandIn):
    """cuML's: of nodes it tells the number of rows, which treelite has for `data_count`."""

    def as_sklearn(self) -> Any:
        raise AssertionError("its forests have no covers this way")

    def as_treelite(self) -> Any:
        import treelite

        return treelite.sklearn.import_model(self.inner)


@pytest.fixture
def cuml(monkeypatch: pytest.MonkeyPatch) -> type[StandIn]:
    """In place of cuML; `made` are the estimators that were."""
    monkeypatch.setattr(StandIn, "made", [], raising=False)
    monkeypatch.setattr(StandIn, "error", None, raising=False)
    for entry in CATALOGUE.values():
        for path in [] if entry.cuml is None else filter(None, (entry.cuml.classifier, entry.cuml.regressor)):
            module, _, name = path.partition(":")
            if not isinstance(sys.modules.get(module), SimpleNamespace):
                monkeypatch.setitem(sys.modules, module, SimpleNamespace())
            setattr(sys.modules[module], name, Forest if entry.family == "forest" else StandIn)
    return StandIn


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What workers would tell of the host's work."""
    found: list[str] = []
    monkeypatch.setattr("treadle.engine.fallbacks.tell", lambda topic, text: found.append(text) if topic else None)
    return found


def trained(name: str, task: Task, params: dict[str, Any], backend: Backend, **changes: Any) -> Model:
    rows = changes.get("rows", matrix(1))
    part = (rows, target(np.nan_to_num(rows), task), *([changes["weight"]] if "weight" in changes else []))
    return fit_estimator([part], ModelConfig(name=name, params=params), rule(task), SEED, backend)[0]


def same(found: Model, expected: Model, rows: Any) -> None:
    np.testing.assert_allclose(found.margin(rows), expected.margin(rows), rtol=0, atol=1e-9)
    np.testing.assert_allclose(found.contributions(rows), expected.contributions(rows), rtol=0, atol=1e-6)


@pytest.mark.parametrize(("name", "task", "params"), OF_CUML)
def test_what_cuml_trains_is_a_model_as_any_other(
    name: str, task: Task, params: dict[str, Any], cuml: type[StandIn], said: list[str]
) -> None:
    found, expected = (trained(name, task, params, backend) for backend in (CUDA, HOST))
    assert type(found) is type(expected)
    same(found, expected, matrix(2))
    # The host's had none of it, and nothing was done by the host instead.
    (one,) = cuml.made
    assert one.params == ({"penalized_intercept": True} if name == "linear_svm" else {})
    assert one.inner.get_params()["random_state"] == SEED
    assert said == []


def test_weights_go_to_cuml_where_it_counts_them_alike(cuml: type[StandIn], said: list[str]) -> None:
    weight = np.random.default_rng(3).random(160) + 0.1
    for name in ("lasso", "elastic_net"):
        found, expected = (
            trained(name, "regression", {"alpha": 0.1}, backend, weight=weight) for backend in (CUDA, HOST)
        )
        same(found, expected, matrix(2))
    assert [one.weighted for one in cuml.made] == [True, True]
    assert said == []


WITH_NULLS = np.where(np.random.default_rng(4).random((160, 4)) < 0.1, np.nan, matrix(1)).astype(np.float32)
BY_HOST: list[tuple[str, Task, dict[str, Any], dict[str, Any], str]] = [
    ("random_forest", "binary", FEW, {"rows": WITH_NULLS}, "features have nulls, which cuML does not take"),
    ("random_forest", "binary", FEW, {"weight": np.ones(160)}, "cuML counts weights of rows and classes in another"),
    ("random_forest", "binary", {**FEW, "class_weight": {"yes": 3}}, {}, "cuML counts weights of rows and classes in"),
    ("linear_svm", "binary", {"class_weight": "balanced"}, {}, "cuML counts weights of rows and classes in another"),
    ("random_forest", "binary", {**FEW, "criterion": "log_loss"}, {}, "cuML says: `this` is not supported"),
    ("lasso", "regression", {"positive": True}, {}, "cuML says: `this` is not supported"),
    ("ridge", "regression", {"positive": True}, {}, "cuML says: `this` is not supported"),
    ("decision_tree", "binary", {"max_depth": 3}, {}, "there is no code for GPUs"),
    ("k_neighbours", "binary", {}, {}, "there is no code for GPUs"),
    ("gradient_boosting", "regression", {"n_estimators": 3}, {}, "there is no code for GPUs"),
    ("xgboost", "regression", {"booster": "gblinear", "n_estimators": 3}, {}, "there is no code for GPUs"),
]


@pytest.mark.usefixtures("cuml")
@pytest.mark.parametrize(("name", "task", "params", "changes", "why"), BY_HOST)
def test_the_host_trains_what_cuml_does_not_take_and_says_why(
    name: str, task: Task, params: dict[str, Any], changes: dict[str, Any], why: str, said: list[str]
) -> None:
    found, expected = (trained(name, task, params, backend, **changes) for backend in (CUDA, HOST))
    same(found, expected, matrix(2))
    (told,) = said
    assert told.startswith(f"{name}: trained on the host, since {why}")


def test_the_host_trains_what_a_device_has_no_memory_for(cuml: type[StandIn], said: list[str]) -> None:
    cuml.error = MemoryError("std::bad_alloc: out_of_memory: CUDA error at: cuda_memory_resource.hpp")
    found, expected = (trained("random_forest", "binary", FEW, backend) for backend in (CUDA, HOST))
    same(found, expected, matrix(2))
    assert said == ["random_forest: trained on the host, since 160 rows are too many for the memory of the GPU"]


def test_other_errors_are_not_hidden(cuml: type[StandIn], said: list[str]) -> None:
    cuml.error = RuntimeError("CUDA error encountered at: cd.cuh: misaligned address")
    with pytest.raises(RuntimeError, match="misaligned address"):
        trained("lasso", "regression", {}, CUDA)
    assert said == []


def test_without_cuml_the_host_trains(said: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cuml", None)
    monkeypatch.setitem(sys.modules, "cuml.linear_model", None)
    trained("lasso", "regression", {}, CUDA)
    (told,) = said
    assert told.startswith("lasso: trained on the host, since cuML cannot be imported (import of cuml.linear_model")


def test_xgboost_trains_trees_on_the_device(said: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """As it does over all workers; here, in a process, for trials."""
    train, devices = fitting.train_booster, []

    def without_one(rows: Any, labels: Any, params: Any, *more: Any) -> bytes:
        devices.append(params["device"])
        if params["device"] == "cuda" and is_full:
            raise ValueError("[12:00] /src/c_api.cc:1: cudaErrorMemoryAllocation: out of memory")
        return train(rows, labels, {**params, "device": "cpu"}, *more)

    monkeypatch.setattr(fitting, "train_booster", without_one)
    is_full = False
    expected = trained("xgboost", "binary", {"n_estimators": 3}, HOST)
    same(trained("xgboost", "binary", {"n_estimators": 3}, CUDA), expected, matrix(2))
    assert (devices, said) == (["cpu", "cuda"], [])
    is_full = True
    same(trained("xgboost", "binary", {"n_estimators": 3}, CUDA), expected, matrix(2))
    assert devices[2:] == ["cuda", "cpu"]
    assert said == ["xgboost: trained on the host, since 160 rows are too many for the memory of the GPU"]


def with_classes() -> Iterator[tuple[str, Task, str]]:
    """Name, task and path of all that cuML trains."""
    tasks: tuple[Task, ...] = ("binary", "regression")
    for name, entry in CATALOGUE.items():
        for task in tasks:
            path = entry.cuml and (entry.cuml.regressor if task == "regression" else entry.cuml.classifier)
            if path:
                yield name, task, path


def taken(path: str, name: str, task: Task, params: dict[str, Any]) -> Any:
    """cuML's estimator as `from_sklearn` makes it, which asks for a GPU before it looks at the parameters."""
    config = ModelConfig(name=name, params=params)
    estimator = make_estimator(CATALOGUE[name], config, rule(task), SEED)
    module, _, kind = path.partition(":")
    found = getattr(importlib.import_module(module), kind)
    assert isinstance(estimator, found._get_cpu_class())
    cuml = CATALOGUE[name].cuml
    assert cuml is not None
    made = found(**found._params_from_cpu(estimator)).set_params(**cuml.params)
    # And back.
    assert isinstance(found._get_cpu_class()(**made._params_to_cpu()), type(estimator))
    return made


@pytest.mark.skipif(bool(NO_CUML), reason=NO_CUML)
@pytest.mark.parametrize(("name", "task", "path"), list(with_classes()))
def test_cuml_takes_the_defaults_and_all_that_is_tuned(name: str, task: Task, path: str) -> None:
    assert taken(path, name, task, {})
    for parameter, dimension in SPACES[name].items():
        for value in dimension.ends:
            found = taken(path, name, task, {parameter: value}).get_params()
            assert found[parameter] == value


REFUSED: list[tuple[str, Task, dict[str, Any], str]] = [
    ("random_forest", "binary", {"criterion": "log_loss"}, "criterion='log_loss'"),
    ("random_forest", "regression", {"criterion": "absolute_error"}, "criterion='absolute_error'"),
    ("random_forest", "regression", {"monotonic_cst": [1, 0]}, "monotonic_cst"),
    ("random_forest", "regression", {"ccp_alpha": 0.1}, "ccp_alpha"),
    ("random_forest", "regression", {"min_weight_fraction_leaf": 0.1}, "min_weight_fraction_leaf"),
    ("random_forest", "regression", {"max_samples": 100}, "max_samples"),
    ("random_forest", "binary", {"class_weight": "balanced_subsample"}, "balanced_subsample"),
    ("lasso", "regression", {"positive": True}, "positive=True"),
    ("elastic_net", "regression", {"precompute": True}, "precompute"),
    ("ridge", "regression", {"positive": True}, "positive=True"),
    ("linear_regression", "regression", {"positive": True}, "positive=True"),
    ("linear_svm", "binary", {"intercept_scaling": 2.0}, "intercept_scaling"),
    ("linear_svm", "binary", {"multi_class": "crammer_singer"}, "multi_class"),
    ("logistic_regression", "binary", {**L1, "intercept_scaling": 2.0}, "intercept_scaling"),
]


@pytest.mark.skipif(bool(NO_CUML), reason=NO_CUML)
@pytest.mark.parametrize(("name", "task", "params", "why"), REFUSED)
def test_cuml_says_what_it_does_not_take(name: str, task: Task, params: dict[str, Any], why: str) -> None:
    (path,) = [path for known, of, path in with_classes() if (known, of) == (name, task)]
    with pytest.raises(ValueError, match=why):
        taken(path, name, task, params)


@pytest.mark.skipif(bool(NO_CUML), reason=NO_CUML)
@pytest.mark.parametrize("classes", [1, 2, 3])
def test_a_forest_of_cuml_is_compiled_with_its_covers(classes: int) -> None:
    """Of trees as cuML builds them: float32, a leaf has a value or the shares of the classes, a node its rows."""
    from treelite.model_builder import Metadata, ModelBuilder, PostProcessorFunc, TreeAnnotation

    leaves: Any = {1: [1.5, -2.0], 2: [[0.25, 0.75], [1.0, 0.0]], 3: [[0.25, 0.5, 0.25], [0.0, 0.0, 1.0]]}[classes]
    builder = ModelBuilder(
        threshold_type="float32",
        leaf_output_type="float32",
        metadata=Metadata(
            num_feature=2,
            task_type="kRegressor" if classes == 1 else "kMultiClf",
            average_tree_output=True,
            num_target=1,
            num_class=[classes],
            leaf_vector_shape=(1, classes),
        ),
        tree_annotation=TreeAnnotation(num_tree=1, target_id=[0], class_id=[0 if classes == 1 else -1]),
        postprocessor=PostProcessorFunc(name="identity" if classes == 1 else "identity_multiclass"),
        base_scores=[0.0] * classes,
    )
    builder.start_tree()
    builder.start_node(0)
    builder.numerical_test(1, 0.5, default_left=True, opname="<=", left_child_key=1, right_child_key=2)
    builder.data_count(10)
    builder.end_node()
    for node, rows in ((1, 4), (2, 6)):
        builder.start_node(node)
        builder.leaf(leaves[node - 1])
        builder.data_count(rows)
        builder.end_node()
    builder.end_tree()
    task: Task = "regression" if classes == 1 else "binary"
    (path,) = [path for known, of, path in with_classes() if (known, of) == ("random_forest", task)]
    estimator = taken(path, "random_forest", task, {"n_estimators": 1})
    estimator.n_features_in_ = 2
    estimator._treelite_model_bytes = builder.commit().serialize_bytes()
    forest = compile_forest(estimator)
    assert forest.cover.tolist() in ([10, 4, 6], [10, 4, 6] * 3)
    assert forest.source.endswith(", of cuml")
    from treadle.kernels.predict import predict_margin

    rows = np.array([[9, 0.5], [9, np.nextafter(np.float32(0.5), np.float32(1))], [9, np.nan]], np.float32)
    expected = np.array(leaves)[[0, 1, 0]]
    np.testing.assert_allclose(predict_margin(forest, rows), expected[:, 1] if classes == 2 else expected)


@pytest.mark.gpu
@pytest.mark.skipif(bool(NO_CUML or why_not()), reason=NO_CUML or why_not())
@pytest.mark.parametrize(("name", "task", "params"), OF_CUML)
def test_models_of_a_gpu_are_as_good_as_the_hosts(
    name: str, task: Task, params: dict[str, Any], said: list[str]
) -> None:
    """Forests have other trees; linear models about the same coefficients."""
    rows, others = matrix(1, 4000), matrix(2, 2000)
    found, expected = (trained(name, task, params, backend, rows=rows) for backend in (CUDA, HOST))
    assert said == []
    values = target(others, task)
    for model in (found, expected):
        added = model.contributions(others[:50]).sum(axis=-1)
        np.testing.assert_allclose(added, model.margin(others[:50]), atol=1e-4)
    ours, theirs = found.margin(others), expected.margin(others)
    if task == "regression":
        errors = [np.mean((margin - values) ** 2) / values.var() for margin in (ours, theirs)]
    elif task == "binary":
        errors = [1 - roc_auc_score(values, margin) for margin in (ours, theirs)]
    else:
        errors = [np.mean(margin.argmax(axis=1) != values) for margin in (ours, theirs)]
    assert abs(errors[0] - errors[1]) < 0.03
    if found.format == "linear":
        assert np.corrcoef(ours.ravel(), theirs.ravel())[0, 1] > 0.999
