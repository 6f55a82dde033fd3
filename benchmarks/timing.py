"""Medians of CPU and wall seconds of calls that are made in turn, on as many rows as a time allows."""

from __future__ import annotations

import contextlib
import signal
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from types import FrameType
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from treadle.benchmarks.sides import Side, told

Call = Callable[[], Any]
GROWTH = 8
"""Most that rows grow by from one trial to the next."""
LONGEST = 25.0
"""Wall seconds after which a call on a whole batch is given up."""


@dataclass(frozen=True)
class Took:
    """CPU seconds of the process, all its threads together, and wall seconds."""

    cpu: float
    wall: float


@dataclass(frozen=True)
class Trial:
    """A call that a side makes on a batch, what it gave, and what the last trial of it took."""

    rows: int
    call: Call
    values: NDArray[Any]
    took: Took


def clocked(call: Call) -> tuple[Took, Any]:
    """What a call took, and what it gave."""
    cpu, wall = time.process_time(), time.perf_counter()
    result = call()
    return Took(time.process_time() - cpu, time.perf_counter() - wall), result


def in_turn(makers: Mapping[str, Callable[[], Call]], repeats: int) -> dict[str, Took]:
    """Median of each by name. Every turn makes a call of each, which is not counted, and then calls it."""
    found: dict[str, list[Took]] = {name: [] for name in makers}
    for _ in range(repeats):
        for name, make in makers.items():
            found[name].append(clocked(make())[0])
    return {
        name: Took(statistics.median(t.cpu for t in took), statistics.median(t.wall for t in took))
        for name, took in found.items()
    }


def contest(
    sides: Mapping[str, Side], x: NDArray[Any], repeats: int, seconds: float
) -> tuple[dict[str, dict[str, Any]], dict[str, NDArray[Any]], dict[str, str]]:
    """The sides in turn on a batch.

    Parameters
    ----------
    sides
        By name.
    x
        The batch, float32 (rows, features); of it a side gets as many rows as fit.
    repeats
        Turns. A call that takes more than twice `seconds` is made once only.
    seconds
        Wall seconds of a call. A side that prepares the model on every call gets the whole batch instead,
        and `LONGEST` seconds.

    Returns
    -------
    By name: rows, repeats, cpu_seconds, wall_seconds and rows_per_cpu_second; the values of those rows;
    and the errors of sides that failed.
    """
    trials, errors = {}, {}
    for name, side in sides.items():
        try:
            trials[name] = _whole(side, x) if side.whole else _fitting(side, x, seconds)
        except Exception as error:
            errors[name] = told(error)
    makers = {name: _same(trial.call) for name, trial in trials.items() if trial.took.wall <= 2 * seconds}
    medians = in_turn(makers, repeats)
    figures = {
        name: _figure(trial.rows, medians.get(name, trial.took), repeats if name in medians else 1)
        for name, trial in trials.items()
    }
    return figures, {name: trial.values for name, trial in trials.items()}, errors


def one_by_one(sides: Mapping[str, Side], x: NDArray[Any], repeats: int) -> dict[str, dict[str, Any]]:
    """Figures of calls on one row each, by name: a side takes all rows of `x` in a row, then the next side does.

    So a side finds its model in the caches as far as it fits, but no row that it has just had.
    """
    calls = {name: [side.call(x[row : row + 1]) for row in range(len(x))] for name, side in sides.items()}

    def each(name: str) -> None:
        for call in calls[name]:
            call()

    medians = in_turn({name: _same(partial(each, name)) for name in sides}, repeats)
    return {name: _figure(len(x), took, repeats) for name, took in medians.items()}


def largest(values: NDArray[Any], right: NDArray[Any]) -> float:
    """The largest difference of the rows that both have, as a part of the largest value."""
    rows = min(len(values), len(right))
    return float(np.abs(values[:rows] - right[:rows]).max() / np.abs(right[:rows]).max())


def _figure(rows: int, took: Took, repeats: int) -> dict[str, Any]:
    return {
        "rows": rows,
        "repeats": repeats,
        "cpu_seconds": took.cpu,
        "wall_seconds": took.wall,
        "rows_per_cpu_second": rows / took.cpu,
        "rows_per_wall_second": rows / took.wall,
    }


def _same(call: Call) -> Callable[[], Call]:
    return lambda: call


def _fitting(side: Side, x: NDArray[Any], seconds: float) -> Trial:
    """Rows are increased until a call takes more than half the time, or they are all."""
    rows = 1
    while True:
        call = side.call(x[:rows])
        took, result = clocked(call)
        if rows < len(x) and 2 * took.wall > seconds:
            # The first call with so many rows may have compiled code or built what is kept.
            took, result = clocked(call)
        growth = min(GROWTH, seconds / took.wall)
        if rows == len(x) or growth < 2:
            return Trial(rows, call, side.values(result), took)
        rows = min(len(x), int(rows * growth))


def _whole(side: Side, x: NDArray[Any]) -> Trial:
    call = side.call(x)
    with _at_most(LONGEST):
        took, result = clocked(call)
    return Trial(len(x), call, side.values(result), took)


@contextlib.contextmanager
def _at_most(seconds: float) -> Iterator[None]:
    """TimeoutError after so many wall seconds, as soon as Python code runs again.

    Not a timer of CPU seconds: while one runs, Linux counts them in ticks of some milliseconds.
    """

    def stop(_: int, __: FrameType | None) -> None:
        raise TimeoutError(f"not done after {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, stop)
    timer = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, *timer)
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def threads(number: int) -> Iterator[None]:
    """So many threads for our kernels."""
    before = numba.get_num_threads()
    numba.set_num_threads(number)
    try:
        yield
    finally:
        numba.set_num_threads(before)
