"""Classes as normal distributions (quadratic discriminants, naive Bayes): margins and exact Shapley values."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from treadle.engine.models.base import Link, Model, Task, read_file, write_file
from treadle.engine.store import Store
from treadle.errors import DataError
from treadle.kernels.gaussian import contributions, margins

FILE = "model.arrow"


class GaussianModel(Model):
    """The margin of a class is the log of its prior times its density, up to a number that all classes share.

    Of two classes the margin is the difference of theirs, the log-odds.
    """

    format: ClassVar[str] = "gaussian"

    def __init__(
        self,
        task: Task,
        mean: np.ndarray,
        factor: np.ndarray,
        constant: np.ndarray,
        center: np.ndarray,
        expected: np.ndarray,
    ) -> None:
        """Arrays are float64, and as `treadle.kernels.gaussian` takes them."""
        self.task = task
        self.link: Link = "logistic" if task == "binary" else "softmax"
        self.mean, self.factor, self.constant = mean, factor, constant
        self.center, self.expected = center, expected
        self.features = mean.shape[1]
        self.outputs = 1 if task == "binary" else len(mean)

    @classmethod
    def of(
        cls, task: Task, mean: np.ndarray, factor: np.ndarray, constant: np.ndarray, center: np.ndarray, spread: Any
    ) -> GaussianModel:
        """`center` and `spread` are the training rows' means (d,), and covariance (d, d), or variances (d,)."""
        apart = center - mean
        if factor.ndim == 2:
            expected = -0.5 * factor * factor * (spread + apart * apart)
        else:
            moments = spread + apart[:, :, None] * apart[:, None, :]
            expected = -0.5 * ((np.swapaxes(factor, 1, 2) @ factor) * moments).sum(axis=2)
        return cls(task, mean, factor, constant, center, expected)

    @property
    def method(self) -> str:
        kind = "features independent in a class" if self.factor.ndim == 2 else "quadratic, pairs shared in halves"
        return f"Gaussian class densities, exact against the training rows ({kind})"

    def _margin(self, matrix: np.ndarray) -> np.ndarray:
        found = margins(matrix, self.mean, self.factor, self.constant)
        nulls = int(np.isnan(found).any(axis=1).sum())
        if nulls:
            raise DataError(
                f"{nulls} rows have nulls, which a Gaussian model cannot predict from; fill them in the input, "
                "or train with an impute operation on the columns."
            )
        return self._of_outputs(found)

    def _contributions(self, matrix: np.ndarray) -> np.ndarray:
        out = np.empty((len(matrix), len(self.mean), self.features + 1))
        out[:, :, :-1] = contributions(matrix, self.mean, self.factor, self.center, self.expected)
        out[:, :, -1] = self.constant + self.expected.sum(axis=1)
        return self._of_outputs(out)

    def _of_outputs(self, values: np.ndarray) -> np.ndarray:
        """Log-odds of two classes; (rows, classes, ...)."""
        return values if self.task == "multiclass" else values[:, 1] - values[:, 0]

    def save(self, store: Store, folder: str) -> dict[str, Any]:
        classes = {"mean": self.mean, "factor": self.factor, "expected": self.expected, "constant": self.constant}
        table = pa.table({name: list(values.reshape(len(values), -1)) for name, values in classes.items()})
        buffer = pa.BufferOutputStream()
        with pa.ipc.new_file(buffer, table.schema) as writer:
            writer.write_table(table)
        digest = write_file(store, f"{folder}/{FILE}", memoryview(buffer.getvalue()))
        return {"digest": digest, "diagonal": self.factor.ndim == 2, "center": self.center.tolist()}

    @classmethod
    def load(cls, store: Store, folder: str, document: dict[str, Any]) -> GaussianModel:
        """Raises StorageError when the file is missing or not the one that was written."""
        with pa.ipc.open_file(pa.BufferReader(read_file(store, f"{folder}/{FILE}", document["digest"]))) as reader:
            table = reader.read_all()
        center = np.asarray(document["center"], dtype=np.float64)
        classes, d = table.num_rows, len(center)

        def array(name: str, *shape: int) -> np.ndarray:
            return table.column(name).combine_chunks().flatten().to_numpy().reshape(classes, *shape)

        factor = array("factor", *([d] if document["diagonal"] else [d, d]))
        return cls(document["task"], array("mean", d), factor, array("constant"), center, array("expected", d))
