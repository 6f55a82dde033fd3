"""Margins, by library. Rows are float32, in the container that a library reads fastest."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from treadle.benchmarks.models import Case
from treadle.benchmarks.sides import Side
from treadle.benchmarks.timing import threads

Values = NDArray[Any]


class Margins(Side):
    """What all have in common."""

    number: ClassVar[int] = 1
    """Of threads."""

    def values(self, result: Values) -> Values:
        """(rows, outputs)"""
        return result.reshape(len(result), self.case.classes)


class Treadle(Margins):
    name = "treadle"
    modules: ClassVar[tuple[str, ...]] = ()
    libraries: ClassVar[tuple[str, ...]] = ("xgboost", "sklearn")

    def __init__(self, model: Any, case: Case) -> None:
        from treadle.kernels.forest import compile_forest

        super().__init__(model, case)
        self.forest = compile_forest(model)

    def call(self, x: Values) -> Callable[[], Any]:
        from treadle.kernels.predict import predict_margin

        def margin() -> Values:
            with threads(self.number):
                return predict_margin(self.forest, x)

        return margin


class TreadleOfTwo(Treadle):
    name = "treadle, 2 threads"
    number = 2


class TreadleOfLightGBM(Treadle):
    """Ours on LightGBM's model, to be compared with LightGBM."""

    name = "treadle:lightgbm"
    modules = ("lightgbm",)
    libraries = ("lightgbm",)


class XGBoost(Margins):
    name = "xgboost"
    modules = ("xgboost",)
    libraries = ("xgboost",)

    def __init__(self, model: Any, case: Case) -> None:
        super().__init__(model.copy(), case)
        self.model.set_param(self.setting)

    @property
    def setting(self) -> dict[str, Any]:
        return {"nthread": self.number}

    def call(self, x: Values) -> Callable[[], Any]:
        return lambda: self.model.inplace_predict(x, predict_type="margin")


class XGBoostOfTwo(XGBoost):
    name = "xgboost, 2 threads"
    number = 2


class LightGBM(Margins):
    name = "lightgbm"
    modules = ("lightgbm",)
    libraries = ("lightgbm",)

    def call(self, x: Values) -> Callable[[], Any]:
        return lambda: self.model.predict(x, raw_score=True, num_threads=1)


class Treelite(Margins):
    """The general inference of treelite, which compiles nothing."""

    name = "treelite"
    modules = ("treelite",)
    libraries = ("xgboost", "sklearn")

    def __init__(self, model: Any, case: Case) -> None:
        import treelite

        own = treelite.frontend.from_xgboost if case.library == "xgboost" else treelite.sklearn.import_model
        super().__init__(own(model), case)

    def call(self, x: Values) -> Callable[[], Any]:
        import treelite

        rows = np.ascontiguousarray(x, dtype=self.model.input_type)
        return lambda: treelite.gtil.predict(self.model, rows, nthread=1, pred_margin=True)


class ScikitLearn(Margins):
    name = "sklearn"
    modules = ("sklearn",)
    libraries = ("sklearn",)

    def __init__(self, model: Any, case: Case) -> None:
        super().__init__(copy.copy(model).set_params(n_jobs=self.number), case)

    def call(self, x: Values) -> Callable[[], Any]:
        return lambda: self.model.predict(x)


class ScikitLearnOfTwo(ScikitLearn):
    name = "sklearn, 2 threads"
    number = 2


PREDICTORS = (
    Treadle,
    XGBoost,
    ScikitLearn,
    TreadleOfTwo,
    XGBoostOfTwo,
    ScikitLearnOfTwo,
    TreadleOfLightGBM,
    LightGBM,
    Treelite,
)
