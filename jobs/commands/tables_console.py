"""What a terminal shows of versions of tables."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.table import Table

from treadle.errors import listed
from treadle.jobs.commands.console import out

if TYPE_CHECKING:
    from treadle.engine.table_diff import TableDiff
    from treadle.jobs.tables.diff import Diff, MetricChange, TablePair
    from treadle.jobs.tables.rollback import RolledBack

MOST_COLUMNS = 20
"""Of a table that are shown one by one."""


def show_tables(rows: Sequence[Mapping[str, Any]], root: str) -> None:
    """The tables under a root."""
    if not rows:
        out.print(f"No tables under {root} yet.")
        return
    table = _columns("table", "version", "rows", "size", "files", "versions", "run of the newest", "time")
    for row in rows:
        if row["error"]:
            table.add_row(row["table"], "", "", "", "", "", row["error"])
        else:
            size, time = _size(row["bytes"]), _time(row["time"])
            numbers = (row["version"], f"{row['rows']:,}", size, row["files"], row["versions"])
            table.add_row(row["table"], *map(str, numbers), row["run"] or "", time)
    out.print(table)


def show_history(found: Mapping[str, Any]) -> None:
    """The versions of a table, the newest first."""
    versions = found["versions"]
    table = _columns("version", "rows added", "time", "run", "spec", "columns", "manifest", title=found["table"])
    for row in versions:
        made = row["manifest"] or "no manifest"
        named = "yes" if made == row["run"] else made
        run = row["run"] or row["operation"]
        cells = (_time(row["time"]), run, row["spec"] or "", row["schema"], named)
        table.add_row(str(row["version"]), f"{row['rows_added']:,}", *cells)
    out.print(table)
    if older := found["total"] - len(versions):
        out.print(f"{older:,} of {found['total']:,} versions are not shown; --limit shows more.")


def show_diff(found: Diff) -> None:
    """What differs, table by table."""
    for pair in found.tables:
        _pair(pair)
    for run, names in ((found.left, found.only_left), (found.right, found.only_right)):
        if names:
            out.print(f"\nOnly run {run} has: {', '.join(names)}")


def _pair(pair: TablePair) -> None:
    diff = pair.diff
    out.print(f"\n{pair.left} -> {pair.right}: {_summary(diff)}")
    for name, type_ in diff.schema.added.items():
        out.print(f"  + column {name} {type_}")
    for name, type_ in diff.schema.removed.items():
        out.print(f"  - column {name} {type_}")
    for name, (before, after) in diff.schema.retyped.items():
        out.print(f"  ~ column {name} {before} -> {after}")
    for sign, count, keys in (
        ("-", diff.only_left, diff.only_left_examples),
        ("+", diff.only_right, diff.only_right_examples),
    ):
        if count:
            more = ", ..." if count > len(keys) else ""
            out.print(f"  {sign} {_rows(count)}: {', '.join(map(_key, keys))}{more}")
    compared = {change.metric for change in pair.metrics}
    columns = [column for column in diff.columns if column.name not in compared]
    if columns:
        table = _columns("column", "changed", "largest", "for example")
        for column in columns[:MOST_COLUMNS]:
            first = column.examples[0]
            largest = "" if column.largest is None else f"{column.largest:.6g}"
            example = f"{_key(first.key)}: {_value(first.left)} -> {_value(first.right)}"
            table.add_row(column.name, f"{column.changed:,}", largest, example)
        out.print(table)
    if others := columns[MOST_COLUMNS:]:
        out.print(f"  changed, too: {listed(column.name for column in others)}")
    if diff.not_compared:
        out.print(f"  not compared: {', '.join(diff.not_compared)}")
    changes = [change for change in pair.metrics if change.better is not None]
    if changes:
        _metrics(changes)


def _summary(diff: TableDiff) -> str:
    rows = _rows(diff.left_rows)
    if diff.same:
        return f"the same, {rows}"
    if diff.left_rows != diff.right_rows:
        rows += f" -> {diff.right_rows:,}"
    if diff.said:
        return f"{rows}; rows were not paired: {diff.said}"
    by = f"by {', '.join(diff.key)}" if diff.key else "whole rows"
    found = f"{diff.only_left:,} gone, {diff.only_right:,} new, {diff.changed:,} changed ({by})"
    return f"{rows}; {found}"


def _rows(count: int) -> str:
    return "1 row" if count == 1 else f"{count:,} rows"


def _metrics(changes: Sequence[MetricChange]) -> None:
    table = Table("model", "metric", title="Metrics", title_justify="left")
    for name in ("old", "new", "difference"):
        table.add_column(name, justify="right")
    table.add_column("")
    for change in changes:
        values = (change.old, change.new, change.difference)
        shown = ["" if value is None else f"{value:.4f}" for value in values[:2]]
        table.add_row(change.model, change.metric, *shown, f"{values[2]:+.2g}", "better" if change.better else "worse")
    out.print(table)


def show_rollback(done: RolledBack) -> None:
    """What is current now."""
    if not done.changed:
        out.print(f"What run {done.of} published is current already; nothing was changed.")
        return
    table = Table("table", "version of the run", "was current", "is current", title_justify="left")
    table.title = f"Run {done.run}: what run {done.of} published is current again"
    for row in done.tables:
        table.add_row(row["table"], *(str(row[name]) for name in ("version", "before", "now")))
    out.print(table)
    if done.model["now"]:
        out.print(f"Model {done.model['now']}, with the content of {done.model['version']}")
    if done.left:
        out.print(f"As they were, because the run did not publish them: {', '.join(done.left)}")


def _columns(*names: str, title: str | None = None) -> Table:
    """A table whose columns of numbers are to the right."""
    numbers = {"version", "rows", "size", "files", "versions", "rows added", "changed", "largest"}
    table = Table(title=title, title_justify="left")
    for name in names:
        table.add_column(name, justify="right" if name in numbers else "left")
    return table


def _key(key: Mapping[str, Any]) -> str:
    return " ".join(f"{name}={_value(value)}" for name, value in key.items())


def _value(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, float) and math.isfinite(value):
        return f"{value:.6g}"
    text = str(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _time(time: str | None) -> str:
    return "" if time is None else time[:19].replace("T", " ")


def _size(size: int) -> str:
    for unit, bytes_ in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if size >= bytes_:
            return f"{size / bytes_:.1f} {unit}"
    return f"{size} B"
