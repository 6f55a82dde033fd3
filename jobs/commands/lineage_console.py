"""What a terminal shows of lineage: where a run came from, one row's way back, and a run beside its reproduction."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from rich.table import Table

from treadle.jobs.commands.console import TOP_FEATURES, out

if TYPE_CHECKING:
    from treadle.engine.table_compare import Comparison
    from treadle.jobs.lineage import Explained, Lineage, Row
    from treadle.jobs.provenance import Provenance
    from treadle.jobs.reproduce import ModelResult, Reproduction
    from treadle.jobs.source_rows import SourceRow

CHANGES = 5
"""Changed libraries and variables that are listed."""


def show_provenance(found: Provenance) -> None:
    """The chain, a link a line, each made from the next; then what is gone, and what has changed."""
    out.print("Lineage, each made from the next")
    width = max(len(link.kind) for link in found.links)
    for number, link in enumerate(found.links):
        out.print(f"  {'  ' if number == 0 else '<-'} {link.kind:<{width}}  {link.name} ({link.said})")
    for text in found.gone:
        out.print(f"warning: {text}")
    for text in found.changed[:CHANGES]:
        out.print(f"now {text}")
    if len(found.changed) > CHANGES:
        out.print(f"now {len(found.changed) - CHANGES} more that are others")


def show_lineage(found: Lineage) -> None:
    """The rows with an id, and where they came from."""
    more = "" if found.count == 1 else f": {found.count} rows have it"
    out.print(f"Id {found.id} in {found.table} of run {found.run}{more}")
    for row in found.rows:
        _row(row)
    if found.count > len(found.rows):
        out.print(f"and {found.count - len(found.rows)} more rows with this id")
    for source in found.sources:
        _source(source)
    if found.said:
        out.print(f"{'Input: ' if not found.sources else ''}{found.said}")
    show_provenance(found.provenance)


def _row(row: Row) -> None:
    said = ", ".join(f"{name} {_value(value)}" for name, value in row.prediction.items()) or "no prediction"
    out.print(f"\n{'Predicted' if row.prediction else 'Row'}: {said}{f' ({row.side} row)' if row.side else ''}")
    if row.columns:
        out.print(", ".join(f"{name} {_value(value)}" for name, value in row.columns.items()))
    wanted = row.prediction.get("class")
    shown = next((one for one in row.explained if one.class_ == wanted), None) or next(iter(row.explained), None)
    if shown is not None:
        _contributions(shown)
    elif row.features:
        table = Table("feature", "value", title="Features", title_justify="left")
        for name, value in itertools.islice(row.features.items(), TOP_FEATURES):
            table.add_row(name, _value(value))
        out.print(table)
        _more(len(row.features) - TOP_FEATURES, "features")


def _contributions(shown: Explained) -> None:
    of = "" if shown.class_ is None else f" to the margin of {shown.class_}"
    table = Table("feature", "value", "contribution", title=f"Contributions{of}", title_justify="left")
    for one in shown.contributions[:TOP_FEATURES]:
        table.add_row(one.feature, _value(one.value), f"{one.contribution:+.4f}")
    rest = [one.contribution for one in shown.contributions[TOP_FEATURES:]]
    others = sum(rest) + (shown.others or 0.0)
    if rest or shown.others is not None:
        table.add_row(f"{len(rest)} others" if shown.others is None else "others", "", f"{others:+.4f}")
    table.add_row("bias", "", f"{shown.bias:+.4f}")
    out.print(table)


def _source(source: SourceRow) -> None:
    out.print(f"Input ({source.section}): {source.file}, row {source.row:,}")
    if source.values is None:
        out.print(f"  {source.said}")
        return
    out.print("  " + ", ".join(f"{name} {_value(value)}" for name, value in source.values.items()))


def _more(count: int, what: str) -> None:
    if count > 0:
        out.print(f"and {count} more {what}; --json has them")


def show_reproduction(found: Reproduction) -> None:
    """Table by table, and the model; what differs in code and machine comes first."""
    out.print(f"\nRun {found.run}, made again in {found.seconds:.1f} s as {found.reproduction}")
    for text in found.differences:
        out.print(f"other: {text}")
    for text in found.notes:
        out.print(f"note: {text}")
    table = Table("table", "outcome", "rows", "", title="Then and now", title_justify="left")
    for one in found.tables:
        rows = "" if one.comparison is None else f"{one.comparison.rows[0]:,}"
        said = "one of the two did not make it" if one.comparison is None else _compared(one.comparison)
        table.add_row(one.name, _outcome(one.outcome, found.tolerance), rows, said)
    if found.model is not None:
        table.add_row("model", _outcome(found.model.outcome, found.tolerance), "", _model(found.model))
    out.print(table)
    left_out = sorted({name for one in found.tables if one.comparison for name in one.comparison.left_out})
    if left_out:
        out.print(f"Not compared, for they are measured: {', '.join(left_out)}")
    if found.kept:
        out.print(f"Kept in {found.root}")


def _outcome(outcome: str, tolerance: float) -> str:
    return f"equal within {tolerance:g}" if outcome == "equal" else outcome


def _compared(found: Comparison) -> str:
    return "; ".join(_facts(found))


def _facts(found: Comparison) -> Iterator[str]:
    if found.rows[0] != found.rows[1]:
        yield f"{found.rows[1]:,} rows now"
    yield from found.schema[:CHANGES]
    if found.counts:
        worst: Mapping[str, int] = dict(sorted(found.counts.items(), key=lambda item: -item[1])[:3])
        named = ", ".join(f"{name} in {rows:,} rows" for name, rows in worst.items())
        yield f"{len(found.counts)} columns differ: {named}"
    if found.first is not None:
        first = found.first
        yield f"first in row {first.row}: {first.column} {_value(first.then)}, now {_value(first.now)}"
    if found.column is not None:
        yield f"largest difference {found.largest:.2g} ({found.column})"


def _model(found: ModelResult) -> str:
    return found.said if found.outcome == "bit-equal" else f"{found.said}: largest difference {found.largest:.2g}"


def _value(value: Any) -> str:
    if value is None:
        return "null"
    return f"{value:.6g}" if isinstance(value, float) else str(value)
