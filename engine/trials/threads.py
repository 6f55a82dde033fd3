"""Trials of data that are small enough for a worker to hold the rows of a fold.

Every thread of a worker has one trial at a time, which uses no other thread, so that cores are shared by trials
and not fought for within them. A trial that outlives its time limit is ended by starting
its worker again, since no library lets itself be stopped from outside; what else the worker was at is done again,
and what it held is made again.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from treadle.engine.job import Model as ModelConfig
from treadle.engine.models.catalogue import entry_of
from treadle.engine.recipe import inputs_of
from treadle.engine.rows import Rows
from treadle.engine.trials.base import Cell, Listener, Terms, Trials
from treadle.engine.trials.fold_data import fold_data
from treadle.engine.trials.outcome import NOT_BEGUN, Outcome, fold_path
from treadle.engine.trials.trial import run_trial

if TYPE_CHECKING:
    from distributed import Future

LOOK_SECONDS = 0.5
RESTART_SECONDS = 30.0
RESULT_SECONDS = 10.0
"""For what came of a trial to arrive; its worker may die before it has."""


@dataclass
class Running:
    """A trial that is under way."""

    cell: Cell
    future: Future
    worker: str
    alone: bool


class TrialsOnThreads(Trials):
    """Trials each on a thread of a worker, which holds the rows of the fold."""

    def __init__(self, *args: Any, limit: float | None = None, named: str = "compare.time_limit") -> None:
        super().__init__(*args)
        self.limit, self.named = limit, named
        """Seconds that training may take, and what says so."""
        self.data: dict[int, Future] = {}
        """The rows of folds, on the workers."""

    def _make(
        self,
        configs: Sequence[ModelConfig],
        found: dict[Cell, Outcome],
        missing: list[Cell],
        listener: Listener,
        terms: Terms,
    ) -> None:
        # The longest first, so that no thread is idle at the end; where there may be no time for all, the last.
        sign = -1 if terms.end is None else 1
        missing.sort(key=lambda cell: (sign * entry_of(configs[cell.place]).effort, cell.place, cell.fold))
        self._place(sorted({cell.fold for cell in missing}))
        _Round(self, configs, found, missing, listener, terms).run()

    def _place(self, folds: Sequence[int]) -> None:
        """Has the rows of these folds made ready, so that trials need not wait for them."""
        new = [fold for fold in folds if fold not in self.data]
        if new:
            rows = Rows.of(self.context, self.prepared)
            frames, roles = rows.hold(), [partition[0].role for partition in rows.partitions]
            inputs = inputs_of(self.context.job, self.prepared.kinds)
            for fold in new:
                path = fold_path(self.base, fold)
                rule = self.rule.without(self.folds, fold)
                self.data[fold] = self.context.client.submit(
                    fold_data, frames, roles, self.context.job, rule, inputs, self.context.store, path, pure=False
                )
            self.context.ready([self.data[fold] for fold in new])

    def release(self) -> None:
        self.data.clear()
        super().release()


class _Round:
    """Some trials, from the first to the last."""

    def __init__(
        self,
        trials: TrialsOnThreads,
        configs: Sequence[ModelConfig],
        found: dict[Cell, Outcome],
        missing: list[Cell],
        listener: Listener,
        terms: Terms,
    ) -> None:
        self.trials = trials
        self.context = trials.context
        self.configs = configs
        self.found = found
        self.cells = len(found) + len(missing)
        self.waiting = missing
        self.listener = listener
        self.terms = terms
        self.quickest = trials.quickest(configs, missing)
        self.suspects: list[Cell] = []
        """Trials whose worker died over them; each is tried once more, with the cluster for itself."""
        room = self.context.room
        self.a_worker = room.threads
        # By all that are asked for and all workers, lost ones too: a run that goes on where another ended computes
        # the same.
        self.threads = max(1, min(room.threads, self.context.size * room.threads // self.cells))
        self.running: list[Running] = []
        self.began: dict[str, float] = {}
        """Tasks that workers have begun with, and when: one that waits for a thread takes no time yet."""

    def run(self) -> None:
        topic = f"treadle-trials-{self.context.run_id}"
        self.context.client.subscribe_topic(topic, lambda event: self.began.setdefault(event[1], time.monotonic()))
        try:
            while self.waiting or self.suspects or self.running:
                self._leave_out_late()
                workers = self.context.workers
                self._take_back([one for one in self.running if one.worker not in workers])
                self._start(workers, topic)
                for one in self._ended():
                    self._receive(one)
                self._end_late()
        finally:
            self.context.client.cancel([one.future for one in self.running])
            self.context.client.unsubscribe_topic(topic)

    def _start(self, workers: Sequence[str], topic: str) -> None:
        """Gives every free thread a trial."""
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
            trials.data[cell.fold],
            self.configs[cell.place],
            trials.rule.without(trials.folds, cell.fold),
            self.context.job.seed,
            trials.threshold,
            self.threads,
            topic,
            self.terms.rows,
            self.context.backend,
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
        # One that is "lost" had ended, on a worker that is gone: it is taken back with that worker's others.
        return [one for one in self.running if one.future.status not in ("pending", "lost")]

    def _receive(self, one: Running) -> None:
        """Keeps what came of a trial; leaves it where it is when its worker dies before that has arrived.

        Waiting without end would be in vain then: the trial is bound to that worker, and is not run again.
        """
        try:
            outcome = self.context.result(one.future, RESULT_SECONDS)
        except TimeoutError:
            return
        self.running.remove(one)
        self._keep(one.cell, outcome)

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
        self.trials.keep(self.configs[cell.place], cell.fold, outcome, self.terms.rows)
        if outcome.error is not None:
            self._give_up(cell.place, outcome)
        self.listener(len(self.found), self.cells)

    def _give_up(self, place: int, outcome: Outcome) -> None:
        """Leaves out what is still to be tried of a model that failed."""
        for cell in [cell for cell in (*self.waiting, *self.suspects) if cell.place == place]:
            self.found[cell] = outcome
        self.waiting = [cell for cell in self.waiting if cell.place != place]
        self.suspects = [cell for cell in self.suspects if cell.place != place]

    def _leave_out_late(self) -> None:
        """Leaves out what is not under way and may no longer begin."""
        for cells in (self.waiting, self.suspects):
            late = [cell for cell in cells if not self.terms.lets(cell, self.quickest)]
            self.found |= dict.fromkeys(late, NOT_BEGUN)
            cells[:] = [cell for cell in cells if cell not in late]

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
            reason = f"training took longer than {self.trials.named}, {limit:g} s"
            self._keep(one.cell, Outcome(error=reason, lasting=False))
        with contextlib.suppress(ValueError, KeyError):  # one without a nanny, or gone meanwhile
            self.context.client.restart_workers(list(workers), timeout=RESTART_SECONDS, raise_for_error=False)
