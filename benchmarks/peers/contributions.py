"""Exact path-dependent contributions and interaction values, by library; one thread each.

Containers are made beforehand: XGBoost's DMatrix, woodelf's pandas frame. Binning the rows is part of ours.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from treadle.benchmarks.models import Case
from treadle.benchmarks.sides import Side

Values = NDArray[Any]


class Contributions(Side):
    """What all have in common."""

    @classmethod
    def first(cls, model: Any, case: Case, x: Values) -> Callable[[], Any]:
        """From a trained model to the explained rows, with all that has to be prepared."""
        return lambda: cls(model, case).call(x)()

    def values(self, result: Values) -> Values:
        """(rows, outputs, features), without the bias; ValueError when the result cannot be that."""
        rows, features = len(result), self.case.features
        columns = result.size // (rows * self.case.classes)
        if columns not in (features, features + 1):
            raise ValueError(f"gives {result.shape} for {features} features and {self.case.classes} outputs")
        return result.reshape(rows, self.case.classes, columns)[..., :features]


class Treadle(Contributions):
    name = "treadle"
    modules: ClassVar[tuple[str, ...]] = ()
    libraries: ClassVar[tuple[str, ...]] = ("xgboost", "sklearn")

    def __init__(self, model: Any, case: Case) -> None:
        from treadle.kernels.forest import compile_forest
        from treadle.kernels.treeshap import TreeExplainer

        super().__init__(model, case)
        self.forest = compile_forest(model)
        self.explainer = TreeExplainer(self.forest)

    def call(self, x: Values) -> Callable[[], Any]:
        return lambda: self.explainer.shap_values(x)


class TreadleOfLightGBM(Treadle):
    """Ours on LightGBM's model, to be compared with LightGBM."""

    name = "treadle:lightgbm"
    modules = ("lightgbm",)
    libraries = ("lightgbm",)


class XGBoost(Contributions):
    name = "xgboost"
    modules = ("xgboost",)
    libraries = ("xgboost",)
    setting: ClassVar[dict[str, Any]] = {"nthread": 1}

    def __init__(self, model: Any, case: Case) -> None:
        super().__init__(model.copy(), case)
        self.model.set_param(self.setting)

    @classmethod
    def first(cls, model: Any, case: Case, x: Values) -> Callable[[], Any]:
        """The first call of a booster that has not explained before; copying it is not part of that."""
        side = cls(model, case)
        return lambda: side.call(x)()

    def call(self, x: Values) -> Callable[[], Any]:
        import xgboost

        data = xgboost.DMatrix(x, nthread=1)
        return lambda: self.model.predict(data, pred_contribs=True)


class LightGBM(Contributions):
    name = "lightgbm"
    modules = ("lightgbm",)
    libraries = ("lightgbm",)

    def call(self, x: Values) -> Callable[[], Any]:
        return lambda: self.model.predict(x, pred_contrib=True, num_threads=1)


class Shap(Contributions):
    """shap's own C code, in float64."""

    name = "shap"
    modules = ("shap",)
    libraries = ("xgboost", "sklearn")

    def __init__(self, model: Any, case: Case) -> None:
        import shap

        super().__init__(model, case)
        self.explainer = shap.TreeExplainer(model, feature_perturbation="tree_path_dependent")
        # Else XGBoost's models are explained by XGBoost.
        self.explainer.model.model_type = "internal"

    def call(self, x: Values) -> Callable[[], Any]:
        return lambda: self.explainer.shap_values(x, check_additivity=False)

    def values(self, result: Values) -> Values:
        return super().values(result if result.ndim == 2 else np.moveaxis(result, 2, 1))


class Woodelf(Contributions):
    """One explainer a class, because a model of woodelf has one output."""

    name = "woodelf"
    modules = ("woodelf",)
    libraries = ("xgboost", "sklearn")
    whole = True

    def __init__(self, model: Any, case: Case) -> None:
        from woodelf import WoodelfExplainer
        from woodelf.core.trees.parse_models import load_decision_tree_ensemble_model

        super().__init__(model, case)
        self.columns = [f"f{number}" for number in range(case.features)]
        loaded = [load_decision_tree_ensemble_model(model, self.columns, output) for output in range(case.classes)]
        self.explainers = [WoodelfExplainer(one) for one in loaded]

    def call(self, x: Values) -> Callable[[], Any]:
        import pandas as pd

        frame = pd.DataFrame(x, columns=self.columns)
        return lambda: np.stack([one.shap_values(frame, verbose=False) for one in self.explainers], axis=1)


class Interactions(Side):
    """What ours and XGBoost's have in common."""

    def values(self, result: Values) -> Values:
        """(rows, outputs, features * features), without the bias."""
        rows, width = len(result), self.case.features + 1
        pairs = result.reshape(rows, self.case.classes, width, width)[..., :-1, :-1]
        return pairs.reshape(rows, self.case.classes, -1)


class TreadleInteractions(Interactions):
    name = "treadle"
    modules = ()
    libraries = ("xgboost",)

    def __init__(self, model: Any, case: Case) -> None:
        super().__init__(model, case)
        self.explainer = Treadle(model, case).explainer

    def call(self, x: Values) -> Callable[[], Any]:
        return lambda: self.explainer.interaction_values(x)


class XGBoostInteractions(Interactions):
    name = "xgboost"
    modules = ("xgboost",)
    libraries = ("xgboost",)

    def call(self, x: Values) -> Callable[[], Any]:
        import xgboost

        booster, data = XGBoost(self.model, self.case).model, xgboost.DMatrix(x, nthread=1)
        return lambda: booster.predict(data, pred_interactions=True)


EXPLAINERS = (Treadle, XGBoost, TreadleOfLightGBM, LightGBM, Shap, Woodelf)
INTERACTIONS = (TreadleInteractions, XGBoostInteractions)
