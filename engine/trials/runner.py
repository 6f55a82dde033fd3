"""The driver's part of trials: which are there, which are to be made, and by whom.

Every thread of a worker has one trial at a time, which uses no other thread, so that cores are shared by trials
and not fought for within them. The longest begin first. A trial that outlives its time limit is ended by starting
its worker again, since no library lets itself be stopped from outside; what else the worker was at is done again,
and what it held is made again.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from treadle.engine.artifacts import Folds, Prepared, SplitRule
from treadle.engine.context import Context
from treadle.engine.job import THRESHOLD
from treadle.engine.job import Model as ModelConfig
from treadle.engine.models.catalogue import CATALOGUE
from treadle.engine.recipe import inputs_of
from treadle.engine.rows import Rows
from treadle.engine.trials.fold_data import fold_data
from treadle.engine.trials.outcome import Outcome, fold_path, key_of, load, path_of, save
from treadle.engine.trials.trial import run_trial

if TYPE_CHECKING:
    from distributed import Future

Listener = Callable[[int, int], None]
LOOK_SECONDS = 0.5
RESTART_SECONDS = 30.0


@dataclass(frozen=True)
class Cell:
    """One trial: which model, without which fold."""

    place: int
    """Of the model among those asked for."""
    fold: int


@dataclass
class Running:
    """A trial that is under way."""

    cell: Cell
    future: Future
    worker: str
    alone: bool


@dataclass
class Trials:
    """Trials on the folds of a job, small enough that a worker holds the rows of a fold."""

    context: Context
    prepared: Prepared
    rule: SplitRule
    folds: Folds
    base: str
    """The digest of rows, features and folds."""
    limit: float | None = None
    """Seconds that training may take."""
    _data: dict[int, Future] = field(default_factory=dict)
    _passing: dict[str, Outcome] = field(default_factory=dict)
    """By path, what another attempt may change: the next run makes one, not the next stage."""

    def run(self, configs: Sequence[ModelConfig], folds: Sequence[int] | None = None) -> list[list[Outcome]]:
        """Outcomes of every model, by fold (all when None). One that fails without some fold is not tried on.

        Raises
        ------
        TreadleError
            The cluster is lost, or the features of a fold cannot be made.
        """
        order = tuple(range(self.folds.count)) if folds is None else tuple(folds)
        return self.run_each([(config, order) for config in configs])

    def run_each(
        self, asked: Sequence[tuple[ModelConfig, Sequence[int]]], listener: Listener | None = None
    ) -> list[list[Outcome]]:
        """As `run`, with folds of its own for each model; the listener hears how many trials are done, of how many.

        Models that are the same but for their titles have the same trials.
        """
        configs = [config for config, _ in asked]
        keys = [self.key(config) for config in configs]
        places = [keys.index(key) for key in keys]
        cells = list(dict.fromkeys(Cell(place, f) for place, (_, fs) in zip(places, asked, strict=True) for f in fs))
        found: dict[Cell, Outcome] = {}
        for cell in cells:
            path = path_of(self.base, keys[cell.place], cell.fold)
            outcome = self._passing.get(path) or load(self.context.store, path)
            if outcome is not None:
                found[cell] = outcome
        failed = {cell.place: outcome for cell, outcome in found.items() if outcome.error is not None}
        found |= {cell: failed[cell.place] for cell in cells if cell not in found and cell.place in failed}
        missing = [cell for cell in cells if cell not in found]
        missing.sort(key=lambda cell: (-CATALOGUE[configs[cell.place].name].effort, cell.place, cell.fold))
        if missing:
            _Round(self, configs, len(cells), found, missing, listener or self._tell).run()
        return [[found[Cell(place, fold)] for fold in fs] for place, (_, fs) in zip(places, asked, strict=True)]

    def keep(self, config: ModelConfig, fold: int, outcome: Outcome) -> None:
        """Writes what came of a trial; what another attempt may change is kept for this run only."""
        path = path_of(self.base, self.key(config), fold)
        if not outcome.lasting:
            self._passing[path] = outcome
        save(self.context.store, path, outcome)

    def _tell(self, done: int, total: int) -> None:
        context = self.context
        context.events.emit(context.stage, "progress", done=done, total=total, note=f"{done}/{total} trials")

    @property
    def threshold(self) -> float:
        """Of two classes: what the spec names as a number; what is chosen by scores out of folds is chosen later."""
        named = self.context.job.decision.threshold
        return named if isinstance(named, float) and self.rule.task == "binary" else THRESHOLD

    def key(self, config: ModelConfig) -> str:
        """The digest under which what came of a model's trials is kept."""
        return key_of(config, self.context.job.seed, self.threshold)

    def data(self, folds: Sequence[int]) -> None:
        """Has the rows of these folds made ready, so that trials need not wait for them."""
        new = [fold for fold in folds if fold not in self._data]
        if new:
            rows = Rows.of(self.context, self.prepared)
            frames, roles = rows.hold(), [partition[0].role for partition in rows.partitions]
            inputs = inputs_of(self.context.job, self.prepared.kinds)
            for fold in new:
                path = fold_path(self.base, fold)
                rule = self.rule.without(self.folds, fold)
                self._data[fold] = self.context.client.submit(
                    fold_data, frames, roles, self.context.job, rule, inputs, self.context.store, path, pure=False
                )
            self.context.ready([self._data[fold] for fold in new])

    def release(self) -> None:
        """Lets the workers forget the rows; they are made again when they are asked for."""
        self._data.clear()
        Rows.of(self.context, self.prepared).release()


def trials_of(context: Context, prepared: Prepared, rule: SplitRule, folds: Folds, base: str) -> Trials:
    """The trials of a run: every stage gets the same object, so that the rows of folds are made once."""
    if "trials" not in context.live:
        compare = context.job.compared
        assert compare is not None
        context.live["trials"] = Trials(context, prepared, rule, folds, base, compare.limit_seconds)
    return context.live["trials"]


class _Round:
    """Some trials, from the first to the last."""

    def __init__(
        self,
        trials: Trials,
        configs: Sequence[ModelConfig],
        cells: int,
        found: dict[Cell, Outcome],
        missing: list[Cell],
        listener: Listener,
    ) -> None:
        self.trials = trials
        self.context = trials.context
        self.configs = configs
        self.cells = cells
        self.found = found
        self.waiting = missing
        self.listener = listener
        self.suspects: list[Cell] = []
        """Trials whose worker died over them; each is tried once more, with the cluster for itself."""
        room = self.context.room
        self.a_worker = room.threads
        # By all that are asked for and all workers, lost ones too: a run that goes on where another ended computes
        # the same.
        self.threads = max(1, min(room.threads, self.context.size * room.threads // cells))
        self.running: list[Running] = []
        self.began: dict[str, float] = {}
        """Tasks that workers have begun with, and when: one that waits for a thread takes no time yet."""

    def run(self) -> None:
        self.trials.data(sorted({cell.fold for cell in self.waiting}))
        topic = f"treadle-trials-{self.context.run_id}"
        self.context.client.subscribe_topic(topic, lambda event: self.began.setdefault(event[1], time.monotonic()))
        try:
            while self.waiting or self.suspects or self.running:
                workers = self.context.workers
                self._take_back([one for one in self.running if one.worker not in workers])
                self._start(workers, topic)
                for one in self._ended():
                    self.running.remove(one)
                    self._keep(one.cell, self.context.result(one.future))
                self._end_late()
        finally:
            self.context.client.cancel([one.future for one in self.running])
            self.context.client.unsubscribe_topic(topic)

    def _start(self, workers: Sequence[str], topic: str) -> None:
        """Gives every free thread a trial; the longest first."""
        if any(one.alone for one in self.running):
            return
        for worker in workers:
            busy = sum(one.worker == worker for one in self.running)
            while self.waiting and busy < self.a_worker:
                self._submit(self.waiting.pop(0), worker, topic)
                busy += 1
        if self.suspects and not self.waiting and not self.running:
            self._submit(self.suspects.pop(0), workers[0], topic, alone=True)

    def _submit(self, cell: Cell, worker: str, topic: str, alone: bool = False) -> None:
        trials = self.trials
        future = self.context.client.submit(
            run_trial,
            trials._data[cell.fold],
            self.configs[cell.place],
            trials.rule.without(trials.folds, cell.fold),
            self.context.job.seed,
            trials.threshold,
            self.threads,
            topic,
            pure=False,
            workers=[worker],
        )
        self.running.append(Running(cell, future, worker, alone))

    def _ended(self) -> list[Running]:
        from distributed import wait

        if not self.running:
            return []
        with contextlib.suppress(TimeoutError):
            wait([one.future for one in self.running], timeout=LOOK_SECONDS, return_when="FIRST_COMPLETED")
        return [one for one in self.running if one.future.status != "pending"]

    def _take_back(self, lost: Sequence[Running]) -> None:
        """What is to be done about trials whose worker died."""
        self.context.client.cancel([one.future for one in lost])
        for one in lost:
            self.running.remove(one)
            if one.alone:
                reason = "its worker died over it twice, most likely for want of memory"
                self._keep(one.cell, Outcome(error=reason, lasting=False))
            else:
                self.suspects.append(one.cell)

    def _keep(self, cell: Cell, outcome: Outcome) -> None:
        self.found[cell] = outcome
        self.trials.keep(self.configs[cell.place], cell.fold, outcome)
        if outcome.error is not None:
            self._give_up(cell.place, outcome)
        self.listener(len(self.found), self.cells)

    def _give_up(self, place: int, outcome: Outcome) -> None:
        """Leaves out what is still to be tried of a model that failed."""
        for cell in [cell for cell in (*self.waiting, *self.suspects) if cell.place == place]:
            self.found[cell] = outcome
        self.waiting = [cell for cell in self.waiting if cell.place != place]
        self.suspects = [cell for cell in self.suspects if cell.place != place]

    def _end_late(self) -> None:
        """Ends trials that have taken longer than they may, and begins those beside them again."""
        limit = self.trials.limit
        if limit is None:
            return
        now = time.monotonic()
        late = [one for one in self.running if now - self.began.get(str(one.future.key), now) > limit]
        if not late:
            return
        workers = {one.worker for one in late}
        ended = [one for one in self.running if one.worker in workers]
        self.running = [one for one in self.running if one.worker not in workers]
        self.context.client.cancel([one.future for one in ended])
        self.waiting = [one.cell for one in ended if one not in late] + self.waiting
        for one in late:
            reason = f"training took longer than compare.time_limit, {limit:g} s"
            self._keep(one.cell, Outcome(error=reason, lasting=False))
        with contextlib.suppress(ValueError, KeyError):  # one without a nanny, or gone meanwhile
            self.context.client.restart_workers(list(workers), timeout=RESTART_SECONDS, raise_for_error=False)
