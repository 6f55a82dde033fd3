"""Keys that one partition alone cannot judge: those that are to be unique, or known to another table.

The key set of another table goes to every worker when it is small. Else, and for uniqueness, the first row of
each key of a partition is exchanged, so that no key has more rows in a bucket than there are partitions, however
many rows it has. What a bucket finds goes back to the partitions that the rows are from, as their numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from treadle.engine import sides
from treadle.engine.artifacts import Piece, rows_of
from treadle.engine.context import Context
from treadle.engine.document import Part
from treadle.engine.exchange import Partitions, bucket_count, exchange, exchange_both, exchanged, width_of
from treadle.engine.expectations import Known, Unique, place_of
from treadle.engine.found import find
from treadle.engine.inputs import Inspected
from treadle.engine.program import Program, Step
from treadle.engine.relational import Dedupe, Filter
from treadle.errors import RequestError


@dataclass
class Across:
    """What all partitions together tell, by the place of an expectation in the contract."""

    sides: dict[int, str] = field(default_factory=dict)
    """Files of the keys that another table has."""
    found: dict[int, list[tuple[Piece, ...]]] = field(default_factory=dict)
    """For each partition the numbers of rows that break the expectation, as pieces of exchanged files.

    Of rows with equal keys in a partition the first stands for all.
    """
    files: list[Part] = field(default_factory=list)
    """To be removed when each partition has been checked."""


def look_across(
    context: Context, partitions: Partitions, kinds: Mapping[str, str], known: Mapping[int, Inspected]
) -> Across:
    """Makes what the check of a partition needs for the expectations `unique` and `known` of the job."""
    made = Across()
    for index, expectation in enumerate(context.job.contract):
        if isinstance(expectation, Unique) and len(partitions) > 1:
            _repeated(context, made, partitions, kinds, index, expectation)
        elif isinstance(expectation, Known):
            inspected = known[index]
            there = sides.kinds_of_side(expectation.join, inspected)
            if sides.size_of(inspected, there) <= sides.broadcast_limit(context):
                _send(context, made, index, expectation, inspected)
            else:
                _strangers(context, made, partitions, kinds, index, expectation, inspected)
    return made


def check_known(index: int, expectation: Known, kinds: Mapping[str, str], inspected: Inspected) -> None:
    """Refuses another table that lacks a column, or has it as another kind."""
    there = sides.kinds_of_side(expectation.join, inspected)
    for name in expectation.columns:
        if there[name] != kinds[name]:
            raise RequestError(
                f"{place_of(index, expectation)}: column '{name}' is {kinds[name]} in the input and {there[name]} in "
                f"{expectation.in_.path}; keys are compared as they are read, so give both one type."
            )


def _send(context: Context, made: Across, index: int, expectation: Known, inspected: Inspected) -> None:
    path = str(expectation.in_.path)
    there, files = sides.partitions_of(context, inspected, path, index)
    keys = sides.load(context, sides.program_of(context, expectation.join, inspected), there).drop_duplicates()
    context.store.remove(*files)
    part = context.store.write_parquet(f"{context.folder}/known-{index}.parquet", context.backend.table(keys))
    made.sides[index] = part.path
    made.files.append(part)


def _repeated(
    context: Context,
    made: Across,
    partitions: Partitions,
    kinds: Mapping[str, str],
    index: int,
    expectation: Unique,
) -> None:
    program = _first_of_each(context, kinds, expectation.columns)
    count = bucket_count(sum(map(rows_of, partitions)), width_of(program))
    buckets, files = exchange(context, program, partitions, expectation.columns, count, index, "keys")
    kept = [bucket for bucket in buckets if bucket]
    _find(context, made, partitions, index, exchanged(program), kept, expectation.columns)
    context.store.remove(*files)


def _strangers(
    context: Context,
    made: Across,
    partitions: Partitions,
    kinds: Mapping[str, str],
    index: int,
    expectation: Known,
    inspected: Inspected,
) -> None:
    join, keys = expectation.join, expectation.columns
    there, converted = sides.partitions_of(context, inspected, str(expectation.in_.path), index)
    here, side = _first_of_each(context, kinds, keys), sides.program_of(context, join, inspected)
    both, files = exchange_both(context, (here, partitions), (side, there), keys, index, ("keys", "known"))
    context.store.remove(*converted)
    step = Step(index, join, side_kinds=tuple(sides.kinds_of_side(join, inspected).items()))
    _find(context, made, partitions, index, replace(exchanged(here), steps=(step,)), both, ())
    context.store.remove(*files)


def _first_of_each(context: Context, kinds: Mapping[str, str], keys: Sequence[str]) -> Program:
    """Of the rows of a partition whose keys are not null the first of each key; these columns and no others."""
    known = Filter(op="filter", sql=" and ".join(f"{sides.quoted(key)} is not null" for key in keys))
    first = Dedupe(op="dedupe", columns=tuple(keys))
    own = tuple((key, kinds[key]) for key in dict.fromkeys(keys))
    return Program(context.store, context.backend, own, None, (Step(0, known), Step(1, first)))


def _find(
    context: Context,
    made: Across,
    partitions: Partitions,
    index: int,
    program: Program,
    buckets: Sequence[tuple[Piece, ...]],
    repeated: Sequence[str],
) -> None:
    made.found[index], files = find(context, partitions, program, buckets, repeated, f"found-{index}")
    made.files += files
