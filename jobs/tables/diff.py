"""What differs between two versions of a table, or between all the tables of two runs; `treadle diff` is this."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa

from treadle.engine import delta
from treadle.engine.job import CLASSIFICATION_METRICS, LOWER_IS_BETTER, REGRESSION_METRICS
from treadle.engine.sections.outputs import COSTS
from treadle.engine.store import Store
from treadle.engine.table_diff import SchemaDiff, TableDiff, compare, in_json, natural_key
from treadle.errors import RequestError
from treadle.jobs.run import Table, load_run
from treadle.jobs.spec import root_of
from treadle.jobs.tables.catalogue import find, table_at, tables_of

ABOUT_MODELS = ("leaderboard", "folds", "race", "trials")
"""Tables whose columns of costs are not compared."""
METRICS = (*CLASSIFICATION_METRICS, *REGRESSION_METRICS)


@dataclass(frozen=True)
class MetricChange:
    """A metric of a model on both leaderboards."""

    model: str
    metric: str
    old: float | None
    new: float | None

    @property
    def difference(self) -> float | None:
        return None if self.old is None or self.new is None else self.new - self.old

    @property
    def better(self) -> bool | None:
        """Whether the new one is; None where neither is."""
        if not self.difference or math.isnan(self.difference):
            return None
        return (self.difference < 0) == (self.metric in LOWER_IS_BETTER)

    def described(self) -> dict[str, Any]:
        return {**asdict(self), "difference": self.difference, "better": self.better}


@dataclass(frozen=True)
class TablePair:
    """Two versions of tables, and what differs."""

    name: str
    left: str
    """`job/table@version`"""
    right: str
    diff: TableDiff
    metrics: tuple[MetricChange, ...] = ()
    """Of leaderboards: those of models that are on both."""

    def described(self) -> dict[str, Any]:
        metrics = [change.described() for change in self.metrics]
        return {"table": self.name, "left": self.left, "right": self.right, **self.diff.described(), "metrics": metrics}


@dataclass(frozen=True)
class Diff:
    """All that was compared."""

    left: str
    right: str
    tables: tuple[TablePair, ...]
    only_left: tuple[str, ...] = ()
    """Tables that only one of the runs published."""
    only_right: tuple[str, ...] = ()

    @property
    def same(self) -> bool:
        return not self.only_left and not self.only_right and all(pair.diff.same for pair in self.tables)

    def described(self) -> dict[str, Any]:
        """For --json."""
        found: dict[str, Any] = in_json(
            {
                "left": self.left,
                "right": self.right,
                "same": self.same,
                "only_left": self.only_left,
                "only_right": self.only_right,
                "tables": [pair.described() for pair in self.tables],
            }
        )
        return found


def diff(
    left: str, right: str, root: str | None = None, key: Sequence[str] | None = None, tolerance: float = 0.0
) -> Diff:
    """Compares two tables (`adult/predictions@3`, `predictions@adult-2026`), or all tables that two runs share.

    Parameters
    ----------
    key
        Columns by which the rows of two tables are paired, instead of the tables' own.
    tolerance
        As of `treadle.engine.table_diff.compare`.

    Raises
    ------
    RequestError
        No such table, version, run or column; a run and a table; a key for two runs.
    """
    store = Store(root_of(root))
    names = {name for _, name in tables_of(store)}
    kinds = ["@" in text or "/" in text or text in names for text in (left, right)]
    if kinds[0] != kinds[1]:
        table, run = (left, right) if kinds[0] else (right, left)
        raise RequestError(f"'{table}' is a table and '{run}' a run; give two tables, such as {table} and TABLE@{run}.")
    if kinds[0]:
        addresses = find(store, left), find(store, right)
        one, other = (table_at(store, address) for address in addresses)
        labels = [f"{address.table}@{table.version}" for address, table in zip(addresses, (one, other), strict=True)]
        return Diff(left, right, (_pair(store, one, other, labels, key, tolerance),))
    if key:
        raise RequestError("--key is for two tables; those of runs are compared by keys of their own.")
    runs = load_run(store.url, left), load_run(store.url, right)
    here, there = (run.tables for run in runs)
    pairs = []
    for name in here:
        if name in there:
            labels = [
                f"{run.job}/{name}@{table.version}" for run, table in zip(runs, (here[name], there[name]), strict=True)
            ]
            pairs.append(_pair(store, here[name], there[name], labels, None, tolerance))
    only = [tuple(name for name in one if name not in other) for one, other in ((here, there), (there, here))]
    return Diff(runs[0].id, runs[1].id, tuple(pairs), only[0], only[1])


def _pair(
    store: Store, one: Table, other: Table, labels: Sequence[str], key: Sequence[str] | None, tolerance: float
) -> TablePair:
    name = one.name if one.name == other.name else f"{one.name} and {other.name}"
    if (one.path, one.version) == (other.path, other.version):
        same = TableDiff(one.rows, other.rows, SchemaDiff(), tuple(key or ()), 0, 0, 0, ())
        return TablePair(name, labels[0], labels[1], same)
    left, right = (delta.open_table(store.fs, table.path, table.version) for table in (one, other))
    ignore = COSTS if name in ABOUT_MODELS else ()
    chosen = key or natural_key(name, left, right)
    found = compare(left, right, chosen, tolerance=tolerance, ignore=ignore)
    metrics = metric_changes(one.to_arrow(), other.to_arrow()) if name == "leaderboard" else ()
    return TablePair(name, labels[0], labels[1], found, metrics)


def metric_changes(left: pa.Table, right: pa.Table) -> tuple[MetricChange, ...]:
    """Every metric that two leaderboards have, of every model that is on both, in the order of the right one."""
    metrics = [name for name in METRICS if name in left.column_names and name in right.column_names]
    before = {row["model"]: row for row in left.to_pylist()}
    return tuple(
        MetricChange(row["model"], metric, before[row["model"]][metric], row[metric])
        for row in right.to_pylist()
        if row["model"] in before
        for metric in metrics
    )
