"""Where trials run: each on a thread of a worker, or over all workers; by what the rows of all folds would take."""

from __future__ import annotations

from dataclasses import dataclass

from treadle.engine.artifacts import Folds, Prepared, SplitRule
from treadle.engine.budget import trial_seconds
from treadle.engine.context import Context
from treadle.engine.sections.base import seconds_of
from treadle.engine.trials.base import Trials
from treadle.engine.trials.over_workers import TrialsOverWorkers
from treadle.engine.trials.threads import TrialsOnThreads
from treadle.engine.workers import WORKER_OWN, Workers

HELD_SHARE = 0.5
"""Share of what a worker has room for that the rows of folds may take; the rest is for what models make of them."""
A_TRIAL = 4
"""float32 matrices of a fold's rows that a trial makes at most: its own in float64, and what the library makes."""


@dataclass(frozen=True)
class Placement:
    """Where trials run, and why."""

    on_threads: bool
    reason: str


def place(rows: int, features: int, folds: int, workers: Workers) -> Placement:
    """Of trials on so many training rows.

    A worker may come to hold the rows of every fold, and has as many trials under way as it has threads.
    """
    matrix = 4 * rows * features
    needed = (folds + A_TRIAL * workers.threads) * matrix
    room = int((workers.memory - WORKER_OWN) * HELD_SHARE)
    told = f"the rows of {folds} folds and of {workers.threads} trials take about {_mib(needed)} a worker"
    if needed <= room:
        return Placement(True, f"each trial on a thread of a worker: {told}, which has room for {_mib(room)}")
    return Placement(False, f"each trial over all workers: {told}, more than the {_mib(room)} that it has room for")


def trials_of(
    context: Context, prepared: Prepared, rule: SplitRule, features: int, folds: Folds, base: str
) -> tuple[Trials, Placement]:
    """The trials of a run: every stage gets the same object, so that the rows of folds are made once."""
    if "trials" not in context.live:
        compare = context.job.compared
        assert compare is not None
        placement = place(rule.train_rows, features, folds.count, context.room)
        args = (context, prepared, rule, folds, base)
        limit, share = seconds_of(compare.time_limit), trial_seconds(context)
        trials: Trials
        if not placement.on_threads:
            trials = TrialsOverWorkers(*args)
        elif limit is None and share is not None:
            trials = TrialsOnThreads(*args, limit=share, named="its share of the budget")
        else:
            trials = TrialsOnThreads(*args, limit=limit)
        context.live["trials"] = (trials, placement)
    return context.live["trials"]


def _mib(size: int) -> str:
    return f"{size / 2**20:,.0f} MiB"
