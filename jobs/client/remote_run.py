"""A finished run whose files are not here: what it made comes over HTTP."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NoReturn

from treadle.errors import RequestError, StorageError, TreadleError
from treadle.jobs.run import Run, Table

if TYPE_CHECKING:
    import pyarrow as pa

    from treadle.engine.bundle import Bundle
    from treadle.jobs.service.views import JobView

type Fetch = Callable[[str, list[str] | None], bytes]
"""A table's rows as an Arrow IPC stream, by its name and columns."""


class RemoteTable(Table):
    """One version of a table of a run, at the service."""

    def __init__(self, fetch: Fetch, root: str, record: Mapping[str, Any]) -> None:
        self._fetch = fetch
        self.name = record["name"]
        self.version = record["version"]
        self.rows = record["rows"]
        self.path = f"{root}/{record['path']}"

    def files(self) -> NoReturn:
        """There are none here."""
        raise RequestError(
            f"The files of table '{self.name}' are not here, but in {self.path} of the service's machine. "
            "Use to_arrow or to_pandas, which bring the rows."
        )

    @property
    def schema(self) -> pa.Schema:
        """Names and types of its columns."""
        return self.to_arrow().schema

    def missing_files(self) -> NoReturn:
        """There are none here."""
        self.files()

    def where(self, column: str, value: pa.Scalar) -> pa.Table:
        """The rows whose `column` is `value`, in their order; all rows come for it."""
        import pyarrow.compute as pc

        return self.to_arrow().filter(pc.field(column) == value)

    def batches(self, columns: list[str] | None = None) -> Iterator[pa.RecordBatch]:
        """The rows in the same order; they come all at once."""
        import pyarrow as pa

        rows = self.to_arrow(columns)
        yield pa.RecordBatch.from_pylist([], rows.schema)
        yield from rows.to_batches()

    def to_arrow(self, columns: list[str] | None = None) -> pa.Table:
        """The rows, in the order of the partitions."""
        import pyarrow as pa

        try:
            with pa.ipc.open_stream(self._fetch(self.name, columns)) as reader:
                found = reader.read_all()
        except pa.ArrowInvalid as error:
            raise StorageError(f"Table '{self.name}' came damaged from the service ({error}); ask again.") from error
        if found.num_rows != self.rows:
            raise StorageError(f"Of table '{self.name}' {found.num_rows} of {self.rows} rows came; ask again.")
        return found


class RemoteRun(Run):
    """A finished run, asked of the service; its tables block while they come."""

    def __init__(self, fetch: Fetch, root: str, manifest: Mapping[str, Any]) -> None:
        self._fetch, self._root = fetch, root
        self.manifest = manifest
        self.id = manifest["run"]

    @property
    def tables(self) -> dict[str, Table]:
        """The tables that the run published, by name."""
        return {one["name"]: RemoteTable(self._fetch, self._root, one) for one in self.manifest["tables"]}

    @property
    def model(self) -> Bundle:
        """It is not here."""
        raise RequestError(
            f"The model of run {self.id} is not here, but under {self._root} of the service's machine. "
            "Share that folder or use an object store as artifacts.root, or predict there: treadle predict."
        )

    def lineage(self, row_id: object, table: str | None = None) -> NoReturn:
        """Neither its tables nor its inputs are here."""
        raise RequestError(
            f"The tables and inputs of run {self.id} are not here, but where its service runs, under {self._root}; "
            "ask there: treadle lineage."
        )

    @property
    def store(self) -> NoReturn:
        """It is not here."""
        raise RequestError(f"The artifacts of run {self.id} are not here, but under {self._root} of the service.")

    def path(self, relative: str) -> str:
        return f"{self._root}/{relative}"


def run_of(view: JobView, manifest: Mapping[str, Any], fetch: Fetch) -> Run:
    """The run of a job: with all its files when these can be read from here, else over HTTP."""
    from treadle.jobs.run import load_run

    # Whatever keeps a root from being read from here, a missing library or permission, HTTP serves.
    with contextlib.suppress(TreadleError, OSError, ImportError):
        found = load_run(view.root, manifest["run"])
        if found.id == manifest["run"]:
            return found
    return RemoteRun(fetch, view.root, manifest)
