"""Boosters that no compiled forest represents, in XGBoost's own file, predicted and explained by XGBoost."""

from __future__ import annotations

import json
import threading
from typing import Any, ClassVar

import numpy as np

from treadle.engine.models.base import Link, Model, Task, read_file, write_file
from treadle.engine.models.boosted import LINKS, XGBOOST_FILE, quiet, task_threads
from treadle.engine.store import Store

_one_at_a_time = threading.Lock()
"""XGBoost says of tree boosters only that threads may share them; it uses threads itself."""


class BoosterModel(Model):
    """Margins and contributions as XGBoost computes them, in float32; it must be installed to load the model."""

    format: ClassVar[str] = "xgboost"

    def __init__(self, task: Task, link: Link, raw: bytes) -> None:
        import xgboost

        self.task = task
        self.link = link
        self.raw = raw
        """The model as UBJSON, which holds no code."""
        with quiet():
            self.booster = xgboost.Booster({"nthread": task_threads()}, model_file=bytearray(raw))
            learner = json.loads(self.booster.save_config())["learner"]
        self.features = int(self.booster.num_features())
        self.kind: str = learner["gradient_booster"]["name"]
        self.outputs = max(1, int(learner["learner_model_param"]["num_class"]))

    @property
    def method(self) -> str:
        import xgboost

        how = "linear, coefficient times value, a null as 0" if self.kind == "gblinear" else "TreeSHAP, path-dependent"
        return f"pred_contribs of xgboost {xgboost.__version__} itself ({self.kind}: {how})"

    def _margin(self, matrix: np.ndarray) -> np.ndarray:
        return self._predict(matrix, output_margin=True)

    def _contributions(self, matrix: np.ndarray) -> np.ndarray:
        return self._predict(matrix, pred_contribs=True)

    def _predict(self, matrix: np.ndarray, **what: bool) -> np.ndarray:
        import xgboost

        with _one_at_a_time, quiet():
            rows = xgboost.DMatrix(matrix, nthread=task_threads())
            found = self.booster.predict(rows, validate_features=False, **what)
        return np.asarray(found, dtype=np.float64)

    def save(self, store: Store, folder: str) -> dict[str, Any]:
        return {"digest": write_file(store, f"{folder}/{XGBOOST_FILE}", self.raw)}

    @classmethod
    def load(cls, store: Store, folder: str, document: dict[str, Any]) -> BoosterModel:
        """Raises StorageError when the file is missing or not the one that was written."""
        raw = read_file(store, f"{folder}/{XGBOOST_FILE}", document["digest"])
        return cls(document["task"], document["link"], raw)


def model_of_booster(task: Task, raw: bytes) -> tuple[Model, list[str]]:
    """A trained booster (UBJSON) as a compiled forest; where it has no such form as it is, with the reason why."""
    import xgboost

    from treadle.engine.models.forest import ForestModel
    from treadle.errors import UnsupportedModel

    try:
        with quiet():
            return ForestModel.of_booster(task, xgboost.Booster(model_file=bytearray(raw))), []
    except UnsupportedModel as error:
        return BoosterModel(task, LINKS[task], raw), [f"{error.reason}; its own explainer is used"]
