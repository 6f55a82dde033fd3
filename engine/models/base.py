"""A trained model behind one interface, whatever library trained it."""

from __future__ import annotations

import copy
import functools
import hashlib
import importlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import numpy as np

from treadle.engine.backend import Backend
from treadle.engine.job import THRESHOLD
from treadle.engine.models.calibration import Calibration, logistic
from treadle.engine.store import Store
from treadle.errors import StorageError

Link = Literal["identity", "logistic", "softmax", "decision"]
Task = Literal["binary", "multiclass", "regression"]
Values = Literal["margin", "contributions"]
CPU = Backend()


class Model(ABC):
    """Margins, scores and contributions for float32 matrices (rows, features), NaN for null.

    The margin is the model's raw output: log-odds for boosted trees and logistic regression,
    the probability itself for forests, the value for regression, the distance from the plane between
    classes for models without probabilities (link `decision`). Shapes are (rows,), or (rows, classes)
    for several classes.
    """

    format: ClassVar[str]
    task: Task
    link: Link
    features: int

    outputs: int
    """1, or the number of classes when there are more than two."""

    on_device: ClassVar[bool] = False
    """Whether there are kernels for rows on a device."""

    calibration: Calibration | None = None
    """What makes probabilities of its margins and scores; see `decided`."""

    threshold: float = THRESHOLD
    """A row with a score above it is of the positive class, of two classes."""

    def margin(self, matrix: np.ndarray) -> np.ndarray:
        """float64 margins; a row's is the same to the last bit whatever rows are beside it."""
        return self.computed("margin", matrix, CPU)[0]

    def contributions(self, matrix: np.ndarray) -> np.ndarray:
        """Exact Shapley values: float64 (rows, features + 1), bias last; (rows, classes, features + 1) for several.

        Over the features and the bias they add up to the margin.
        """
        return self.computed("contributions", matrix, CPU)[0]

    def computed(self, what: Values, matrix: np.ndarray, backend: Backend) -> tuple[np.ndarray, int]:
        """`margin` or `contributions`, and of how many rows the host computed them for want of memory on a device."""
        if not len(matrix):
            last = () if what == "margin" else (self.features + 1,)
            return np.empty((0, self.outputs, *last) if self.task == "multiclass" else (0, *last)), 0
        function = self._margin if what == "margin" else self._contributions
        return backend.compute(function, matrix) if self.on_device else (function(matrix), 0)

    @abstractmethod
    def _margin(self, matrix: Any) -> Any:
        """`margin` of at least one row: XGBoost does not take none. Rows on a device only with `on_device`."""

    @abstractmethod
    def _contributions(self, matrix: Any) -> Any:
        """`contributions` of at least one row, as `_margin`."""

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

    @property
    def has_probabilities(self) -> bool:
        """Whether scores of classes are probabilities; others only rank and decide. Of numbers always."""
        return self.link != "decision" or self.calibration is not None

    def scores(self, margin: np.ndarray) -> np.ndarray:
        """Probability of the positive class, or of each class, or the value; calibrated where the model is.

        Without probabilities the same functions of the margin are taken, so that scores are between 0 and 1, and
        above 0.5 for a positive margin.
        """
        scores = self._linked(margin)
        return scores if self.calibration is None else self.calibration.apply(margin, scores)

    def _linked(self, margin: np.ndarray) -> np.ndarray:
        """`scores` without calibration."""
        several = self.task == "multiclass"
        if self.link == "logistic" or (self.link == "decision" and not several):
            return logistic(margin)
        if self.link == "softmax" or self.link == "decision":
            shifted = np.exp(margin - margin.max(axis=1, keepdims=True))
            return shifted / shifted.sum(axis=1, keepdims=True)
        return margin

    def classes(self, scores: np.ndarray) -> np.ndarray:
        """The predicted class code, or the value. Of several classes it is the one with the highest score."""
        if self.task == "multiclass":
            return scores.argmax(axis=1)
        return (scores > self.threshold).astype(np.int64) if self.task == "binary" else scores


def decided(model: Model, calibration: Calibration | None, threshold: float = THRESHOLD) -> Model:
    """A model with a calibration and a threshold in place of its own; the one given stays as it is.

    Raises
    ------
    ValueError
        They are not for models of this task.
    """
    if calibration is not None and (model.task == "regression" or len(calibration.curves) != model.outputs):
        raise ValueError(f"a calibration of {len(calibration.curves)} curves is not for this {model.task} model")
    if threshold != THRESHOLD and model.task != "binary":
        raise ValueError(f"a threshold of {threshold} is for two classes, and not for a {model.task} model")
    if not np.isfinite(threshold):
        raise ValueError(f"a threshold of {threshold} is no number")
    # Margins, and what they are computed of, are shared.
    found = copy.copy(model)
    found.calibration, found.threshold = calibration, threshold
    return found


FORMATS: Mapping[str, str] = {
    "constant": "treadle.engine.models.constant:ConstantModel",
    "ensemble": "treadle.engine.models.ensemble:EnsembleModel",
    "forest": "treadle.engine.models.forest:ForestModel",
    "gaussian": "treadle.engine.models.gaussian:GaussianModel",
    "linear": "treadle.engine.models.linear:LinearModel",
    "neighbours": "treadle.engine.models.neighbours:NeighboursModel",
    "network": "treadle.engine.models.network:NetworkModel",
    "own": "treadle.engine.models.own:OwnModel",
    "xgboost": "treadle.engine.models.booster:BoosterModel",
}
"""`format` -> `module:class`: a model is loaded without what only others need."""


def save_model(model: Model, store: Store, folder: str) -> None:
    """Writes a model into a folder; model.json, written last, says what it is."""
    document = model.save(store, folder)
    common = {"format": model.format, "task": model.task, "link": model.link, "features": model.features}
    decision: dict[str, Any] = {}
    if model.calibration is not None:
        decision["calibration"] = model.calibration.document()
    if model.threshold != THRESHOLD:
        decision["threshold"] = model.threshold
    store.write_json(f"{folder}/model.json", {**common, **document, **decision})


def load_model(store: Store, folder: str) -> Model:
    """A saved model; kept by the process, because every partition asks for it. Nothing is unpickled.

    Raises
    ------
    StorageError
        A file is missing or damaged, or of a format that this version does not read.
    """
    return _loaded(store, folder, store.stamp(f"{folder}/model.json"))


@functools.lru_cache(maxsize=32)  # more than a job that compares the whole catalogue has
def _loaded(store: Store, folder: str, stamp: str) -> Model:
    return read_model(store, folder)


def read_model(store: Store, folder: str) -> Model:
    """As `load_model`, read anew each time."""
    document = store.read_json(f"{folder}/model.json")
    try:
        module, _, name = FORMATS[document["format"]].partition(":")
        model: Model = getattr(importlib.import_module(module), name).load(store, folder, document)
        calibration = document.get("calibration")
        return decided(
            model,
            None if calibration is None else Calibration.of(calibration),
            float(document.get("threshold", THRESHOLD)),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise StorageError(
            f"{store.path(folder)}/model.json is no model that this Treadle reads: {error!r}. "
            "Run the job again with --fresh."
        ) from error


def write_file(store: Store, path: str, raw: bytes | memoryview) -> str:
    """Writes a model's file; returns the digest that `read_file` holds it against."""
    with store.writing(path) as file:
        file.write(raw)
    return _digest(raw)


def read_file(store: Store, path: str, digest: str) -> bytes:
    """A model's file as it was written.

    Raises
    ------
    StorageError
        It is missing, or not the one that was written.
    """
    full = store.path(path)
    try:
        with store.fs.open(full, "rb") as file:
            raw: bytes = file.read()
    except OSError as error:
        raise _unreadable(full, error) from error
    if _digest(raw) != digest:
        raise _unreadable(full, "it is damaged")
    return raw


def _unreadable(path: str, reason: object) -> StorageError:
    return StorageError(f"{path} is no readable model: {reason}. Run the job again with --fresh.")


def _digest(raw: bytes | memoryview) -> str:
    """Hexadecimal BLAKE2b, 128 bits."""
    return hashlib.blake2b(raw, digest_size=16).hexdigest()
