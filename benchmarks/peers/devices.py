"""Contributions and margins on a GPU: ours and XGBoost's, of rows that lie there already."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from treadle.benchmarks.peers import contributions, margins
from treadle.benchmarks.sides import installed

Values = NDArray[Any]
SETTING = {"device": "cuda"}


def to_device(x: Values) -> Any:
    """A device array of the library that XGBoost reads best: CuPy where it is installed, else Numba."""
    if installed("cupy"):
        import cupy

        return cupy.asarray(x)
    from numba import cuda

    return cuda.to_device(x)


def to_host(values: Any) -> Values:
    """What a call gave, wherever it lies, as a host array."""
    from treadle.kernels.cuda.arrays import download

    return values if isinstance(values, np.ndarray) else download(values)


def waited(values: Any) -> Any:
    """What a call gave, once the device has done all that it was asked for."""
    from numba import cuda

    cuda.synchronize()
    return values


class Treadle(contributions.Treadle):
    def call(self, x: Values) -> Callable[[], Any]:
        rows = to_device(x)
        return lambda: waited(self.explainer.shap_values(rows, np.float32))

    def values(self, result: Any) -> Values:
        return super().values(to_host(result))


class TreadleToHost(Treadle):
    """As XGBoost, which leaves contributions on the host."""

    name = "treadle to host"

    def call(self, x: Values) -> Callable[[], Any]:
        rows = to_device(x)
        return lambda: to_host(self.explainer.shap_values(rows, np.float32))


class XGBoost(contributions.XGBoost):
    setting: ClassVar[dict[str, Any]] = SETTING

    def call(self, x: Values) -> Callable[[], Any]:
        import xgboost

        data = xgboost.DMatrix(to_device(x))
        return lambda: self.model.predict(data, pred_contribs=True)


class TreadleMargins(margins.Treadle):
    def call(self, x: Values) -> Callable[[], Any]:
        from treadle.kernels.predict import predict_margin

        rows = to_device(x)
        return lambda: waited(predict_margin(self.forest, rows))

    def values(self, result: Any) -> Values:
        return super().values(to_host(result))


class XGBoostMargins(margins.XGBoost):
    @property
    def setting(self) -> dict[str, Any]:
        return SETTING

    def call(self, x: Values) -> Callable[[], Any]:
        rows = to_device(x)
        return lambda: waited(self.model.inplace_predict(rows, predict_type="margin"))

    def values(self, result: Any) -> Values:
        return super().values(to_host(result))


EXPLAINERS = (Treadle, TreadleToHost, XGBoost)
PREDICTORS = (TreadleMargins, XGBoostMargins)
