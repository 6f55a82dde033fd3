"""Rows of the tables `predictions` and `explanations`, made in one way by runs and by batch prediction.

A row's margin is computed once, for both: it is what is predicted, and what contributions must add up to.
Contributions are as wide as the features, so they are made, checked and written some rows at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from treadle.engine.backend import Backend
from treadle.engine.document import Part
from treadle.engine.models.base import CPU, Model
from treadle.engine.store import ROW_GROUP, Store
from treadle.errors import DataError

ADDITIVITY_BOUND = 1e-4
"""Largest accepted error of a row, `additivity_error`."""
BLOCK_BYTES = 32 * 2**20
"""Contributions (float64) that are held at a time; a few copies of them exist while they are made into a table."""
Precision = Literal["float32", "float64"]


@dataclass(frozen=True)
class Scoring:
    """A model and what its rows are called in the tables."""

    model: Model
    names: Sequence[str]
    """Features, in the order of the matrix."""
    classes: Sequence[Any]
    top_k: int | None = None
    """Contributions that are kept of a row; all when None."""
    dtype: Precision = "float32"
    """Of the contributions in the table."""
    backend: Backend = CPU

    def margins(self, matrix: np.ndarray, index: np.ndarray) -> tuple[np.ndarray, int]:
        """float64 margins of the rows `index` of a float32 matrix (rows, features); those left to the host."""
        found = [self.model.computed("margin", matrix[part], self.backend) for part in self._blocks(index)]
        margins = [margin for margin, _ in found]
        return margins[0] if len(margins) == 1 else np.concatenate(margins), sum(rows for _, rows in found)

    def predictions(self, ids: pa.Array, margin: np.ndarray) -> pa.Table:
        """id, score (of the positive class, or the value), margin, class; with several classes `score_<class>`, ..."""
        scores = self.model.scores(margin)
        if self.model.task == "regression":
            return pa.table({"id": ids, "score": scores, "margin": margin})
        labels = pa.array(list(self.classes)).take(pa.array(self.model.classes(scores).astype(np.int64)))
        if self.model.task == "binary":
            return pa.table({"id": ids, "score": scores, "margin": margin, "class": labels})
        columns: dict[str, Any] = {"id": ids}
        columns.update({f"score_{c}": pa.array(scores[:, i]) for i, c in enumerate(self.classes)})
        columns.update({f"margin_{c}": pa.array(margin[:, i]) for i, c in enumerate(self.classes)})
        return pa.table({**columns, "class": labels})

    def explanations(
        self, ids: pa.Array, matrix: np.ndarray, margin: np.ndarray, index: np.ndarray, where: str = "the rows"
    ) -> Iterator[Explained]:
        """The table `explanations` of the rows `index`, block by block, at least one.

        id, one column a feature, bias; with several classes a row for each of them, named in `class`. With
        `top_k` columns are, for n from 1, feature_<n> and contribution_<n>, the largest by size first, and
        `others`, the sum of what is left; features that are equally large come in the order of their columns.

        Parameters
        ----------
        ids, matrix, margin
            Of all rows.
        index
            int (explained rows,): those that are explained.
        where
            What the rows are part of, for a message.

        Raises
        ------
        DataError
            The contributions of a row do not add up to its margin; tells its place in `index`, and `where`.
        """
        done = 0
        for part in self._blocks(index):
            values, on_host = self.model.computed("contributions", matrix[part], self.backend)
            sizes = np.abs(values)
            error = additivity_error(values.sum(axis=-1), sizes.sum(axis=-1), margin[part])
            worst = float(error.max(initial=0.0))
            if not worst <= ADDITIVITY_BOUND:
                row = done + int(np.argmax(error if error.ndim == 1 else error.max(axis=1)))
                raise DataError(
                    f"The contributions of row {row} of {where} miss its margin by {worst:.2g}, more than "
                    f"{ADDITIVITY_BOUND:g}; the explanation would be wrong and is not written. "
                    "Please report it with the model."
                )
            totals = sizes[..., :-1].sum(axis=tuple(range(sizes.ndim - 1)))
            del sizes
            found = Explained(self._explanation_table(ids.take(pa.array(part)), values), totals, worst, on_host)
            # All of it is let go of before the next block is made.
            del values
            yield found
            del found
            done += len(part)

    def _blocks(self, index: np.ndarray) -> Iterator[np.ndarray]:
        """Consecutive parts of `index`, whose contributions fit into BLOCK_BYTES; one empty part if it is empty."""
        rows = max(1, min(ROW_GROUP, BLOCK_BYTES // (8 * self.model.outputs * (self.model.features + 1))))
        for start in range(0, max(len(index), 1), rows):
            yield index[start : start + rows]

    def _explanation_table(self, ids: pa.Array, values: np.ndarray) -> pa.Table:
        columns: dict[str, Any] = {"id": ids}
        if self.model.task == "multiclass":
            k = len(self.classes)
            columns["id"] = ids.take(pa.array(np.repeat(np.arange(len(ids)), k)))
            columns["class"] = pa.array(list(self.classes)).take(pa.array(np.tile(np.arange(k), len(ids))))
            values = values.reshape(len(ids) * k, values.shape[-1])
        if self.top_k is None:
            stored = np.ascontiguousarray(values[:, :-1].T, dtype=self.dtype)
            columns.update({name: pa.array(stored[i]) for i, name in enumerate(self.names)})
        else:
            columns.update(self._largest(values[:, :-1], min(self.top_k, len(self.names))))
        columns["bias"] = pa.array(values[:, -1].astype(self.dtype))
        return pa.table(columns)

    def _largest(self, values: np.ndarray, count: int) -> dict[str, Any]:
        """Columns of the `count` largest of each row of `values` (rows, features), and of the others' sum."""
        order = np.argsort(-np.abs(values), axis=1, kind="stable")[:, :count]
        kept = np.take_along_axis(values, order, axis=1)
        all_names = pa.array(list(self.names), pa.string())
        columns: dict[str, Any] = {}
        for n in range(count):
            columns[f"feature_{n + 1}"] = all_names.take(pa.array(order[:, n]))
            columns[f"contribution_{n + 1}"] = pa.array(kept[:, n].astype(self.dtype))
        columns["others"] = pa.array((values.sum(axis=1) - kept.sum(axis=1)).astype(self.dtype))
        return columns


@dataclass(frozen=True)
class Explained:
    """Some rows of the table `explanations`, and what is summed up over all of them."""

    table: pa.Table
    sizes: np.ndarray
    """float64 (features,): |contribution|, summed up over the rows of the table."""
    error: float
    """The largest `additivity_error` of a row."""
    on_host: int
    """Rows that the host computed for want of memory on a device."""


def additivity_error(total: np.ndarray, size: np.ndarray, margin: np.ndarray) -> np.ndarray:
    """How far contributions and bias are from adding up to the margin, by row.

    |total - margin| / max(1, |margin|, size / 10), where `size` is the sum of their absolute values: large
    contributions that cancel out leave what float32 rounds off them, some 1e-6 of `size`, however small the margin.
    """
    return np.abs(total - margin) / np.maximum(1.0, np.maximum(np.abs(margin), size / 10))


@dataclass(frozen=True)
class Target:
    """A file to write, and which rows go into it: bool, one a row."""

    path: str
    rows: np.ndarray


@dataclass(frozen=True)
class Scored:
    """What was written of some rows; None, or nothing, where it was not wanted."""

    rows: int
    predictions: Part | None
    explanations: Part | None
    sizes: np.ndarray
    """As those of `Explained`, over all explained rows."""
    error: float
    margins_on_host: int = 0
    """Rows whose margins the host computed for want of memory on a device."""
    contributions_on_host: int = 0
    """The same of contributions."""


def write_scores(
    scoring: Scoring,
    ids: pa.Array,
    matrix: np.ndarray,
    store: Store,
    predictions: Target | None,
    explanations: Target | None,
    where: str = "the rows",
) -> Scored:
    """One pass over rows: writes their predictions, their contributions, or both.

    Parameters
    ----------
    ids, matrix
        Of all rows; the matrix is float32 (rows, features).

    Raises
    ------
    DataError
        As `Scoring.explanations`.
    """
    targets = [target for target in (predictions, explanations) if target is not None]
    scored = np.flatnonzero(np.logical_or.reduce([target.rows for target in targets]))
    found, margins_on_host = scoring.margins(matrix, scored)
    margin = np.full((len(matrix), *found.shape[1:]), np.nan)
    margin[scored] = found
    del found
    predicted = explained = None
    if predictions is not None:
        index = np.flatnonzero(predictions.rows)
        table = scoring.predictions(ids.take(pa.array(index)), margin[index])
        predicted = store.write_parquet(predictions.path, table)
        del table
    sizes, error, contributions_on_host = np.zeros(len(scoring.names)), 0.0, 0
    if explanations is not None:

        def tables() -> Iterator[pa.Table]:
            nonlocal error, contributions_on_host
            for block in scoring.explanations(ids, matrix, margin, np.flatnonzero(explanations.rows), where):
                sizes[:] += block.sizes
                error = max(error, block.error)
                contributions_on_host += block.on_host
                yield block.table
                del block

        explained = store.write_tables(explanations.path, tables())
    return Scored(len(scored), predicted, explained, sizes, error, margins_on_host, contributions_on_host)
