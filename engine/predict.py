"""Stage `predict`: scores of the run's own rows by the best model."""

from __future__ import annotations

from treadle.engine.artifacts import Evaluation, Features, Part, Predictions, SplitRule, Trained
from treadle.engine.blocks import Block, blocks_of
from treadle.engine.context import Context
from treadle.engine.models.base import load_model
from treadle.engine.scoring import prediction_table
from treadle.engine.store import Store

REVISION = 2


def run(
    context: Context, features: Features, rule: SplitRule, evaluation: Evaluation, trained: dict[str, Trained]
) -> Predictions:
    """One file of the table `predictions` a partition."""
    folder = trained[evaluation.best].files[0].path.rsplit("/", 1)[0]
    futures = [
        context.client.submit(
            predict,
            block,
            f"{context.folder}/part-{i:05d}.parquet",
            context.store,
            folder,
            rule,
            context.job.predict.rows,
            pure=False,
        )
        for i, block in enumerate(blocks_of(context, features, rule))
    ]
    return Predictions(table=tuple(context.gather(futures, rows=lambda part: part.rows)))


def predict(block: Block, path: str, store: Store, folder: str, rule: SplitRule, rows: str) -> Part:
    """On a worker."""
    wanted = block.select(rows)
    return store.write_parquet(
        path, prediction_table(wanted.ids, wanted.matrix, load_model(store, folder), rule.classes)
    )
