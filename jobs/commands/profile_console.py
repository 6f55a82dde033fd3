"""What a terminal shows of a profile: tables of columns by kind with small histograms, pairs, and what is odd."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from treadle.engine.profile.document import ColumnProfile, Profile, Value
from treadle.jobs.commands.console import out
from treadle.jobs.profile import Profiled

MEASURES = {"pearson": "Pearson", "correlation_ratio": "correlation ratio", "cramers_v": "Cramér's V"}
BLOCKS = " ▁▂▃▄▅▆▇█"
BAR = 20
"""Most characters of a histogram."""
SHOWN = 10
"""Pairs and columns that tell the target."""
TOP = 3
WIDE = 28
"""Characters of a text value."""
NOTED = 0.1
"""Weaker correlations are not shown."""


def show(found: Profiled, document: Path | None, spec: Path | None) -> None:
    """All tables, the findings, and the proposed spec, or the files that were written."""
    profile = found.profile
    path = profile.path if isinstance(profile.path, str) else ", ".join(profile.path)
    files = "1 file" if profile.files == 1 else f"{profile.files:,} files"
    out.print(f"{path}: {profile.rows:,} rows, {len(profile.columns)} columns ({files}, {profile.format})")
    _numbers([column for column in profile.columns if column.number is not None])
    _levels([column for column in profile.columns if column.kind in ("text", "bool")])
    _times([column for column in profile.columns if column.time is not None])
    _pairs(profile)
    _target(profile)
    if profile.findings:
        out.print("Findings")
        for finding in profile.findings:
            out.print(f"  {finding.message}")
    for line in found.broken:
        out.print(f"  broken: {line}")
    if document is not None:
        out.print(f"Profile: {document}")
    if spec is not None:
        out.print(f"Spec: {spec}")
    else:
        out.print(f"\nA spec to start from, which --spec FILE.yaml writes:\n\n{found.spec.rstrip()}")


def bars(counts: Sequence[int]) -> str:
    """A histogram of one line: heights in eighths, at least one where there are rows."""
    if len(counts) > BAR:
        each = -(-len(counts) // BAR)
        counts = [sum(counts[i : i + each]) for i in range(0, len(counts), each)]
    most = max(counts, default=0)
    return "".join(BLOCKS[-(-8 * count // most)] if count else BLOCKS[0] for count in counts) if most else ""


def _table(title: str, left: Sequence[str], right: Sequence[str] = (), after: Sequence[str] = ()) -> Table:
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for name in left:
        table.add_column(name, overflow="ellipsis", no_wrap=True)
    for name in right:
        table.add_column(name, justify="right", no_wrap=True)
    for name in after:
        # What is long, so that it gives way first.
        table.add_column(name, overflow="fold", no_wrap=name == "histogram")
    return table


def _nulls(column: ColumnProfile) -> str:
    return _percent(column.nulls, column.rows)


def _distinct(column: ColumnProfile) -> str:
    about = "" if column.exact else "~"
    return f"{about}{column.distinct:,}{' (all)' if column.unique != 'no' and not column.nulls else ''}"


def _numbers(columns: Sequence[ColumnProfile]) -> None:
    if not columns:
        return
    right = ("nulls", "distinct", "mean", "std", "min", "5 %", "median", "95 %", "max", "zeros")
    table = _table("Numbers", ("column", "kind"), right, ("histogram",))
    for column in columns:
        number = column.number
        assert number is not None
        quantiles = [number.quantiles[share] for share in ("0.05", "0.5", "0.95")]
        values = (number.mean, number.std, number.minimum, *quantiles, number.maximum)
        histogram = number.histogram
        shown = bars(histogram.counts) if histogram else ""
        if histogram and (histogram.below or histogram.above):
            shown = f"{'<' if histogram.below else ''}{shown}{'>' if histogram.above else ''}"
        zeros = _percent(number.zeros, column.known)
        cells = (column.name, column.kind, _nulls(column), _distinct(column), *map(_short, values), zeros, shown)
        table.add_row(*map(Text, cells))
    out.print(table)


def _levels(columns: Sequence[ColumnProfile]) -> None:
    if not columns:
        return
    table = _table("Texts and truth values", ("column", "kind"), ("nulls", "distinct", "length"), ("most frequent",))
    for column in columns:
        text, length = column.text, ""
        if text is not None and text.shortest is not None:
            length = f"{text.shortest}" if text.shortest == text.longest else f"{text.shortest} to {text.longest}"
        about = "~" if column.top_error else ""
        frequent = column.unique == "no" or column.known <= TOP
        top = (
            [f"{_cut(top.value)} {about}{_percent(top.count, column.known)}" for top in column.top[:TOP]]
            if frequent
            else []
        )
        cells = (column.name, column.kind, _nulls(column), _distinct(column), length, ", ".join(top))
        table.add_row(*map(Text, cells))
    out.print(table)


def _times(columns: Sequence[ColumnProfile]) -> None:
    if not columns:
        return
    table = _table(
        "Times", ("column",), ("nulls", "distinct", "first", "last"), ("longest gap", "rows by", "histogram")
    )
    for column in columns:
        time = column.time
        assert time is not None
        gap = f"{_span(time.longest_gap.seconds)} after {_second(time.longest_gap.after)}" if time.longest_gap else ""
        periods = time.periods
        cells = (column.name, _nulls(column), _distinct(column), _second(time.first), _second(time.last), gap)
        shown = (periods.unit, bars(periods.counts)) if periods else ("", "")
        table.add_row(*map(Text, (*cells, *shown)))
    out.print(table)


def _pairs(profile: Profile) -> None:
    names, matrix = profile.correlations.columns, profile.correlations.matrix
    found = [
        (value, names[j], names[i])
        for i in range(len(names))
        for j in range(i)
        if (value := matrix[i][j]) is not None and abs(value) >= NOTED
    ]
    if found:
        table = _table("Strongest correlations", ("column", "column"), ("Pearson",))
        for value, one, other in sorted(found, key=lambda pair: -abs(pair[0]))[:SHOWN]:
            table.add_row(Text(one), Text(other), f"{value:.3f}")
        out.print(table)


def _target(profile: Profile) -> None:
    target = profile.target
    known = (
        [found for found in target.associations if (found.strength, found.null_strength) != (None, None)]
        if target
        else []
    )
    if target is None or not known:
        return
    table = _table(f"What tells {target.column}", ("column", "measure"), ("strength", "by nulls alone"))
    for found in known[:SHOWN]:
        strengths = ("" if value is None else f"{value:.3f}" for value in (found.strength, found.null_strength))
        table.add_row(Text(found.column), MEASURES[found.measure], *strengths)
    out.print(table)


def _percent(part: int, whole: int) -> str:
    if not part:
        return ""
    return f"{part / whole:.1%}" if part >= whole / 1000 else "<0.1%"


def _short(value: float | int | None) -> str:
    if value is None:
        return ""
    size = abs(value)
    if float(value).is_integer() and size < 1e7:
        return f"{value:,.0f}"
    return f"{value:,.4g}" if 1e-3 <= size < 1e4 else f"{value:,.0f}" if 1 <= size < 1e7 else f"{value:.3g}"


def _cut(value: Value) -> str:
    text = str(value).lower() if isinstance(value, bool) else str(value)
    text = "".join(char if char.isprintable() else "?" for char in text) or '""'
    return text if len(text) <= WIDE else f"{text[: WIDE - 3]}..."


def _second(time: str | None) -> str:
    """A time without fractions of its second."""
    return (time or "").partition(".")[0]


def _span(seconds: float) -> str:
    for unit, size in (("days", 86400.0), ("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.3g} s"
