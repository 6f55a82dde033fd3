"""Linear models: coefficients as JSON, exact Shapley values in closed form."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from treadle.engine.models.base import Link, Model, Task
from treadle.engine.store import Store
from treadle.errors import DataError

CHUNK = 4096
"""Rows whose products are held at a time."""


class LinearModel(Model):
    """margin = x . coefficients + intercept, with one row of coefficients a class when there are several."""

    format: ClassVar[str] = "linear"

    def __init__(
        self, task: Task, link: Link, coefficients: np.ndarray, intercept: np.ndarray, means: np.ndarray
    ) -> None:
        self.task = task
        self.link = link
        self.coefficients = np.atleast_2d(np.ascontiguousarray(coefficients, dtype=np.float64))
        """(outputs, features)."""
        self.intercept = np.atleast_1d(np.asarray(intercept, dtype=np.float64))
        self.means = np.asarray(means, dtype=np.float64)
        """(features,): the training rows' means, the reference that contributions are measured from."""
        self.outputs, self.features = self.coefficients.shape

    @property
    def method(self) -> str:
        return "linear, features independent (coefficient times distance from the training mean)"

    def _margin(self, matrix: np.ndarray) -> np.ndarray:
        margin = np.concatenate([self._products(matrix[i : i + CHUNK]) for i in range(0, len(matrix), CHUNK)])
        nulls = int(np.isnan(margin).any(axis=1).sum())
        if nulls:
            raise DataError(
                f"{nulls} rows have nulls, which a linear model cannot predict from; fill them in the input, "
                "or train with an impute operation on the columns."
            )
        return margin if self.task == "multiclass" else margin[:, 0]

    def _products(self, matrix: np.ndarray) -> np.ndarray:
        """Margins (rows, outputs), each row summed up by itself: a product of matrices rounds by the number of rows."""
        wide = matrix.astype(np.float64)
        return np.stack([(wide * row).sum(axis=1) for row in self.coefficients], axis=1) + self.intercept

    def _contributions(self, matrix: np.ndarray) -> np.ndarray:
        """Lundberg and Lee (2017), corollary 1: phi_j = w_j (x_j - E[x_j]), bias = w . E[x] + b."""
        centred = matrix.astype(np.float64) - self.means
        out = np.empty((len(matrix), len(self.coefficients), self.features + 1))
        out[:, :, :-1] = centred[:, None, :] * self.coefficients[None, :, :]
        out[:, :, -1] = self.coefficients @ self.means + self.intercept
        return out if self.task == "multiclass" else out[:, 0]

    def save(self, store: Store, folder: str) -> dict[str, Any]:
        return {
            "coefficients": self.coefficients.tolist(),
            "intercept": self.intercept.tolist(),
            "means": self.means.tolist(),
        }

    @classmethod
    def load(cls, store: Store, folder: str, document: dict[str, Any]) -> LinearModel:
        return cls(
            document["task"],
            document["link"],
            document["coefficients"],
            document["intercept"],
            document["means"],
        )
