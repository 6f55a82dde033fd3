"""XGBoost models: trained over the cluster, saved as UBJSON."""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from treadle.engine.models.base import Link, Model, Task, in_row_blocks
from treadle.engine.store import Store
from treadle.errors import StorageError

LINKS: Mapping[str, Link] = {"binary": "logistic", "multiclass": "softmax", "regression": "identity"}
OBJECTIVES = {"binary": "binary:logistic", "multiclass": "multi:softprob", "regression": "reg:squarederror"}
FILE = "model.ubj"
CONTRIBUTION_ROWS = 65_536


class BoostedModel(Model):
    """An XGBoost booster."""

    format: ClassVar[str] = "xgboost"

    def __init__(self, task: Task, booster: Any, classes: int = 2) -> None:
        self.task = task
        self.link = LINKS[task]
        self.booster = booster
        self.features = booster.num_features()
        self.outputs = classes if task == "multiclass" else 1

    @property
    def method(self) -> str:
        import xgboost

        return f"TreeSHAP, path-dependent (XGBoost {xgboost.__version__})"

    def _margin(self, matrix: np.ndarray) -> np.ndarray:
        return self.booster.inplace_predict(matrix, predict_type="margin").astype(np.float64)

    def _contributions(self, matrix: np.ndarray) -> np.ndarray:
        return in_row_blocks(functools.partial(booster_contributions, self.booster), matrix, CONTRIBUTION_ROWS)

    def save(self, store: Store, folder: str) -> dict[str, Any]:
        return {"classes": self.outputs, "digest": write_booster(self.booster, store, f"{folder}/{FILE}")}

    @classmethod
    def load(cls, store: Store, folder: str, document: dict[str, Any]) -> BoostedModel:
        return cls(document["task"], read_booster(store, f"{folder}/{FILE}", document["digest"]), document["classes"])


def write_booster(booster: Any, store: Store, path: str) -> str:
    """As UBJSON; returns the digest of the file."""
    raw = bytes(booster.save_raw("ubj"))
    with store.writing(path) as file:
        file.write(raw)
    return digest_of(raw)


def digest_of(raw: bytes) -> str:
    """Hexadecimal BLAKE2b, 128 bits."""
    return hashlib.blake2b(raw, digest_size=16).hexdigest()


def read_booster(store: Store, path: str, digest: str) -> Any:
    """From UBJSON, using the threads of the Dask worker that runs this, or all cores elsewhere.

    Raises
    ------
    StorageError
        The file is missing or not the one that was written: on a damaged one XGBoost may crash the process.
    """
    import xgboost

    try:
        with store.fs.open(store.path(path), "rb") as file:
            raw = file.read()
        if digest_of(raw) != digest:
            raise ValueError("it is damaged")
        booster = xgboost.Booster(model_file=bytearray(raw))
    except (xgboost.core.XGBoostError, ValueError, OSError) as error:
        raise StorageError(
            f"{store.path(path)} is no readable model: {said_by(error)}. Run the job again with --fresh."
        ) from error
    booster.set_param({"nthread": task_threads()})
    return booster


def said_by(error: Exception) -> str:
    """The first line of what a library raised, without the place in XGBoost's C++ sources."""
    first = (str(error).splitlines() or [""])[0]
    return re.sub(r"^\[[0-9:]+\] [^ ]+: (Check failed: )?", "", first)


def task_threads() -> int:
    """Threads that a task may use: those of its Dask worker; all cores (0) outside of one."""
    from distributed import get_worker

    try:
        return get_worker().state.nthreads
    except ValueError:
        return 0


def booster_contributions(booster: Any, matrix: np.ndarray) -> np.ndarray:
    """XGBoost's own contributions: float64 (rows, features + 1), or (rows, classes, features + 1)."""
    import xgboost

    data = xgboost.DMatrix(matrix, nthread=task_threads())
    return booster.predict(data, pred_contribs=True).astype(np.float64)


def split_params(params: Mapping[str, Any]) -> tuple[int, dict[str, Any]]:
    """Number of trees, and the booster's parameters."""
    rest = dict(params)
    return int(rest.pop("n_estimators", 100)), rest
