"""k nearest neighbours: the training rows as arrays, in a k-d tree or compared one by one; sampled Shapley values."""

from __future__ import annotations

import functools
import math
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from treadle.engine.models.arrays import read_arrays, write_arrays
from treadle.engine.models.base import Task
from treadle.engine.models.sampled import MOST_EVALUATIONS, Background, SampledModel, draw_background, in_threads
from treadle.engine.store import Store
from treadle.errors import DataError
from treadle.kernels.neighbours import nearest

ROWS = 1024
DIFFERENCES = 2**27
"""Differences of values, of all training rows, that explaining a row may take; fewer evaluations follow from it."""
FEWEST_EVALUATIONS = 256
MOST_IN_TREE = 15
"""Features up to which a k-d tree is searched: with more it visits most leaves (scikit-learn's limit as well)."""

POWERS = {"manhattan": 1.0, "euclidean": 2.0, "chebyshev": math.inf}


@dataclass(frozen=True)
class Search:
    """Which rows count as near, and how much."""

    neighbours: int
    metric: str
    """minkowski, euclidean, manhattan or chebyshev."""
    p: float
    """The exponent of the Minkowski distance."""
    leaf_size: int
    weights: Literal["uniform", "distance"]

    @property
    def power(self) -> float:
        """The metric as the exponent of a Minkowski distance."""
        return POWERS.get(self.metric, self.p)


class NeighboursModel(SampledModel):
    """margin = the share of a class among the neighbours, weighted, or the mean of their values.

    Every row is searched for by itself, so that its neighbours, ties included, do not depend on the rows beside it.
    """

    format: ClassVar[str] = "neighbours"

    def __init__(
        self, task: Task, search: Search, rows: np.ndarray, target: np.ndarray, outputs: int, background: Background
    ) -> None:
        self.task = task
        self.link = "identity"
        self.search = search
        self.rows = rows
        """float32 (training rows, features)."""
        self.target = target
        """(training rows,): int32 codes of classes, or float64 values."""
        self.features = rows.shape[1]
        self.outputs = outputs
        self.background = background

    @classmethod
    def of(cls, task: Task, estimator: Any, matrix: np.ndarray, target: np.ndarray, seed: int) -> NeighboursModel:
        """A fitted scikit-learn estimator, the float32 matrix that it was trained on, and codes or values.

        Raises
        ------
        DataError
            There are fewer rows than neighbours are asked for.
        """
        if len(matrix) < estimator.n_neighbors:
            raise DataError(
                f"n_neighbors is {estimator.n_neighbors}, and there are {len(matrix)} training rows; ask for fewer"
            )
        search = Search(
            estimator.n_neighbors, estimator.metric, float(estimator.p), estimator.leaf_size, estimator.weights
        )
        outputs = int(target.max()) + 1 if task == "multiclass" else 1
        evaluations = min(max(DIFFERENCES // matrix.size, FEWEST_EVALUATIONS), MOST_EVALUATIONS)
        background = draw_background(matrix, evaluations, seed)
        kind = np.float64 if task == "regression" else np.int32
        return cls(task, search, matrix, target.astype(kind), outputs, background)

    @functools.cached_property
    def _tree(self) -> Any:
        """Built once in a process: `load_model` keeps the model."""
        from sklearn.neighbors import KDTree

        return KDTree(self.rows, leaf_size=self.search.leaf_size, metric="minkowski", p=self.search.power)

    def _nearest(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if self.features <= MOST_IN_TREE:
            distance, place = self._tree.query(rows, self.search.neighbours)
            return distance, place
        return nearest(rows, self.rows, self.search.neighbours, self.search.power)

    def _raw(self, matrix: np.ndarray) -> np.ndarray:
        return in_threads(self._near, matrix, self.outputs, ROWS)

    def _near(self, rows: np.ndarray) -> np.ndarray:
        distance, place = self._nearest(rows)
        weights = np.ones_like(distance)
        if self.search.weights == "distance":
            # A neighbour at the same place is all that counts, as in scikit-learn.
            same = distance == 0
            with np.errstate(divide="ignore"):
                weights = np.where(same.any(axis=1, keepdims=True), same, 1.0 / distance)
        total = weights.sum(axis=1)
        near = self.target[place]
        if self.task == "regression":
            return ((near * weights).sum(axis=1) / total)[:, None]
        codes = range(self.outputs) if self.task == "multiclass" else [1]
        return np.stack([((near == code) * weights).sum(axis=1) / total for code in codes], axis=1)

    def save(self, store: Store, folder: str) -> dict[str, Any]:
        arrays = {"rows": self.rows, "target": self.target, **self.background.arrays()}
        digest = write_arrays(store, folder, arrays)
        return {
            "digest": digest,
            "search": asdict(self.search),
            "outputs": self.outputs,
        }

    @classmethod
    def load(cls, store: Store, folder: str, document: dict[str, Any]) -> NeighboursModel:
        """Raises StorageError when the file is missing or not the one that was written."""
        arrays = read_arrays(store, folder, document["digest"])
        search, background = Search(**document["search"]), Background.of(arrays)
        return cls(document["task"], search, arrays["rows"], arrays["target"], document["outputs"], background)
