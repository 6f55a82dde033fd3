"""Tree ensembles of any library, as compiled forests: boosted trees, forests and single trees."""

from __future__ import annotations

import dataclasses
import functools
import io
from typing import Any, ClassVar

from treadle.engine.models.base import Link, Model, Task, read_file, write_file
from treadle.engine.models.boosted import LINKS, XGBOOST_FILE, use_task_threads
from treadle.engine.store import Store
from treadle.kernels.forest import Forest, compile_forest
from treadle.kernels.forest_file import load_forest, save_forest
from treadle.kernels.predict import predict_margin
from treadle.kernels.treeshap import TreeExplainer

FILE = "model.arrow"


class ForestModel(Model):
    """Margins and contributions by Treadle's kernels; the library that trained it is not needed."""

    format: ClassVar[str] = "forest"
    on_device: ClassVar[bool] = True

    def __init__(self, task: Task, link: Link, forest: Forest, native: bytes | None = None) -> None:
        self.task = task
        self.link = link
        self.forest = forest
        self.native = native
        """The library's own format, kept beside the forest for other tools."""
        self.features = forest.n_features
        self.outputs = forest.n_outputs

    @classmethod
    def of(cls, task: Task, estimator: Any, link: Link = "identity", scale: float = 1.0) -> ForestModel:
        """A fitted ensemble; with link `identity` the margin is the probability, or the value.

        The margin is the decision function times `scale`, so that the link makes the library's probabilities of it.
        """
        forest = compile_forest(estimator)
        if scale != 1.0:
            forest = dataclasses.replace(forest, base=scale * forest.base, value=scale * forest.value)
        return cls(task, link, forest)

    @classmethod
    def of_booster(cls, task: Task, booster: Any) -> ForestModel:
        """An XGBoost booster."""
        return cls(task, LINKS[task], compile_forest(booster), bytes(booster.save_raw("ubj")))

    @property
    def method(self) -> str:
        return f"TreeSHAP, path-dependent, exact (trees of {self.forest.source})"

    @functools.cached_property
    def explainer(self) -> TreeExplainer:
        """With its tables, which are built once in a process: `load_model` keeps the model."""
        return TreeExplainer(self.forest)

    def _margin(self, matrix: Any) -> Any:
        use_task_threads()
        return predict_margin(self.forest, matrix)

    def _contributions(self, matrix: Any) -> Any:
        use_task_threads()
        return self.explainer.shap_values(matrix)

    def save(self, store: Store, folder: str) -> dict[str, Any]:
        buffer = io.BytesIO()
        save_forest(self.forest, buffer)
        digest = write_file(store, f"{folder}/{FILE}", buffer.getbuffer())
        if self.native is not None:
            write_file(store, f"{folder}/{XGBOOST_FILE}", self.native)
        return {"digest": digest}

    @classmethod
    def load(cls, store: Store, folder: str, document: dict[str, Any]) -> ForestModel:
        """From the file, mapped into memory where it is a local one.

        Raises
        ------
        StorageError
            The file is missing or not the one that was written.
        """
        from fsspec.implementations.local import LocalFileSystem

        raw = read_file(store, f"{folder}/{FILE}", document["digest"])
        forest = load_forest(store.path(f"{folder}/{FILE}") if isinstance(store.fs, LocalFileSystem) else raw)
        return cls(document["task"], document["link"], forest)
