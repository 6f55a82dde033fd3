"""Train/serve skew: some raw rows of a run, kept in its bundle with the features and margins that the run had of them.

<folder>/sample.parquet     id, input.<column>, feature.<name> (float32), margin.<output> (float64); a line a row

Whoever opens the bundle makes the features of these rows anew. They are the run's to the last bit, or something
between training and prediction has changed: a library, a fitted value, a table.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from treadle.engine.document import Document
from treadle.engine.store import Store
from treadle.versions import version_of

FILE = "sample.parquet"
MARGIN_BOUND = 1e-6
"""Largest accepted difference of a margin, as a part of the run's, or of 1 where that is smaller."""
_INPUT, _FEATURE, _MARGIN = "input.", "feature.", "margin."


class SampleRecord(Document):
    """What bundle.json says of the sample."""

    rows: int
    reason: str | None = None
    """Why there are none."""


@dataclass(frozen=True)
class Sample:
    """Raw rows, and what the run made of them."""

    ids: pa.Array
    rows: pa.Table
    """The columns of a raw row, in the types of the engine."""
    matrix: np.ndarray
    """float32 (rows, features), NaN for null."""
    margins: np.ndarray
    """float64 (rows, outputs)."""

    def write(self, store: Store, folder: str, features: Sequence[str]) -> None:
        columns = {"id": self.ids}
        columns.update((f"{_INPUT}{name}", self.rows.column(name)) for name in self.rows.column_names)
        columns.update((f"{_FEATURE}{name}", pa.array(self.matrix[:, i])) for i, name in enumerate(features))
        columns.update((f"{_MARGIN}{i}", pa.array(self.margins[:, i])) for i in range(self.margins.shape[1]))
        store.write_parquet(f"{folder}/{FILE}", pa.table(columns))

    @classmethod
    def read(cls, store: Store, folder: str, inputs: Sequence[str], features: Sequence[str], outputs: int) -> Sample:
        """Raises StorageError for a missing file, KeyError for a missing column."""
        table = store.read_parquet(f"{folder}/{FILE}").combine_chunks()

        def numbers(prefix: str, names: Sequence[object], dtype: str) -> np.ndarray:
            columns = [table.column(f"{prefix}{name}").to_numpy() for name in names]
            return np.stack(columns, axis=1).astype(dtype, copy=False)

        return cls(
            table.column("id").combine_chunks(),
            pa.table({name: table.column(f"{_INPUT}{name}") for name in inputs}),
            numbers(_FEATURE, features, "float32"),
            numbers(_MARGIN, range(outputs), "float64"),
        )

    def other_rows(self, places: np.ndarray) -> str | None:
        """The first row that a replay makes none or several of; `places` int64 (replayed rows,) are their numbers."""
        counts = np.bincount(places, minlength=len(self.ids))
        if (counts == 1).all():
            return None
        row = int(np.flatnonzero(counts != 1)[0])
        return f"row {self.ids[row]} becomes {counts[row]} rows, and was one in the run"

    def other_feature(self, matrix: np.ndarray, features: Sequence[str]) -> str | None:
        """The first feature, float32 (rows, features), that is not the run's to the last bit; NaN is NaN."""
        then = self.matrix
        differs = (matrix.view(np.uint32) != then.view(np.uint32)) & ~(np.isnan(matrix) & np.isnan(then))
        if not differs.any():
            return None
        column = int(np.flatnonzero(differs.any(axis=0))[0])
        row = int(np.flatnonzero(differs[:, column])[0])
        now, before = _said(matrix[row, column]), _said(then[row, column])
        return f"feature '{features[column]}' of row {self.ids[row]} becomes {now}, and was {before} in the run"

    def other_margin(self, margins: np.ndarray) -> str | None:
        """The row whose margin, float64 (rows, outputs), is the farthest from the run's, if that is too far."""
        then = self.margins
        with np.errstate(invalid="ignore"):
            apart = np.where(margins == then, 0.0, np.abs(margins - then) / np.maximum(1.0, np.abs(then)))
        apart = np.where(np.isnan(margins) & np.isnan(then), 0.0, apart)
        if (apart <= MARGIN_BOUND).all():
            return None
        row, output = np.unravel_index(int(np.argmax(np.nan_to_num(apart, nan=np.inf))), apart.shape)
        now, before = margins[row, output], then[row, output]
        return f"with equal features the margin of row {self.ids[row]} becomes {now:.17g}, and was {before:.17g}"


def other_libraries(recorded: Mapping[str, str]) -> list[str]:
    """Libraries whose versions are not the recorded ones, with both."""
    found = []
    for name, then in recorded.items():
        try:
            now = version_of(name)
        except importlib.metadata.PackageNotFoundError:
            now = "absent"
        if now != then:
            found.append(f"{name} {now} (it was {then})")
    return found


def _said(value: np.float32) -> str:
    return "null" if np.isnan(value) else f"{value:.9g}"
