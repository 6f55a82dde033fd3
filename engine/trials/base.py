"""The driver's part of trials: which are there already, and which are to be made."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from treadle.engine.artifacts import Folds, Prepared, SplitRule
from treadle.engine.context import Context
from treadle.engine.job import THRESHOLD
from treadle.engine.job import Model as ModelConfig
from treadle.engine.rows import Rows
from treadle.engine.trials.outcome import Outcome, key_of, load, path_of, save


@dataclass(frozen=True)
class Cell:
    """One trial: which model, without which fold."""

    place: int
    """Of the model among those asked for."""
    fold: int


class Trials(ABC):
    """Trials on the folds of a job."""

    def __init__(self, context: Context, prepared: Prepared, rule: SplitRule, folds: Folds, base: str) -> None:
        self.context = context
        self.prepared = prepared
        self.rule = rule
        self.folds = folds
        self.base = base
        """The digest of rows, features and folds."""

    def run(self, configs: Sequence[ModelConfig], folds: Sequence[int] | None = None) -> list[list[Outcome]]:
        """Outcomes of every model, by fold (all when None). One that fails without some fold is not tried on.

        Raises
        ------
        TreadleError
            The cluster is lost, or the features of a fold cannot be made.
        """
        order = tuple(range(self.folds.count)) if folds is None else tuple(folds)
        found: dict[Cell, Outcome] = {}
        for place, config in enumerate(configs):
            kept = {fold: load(self.context.store, self.path(config, fold)) for fold in order}
            failed = next((outcome for outcome in kept.values() if outcome is not None and outcome.error), None)
            for fold, outcome in kept.items():
                if (outcome := outcome or failed) is not None:
                    found[Cell(place, fold)] = outcome
        cells = [Cell(place, fold) for place in range(len(configs)) for fold in order]
        missing = [cell for cell in cells if cell not in found]
        if missing:
            self._make(configs, found, missing)
        return [[found[Cell(place, fold)] for fold in order] for place in range(len(configs))]

    @abstractmethod
    def _make(self, configs: Sequence[ModelConfig], found: dict[Cell, Outcome], missing: list[Cell]) -> None:
        """Makes the trials that are missing, into `found`; hands each to `keep`."""

    @property
    def threshold(self) -> float:
        """Of two classes: what the spec names as a number; what is chosen by scores out of folds is chosen later."""
        named = self.context.job.decision.threshold
        return named if isinstance(named, float) and self.rule.task == "binary" else THRESHOLD

    def path(self, config: ModelConfig, fold: int) -> str:
        """Of a trial's file, relative to the root."""
        return path_of(self.base, key_of(config, self.context.job.seed, self.threshold), fold)

    def keep(self, config: ModelConfig, fold: int, outcome: Outcome, done: int, total: int) -> None:
        """Writes what came of a trial, and tells how many of all are done."""
        context = self.context
        save(context.store, self.path(config, fold), outcome)
        context.events.emit(context.stage, "progress", done=done, total=total, note=f"{done}/{total} trials")

    def release(self) -> None:
        """Lets the workers forget the rows; they are made again when they are asked for."""
        Rows.of(self.context, self.prepared).release()
