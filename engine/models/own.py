"""A model of a user's own class, kept by skops, with sampled Shapley values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from treadle.engine.models.arrays import read_arrays, write_arrays
from treadle.engine.models.base import Link, Task, read_file, write_file
from treadle.engine.models.import_path import VARIABLE, is_allowed, own_class, told
from treadle.engine.models.sampled import MOST_EVALUATIONS, Background, SampledModel, draw_background
from treadle.engine.store import Store
from treadle.errors import DataError

FILE = "model.skops"
ROWS = 256
"""Rows that the estimator is always asked for at once, so that its matrix products have one shape."""


@dataclass(frozen=True)
class Predictor:
    """What an estimator is asked for."""

    path: str
    method: str
    """predict_proba, decision_function or predict."""


class OwnModel(SampledModel):
    """margin = the probability of a class, the decision function, or the value, as the estimator gives it.

    A row's margin does not depend on the rows beside it as far as the estimator's own does not.
    """

    format: ClassVar[str] = "own"

    def __init__(self, task: Task, link: Link, predictor: Predictor, kept: bytes, outputs: int, rows: Background):
        self.task = task
        self.link = link
        self.predictor = predictor
        self.kept = kept
        """The fitted estimator, as skops writes it."""
        self.estimator = _loaded(predictor.path, kept)
        self.outputs = outputs
        self.background = rows
        self.features = rows.rows.shape[1]

    @classmethod
    def of(cls, path: str, task: Task, estimator: Any, matrix: np.ndarray, classes: int, seed: int) -> OwnModel:
        """A fitted estimator, and the float32 matrix (rows, features) that it was trained on.

        Raises
        ------
        DataError
            Its predictions have another shape than the task asks for, or are no numbers; or it cannot be kept.
        """
        method = "predict"
        link: Link = "identity"
        if task != "regression":
            method = "predict_proba" if hasattr(estimator, "predict_proba") else "decision_function"
            link = "identity" if method == "predict_proba" else "decision"
        background = draw_background(matrix, MOST_EVALUATIONS, seed)
        outputs = classes if task == "multiclass" else 1
        model = cls(task, link, Predictor(path, method), _kept(path, estimator), outputs, background)
        model._raw(matrix[:1])
        return model

    def _raw(self, matrix: np.ndarray) -> np.ndarray:
        out = np.empty((len(matrix), self.outputs))
        for low in range(0, len(matrix), ROWS):
            rows = matrix[low : low + ROWS]
            whole = np.concatenate([rows, np.repeat(rows[:1], ROWS - len(rows), axis=0)]).astype(np.float32)
            out[low : low + len(rows)] = self._predicted(whole)[: len(rows)]
        return out

    def _predicted(self, rows: np.ndarray) -> np.ndarray:
        name, wanted = self.predictor.method, self.outputs
        if name == "predict_proba" and self.task == "binary":
            wanted = 2
        try:
            made = np.asarray(getattr(self.estimator, name)(rows), dtype=np.float64)
        except Exception as error:  # whatever its code does
            raise DataError(f"{self.predictor.path} failed in {name} ({told(error)}).") from error
        shape = (len(rows), wanted) if wanted > 1 else (len(rows),)
        if made.shape != shape and made.shape != (*shape, 1):
            raise DataError(
                f"{self.predictor.path} gives {name} of shape {made.shape} for {len(rows)} rows; it has to be {shape}."
            )
        if not np.isfinite(made).all():
            raise DataError(f"{self.predictor.path} gives {name} with values that are no numbers.")
        made = made.reshape(len(rows), wanted)
        return made[:, 1:] if wanted == 2 and self.outputs == 1 else made

    def save(self, store: Store, folder: str) -> dict[str, Any]:
        return {
            "estimator": self.predictor.path,
            "method": self.predictor.method,
            "outputs": self.outputs,
            "file": write_file(store, f"{folder}/{FILE}", self.kept),
            "digest": write_arrays(store, folder, self.background.arrays()),
        }

    @classmethod
    def load(cls, store: Store, folder: str, document: dict[str, Any]) -> OwnModel:
        """Raises RequestError when its module is not allowed, StorageError when a file is missing or damaged."""
        own_class(document["estimator"])
        kept = read_file(store, f"{folder}/{FILE}", document["file"])
        background = Background.of(read_arrays(store, folder, document["digest"]))
        predictor = Predictor(document["estimator"], document["method"])
        return cls(document["task"], document["link"], predictor, kept, document["outputs"], background)


def _kept(path: str, estimator: Any) -> bytes:
    import skops.io

    try:
        return bytes(skops.io.dumps(estimator))
    except Exception as error:
        raise _unkept(path, told(error)) from error


def _loaded(path: str, kept: bytes) -> Any:
    """The estimator; what skops does not trust by itself has to be of an allowed module."""
    import skops.io

    types = skops.io.get_untrusted_types(data=kept)
    for name in types:
        if not is_allowed(name.rpartition(".")[0]):
            raise DataError(f"{path} has a {name} in it, whose module is not allowed ({VARIABLE}).")
    try:
        return skops.io.loads(kept, trusted=types)
    except Exception as error:
        raise _unkept(path, told(error)) from error


def _unkept(path: str, reason: str) -> DataError:
    return DataError(
        f"{path} cannot be kept by skops ({reason}). Its attributes have to be numbers, texts, arrays, lists, dicts, "
        "and estimators of scikit-learn."
    )
