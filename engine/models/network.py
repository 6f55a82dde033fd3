"""Multilayer perceptrons: weights as arrays, sampled Shapley values."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from treadle.engine.models.arrays import read_arrays, write_arrays
from treadle.engine.models.base import Link, Task
from treadle.engine.models.sampled import MOST_EVALUATIONS, Background, SampledModel, draw_background, in_threads
from treadle.engine.store import Store
from treadle.kernels.network import affine

ROWS = 256
"""Rows whose activations are held at a time by a thread."""
ACTIVATIONS: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {
    "identity": lambda x: x,
    "relu": lambda x: np.maximum(x, 0.0),
    "tanh": np.tanh,
    "logistic": lambda x: np.exp(-np.logaddexp(0.0, -x)),
}
"""As scikit-learn names them."""


class NetworkModel(SampledModel):
    """margin = the last layer's sums, before the logistic function or softmax."""

    format: ClassVar[str] = "network"

    def __init__(
        self,
        task: Task,
        link: Link,
        activation: str,
        layers: Sequence[tuple[np.ndarray, np.ndarray]],
        background: Background,
    ) -> None:
        self.task = task
        self.link = link
        self.activation = activation
        """Of the hidden layers."""
        self.layers = [
            # Copies, since a kernel is compiled again for arrays that are read-only, as those of a file.
            (np.array(weights, dtype=np.float64, order="C"), np.array(bias, dtype=np.float64))
            for weights, bias in layers
        ]
        """(inputs, outputs) and (outputs,), a pair a layer."""
        self.features = len(self.layers[0][0])
        self.outputs = len(self.layers[-1][1])
        self.background = background

    @classmethod
    def of(cls, task: Task, link: Link, estimator: Any, matrix: np.ndarray, seed: int) -> NetworkModel:
        """A fitted scikit-learn perceptron and the matrix that it was trained on."""
        layers = list(zip(estimator.coefs_, estimator.intercepts_, strict=True))
        return cls(task, link, estimator.activation, layers, draw_background(matrix, MOST_EVALUATIONS, seed))

    def _raw(self, matrix: np.ndarray) -> np.ndarray:
        return in_threads(self._forward, matrix, self.outputs, ROWS)

    def _forward(self, rows: np.ndarray) -> np.ndarray:
        values = np.ascontiguousarray(rows, dtype=np.float64)
        for weights, bias in self.layers[:-1]:
            values = ACTIVATIONS[self.activation](affine(values, weights, bias))
        return affine(values, *self.layers[-1])

    def save(self, store: Store, folder: str) -> dict[str, Any]:
        arrays = self.background.arrays()
        for number, (weights, bias) in enumerate(self.layers):
            arrays |= {f"weights_{number}": weights, f"bias_{number}": bias}
        digest = write_arrays(store, folder, arrays)
        return {
            "digest": digest,
            "activation": self.activation,
            "layers": len(self.layers),
        }

    @classmethod
    def load(cls, store: Store, folder: str, document: dict[str, Any]) -> NetworkModel:
        """Raises StorageError when the file is missing or not the one that was written."""
        arrays = read_arrays(store, folder, document["digest"])
        layers = [(arrays[f"weights_{n}"], arrays[f"bias_{n}"]) for n in range(document["layers"])]
        return cls(document["task"], document["link"], document["activation"], layers, Background.of(arrays))
