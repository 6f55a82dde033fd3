"""A run as users see it: its leaderboard, its tables at the versions that it made, its model."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from treadle.engine.store import Store
from treadle.errors import RequestError, StorageError, TreadleError, did_you_mean, listed

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    from treadle.engine.bundle import Bundle
    from treadle.jobs.lineage.rows import Lineage

THREADS = 8
"""Manifests that are read at a time."""


class Table:
    """One version of a table of a run."""

    def __init__(self, store: Store, record: Mapping[str, Any]) -> None:
        self._store = store
        self.name: str = record["name"]
        self.version: int = record["version"]
        self.rows: int = record["rows"]
        self.path: str = store.uri(record["path"])

    def __repr__(self) -> str:
        return f"<Table {self.name}@{self.version}, {self.rows} rows, {self.path}>"

    def files(self) -> list[str]:
        """Paths of its Parquet files, for any reader (DuckDB, Polars, Dask, cuDF)."""
        from treadle.engine import delta

        return delta.data_files(delta.open_table(self._store.fs, self.path, self.version))

    @property
    def schema(self) -> pa.Schema:
        """Names and types of its columns."""
        import pyarrow as pa

        from treadle.engine import delta

        return pa.schema(delta.open_table(self._store.fs, self.path, self.version).schema().to_arrow())

    def missing_files(self) -> list[str]:
        """Those of its files that are not there any more; RequestError when the version itself is gone."""
        files = self.files()
        fs = self._store.fs
        fs.invalidate_cache()
        there: set[str] = set()
        for folder in {path.rpartition("/")[0] for path in files}:
            with contextlib.suppress(FileNotFoundError):
                there |= {f"{folder}/{str(path).rsplit('/', 1)[-1]}" for path in fs.ls(folder, detail=False)}
        return [path for path in files if path not in there]

    def where(self, column: str, value: pa.Scalar) -> pa.Table:
        """The rows whose `column` is `value`, in their order; statistics tell which files need not be read."""
        from treadle.engine import delta

        return delta.rows_where(delta.open_table(self._store.fs, self.path, self.version), column, value)

    def to_arrow(self, columns: list[str] | None = None) -> pa.Table:
        """The rows, in the order of the partitions."""
        from treadle.engine import delta

        return delta.read_arrow(delta.open_table(self._store.fs, self.path, self.version), columns)

    def batches(self, columns: list[str] | None = None) -> Iterator[pa.RecordBatch]:
        """The rows in the same order, in batches that need not fit the memory together; the first has no rows."""
        from treadle.engine import delta

        return delta.read_batches(delta.open_table(self._store.fs, self.path, self.version), columns)

    def to_pandas(self, columns: list[str] | None = None) -> pd.DataFrame:
        """The rows as a frame."""
        return self.to_arrow(columns).to_pandas()


class Run:
    """A finished run, read from its manifest."""

    def __init__(self, store: Store, manifest: Mapping[str, Any], *, reused: bool = False) -> None:
        self._store = store
        self.manifest = manifest
        self.reused = reused
        """Whether it is that of an earlier time, since nothing has changed."""
        self.id: str = manifest["run"]

    def __repr__(self) -> str:
        return f"<Run {self.id}, {self.status}>"

    def _repr_html_(self) -> str:
        """The run in a notebook: what became of it, its leaderboard and its tables."""
        from treadle.jobs.html import run_html

        return run_html(self)

    @property
    def store(self) -> Store:
        """Its artifacts root."""
        return self._store

    def path(self, relative: str) -> str:
        """Where something of its artifacts root lies."""
        return self._store.uri(relative)

    @property
    def status(self) -> str:
        """succeeded, failed or cancelled."""
        return str(self.manifest["status"])

    @property
    def job(self) -> str:
        return str(self.manifest["job"])

    @property
    def leaderboard(self) -> pd.DataFrame:
        """One row a model, the best first."""
        return self.table("leaderboard").to_pandas()

    @property
    def importance(self) -> dict[str, float]:
        """Feature -> mean absolute contribution over the explained rows, largest first."""
        explanation = self.manifest["results"].get("explain")
        return dict(explanation["importance"]) if explanation else {}

    @property
    def tables(self) -> dict[str, Table]:
        """The tables that the run published, by name."""
        return {record["name"]: Table(self._store, record) for record in self.manifest["tables"]}

    def table(self, name: str) -> Table:
        """A table at the version that this run made."""
        tables = self.tables
        if name not in tables:
            raise RequestError(
                f"Run {self.id} has no table '{name}'. Tables: [{listed(tables)}].{did_you_mean(name, tables)}"
            )
        return tables[name]

    def lineage(self, row_id: object, table: str | None = None) -> Lineage:
        """A row, by its id, from its prediction back to the raw row in its file; see `treadle.jobs.lineage.rows`."""
        from treadle.jobs.lineage.rows import lineage_of

        return lineage_of(self, row_id, table)

    @property
    def is_current(self) -> bool:
        """Whether its tables and its model are those that readers see, and are whole."""
        from treadle.engine import delta
        from treadle.engine.bundle import is_sound, versions

        try:
            for table in self.tables.values():
                head = delta.open_table(self._store.fs, table.path)
                if head.version() != table.version or not all(map(self._store.fs.exists, delta.data_files(head))):
                    return False
        except TreadleError:
            return False
        if self.manifest["model"] is None:
            return True
        name, _, version = self.manifest["model"].rpartition(":")
        return versions(self._store, name)[-1:] == [int(version)] and is_sound(self._store, name, int(version))

    @property
    def model(self) -> Bundle:
        """The best model, with the operations that turn raw rows into its features."""
        from treadle.engine.bundle import load_bundle

        if self.manifest["model"] is None:
            raise RequestError(f"Run {self.id} trained no model: its spec has none, or it did not succeed.")
        name, _, version = self.manifest["model"].rpartition(":")
        return load_bundle(self._store, name, int(version))


def load_run(root: str, run_id: str) -> Run:
    """A run by its id, or by the start of it when that is enough."""
    store = Store(root)
    ids = [name for name in store.list("runs") if name.startswith(run_id)]
    if run_id in ids:
        ids = [run_id]
    if len(ids) != 1:
        everything = store.list("runs")
        found = (
            f"{len(ids)} runs start with '{run_id}': [{listed(ids)}]"
            if ids
            else f"There is no run '{run_id}' under {root}"
        )
        raise RequestError(f"{found}. Newest: [{listed(everything[::-1], 5)}].{did_you_mean(run_id, everything)}")
    if not store.exists(f"runs/{ids[0]}/manifest.json"):
        raise RequestError(
            f"Run {ids[0]} has no manifest: it was interrupted, and published nothing. Run its spec again to go on."
        )
    return Run(store, store.read_json(f"runs/{ids[0]}/manifest.json"))


def list_runs(root: str) -> list[dict[str, Any]]:
    """Every run under a root, newest first: run, job, status, started, seconds, model and best metric.

    One without a readable manifest was interrupted, and is `unfinished`.
    """
    store = Store(root)
    rows = []

    def read(run_id: str) -> Any:
        with contextlib.suppress(StorageError):
            return store.read_json(f"runs/{run_id}/manifest.json")

    ids = store.list("runs")
    with ThreadPoolExecutor(THREADS) as pool:  # an object store answers many at a time as soon as one
        manifests = list(pool.map(read, ids))
    for run_id, manifest in zip(ids, manifests, strict=True):
        if manifest is None:
            job = run_id.rsplit("-", 3)[0]
            rows.append(
                {
                    "run": run_id,
                    "job": job,
                    "status": "unfinished",
                    "started": None,
                    "seconds": None,
                    "model": None,
                    "best": None,
                }
            )
            continue
        evaluation = manifest["results"].get("evaluate")
        best = None
        if evaluation:
            best = f"{evaluation['best']} {evaluation['metric']}={evaluation['rows'][0][evaluation['metric']]:.4f}"
        rows.append(
            {
                **{k: manifest[k] for k in ("run", "job", "status", "started", "seconds", "model")},
                "best": best,
            }
        )
    return sorted(rows, key=lambda row: row["started"] or "", reverse=True)
