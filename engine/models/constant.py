"""The baseline: one answer for every row."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from treadle.engine.models.base import Model, Task
from treadle.engine.store import Store


class ConstantModel(Model):
    """The margin is the probability, or the value, whatever the features are; nulls are taken."""

    format: ClassVar[str] = "constant"

    def __init__(self, task: Task, features: int, values: np.ndarray) -> None:
        self.task = task
        self.link = "identity"
        self.features = features
        self.values = np.atleast_1d(np.asarray(values, dtype=np.float64))
        """(outputs,)."""
        self.outputs = len(self.values)

    @property
    def method(self) -> str:
        return "constant: no feature contributes"

    def _margin(self, matrix: np.ndarray) -> np.ndarray:
        margin = np.tile(self.values, (len(matrix), 1))
        return margin if self.task == "multiclass" else margin[:, 0]

    def _contributions(self, matrix: np.ndarray) -> np.ndarray:
        out = np.zeros((len(matrix), self.outputs, self.features + 1))
        out[:, :, -1] = self.values
        return out if self.task == "multiclass" else out[:, 0]

    def save(self, store: Store, folder: str) -> dict[str, Any]:
        return {"values": self.values.tolist()}

    @classmethod
    def load(cls, store: Store, folder: str, document: dict[str, Any]) -> ConstantModel:
        return cls(document["task"], document["features"], document["values"])
