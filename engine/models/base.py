"""A trained model behind one interface, whatever library trained it."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from typing import Any, ClassVar, Literal

import numpy as np

from treadle.engine.store import Store
from treadle.errors import StorageError

Link = Literal["identity", "logistic", "softmax"]
Task = Literal["binary", "multiclass", "regression"]


class Model(ABC):
    """Margins, scores and contributions for float32 matrices (rows, features), NaN for null.

    The margin is the model's raw output: log-odds for boosted trees and logistic regression,
    the probability itself for forests, the value for regression. Shapes are (rows,), or
    (rows, classes) for several classes.
    """

    format: ClassVar[str]
    task: Task
    link: Link
    features: int

    outputs: int
    """1, or the number of classes when there are more than two."""

    def margin(self, matrix: np.ndarray) -> np.ndarray:
        """float64 margins."""
        shape = (0, self.outputs) if self.task == "multiclass" else (0,)
        return self._margin(matrix) if len(matrix) else np.empty(shape)

    def contributions(self, matrix: np.ndarray) -> np.ndarray:
        """Exact Shapley values: float64 (rows, features + 1), bias last; (rows, classes, features + 1) for several.

        Over the features and the bias they add up to the margin.
        """
        shape = (0, self.outputs, self.features + 1) if self.task == "multiclass" else (0, self.features + 1)
        return self._contributions(matrix) if len(matrix) else np.empty(shape)

    @abstractmethod
    def _margin(self, matrix: np.ndarray) -> np.ndarray:
        """`margin` of at least one row: XGBoost does not take none."""

    @abstractmethod
    def _contributions(self, matrix: np.ndarray) -> np.ndarray:
        """`contributions` of at least one row."""

    @property
    @abstractmethod
    def method(self) -> str:
        """How contributions are computed, for the reader of an explanation."""

    @abstractmethod
    def save(self, store: Store, folder: str) -> dict[str, Any]:
        """Writes the model's files into a folder of the root and returns what `load` needs besides."""

    @classmethod
    @abstractmethod
    def load(cls, store: Store, folder: str, document: dict[str, Any]) -> Model: ...

    def scores(self, margin: np.ndarray) -> np.ndarray:
        """Probability of the positive class, or of each class, or the value."""
        if self.link == "logistic":
            return np.exp(-np.logaddexp(0.0, -margin))
        if self.link == "softmax":
            shifted = np.exp(margin - margin.max(axis=1, keepdims=True))
            return shifted / shifted.sum(axis=1, keepdims=True)
        return margin

    def classes(self, scores: np.ndarray) -> np.ndarray:
        """The predicted class code, or the value."""
        if self.task == "multiclass":
            return scores.argmax(axis=1)
        return (scores > 0.5).astype(np.int64) if self.task == "binary" else scores


def save_model(model: Model, store: Store, folder: str) -> None:
    """Writes a model into a folder; model.json, written last, says what it is."""
    document = model.save(store, folder)
    common = {"format": model.format, "task": model.task, "link": model.link, "features": model.features}
    store.write_json(f"{folder}/model.json", {**common, **document})


def load_model(store: Store, folder: str) -> Model:
    """A saved model; kept by the process, because every partition asks for it. Nothing is unpickled.

    Raises
    ------
    StorageError
        A file is missing or damaged, or of a format that this version does not read.
    """
    return _loaded(store, folder, store.stamp(f"{folder}/model.json"))


@functools.lru_cache(maxsize=8)
def _loaded(store: Store, folder: str, stamp: str) -> Model:
    from treadle.engine.models.forest import ForestModel
    from treadle.engine.models.linear import LinearModel

    classes: tuple[type[Model], ...] = (ForestModel, LinearModel)
    document = store.read_json(f"{folder}/model.json")
    try:
        return {c.format: c for c in classes}[document["format"]].load(store, folder, document)
    except (KeyError, TypeError, ValueError) as error:
        raise StorageError(
            f"{store.path(folder)}/model.json is no model that this Treadle reads: {error!r}. "
            "Run the job again with --fresh."
        ) from error
