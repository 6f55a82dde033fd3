"""What notebooks show of runs and jobs; every text is escaped."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from treadle.jobs.run import Run
    from treadle.jobs.service.views import JobView

NOT_METRICS = ("rows_used", "train_seconds", "predict_seconds", "peak_bytes", "error")


def run_html(run: Run) -> str:
    """A run: what became of it, its leaderboard, its tables."""
    manifest = run.manifest
    seconds = "" if manifest["seconds"] is None else f" in {manifest['seconds']:.1f} s"
    parts = [f"<p><b>Run {escape(run.id)}</b>: {escape(run.status)}{seconds}</p>"]
    if manifest["error"]:
        parts.append(f"<p>{escape(str(manifest['error']))}</p>")
    parts.append(leaderboard_html(manifest))
    if manifest["tables"]:
        rows = [(table.name, table.version, f"{table.rows:,}", table.path) for table in run.tables.values()]
        parts.append(table_html(("table", "version", "rows", "path"), rows))
    return "".join(parts)


def job_html(view: JobView, stages: Sequence[tuple[str, str]], manifest: Mapping[str, Any] | None) -> str:
    """A job: its state and why, what became of each stage, the leaderboard when there is one."""
    parts = [f"<p><b>Job {escape(view.id)}</b>: {escape(str(view.state))}. {escape(view.reason)}</p>"]
    if stages:
        parts.append(table_html(("stage", "event"), stages))
    if manifest is not None:
        parts.append(leaderboard_html(manifest))
    return "".join(parts)


def leaderboard_html(manifest: Mapping[str, Any]) -> str:
    """The leaderboard of a manifest, with the metrics that any model has; empty when there is none."""
    evaluation = manifest["results"].get("evaluate")
    if not evaluation:
        return ""
    board: Sequence[Mapping[str, Any]] = evaluation["rows"]
    names = dict.fromkeys(name for row in board for name in row if name != "model" and name not in NOT_METRICS)
    metrics = [name for name in names if any(isinstance(row.get(name), int | float) for row in board)]
    rows = [
        (row["model"], *(f"failed: {row['error']}" if row.get("error") else number(row.get(name)) for name in metrics))
        for row in board
    ]
    return table_html(("model", *metrics), rows)


def number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def table_html(head: Iterable[object], rows: Iterable[Iterable[object]]) -> str:
    """A plain table."""

    def line(cells: Iterable[object], tag: str) -> str:
        return f"<tr>{''.join(f'<{tag}>{escape(str(cell))}</{tag}>' for cell in cells)}</tr>"

    body = "".join(line(row, "td") for row in rows)
    return f"<table><thead>{line(head, 'th')}</thead><tbody>{body}</tbody></table>"
