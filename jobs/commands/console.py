"""What a terminal shows: progress while a job runs, and tables of its outcome."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, Progress, Task, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from treadle.errors import listed

if TYPE_CHECKING:
    from treadle.engine.events import Listener
    from treadle.jobs.doctor import Diagnosis
    from treadle.jobs.parity_lines import Parity
    from treadle.jobs.plan import Plan
    from treadle.jobs.run import Run

TOP_FEATURES = 10
METRICS = ("auc", "average_precision", "accuracy", "f1", "log_loss", "brier", "rmse", "mae", "r2")
PIPE_WIDTH = 140
"""Columns when the output is no terminal: wide enough for a leaderboard."""
out = Console(
    highlight=False, markup=False, emoji=False, soft_wrap=True, width=None if sys.stdout.isatty() else PIPE_WIDTH
)


@contextlib.contextmanager
def listener(silent: bool) -> Iterator[Listener | None]:
    """A listener for progress events: bars on a terminal, a line a stage elsewhere, None when silent."""
    if silent:
        yield None
    elif sys.stderr.isatty():
        with Progress(
            TextColumn("{task.description:<28}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[note]}"),
            _Running(),
            console=Console(stderr=True, highlight=False),
        ) as progress:
            yield _Bars(progress)
    else:
        yield _line


class _Running(TimeElapsedColumn):
    """Elapsed time of a stage that runs; a finished one says in its note what it took."""

    def render(self, task: Task) -> Text:
        return Text("") if task.finished else super().render(task)


class _Bars:
    """One bar a stage."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._tasks: dict[str, TaskID] = {}

    def __call__(self, event: dict[str, Any]) -> None:
        stage = event["stage"]
        if stage not in self._tasks:
            self._tasks[stage] = self._progress.add_task(stage, total=None, note="")
        task = self._tasks[stage]
        if event["event"] == "progress":
            self._progress.update(
                task, completed=event["done"], total=event["total"] or None, note=_progress_note(event)
            )
        elif event["event"] in ("finished", "cached"):
            self._progress.update(task, total=1, completed=1, note=_end_note(event))
            self._progress.stop_task(task)
        elif event["event"] == "failed":
            self._progress.update(task, note="failed")
            self._progress.stop_task(task)


def _line(event: dict[str, Any]) -> None:
    if event["event"] in ("finished", "cached", "failed"):
        note = "failed" if event["event"] == "failed" else _end_note(event)
        print(f"{event['stage']:<28} {note}", file=sys.stderr, flush=True)


def _progress_note(event: Mapping[str, Any]) -> str:
    if event.get("note"):
        return str(event["note"])
    rows = f", {event['rows']:,} rows" if event.get("rows") is not None else ""
    return f"{event['done']}/{event['total']} partitions{rows}" if event["total"] else f"{event['done']} tables"


def _end_note(event: Mapping[str, Any]) -> str:
    if event["event"] == "cached":
        return "cached"
    if event["stage"] == "cluster":
        where = "on GPUs" if event["device"] == "cuda" else "on the CPU"
        dashboard = f"; dashboard {event['dashboard']}" if event["dashboard"] else ""
        return f"ready {where} ({event['device_reason']}){dashboard}"
    peak = f", peak {_size(event['peak_bytes'])}" if event.get("peak_bytes") else ""
    on_gpu = f", on a GPU {_size(event['device_peak_bytes'])}" if event.get("device_peak_bytes") is not None else ""
    return f"{event['wall_seconds']:.1f} s{peak}{on_gpu}"


def show_run(run: Run, full: bool) -> None:
    """The outcome of a run; `full` adds the cost of each stage."""
    manifest = run.manifest
    results = manifest["results"]
    out.print(f"\nRun {run.id}: {run.status} in {manifest['seconds']:.1f} s")
    if "rollback_of" in manifest:
        out.print(f"  a rollback: what run {manifest['rollback_of']} published is current again")
    if manifest["error"]:
        out.print(f"  {manifest['error']}")
    if "contract" in results:
        _contract(results["contract"]["verdicts"], full)
    if "evaluate" in results:
        _leaderboard(results["evaluate"], len(results["folds"]["rows"]) if "folds" in results else None)
    if mixture := results.get("ensemble", {}).get("ensemble"):
        out.print(f"ensemble ({mixture['kind']}): {_mixture(mixture)}")
    if run.importance:
        top = list(run.importance.items())[:TOP_FEATURES]
        table = Table(
            "feature",
            "mean |contribution|",
            title=f"Top features of {results['evaluate']['best']}",
            title_justify="left",
        )
        for name, value in top:
            table.add_row(name, f"{value:.4f}")
        out.print(table)
    if full:
        _stages(manifest)
    if manifest["tables"]:
        table = Table("table", "version", "rows", "path", title="Written", title_justify="left")
        for record in run.tables.values():
            table.add_row(record.name, str(record.version), f"{record.rows:,}", record.path)
        out.print(table)
    if manifest["model"]:
        out.print(f"Model {manifest['model']}: {run.path(f'models/{manifest["model"].replace(":", "/")}')}")
    for text in manifest.get("fell_back", ()):
        out.print(f"Fell back: {text}")
    for text in manifest["warnings"]:
        out.print(f"warning: {text}")
    out.print(f"Manifest: {run.path(f'runs/{run.id}/manifest.json')}")


def _contract(verdicts: Sequence[Mapping[str, Any]], full: bool) -> None:
    """How many expectations are met, and those that are not; all of them when `full`."""
    passed = sum(verdict["status"] == "passed" for verdict in verdicts)
    title = f"Contract: {passed} of {len(verdicts)} expectations are met"
    table = Table("expectation", "status", "rows that break it", "measured", title=title, title_justify="left")
    for verdict in verdicts:
        if full or verdict["status"] != "passed":
            rows = "" if verdict["violations"] is None else f"{verdict['violations']:,} of {verdict['rows']:,}"
            measured = ", ".join(f"{key} {value}" for key, value in verdict["measured"].items())
            table.add_row(verdict["name"], verdict["status"], rows, measured)
    if table.row_count:
        out.print(table)
    else:
        out.print(title)


def _leaderboard(evaluation: Mapping[str, Any], folds: int | None) -> None:
    from treadle.engine.job import THRESHOLD

    where = "on the test rows" if folds is None else f"mean of {folds} folds"
    rows: Sequence[Mapping[str, Any]] = evaluation["rows"]
    shown = [m for m in METRICS if any(row.get(m) is not None for row in rows)]
    thresholds: Mapping[str, float] = evaluation.get("thresholds", {})
    decided = any(threshold != THRESHOLD for threshold in thresholds.values())
    table = Table(title=f"Leaderboard by {evaluation['metric']}, {where}", title_justify="left")
    table.add_column("model")
    for name in [*shown, *(["threshold"] if decided else []), "train s"]:
        table.add_column(name, justify="right")
    for row in rows:
        if row["error"]:
            table.add_row(row["model"], f"failed: {row['error']}")
        else:
            values = [row.get(m) for m in shown] + ([thresholds.get(row["model"])] if decided else [])
            table.add_row(row["model"], *map(_number, values), f"{row['train_seconds']:.1f}")
    out.print(table)
    if held_out := evaluation.get("held_out"):
        measured = ", ".join(f"{name} {_number(held_out[name])}" for name in shown if name in held_out)
        out.print(f"{evaluation['best']}, trained on all training rows, on the test rows: {measured}")


def _mixture(mixture: Mapping[str, Any]) -> str:
    """What an ensemble is made of: weights, or the meta model's coefficients where each member has one."""
    members: Sequence[str] = mixture["members"]
    if mixture["weights"]:
        return ", ".join(f"{w:.2f} {title}" for w, title in zip(mixture["weights"], members, strict=True))
    coefficients = mixture["coefficients"]
    if len(coefficients) > 1:
        return f"a linear model of the log-odds of each class by {', '.join(members)}"
    terms = [f"{c:.2f} {title}" for c, title in zip(coefficients[0], members, strict=True)]
    return " + ".join([*terms, f"{mixture['intercept'][0]:.2f}"]).replace("+ -", "- ")


def _stages(manifest: Mapping[str, Any]) -> None:
    table = Table("stage", "status", title="Stages", title_justify="left")
    on_gpus = {"GPU peak": "device_peak_bytes", "GPU in use": "device_used_bytes"}
    known = {field for record in manifest["stages"] for field, value in record.items() if value is not None}
    memory = {"peak": "peak_bytes", **{title: field for title, field in on_gpus.items() if field in known}}
    for name in ("wall s", "CPU s", *memory):
        table.add_column(name, justify="right")
    for record in manifest["stages"]:
        if record["status"] == "cached":
            table.add_row(record["stage"], "cached")
        else:
            sizes = (record.get(field) for field in memory.values())
            cost = (
                f"{record['wall_seconds']:.2f}",
                f"{record['cpu_seconds']:.2f}",
                *("" if size is None else _size(size) for size in sizes),
            )
            table.add_row(record["stage"], record["status"], *cost)
    out.print(table)


def show_plan(plan: Plan) -> None:
    """Stages and what is known of their size."""
    described = plan.describe()
    out.print(
        f"Job {plan.spec.name}, on {plan.device} ({plan.device_reason}), artifacts in {plan.root}",
    )
    rows = "rows not counted yet" if plan.rows is None else f"{plan.rows:,} rows in {plan.partitions} partitions"
    found = plan.inputs.main
    out.print(f"Input: {_files(len(found.files), found.format, found.version)}, {rows}")
    for text in found.warnings:
        out.print(f"warning: {text}")
    table = Table("stage", "fingerprint", "status", "why")
    for stage in described["stages"]:
        table.add_row(stage["stage"], stage["fingerprint"], stage["status"], stage["why"] or "")
    out.print(table)
    if plan.features:
        out.print(f"Features known so far: {len(plan.features)}")
    if plan.memory:
        memory = plan.memory
        parts = {
            "a partition": memory.partition,
            "a bucket of rows by key": memory.bucket,
            "of tables on every worker": memory.broadcast,
            "of features": memory.features,
        }
        said = ", ".join(f"{_size(size)} {what}" for what, size in parts.items() if size)
        limit = f" of {_size(memory.worker_limit)}" if memory.worker_limit else ""
        out.print(f"Estimated memory: {said}; peak {_size(memory.worker_peak)}{limit} a worker")
        if plan.placement:
            out.print(f"Comparing models: {plan.placement}")
        for place, titles in plan.training.items():
            out.print(f"Training {place}: {listed(titles, 30)}")
        if memory.exchanged:
            out.print(f"Estimated disk for rows on their way to those of the same key: {_size(memory.exchanged)}")


def _files(count: int, format_: str, version: int | None) -> str:
    return f"{count} {format_} files" + ("" if version is None else f" of version {version}")


def show_check(found: Mapping[str, Any]) -> None:
    """A spec that fits its input."""
    rows = f"{found['rows']:,} rows" if found["rows"] is not None else "rows not counted"
    out.print(
        f"{found['spec']}: the spec fits its input "
        f"({_files(found['files'], found['format'], found['version'])}, {rows})",
    )
    for text in found["warnings"]:
        out.print(f"warning: {text}")
    table = Table("column", "kind in the input", "kind after tables")
    for name in dict.fromkeys([*found["columns"], *found["rows_after_tables"]]):
        table.add_row(name, found["columns"].get(name, ""), found["rows_after_tables"].get(name, ""))
    out.print(table)
    if found["contract"]:
        out.print(f"Contract: {len(found['contract'])} expectations, of columns and types that the input has")
    if found["target"]:
        out.print(f"Target: {found['target']}")


def show_runs(rows: Sequence[Mapping[str, Any]], root: str) -> None:
    """The list of runs."""
    if not rows:
        out.print(f"No runs under {root} yet.")
        return
    table = Table("run", "job", "status", "started", "seconds", "model", "best")
    for row in rows:
        seconds = "" if row["seconds"] is None else f"{row['seconds']:.1f}"
        cells = (
            row["run"],
            row["job"],
            row["status"],
            (row["started"] or "")[:19],
            seconds,
            row["model"] or "",
            row["best"] or "",
        )
        table.add_row(*cells)
    out.print(table)


def show_predicted(done: Mapping[str, Any]) -> None:
    """The outcome of a batch prediction."""
    out.print(f"{done['model']}: {done['rows_predicted']:,} of {done['rows_read']:,} rows predicted")
    for text in done["left_out"]:
        out.print(f"left out, because it needs the target: {text}")
    for name, rows in done["contract"].items():
        if rows:
            out.print(f"warning: {rows:,} of {done['rows_read']:,} rows break {name}")
    for table in done["written"]:
        version = f" version {table['version']}" if "version" in table else ""
        out.print(f"  {table['path']}{version}: {table['rows']:,} rows")


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _size(n: int) -> str:
    return f"{n / 2**30:.2f} GiB" if n >= 2**30 else f"{n / 2**20:.0f} MiB"


def show_diagnosis(found: Diagnosis, device: str) -> None:
    """What was looked at, with what to do about each problem, and what jobs would run on."""
    for title, checks in (("Every job", found.checks), ("Jobs on GPUs", (*found.gpu.checks, found.proof))):
        table = Table("", "check", "found", "what to do", title=title, title_justify="left")
        for check in checks:
            table.add_row({True: "ok", False: "no", None: "?"}[check.ok], check.name, check.found, check.remedy)
        out.print(table)
    failed = found.failed(device)
    if failed:
        out.print(f"A job with device: {device} cannot run here: {failed[0].found}.")
    elif device == "auto":
        check = found.gpu.problem or found.proof
        out.print(f"A job with device: auto runs on {'the GPUs' if check.ok else 'the CPU'}: {check.found}.")
    else:
        out.print(f"A job with device: {device} can run here.")


def show_parity(found: Parity) -> None:
    """Stage by stage: seconds on both, the largest difference, what was not covered."""
    table = Table("", "stage", "CPU s", "device s", "difference", "", title_justify="left")
    table.title = f"Run {found.run} on the CPU and on {found.device}"
    for line in found.lines:
        seconds = ["" if s is None else f"{s:.2f}" for s in (line.cpu_seconds, line.device_seconds)]
        difference = "" if line.difference is None else f"{line.difference:.1e}"
        state = {True: "ok", False: "NO", None: "-"}[line.right]
        table.add_row(state, line.stage, *seconds, difference, line.said)
    out.print(table)
    for line in found.lines:
        for text in line.faults:
            out.print(f"{line.stage}: {text}")
    for line in found.lines:
        for text in line.fell_back:
            out.print(f"fell back to the host: {line.stage}: {text}")
    if found.not_covered:
        out.print(f"Not covered: {found.not_covered}.")
    if found.kept:
        out.print(f"Both runs lie under {found.kept}.")
