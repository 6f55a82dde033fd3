"""What a terminal shows of `treadle gc`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

from treadle.errors import listed
from treadle.jobs.commands.console import out

if TYPE_CHECKING:
    from treadle.jobs.gc import Report


def show(report: Report) -> None:
    """What went, one line a folder, and how many bytes are free now."""
    if report.removals:
        table = Table("what", "path", "why")
        table.add_column("files", justify="right")
        table.add_column("bytes", justify="right")
        for removal in report.removals:
            size = sum(file.bytes for file in removal.files)
            table.add_row(removal.what, removal.path, removal.why, f"{len(removal.files):,}", f"{size:,}")
        out.print(table)
    count = len(report.removals)
    if not count:
        out.print(f"Nothing to remove under {report.root}.")
    elif report.dry_run:
        out.print(f"{count} would go, {_bytes(report)}. Nothing was removed (--dry-run).")
    else:
        out.print(f"{count} removed, {_bytes(report)}.")
    if report.live:
        out.print(f"Spared for runs that are going on: {listed(report.live)}")
    for path, why in report.skipped.items():
        out.print(f"left alone: {path}: {why}")


def _bytes(report: Report) -> str:
    """Honest about files that other names hold, such as those of tables in the cache."""
    held = report.bytes - report.freed
    said = f"{report.freed:,} bytes free"
    return f"{said}; {held:,} more have another name, or had several" if held else said
