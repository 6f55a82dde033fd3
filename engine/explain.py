"""Stage `explain`: the contributions of every feature to every row's margin, by the best model."""

from __future__ import annotations

import numpy as np

from treadle.engine.artifacts import Evaluation, Explanation, Features, Part, SplitRule, Trained
from treadle.engine.blocks import Block, blocks_of
from treadle.engine.context import Context
from treadle.engine.models.base import load_model
from treadle.engine.scoring import explanation_table
from treadle.engine.store import Store

REVISION = 2
Explained = tuple[Part, np.ndarray, float]


def run(
    context: Context, features: Features, rule: SplitRule, evaluation: Evaluation, trained: dict[str, Trained]
) -> Explanation:
    """Streams every block through the model; a row that does not add up fails the stage."""
    job = context.job
    folder = trained[evaluation.best].files[0].path.rsplit("/", 1)[0]
    futures = [
        context.client.submit(
            explain,
            block,
            f"{context.folder}/part-{i:05d}.parquet",
            context.store,
            folder,
            features.names,
            rule,
            job.explain.rows,
            job.explain.top_k,
            f"partition {i}",
            pure=False,
        )
        for i, block in enumerate(blocks_of(context, features, rule))
    ]
    found: list[Explained] = context.gather(futures, rows=lambda result: result[0].rows)
    rows = sum(part.rows for part, _, _ in found)
    means = np.sum([total for _, total, _ in found], axis=0) / max(rows, 1)
    order = np.argsort(-means, kind="stable")
    return Explanation(
        table=tuple(part for part, _, _ in found),
        method=load_model(context.store, folder).method,
        importance={features.names[i]: float(means[i]) for i in order},
        additivity_error=max(error for _, _, error in found),
    )


def explain(
    block: Block,
    path: str,
    store: Store,
    folder: str,
    names: tuple[str, ...],
    rule: SplitRule,
    rows: str,
    top_k: int | None,
    where: str,
) -> Explained:
    """On a worker: one file of the table `explanations`, |contributions| summed by feature, the additivity error."""
    wanted = block.select(rows)
    table, totals, error = explanation_table(
        wanted.ids, wanted.matrix, load_model(store, folder), names, rule.classes, top_k, where
    )
    return store.write_parquet(path, table), totals, error
