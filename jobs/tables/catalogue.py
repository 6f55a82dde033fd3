"""Published tables as their users name them: what there is, versions and who made them.

A table is named `job/table`, or `table` where only one job has it; `@3` after it names a version, `@adult-2026` the
one that a run published.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from treadle.engine import delta
from treadle.engine.delta_log import Commit, columns_of, commits, contents, versions
from treadle.engine.publication import versions_before
from treadle.engine.store import Store
from treadle.engine.table_diff import SchemaDiff, schema_diff
from treadle.errors import RequestError, StorageError, TreadleError, did_you_mean, listed
from treadle.jobs.run import Table, load_run
from treadle.jobs.spec import root_of

LIMIT = 20
"""Versions that a history shows when nobody says."""


@dataclass(frozen=True)
class Address:
    """A version of a table under a root."""

    job: str
    name: str
    version: int | None
    """None: the current one."""

    @property
    def table(self) -> str:
        return f"{self.job}/{self.name}"

    @property
    def path(self) -> str:
        """Relative to the root."""
        return f"tables/{self.table}"


def open_table(table: str, root: str | None = None) -> Table:
    """A version of a published table: `adult/predictions`, `adult/predictions@3`, `predictions@adult-2026`.

    Parameters
    ----------
    table
        `job/table`, or `table` where only one job has it; then `@` and a version, a run id or the start of one.
        Without these, the current version.
    root
        The artifacts root; else TREADLE_ROOT, else `artifacts`.

    Raises
    ------
    RequestError
        There is no such table, version or run; the message names those that there are.
    """
    store = Store(root_of(root))
    return table_at(store, find(store, table))


def table_at(store: Store, address: Address) -> Table:
    """The version at an address, its number of rows read from the log."""
    opened = delta.open_table(store.fs, store.path(address.path), address.version)
    record = {"name": address.name, "path": address.path, "version": opened.version(), "rows": contents(opened).rows}
    return Table(store, record)


def tables_of(store: Store) -> list[tuple[str, str]]:
    """Job and name of every table under a root."""
    found = [(job, name) for job in store.list("tables") for name in store.list(f"tables/{job}")]
    return [(job, name) for job, name in found if store.fs.isdir(store.path(f"tables/{job}/{name}/_delta_log"))]


def find(store: Store, text: str) -> Address:
    """The address that `job/table@version`, `table@run` and so on mean.

    Raises
    ------
    RequestError
        There is no such table, several jobs have one of this name, or the run did not publish it.
    """
    table, at, chosen = text.partition("@")
    if at and not chosen:
        raise RequestError(f"'{text}': after the @ comes a version, such as {table}@3, or the id of a run.")
    job, slash, name = table.rpartition("/")
    if chosen and not (chosen.isascii() and chosen.isdigit()):
        run = load_run(store.url, chosen)
        if slash and job != run.job:
            raise RequestError(f"'{text}': run {run.id} is of job '{run.job}', and not of '{job}'.")
        return Address(run.job, name, run.table(name).version)
    there = tables_of(store)
    found = [one for one in there if one[1] == name and (not slash or one[0] == job)]
    if not found:
        names = [f"{one[0]}/{one[1]}" for one in there]
        near = did_you_mean(table, names if slash else [*dict.fromkeys(one[1] for one in there)])
        raise RequestError(f"There is no table '{table}' under {store.url}. Tables: [{listed(names)}].{near}")
    if len(found) > 1:
        named = listed(f"{one[0]}/{one[1]}" for one in found)
        raise RequestError(f"Several jobs have a table '{table}': [{named}]; name one of them so.")
    return Address(*found[0], int(chosen) if chosen else _visible(store, *found[0]))


def _visible(store: Store, job: str, name: str) -> int | None:
    """The version that readers should see while a publication is going on; None: the newest."""
    before = versions_before(store, job)
    if name in before and before[name] is None:
        raise RequestError(f"Table '{job}/{name}' is being published for the first time; wait for its run to end.")
    return before.get(name)


def list_tables(root: str) -> list[dict[str, Any]]:
    """Every table under a root: its current version, what that holds, how many there are, and the newest's run.

    Of a table that cannot be read there is an `error`, and nothing else.
    """
    store = Store(root)
    return [_listed(store, job, name) for job, name in tables_of(store)]


def _listed(store: Store, job: str, name: str) -> dict[str, Any]:
    path = store.path(f"tables/{job}/{name}")
    row: dict[str, Any] = dict.fromkeys(("version", "rows", "bytes", "files", "versions", "run", "time", "error"))
    row = {"table": f"{job}/{name}", **row}
    try:
        head = delta.open_table(store.fs, path, _visible(store, job, name))
        held = contents(head)
        there = versions(store.fs, path)
        newest = commits(store.fs, path, there[-1:])
    except TreadleError as error:
        return {**row, "error": str(error)}
    row.update(version=head.version(), rows=held.rows, bytes=held.bytes, files=held.files, versions=len(there))
    for commit in newest:
        row.update(run=commit.properties.get("treadle.run"), time=commit.time)
    return row


def history(root: str, table: str, limit: int = LIMIT) -> dict[str, Any]:
    """The newest versions of a table, or the one that is named: who made each, when, what it added.

    Returns
    -------
    `table`, `path`, how many versions there are (`total`), and `versions`, the newest first. Each has `manifest`, a
    run whose manifest names it; None: a driver ended between the commit and the manifest.
    """
    store = Store(root)
    address = find(store, table)
    path = store.path(address.path)
    one = address.version if "@" in table else None
    there = versions(store.fs, path)
    if one is not None and one not in there:
        raise RequestError(
            f"Table '{address.table}' has no version {one} in its log; there are {there[0]} to {there[-1]}."
            if there
            else f"Table '{address.table}' has no versions."
        )
    wanted = there[-limit:] if one is None else [one]
    found = commits(store.fs, path, wanted)
    names = _manifests(store, address, found)
    rows = [
        {
            "version": commit.version,
            "time": commit.time,
            "operation": commit.operation,
            "run": commit.properties.get("treadle.run"),
            "spec": commit.properties.get("treadle.spec"),
            "rows_added": commit.rows_added,
            "bytes_added": commit.bytes_added,
            "files_added": commit.files_added,
            "schema": word,
            "columns": {"added": change.added, "removed": change.removed, "retyped": change.retyped},
            "manifest": names.get(commit.version),
        }
        for commit, (word, change) in zip(found, _schema_changes(store, path, found), strict=True)
    ]
    return {"table": address.table, "path": path, "total": len(there), "versions": rows[::-1]}


def _schema_changes(store: Store, path: str, found: list[Commit]) -> Iterator[tuple[str, SchemaDiff]]:
    """Of each commit a word, and what became of the columns."""
    before: Mapping[str, str] | None = None
    for commit in found:
        change = SchemaDiff()
        if commit.columns is not None and commit.version > 0:
            change = schema_diff(
                before or _columns_at(store, path, commit.version - 1) or commit.columns, commit.columns
            )
        before = commit.columns or before
        yield ("created" if commit.version == 0 else change.words), change


def _columns_at(store: Store, path: str, version: int) -> dict[str, str] | None:
    """Columns of a version; None when its log is gone."""
    import json

    try:
        return columns_of(json.loads(delta.open_table(store.fs, path, version).schema().to_json()))
    except TreadleError:
        return None


def _manifests(store: Store, address: Address, found: list[Commit]) -> dict[int, str]:
    """Version -> a run whose manifest names it: the one that made it, else the first that found it there."""
    named: dict[int, str] = {}
    wanted = {commit.version for commit in found}

    def look(run: str) -> None:
        with contextlib.suppress(StorageError):
            for record in store.read_json(f"runs/{run}/manifest.json")["tables"]:
                if record["path"] == address.path and record["version"] in wanted:
                    named.setdefault(record["version"], run)

    own = [run for commit in found if (run := commit.properties.get("treadle.run"))]
    for run in dict.fromkeys(own):
        look(run)
    for run in store.list("runs"):
        if len(named) == len(wanted):
            break
        if run not in own:
            look(run)
    return named
