"""What a terminal shows of the jobs of a service."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from rich.table import Table

from treadle.jobs.commands.console import out

if TYPE_CHECKING:
    from treadle.jobs.service.views import JobDetails, JobView, ScheduleView


def show_line(view: JobView) -> None:
    """A job in a line."""
    out.print(f"{view.id}  {view.state.value}: {view.reason}")


def show_jobs(views: Sequence[JobView], url: str) -> None:
    """The list of jobs."""
    if not views:
        out.print(f"No such jobs at {url}.")
        return
    table = Table("job", "state", "user", "priority", "created", "seconds", "reason")
    for view in views:
        table.add_row(
            view.id, view.state.value, view.user, str(view.priority), _when(view.created), _took(view), view.reason
        )
    out.print(table)


def show_job(view: JobDetails, stages: Mapping[str, str]) -> None:
    """A job, the steps of its life, and what last happened to each stage."""
    show_line(view)
    limit = "" if view.timeout is None else f", of at most {view.timeout:g} s"
    facts = {
        "submitted": f"{_when(view.created)} by {view.user}, priority {view.priority}",
        "as": view.submission_id,
        "by schedule": view.schedule,
        "after": ", ".join(view.after),
        "attempt": f"{view.attempt} of at most {view.retries + 1}{limit}" if view.attempt else None,
        "next attempt": _when(view.not_before) if view.not_before else None,
        "took": f"{_took(view)} s" if view.finished and view.started else None,
        "artifacts": view.root,
        "run": view.run,
    }
    for name, fact in facts.items():
        if fact:
            out.print(f"  {name:<13} {fact}")
    steps = Table("time", "state", "reason")
    for step in view.transitions:
        steps.add_row(_when(step.time), step.after.value, step.reason)
    out.print(steps)
    if stages:
        table = Table("stage", "event")
        for stage, event in stages.items():
            table.add_row(stage, event)
        out.print(table)


def show_schedules(schedules: Iterable[ScheduleView]) -> None:
    """The list of schedules."""
    table = Table("schedule", "cron", "time zone", "job", "user", "last", "next")
    for one in schedules:
        last = _when(one.last) if one.last else ""
        table.add_row(one.name, one.cron, one.timezone, str(one.spec.get("name")), one.user, last, _when(one.next))
    out.print(table if table.row_count else "There are no schedules.")


def _when(time: datetime) -> str:
    return time.isoformat(sep=" ", timespec="seconds")


def _took(view: JobView) -> str:
    """Seconds of the newest attempt, once it is done."""
    if view.started is None or view.finished is None:
        return ""
    return f"{(view.finished - view.started).total_seconds():.1f}"
