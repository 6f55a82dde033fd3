"""The pass that holds every partition against the contract, and sets rows aside."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from treadle.engine.artifacts import Origin, Piece
from treadle.engine.backend import Backend
from treadle.engine.document import Part
from treadle.engine.expectations import (
    AnyExpectation,
    Fresh,
    Known,
    Nulls,
    OnEachRow,
    OnRows,
    Range,
    TypeIs,
    Unique,
    broken_rows,
    named,
)
from treadle.engine.found import numbers_of
from treadle.engine.left_out import left_out_of, row_numbers, write_left_out
from treadle.engine.operation import ROW_ID
from treadle.engine.program import Program, load_side, read_piece
from treadle.engine.relational.keys import codes_of
from treadle.engine.store import Store
from treadle.engine.text_input import QUARANTINE
from treadle.errors import shortened

if TYPE_CHECKING:
    import pandas as pd

EXAMPLES = 3
"""Rows that are shown of those that break an expectation."""
AT_ONCE = 10_000
"""Rows set aside that are made text at once."""


@dataclass(frozen=True)
class Checks:
    """What is to be checked; travels to the workers once a task."""

    store: Store
    backend: Backend
    kinds: Mapping[str, str]
    """All columns of the input."""
    expectations: tuple[AnyExpectation, ...]
    sides: Mapping[int, str]
    """See `treadle.engine.across.Across`."""
    folder: str

    @property
    def reads(self) -> dict[str, str]:
        """The columns that rows must be read for."""
        names = {name for e in self.expectations if not isinstance(e, TypeIs) for name in e.reads}
        return {name: kind for name, kind in self.kinds.items() if name in names}


@dataclass(frozen=True)
class Share:
    """One partition, where its rows are from, and what the other partitions tell of it."""

    number: int
    pieces: tuple[Piece, ...]
    origins: tuple[Origin, ...]
    """Of each piece."""
    found: Mapping[int, tuple[Piece, ...]]


@dataclass(frozen=True)
class Tally:
    """What rows say to one expectation."""

    count: int = 0
    """Rows that break it, or that are null where nulls are counted."""
    examples: tuple[tuple[int, dict[str, Any]], ...] = ()
    """Number and values of the first rows that break it."""
    low: Any = None
    high: Any = None


@dataclass(frozen=True)
class Checked:
    """The outcome of one partition."""

    tallies: dict[int, Tally]
    set_aside: int = 0
    left_out: Part | None = None
    """The numbers of all rows that are not there now, those among them that were not there before."""
    quarantine: Part | None = None


def merge(tallies: Sequence[Tally]) -> Tally:
    """Several partitions as one; no order or grouping changes the outcome."""
    return Tally(
        sum(tally.count for tally in tallies),
        tuple(sorted((e for tally in tallies for e in tally.examples), key=lambda e: e[0])[:EXAMPLES]),
        min((tally.low for tally in tallies if tally.low is not None), default=None),
        max((tally.high for tally in tallies if tally.high is not None), default=None),
    )


def check_partition(share: Share, checks: Checks) -> Checked:
    """On a worker: one partition against all expectations; rows that are set aside go to files."""
    frame = Program(checks.store, checks.backend, tuple(checks.reads.items()), None, ()).rows(share.pieces)
    numbers = frame[ROW_ID].to_numpy("int64")
    tallies: dict[int, Tally] = {}
    aside: dict[str, np.ndarray] = {}
    for index, (name, expectation) in enumerate(named(checks.expectations)):
        if isinstance(expectation, OnRows):
            if isinstance(expectation, OnEachRow):
                broken = broken_rows(name, expectation, frame)
            else:
                broken = _broken_by_key(frame, numbers, expectation, index, share, checks)
            low, high = _ends(frame[expectation.column]) if isinstance(expectation, Range) else (None, None)
            examples = _examples(frame, numbers, broken, expectation.reads)
            tallies[index] = Tally(int(broken.sum()), examples, low, high)
            if expectation.otherwise == "quarantine":
                aside[name] = broken
        elif isinstance(expectation, Nulls):
            tallies[index] = Tally(int(frame[expectation.column].isna().sum()))
        elif isinstance(expectation, Fresh):
            tallies[index] = Tally(high=_ends(frame[expectation.column])[1])
    gone = np.logical_or.reduce(list(aside.values())) if aside else np.zeros(0, dtype=bool)
    if not gone.any():
        return Checked(tallies)
    path = f"{checks.folder}/{{}}-{share.number:05d}.parquet"
    absent = np.union1d(left_out_of(checks.store, share.pieces), numbers[gone])
    return Checked(
        tallies,
        int(gone.sum()),
        write_left_out(checks.store, path.format("left-out"), absent),
        checks.store.write_tables(path.format("quarantine"), _set_aside(share, checks, gone, aside)),
    )


def _broken_by_key(
    frame: pd.DataFrame, numbers: np.ndarray, expectation: Unique | Known, index: int, share: Share, checks: Checks
) -> np.ndarray:
    """Which rows of a partition break an expectation on their keys, (rows,) bool."""
    keys = list(dict.fromkeys(expectation.columns))
    there = frame[keys].notna().all(axis=1).to_numpy(bool)
    complete = frame[there]
    found = np.isin(numbers, numbers_of(checks.store, share.found.get(index, ())))
    broken = np.zeros(len(frame), dtype=bool)
    if isinstance(expectation, Unique):
        broken[there] = complete.duplicated(subset=keys).to_numpy(bool)
        broken |= found
    elif index in checks.sides:
        path = checks.sides[index]
        side = load_side(checks.store, path, checks.store.stamp(path))
        strangers = expectation.join.apply(complete[[ROW_ID, *keys]], side)[ROW_ID].to_numpy("int64")
        broken = np.isin(numbers, strangers)
    else:
        codes, _ = codes_of(complete, keys)
        broken[there] = np.isin(codes, codes[found[there]])
    return broken


def _ends(series: pd.Series) -> tuple[Any, Any]:
    """The least and the greatest value, None where all are null."""
    known = series.dropna()
    return (known.min(), known.max()) if len(known) else (None, None)


def _examples(
    frame: pd.DataFrame, numbers: np.ndarray, broken: np.ndarray, columns: Sequence[str]
) -> tuple[tuple[int, dict[str, Any]], ...]:
    first = np.flatnonzero(broken)[:EXAMPLES]
    return tuple(
        (int(numbers[i]), {name: shown(plain(frame[name].iloc[i])) for name in dict.fromkeys(columns)})
        for i in first.tolist()
    )


def shown(value: Any) -> Any:
    return shortened(value) if isinstance(value, str) else value


def plain(value: Any) -> Any:
    """A value as JSON has it: times as text in ISO 8601, and infinite numbers as text, too."""
    import pandas as pd

    if pd.isna(value):
        return None
    if hasattr(value, "isoformat"):
        return value.isoformat()
    value = value.item() if isinstance(value, np.generic) else value
    return str(value) if isinstance(value, float) and np.isinf(value) else value


def _set_aside(share: Share, checks: Checks, gone: np.ndarray, aside: Mapping[str, np.ndarray]) -> Iterator[pa.Table]:
    """The rows `gone`, with the names of what each breaks, as tables of the quarantine."""
    before = 0
    for piece, origin in zip(share.pieces, share.origins, strict=True):
        places = row_numbers(checks.store, piece) - piece.offset
        first, before = before, before + len(places)
        broken_here = np.flatnonzero(gone[first:before])
        if not len(broken_here):
            continue
        whole = read_piece(checks.store, piece, dict(checks.kinds))
        for start in range(0, len(broken_here), AT_ONCE):
            some = broken_here[start : start + AT_ONCE]
            rows = whole.take(pa.array(places[some])).to_pylist()
            at = (first + some).tolist()
            columns = {
                "file": [origin.file] * len(some),
                "line": (origin.before + piece.start + places[some] + 1).tolist(),
                "reason": ["; ".join(name for name, broken in aside.items() if broken[i]) for i in at],
                "text": [json.dumps({k: plain(v) for k, v in row.items()}, ensure_ascii=False) for row in rows],
            }
            yield pa.table(columns, schema=QUARANTINE)
