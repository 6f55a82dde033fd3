"""The driver's part of trials: which are there already, and which are to be made."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from treadle.engine.artifacts import Folds, Prepared, SplitRule
from treadle.engine.context import Context
from treadle.engine.job import THRESHOLD
from treadle.engine.job import Model as ModelConfig
from treadle.engine.models.catalogue import entry_of
from treadle.engine.rows import Rows
from treadle.engine.trials.outcome import Outcome, key_of, load, path_of, save

Listener = Callable[[int, int], None]
"""Hears how many trials are done, and of how many."""


@dataclass(frozen=True)
class Cell:
    """One trial: which model, without which fold."""

    place: int
    """Of the model among those asked for."""
    fold: int


@dataclass(frozen=True)
class Terms:
    """What some trials have in common."""

    rows: int | None = None
    """Training rows that are drawn; all when None."""
    end: float | None = None
    """On the monotonic clock: from then on no trial begins."""
    one_at_least: bool = False
    """Whether the quickest model is tried all the same."""

    @property
    def is_over(self) -> bool:
        return self.end is not None and time.monotonic() >= self.end

    def lets(self, cell: Cell, quickest: int) -> bool:
        """Whether a trial may begin now; `quickest` is the place of the model that takes the least effort."""
        return not self.is_over or (self.one_at_least and cell.place == quickest)


ALL = Terms()
"""All training rows, without end."""


class Trials(ABC):
    """Trials on the folds of a job."""

    def __init__(self, context: Context, prepared: Prepared, rule: SplitRule, folds: Folds, base: str) -> None:
        self.context = context
        self.prepared = prepared
        self.rule = rule
        self.folds = folds
        self.base = base
        """The digest of rows, features and folds."""
        self._passing: dict[str, Outcome] = {}
        """By path, what another attempt may change: the next run makes one, not the next stage."""

    def run(
        self, configs: Sequence[ModelConfig], folds: Sequence[int] | None = None, terms: Terms = ALL
    ) -> list[list[Outcome]]:
        """Outcomes of every model, by fold (all when None). One that fails without some fold is not tried on.

        Raises
        ------
        TreadleError
            The cluster is lost, or the features of a fold cannot be made.
        """
        order = tuple(range(self.folds.count)) if folds is None else tuple(folds)
        return self.run_each([(config, order) for config in configs], terms=terms)

    def run_each(
        self,
        asked: Sequence[tuple[ModelConfig, Sequence[int]]],
        listener: Listener | None = None,
        terms: Terms = ALL,
    ) -> list[list[Outcome]]:
        """As `run`, with folds of its own for each model; the listener hears how many trials are done, of how many.

        Models that are the same but for their titles have the same trials. What is not begun in time is `NOT_BEGUN`.
        """
        configs = [config for config, _ in asked]
        keys = [self.key(config, terms.rows) for config in configs]
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
        if missing:
            self._make(configs, found, missing, listener or self._tell, terms)
        return [[found[Cell(place, fold)] for fold in fs] for place, (_, fs) in zip(places, asked, strict=True)]

    @staticmethod
    def quickest(configs: Sequence[ModelConfig], missing: Sequence[Cell]) -> int:
        """The place of the model that takes the least effort."""
        return min(missing, key=lambda cell: (entry_of(configs[cell.place]).effort, cell.place)).place

    @abstractmethod
    def _make(
        self,
        configs: Sequence[ModelConfig],
        found: dict[Cell, Outcome],
        missing: list[Cell],
        listener: Listener,
        terms: Terms,
    ) -> None:
        """Makes the trials that are missing, into `found`; hands each to `keep`, and tells the listener."""

    def keep(self, config: ModelConfig, fold: int, outcome: Outcome, rows: int | None = None) -> None:
        """Writes what came of a trial; what another attempt may change is kept for this run only."""
        path = path_of(self.base, self.key(config, rows), fold)
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

    def key(self, config: ModelConfig, rows: int | None = None) -> str:
        """The digest under which what came of a model's trials, on so many rows, is kept."""
        return key_of(config, self.context.job.seed, self.threshold, rows)

    def release(self) -> None:
        """Lets the workers forget the rows; they are made again when they are asked for."""
        Rows.of(self.context, self.prepared).release()
