"""What a terminal shows of models and promotions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from treadle.jobs.commands.console import METRICS, out

SHOWN = 3
"""Metrics of a model that are shown."""


def show_models(rows: Sequence[Mapping[str, Any]], root: str, name: str | None) -> None:
    """Models, or the versions of one."""
    if not rows:
        out.print(f"No models under {root}")
        return
    table = Table(title=f"Versions of {name}" if name else f"Models under {root}", title_justify="left")
    for title in ("model", "version", "aliases", "trained with", "metrics", "run", "created"):
        table.add_column(title, justify="right" if title == "version" else "left", overflow="fold")
    for row in rows:
        table.add_row(
            row["model"],
            str(row["version"]),
            ", ".join(
                alias if number == row["version"] else f"{alias} ({number})" for alias, number in row["aliases"].items()
            ),
            row["trained_with"],
            _metrics(row["metrics"]),
            row["run"],
            row["created"][:19].replace("T", " "),
        )
    out.print(table)


def show_recorded(recorded: Sequence[Mapping[str, Any]]) -> None:
    """What MLflow lacked."""
    for one in recorded:
        what = f"alias {one['alias']} of {one['model']}" if "alias" in one else f"run {one['run']}"
        out.print(f"Recorded {what} in {one['uri']}")
    if not recorded:
        out.print("MLflow lacked nothing")


def show_promotion(record: Mapping[str, Any], dry_run: bool) -> None:
    """The verdicts of the gates, and what became of the alias."""
    for gate in record["gates"]:
        mark = "passed" if gate["passed"] else "FAILED"
        out.print(f"{mark}  {gate['gate']}: {gate['measured']} (allowed: {gate['limit']})")
    if not record["gates"] and not record["rollback"]:
        out.print(f"No gates guard '{record['alias']}' in the spec of {record['model']}:{record['to']}")
    verb = "would lead" if dry_run else "leads"
    before = f"; before to version {record['from']}" if record["from"] is not None else ""
    forced = "; forced" if record["forced"] else ""
    out.print(f"'{record['alias']}' of {record['model']} {verb} to version {record['to']}{before}{forced}")
    if not dry_run:
        out.print(f"Record {record['promotion']}, by {record['who']}, at {record['when']}")


def _metrics(metrics: Mapping[str, Any]) -> str:
    found = [f"{name} {metrics[name]:.4f}" for name in METRICS if isinstance(metrics.get(name), float)]
    return ", ".join(found[:SHOWN])
