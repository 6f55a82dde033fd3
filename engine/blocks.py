"""Featurised rows in memory: what the feature table holds, as arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from treadle.engine import document
from treadle.engine.artifacts import Features, SplitRule
from treadle.engine.context import Context
from treadle.engine.store import Store

if TYPE_CHECKING:
    from distributed import Future

PROTECTED = "protected."
"""Prefix of the raw protected columns in the feature table."""
WEIGHT = "weight."
"""Prefix of the column of weights in the feature table."""
Part = tuple[np.ndarray, ...]
"""Of some rows: float32 matrix (rows, features), float64 targets and, where rows have weights, float64 weights."""


@dataclass(frozen=True)
class Block:
    """The rows of one partition that have a target."""

    ids: pa.Array
    test: np.ndarray
    """bool, one a row."""
    target: np.ndarray
    """float64: class codes or values."""
    matrix: np.ndarray
    """float32, rows by features, C order."""
    protected: dict[str, pa.Array]
    weight: np.ndarray | None = None
    """float64: what a row counts in training; 1 when None. It may be NaN in test rows."""

    @property
    def part(self) -> Part:
        """What models are trained on."""
        return (self.matrix, self.target) if self.weight is None else (self.matrix, self.target, self.weight)

    @property
    def rows(self) -> int:
        return len(self.test)

    def take(self, mask: np.ndarray) -> Block:
        """The rows where `mask` is true."""
        if mask.all():
            return self
        index = np.flatnonzero(mask)
        protected = {name: values.take(index) for name, values in self.protected.items()}
        weight = None if self.weight is None else self.weight[index]
        return Block(self.ids.take(index), self.test[index], self.target[index], self.matrix[index], protected, weight)

    def select(self, rows: str) -> Block:
        """`test` or `all` rows."""
        return self if rows == "all" else self.take(self.test)

    def table(self, names: Sequence[str], target: str, rule: SplitRule, weight: str | None = None) -> pa.Table:
        """As rows of the table `features`; `weight` is the column of weights, if there is one."""
        fields: dict[str, Any] = {
            "id": self.ids,
            "split": pa.array(np.where(self.test, "test", "train"), pa.string()),
            target: decode(self.target, rule),
        }
        fields.update({f"{PROTECTED}{name}": values for name, values in self.protected.items()})
        if weight is not None:
            fields[f"{WEIGHT}{weight}"] = pa.array(self.weight, from_pandas=True)
        # Arrow takes a strided column value by value, at ten times what a copy of all of them costs.
        columns = np.ascontiguousarray(self.matrix.T)
        fields.update({name: pa.array(column) for name, column in zip(names, columns, strict=True)})
        return pa.table(fields)


def decode(codes: np.ndarray, rule: SplitRule) -> pa.Array:
    """Class codes as classes; values stay."""
    if rule.task == "regression":
        return pa.array(codes)
    return pa.array(list(rule.classes)).take(pa.array(codes.astype(np.int64)))


def load_block(
    part: document.Part, store: Store, names: Sequence[str], target: str, rule: SplitRule, weight: str | None = None
) -> Block:
    """On a worker: a part of the feature table, back from its file."""
    table = store.read_parquet(part.path).combine_chunks()
    matrix = np.empty((table.num_rows, len(names)), dtype=np.float32)
    for i, name in enumerate(names):
        matrix[:, i] = table.column(name).to_numpy()
    values = table.column(target)
    if rule.task == "regression":
        codes = values.to_numpy()
    else:
        codes = pc.index_in(values, value_set=pa.array(list(rule.classes))).to_numpy().astype(np.float64)
    protected = {
        name.removeprefix(PROTECTED): _one(table.column(name))
        for name in table.column_names
        if name.startswith(PROTECTED)
    }
    test = pc.equal(table.column("split"), "test").to_numpy(zero_copy_only=False)
    weights = None if weight is None else table.column(f"{WEIGHT}{weight}").to_numpy()
    return Block(_one(table.column("id")), test, codes, matrix, protected, weights)


def _one(column: pa.ChunkedArray) -> pa.Array:
    return column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)


def blocks_of(context: Context, features: Features, rule: SplitRule) -> list[Future]:
    """The blocks of a run: those that the features stage left on the workers, else read from the table."""
    if "blocks" not in context.live:
        data = context.job.data
        context.live["blocks"] = context.submit(
            load_block, features.table, context.store, features.names, data.target, rule, data.weight
        )
    return context.live["blocks"]
