"""Contributions and margins on a GPU: ours and XGBoost's, of rows that lie there already."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from treadle.benchmarks.models import Case
from treadle.benchmarks.sides import Side

Values = NDArray[Any]


def to_device(x: Values) -> Any:
    """A device array of the library that XGBoost reads best: CuPy where it is installed, else Numba."""
    from treadle.benchmarks.sides import installed

    if installed("cupy"):
        import cupy

        return cupy.asarray(x)
    from numba import cuda

    return cuda.to_device(x)


def to_host(values: Any) -> Values:
    """What a call gave, wherever it lies, as a host array."""
    from treadle.kernels.cuda.arrays import download

    return values if isinstance(values, np.ndarray) else download(values)


def wait() -> None:
    """Until the device has done all that it was asked for."""
    from numba import cuda

    cuda.synchronize()


class Device(Side):
    """What all have in common: the call ends when the device has ended."""

    modules: ClassVar[tuple[str, ...]] = ()
    libraries: ClassVar[tuple[str, ...]] = ("xgboost", "sklearn")

    def call(self, x: Values) -> Callable[[], Any]:
        rows = to_device(x)

        def run() -> Any:
            result = self.on_device(rows)
            wait()
            return result

        return run

    def on_device(self, rows: Any) -> Any:
        raise NotImplementedError


class Contributions(Device):
    def values(self, result: Any) -> Values:
        """(rows, outputs, features), without the bias."""
        host = to_host(result)
        return host.reshape(len(host), self.case.classes, self.case.features + 1)[..., :-1]


class Treadle(Contributions):
    name = "treadle"

    def __init__(self, model: Any, case: Case) -> None:
        from treadle.kernels.cuda.treeshap import DeviceExplainer
        from treadle.kernels.forest import compile_forest
        from treadle.kernels.treeshap import TreeExplainer

        super().__init__(model, case)
        self.host = TreeExplainer(compile_forest(model))
        self.explainer = DeviceExplainer(self.host)

    def on_device(self, rows: Any) -> Any:
        return self.explainer.shap_values(rows, np.float32)


class TreadleToHost(Treadle):
    """As XGBoost, which leaves contributions on the host."""

    name = "treadle to host"

    def on_device(self, rows: Any) -> Any:
        return to_host(super().on_device(rows))


class XGBoost(Contributions):
    name = "xgboost"
    modules = ("xgboost",)
    libraries = ("xgboost",)

    def __init__(self, model: Any, case: Case) -> None:
        super().__init__(model.copy(), case)
        self.model.set_param({"device": "cuda"})

    def call(self, x: Values) -> Callable[[], Any]:
        import xgboost

        data = xgboost.DMatrix(to_device(x))
        return lambda: self.model.predict(data, pred_contribs=True)


class Margins(Device):
    def values(self, result: Any) -> Values:
        """(rows, outputs)"""
        host = to_host(result)
        return host.reshape(len(host), self.case.classes)


class TreadleMargins(Margins):
    name = "treadle"

    def __init__(self, model: Any, case: Case) -> None:
        from treadle.kernels.forest import compile_forest

        super().__init__(model, case)
        self.forest = compile_forest(model)

    def on_device(self, rows: Any) -> Any:
        from treadle.kernels.cuda.predict import predict_margin

        return predict_margin(self.forest, rows)


class XGBoostMargins(Margins):
    name = "xgboost"
    modules = ("xgboost",)
    libraries = ("xgboost",)

    def __init__(self, model: Any, case: Case) -> None:
        super().__init__(model.copy(), case)
        self.model.set_param({"device": "cuda"})

    def on_device(self, rows: Any) -> Any:
        return self.model.inplace_predict(rows, predict_type="margin")


EXPLAINERS = (Treadle, TreadleToHost, XGBoost)
PREDICTORS = (TreadleMargins, XGBoostMargins)
