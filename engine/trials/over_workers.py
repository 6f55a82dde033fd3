"""Trials of data that are too large for a worker to hold the rows of a fold: these stay where they are, as blocks.

Folds come one after the other. The features of each are fitted by passes over the partitions, and each model is
trained as in a job without folds: over all workers, or on a sample on one of them.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from treadle.engine.blocks import Block
from treadle.engine.checkpoints import forget_checkpoints
from treadle.engine.document import digest
from treadle.engine.job import Model as ModelConfig
from treadle.engine.measuring import TASKS, metrics_from, table_of
from treadle.engine.meter import Meter
from treadle.engine.models.base import Model, decided
from treadle.engine.models.boosted import said_by
from treadle.engine.recipe import Recipe, fit, inputs_of, make_block
from treadle.engine.rows import Rows
from treadle.engine.training import train_drawn, train_model
from treadle.engine.training_rows import TrainingRows
from treadle.engine.trials.base import Cell, Listener, Terms, Trials
from treadle.engine.trials.outcome import NOT_BEGUN, Outcome, fold_path
from treadle.errors import DataError, TreadleError


class TrialsOverWorkers(Trials):
    """Trials each over the whole cluster, or as much of it as the model can use."""

    def _make(
        self,
        configs: Sequence[ModelConfig],
        found: dict[Cell, Outcome],
        missing: list[Cell],
        listener: Listener,
        terms: Terms,
    ) -> None:
        total, quickest = len(found) + len(missing), self.quickest(configs, missing)
        for fold in sorted({cell.fold for cell in missing}):
            cells = [cell for cell in missing if cell.fold == fold]
            if not any(terms.lets(cell, quickest) for cell in cells):
                found |= dict.fromkeys(cells, NOT_BEGUN)
                continue
            training = self._rows(fold)
            for cell in cells:
                earlier = [outcome for other, outcome in found.items() if other.place == cell.place and outcome.error]
                config = configs[cell.place]
                if not terms.lets(cell, quickest):
                    found[cell] = NOT_BEGUN
                    continue
                found[cell] = earlier[0] if earlier else self._trial(training, config, fold, terms.rows)
                self.keep(config, fold, found[cell], terms.rows)
                listener(len(found), total)

    def _rows(self, fold: int) -> TrainingRows:
        """The blocks of a fold; ids and targets of its rows are written, as for trials on threads."""
        context, job = self.context, self.context.job
        rule = self.rule.without(self.folds, fold)
        rows = Rows.of(context, self.prepared)
        inputs = inputs_of(job, self.prepared.kinds)
        fitted, kinds = fit(rows, job, rule, inputs, backend=context.backend)
        names = tuple(kinds)
        recipe = Recipe(job, rule, tuple(inputs), tuple(fitted), backend=context.backend)
        blocks = rows.map(make_block, recipe, names)
        tested = context.gather(context.submit_like(tested_of, blocks))
        ids = pa.chunked_array([ids for ids, _ in tested])
        target = np.concatenate([target for _, target in tested])
        context.store.write_parquet(fold_path(self.base, fold), pa.table({"id": ids, "target": target}))
        return TrainingRows(context, names, rule, lambda: blocks, digest([self.base, fold]))

    def _trial(self, training: TrainingRows, config: ModelConfig, fold: int, rows: int | None) -> Outcome:
        """Over the workers, or on a sample of so many rows on one of them."""
        context = self.context
        notes: list[str] = []
        meter = Meter()
        own = TrainingRows(
            context, training.names, training.rule, training.blocks,
            digest([training.key, config.model_dump(mode="json"), context.job.seed]), None, training.found,
        )  # fmt: skip
        try:
            with meter:
                model, used = train_model(own, config, notes) if rows is None else train_drawn(own, config, notes, rows)
            forget_checkpoints(context.store, own.key)
            model = decided(model, None, self.threshold)
            started = time.perf_counter()
            parts = context.gather(context.submit_like(measured, training.blocks(), model))
            seconds = time.perf_counter() - started
        except DataError as error:
            return Outcome(error=str(error))
        except TreadleError:
            raise
        except Exception as error:
            return Outcome(error=f"{type(error).__name__}: {said_by(error)}"[:500], lasting=False)
        table = TASKS[self.rule.task][1]([table for table, _, _ in parts])
        title = f"{config.title}: "
        return Outcome(
            metrics=metrics_from(table, self.rule.task, model.has_probabilities, model.threshold),
            rows=used,
            train_seconds=meter.cost.wall_seconds,
            predict_seconds=seconds,
            peak_bytes=meter.cost.peak_bytes,
            said=tuple(note.removeprefix(title) for note in notes),
            margin=np.concatenate([margin for _, margin, _ in parts]),
            score=np.concatenate([score for _, _, score in parts]),
        )


def tested_of(block: Block) -> tuple[pa.Array, np.ndarray]:
    """On a worker: ids and targets of the rows of the fold."""
    rows = block.select("test")
    return rows.ids, rows.target


def measured(block: Block, model: Model) -> tuple[Any, np.ndarray, np.ndarray]:
    """On a worker: statistics of the rows of the fold, their margins and their scores."""
    rows = block.select("test")
    margin = model.margin(rows.matrix)
    score = model.scores(margin)
    labels = rows.target if model.task == "regression" else rows.target.astype(np.int64)
    return table_of(model, model.task, margin, score, labels), margin, score
