"""The history of a Delta table, read from its log: what each version's commit says.

`DeltaTable.history` finds nothing where the path has a '#' or '?', and says nothing of rows and columns.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import fsspec
import pyarrow as pa

from treadle.engine.store import storage_errors
from treadle.errors import StorageError

if TYPE_CHECKING:
    from deltalake import DeltaTable

_COMMIT = re.compile(r"(\d{20})\.json")


@dataclass(frozen=True)
class Commit:
    """A version of a table, as the log has it."""

    version: int
    time: str | None
    """In UTC, ISO 8601."""
    operation: str
    """As Delta calls it, e.g. WRITE."""
    properties: Mapping[str, str]
    """What its writer said of it: `treadle.run`, `treadle.spec` and so on."""
    rows_added: int
    """Of the files that it added: all rows of the version, where it replaced the one before."""
    bytes_added: int
    files_added: int
    columns: Mapping[str, str] | None
    """Name -> type, as Delta calls it, where the commit set them."""


def versions(fs: fsspec.AbstractFileSystem, path: str) -> list[int]:
    """The versions whose commits are in the log of the table at `path`, ascending; none where there is no table."""
    folder = f"{path}/_delta_log"
    fs.invalidate_cache()
    with storage_errors(folder):
        try:
            names = [str(found).rsplit("/", 1)[-1] for found in fs.ls(folder, detail=False)]
        except FileNotFoundError:
            return []
    return sorted(int(found[1]) for name in names if (found := _COMMIT.fullmatch(name)))


def entry(path: str, version: int) -> str:
    """Where the log of the table at `path` has the commit of a version."""
    return f"{path}/_delta_log/{version:020d}.json"


def commits(fs: fsspec.AbstractFileSystem, path: str, wanted: list[int]) -> list[Commit]:
    """The commits of some versions that are in the log, in that order.

    Raises
    ------
    StorageError
        A commit is gone, or is no JSON.
    """
    paths = {version: entry(path, version) for version in wanted}
    if not paths:
        return []
    with storage_errors(path):
        found = fs.cat(list(paths.values()))  # all at once, where the file system can do that
    raw = {str(key): value for key, value in found.items()}
    read = []
    for version, name in paths.items():
        try:
            read.append(_commit(version, [json.loads(line) for line in raw[name].splitlines() if line]))
        except (KeyError, ValueError, TypeError) as error:
            raise StorageError(f"{name} is damaged ({error}); the table cannot be read with it.") from error
    return read


def _commit(version: int, actions: list[dict[str, Any]]) -> Commit:
    info: dict[str, Any] = next((action["commitInfo"] for action in actions if "commitInfo" in action), {})
    added = [action["add"] for action in actions if "add" in action]
    schema = next((action["metaData"]["schemaString"] for action in actions if "metaData" in action), None)
    stamp = info.get("timestamp")
    return Commit(
        version=version,
        time=None if stamp is None else datetime.fromtimestamp(stamp / 1000, UTC).isoformat(timespec="milliseconds"),
        operation=str(info.get("operation", "")),
        properties={key: str(value) for key, value in info.items() if key.startswith("treadle.")},
        rows_added=sum(json.loads(add["stats"])["numRecords"] for add in added if add.get("stats")),
        bytes_added=sum(add["size"] for add in added),
        files_added=len(added),
        columns=None if schema is None else columns_of(json.loads(schema)),
    )


def columns_of(schema: Mapping[str, Any]) -> dict[str, str]:
    """Name -> type of a schema as Delta writes it in JSON; of a nested type only its kind."""
    return {
        field["name"]: field["type"] if isinstance(field["type"], str) else field["type"]["type"]
        for field in schema["fields"]
    }


@dataclass(frozen=True)
class Contents:
    """How much a version of a table holds."""

    rows: int
    bytes: int
    files: int


def contents(table: DeltaTable) -> Contents:
    """Of the version that is open; rows of files that tell no number count as none."""
    added = pa.table(table.get_add_actions())
    rows, sizes = added["num_records"].to_pylist(), added["size_bytes"].to_pylist()
    return Contents(sum(count or 0 for count in rows), sum(sizes), len(sizes))
