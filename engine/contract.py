"""Stage `contract`: the input as it was read against what the spec expects of it.

One pass over the partitions gathers all that merges and sets rows aside; keys that are to be unique, or known to a
large table, are exchanged before. Rows that are set aside stay in their files: the pieces name them, and every
later stage leaves them out, so that no other row gets another number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from treadle.engine.across import check_known, look_across
from treadle.engine.artifacts import Contracted, Example, Origin, Piece, Source, Verdict
from treadle.engine.checking import Checked, Checks, Share, Tally, check_partition, merge, plain
from treadle.engine.context import Context
from treadle.engine.expectations import (
    AnyExpectation,
    Fresh,
    Known,
    Nulls,
    OnRows,
    Range,
    Rows,
    TypeIs,
    check_columns,
    named,
)
from treadle.engine.expectations.constants import time_of
from treadle.engine.inputs import Inspected
from treadle.engine.job import Job
from treadle.errors import ContractBroken, DataError

REVISION = 1


def check(job: Job, inspected: Inspected, known: Mapping[int, Inspected]) -> None:
    """Holds columns, constants and types against the input before any row is read.

    Raises
    ------
    RequestError
        The first expectation that names a column that is not there, or constants that its columns cannot have.
    ContractBroken
        Columns that have another type than one that must be.
    """
    kinds = inspected.kinds
    wrong = {
        name: expectation
        for name, expectation in named(job.contract)
        if isinstance(expectation, TypeIs) and expectation.otherwise == "fail"
        if kinds.get(expectation.column, expectation.is_) != expectation.is_
    }
    check_columns(job.contract, kinds, frozenset(e.column for e in wrong.values()))
    for index, expectation in enumerate(job.contract):
        if isinstance(expectation, Known):
            check_known(index, expectation, kinds, known[index])
    if wrong:
        lines = [f"{name}: it is {kinds[expectation.column]}" for name, expectation in wrong.items()]
        raise ContractBroken(_message(lines, len(job.contract)))


def run(context: Context, source: Source, known: Mapping[int, Inspected]) -> Contracted:
    """Checks every expectation; the outcome has the rows that are left.

    Raises
    ------
    ContractBroken
        Expectations are not met that have to be; it lists all of them.
    DataError
        No row is left.
    """
    expectations = context.job.contract
    # The sides of a split by path are one input here.
    partitions = tuple(tuple(p.model_copy(update={"role": "any"}) for p in pieces) for pieces in source.partitions)
    across = look_across(context, partitions, source.kinds, known)
    checks = Checks(context.store, context.backend, source.kinds, expectations, across.sides, context.folder)
    checked: list[Checked] = []
    if checks.reads:
        shares = [
            Share(
                number,
                pieces,
                tuple(_origin(source, piece) for piece in pieces),
                {index: found[number] for index, found in across.found.items()},
            )
            for number, pieces in enumerate(partitions)
        ]
        checked = context.gather(context.submit(check_partition, shares, checks))
    context.store.remove(*across.files)
    tallies = {
        index: merge([outcome.tallies[index] for outcome in checked if index in outcome.tallies])
        for index in range(len(expectations))
    }
    now = datetime.now(UTC).replace(tzinfo=None)
    verdicts = tuple(
        _verdict(name, expectation, tallies[index], source, now)
        for index, (name, expectation) in enumerate(named(expectations))
    )
    left_out = [outcome.left_out for outcome in checked if outcome.left_out is not None]
    quarantine = [outcome.quarantine for outcome in checked if outcome.quarantine is not None]
    failed = [verdict for verdict in verdicts if verdict.status == "failed"]
    if failed:
        context.store.remove(*left_out, *quarantine)
        raise ContractBroken(
            _message([_line(verdict) for verdict in failed], len(verdicts)),
            [verdict.model_dump(mode="json") for verdict in verdicts],
        )
    set_aside = sum(outcome.set_aside for outcome in checked)
    if set_aside == source.rows_left:
        raise DataError(
            f"The contract sets all {source.rows_left} rows of the input aside, and none is left; look at it."
        )
    kept = [
        [piece.model_copy(update={"left_out": outcome.left_out.path}) for piece in pieces]
        if outcome.left_out
        else pieces
        for pieces, outcome in zip(source.partitions, checked or [Checked({})] * len(source.partitions), strict=True)
    ]
    warnings = [_line(verdict) for verdict in verdicts if verdict.status == "warned"]
    if set_aside:
        warnings.append(f"{set_aside} rows break the contract and were set aside in the table `quarantine`")
    return Contracted(
        source=source.model_copy(
            update={
                "partitions": tuple(map(tuple, kept)),
                "files": (*source.files, *left_out),
                "quarantine": (*source.quarantine, *quarantine),
                "left_out": source.left_out + set_aside,
            }
        ),
        verdicts=verdicts,
        rows=source.rows_left,
        set_aside=set_aside,
        until=_until(expectations, tallies, now),
        warnings=tuple(warnings),
    )


def _origin(source: Source, piece: Piece) -> Origin:
    return source.origins.get(piece.path, Origin(file=piece.path, before=0))


def _verdict(name: str, expectation: AnyExpectation, tally: Tally, source: Source, now: datetime) -> Verdict:
    measured, met = _judged(expectation, tally, source, now)
    status = {"warn": "warned", "quarantine": "quarantined", "fail": "failed"}[expectation.otherwise]
    return Verdict(
        name=name,
        expect=expectation.expect,
        status="passed" if met else status,  # type: ignore[arg-type]
        rows=source.rows_left,
        violations=tally.count if isinstance(expectation, OnRows) else None,
        measured=measured,
        examples=tuple(_example(source, number, values) for number, values in tally.examples),
    )


def _judged(
    expectation: AnyExpectation, tally: Tally, source: Source, now: datetime
) -> tuple[dict[str, int | float | str | None], bool]:
    """What was measured, and whether the expectation is met."""
    match expectation:
        case TypeIs():
            kind = source.kinds[expectation.column]
            return {"kind": kind}, kind == expectation.is_
        case Rows():
            rows = source.rows_left
            most = rows if expectation.max is None else expectation.max
            return {"rows": rows}, (expectation.min or 0) <= rows <= most
        case Nulls():
            share = tally.count / source.rows_left
            return {"nulls": tally.count, "share": share}, share <= expectation.at_most
        case Fresh():
            reference = now if expectation.of is None else time_of(expectation.of)
            assert reference is not None
            met = tally.high is not None and tally.high >= reference - expectation.span
            return {"newest": plain(tally.high)}, met
        case Range():
            return {"min": plain(tally.low), "max": plain(tally.high)}, tally.count == 0
        case _:
            return {}, tally.count == 0


def _example(source: Source, number: int, values: dict[str, Any]) -> Example:
    """With the file of the row, and its place there."""
    piece = next(
        piece
        for partition in source.partitions
        for piece in partition
        if piece.offset <= number < piece.offset + piece.rows
    )
    origin = _origin(source, piece)
    line = origin.before + piece.start + number - piece.offset + 1
    return Example(row=number, file=origin.file, line=line, values=values)


def _until(expectations: Sequence[AnyExpectation], tallies: Mapping[int, Tally], now: datetime) -> datetime | None:
    """When the first column that is fresh by the time of the check is so no longer."""
    ends = [
        tallies[index].high + expectation.span
        for index, expectation in enumerate(expectations)
        if isinstance(expectation, Fresh) and expectation.of is None and tallies[index].high is not None
    ]
    return min((end.to_pydatetime() for end in ends if end >= now), default=None)


def _message(lines: Sequence[str], count: int) -> str:
    shown = "\n".join(f"  {line}" for line in lines)
    return (
        f"The input breaks its contract, {len(lines)} of {count} expectations:\n{shown}\n"
        "Mend the input, or say with `otherwise` that they are to warn, or to quarantine rows."
    )


def _line(verdict: Verdict) -> str:
    """One expectation that is not met, with numbers."""
    if verdict.violations is None:
        return f"{verdict.name}: {', '.join(f'{key} {value}' for key, value in verdict.measured.items())}"
    shown = "; ".join(
        f"{example.file}, line {example.line}: {', '.join(f'{k} = {v!r}' for k, v in example.values.items())}"
        for example in verdict.examples
    )
    return f"{verdict.name}: {verdict.violations} of {verdict.rows} rows, such as {shown}"
