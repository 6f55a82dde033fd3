"""One pass of the best model over the rows, for the stages `explain` and `predict`.

Their tables, caches and fingerprints are apart, but what both need is computed once: the first of the
two that runs has the files of both written, each in its own stage's folder, and the other finds them
ready. An outcome counts only when its own stage has said so, so that after a crash between the two the
second makes its files again.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from treadle.engine.artifacts import Features, SplitRule, Trained
from treadle.engine.backend import Backend
from treadle.engine.blocks import Block, blocks_of
from treadle.engine.context import Context
from treadle.engine.job import Explain
from treadle.engine.models.base import load_model
from treadle.engine.scoring import Scored, Scoring, Target, write_scores
from treadle.engine.store import Store


def scored_of(context: Context, features: Features, rule: SplitRule, best: Trained) -> list[Scored]:
    """What the run's pass over the rows wrote, by partition, for those of the two stages that have no outcome yet."""
    if "scored" not in context.live:
        wanted = {"predict": context.job.predict.rows, "explain": context.job.explain.rows}
        targets = {name: (context.missing[name], rows) for name, rows in wanted.items() if name in context.missing}
        for folder, _ in targets.values():
            context.store.forget(folder)
        futures = [
            context.client.submit(
                score_block,
                block,
                number,
                context.store,
                best.folder,
                features.names,
                rule,
                targets,
                context.job.explain,
                context.backend,
                pure=False,
            )
            for number, block in enumerate(blocks_of(context, features, rule))
        ]
        context.live["scored"] = context.gather(futures, rows=lambda scored: scored.rows)
    return context.live["scored"]


def fell_back(context: Context, best: Trained, on_host: Sequence[int]) -> tuple[str, ...]:
    """What the host did though the job runs on GPUs, and why; `on_host` are its rows by partition."""
    if context.backend.name == "cpu":
        return ()
    if not load_model(context.store, best.folder).on_device:
        return (f"{context.stage}: all rows on the host, since there is no kernel for {best.model}",)
    return tuple(
        f"{context.stage}: {rows} rows of partition {number} on the host, for want of memory on the GPU; "
        "more data.partitions make smaller ones"
        for number, rows in enumerate(on_host)
        if rows
    )


def score_block(
    block: Block,
    number: int,
    store: Store,
    model: str,
    names: tuple[str, ...],
    rule: SplitRule,
    targets: dict[str, tuple[str, str]],
    explain: Explain,
    backend: Backend,
) -> Scored:
    """On a worker: the files of one partition; `targets` are the folder and the rows (test or all) by stage."""
    scoring = Scoring(load_model(store, model), names, rule.classes, explain.top_k, explain.dtype, backend)

    def target(stage: str) -> Target | None:
        if stage not in targets:
            return None
        folder, rows = targets[stage]
        every = np.ones(block.rows, dtype=bool)
        return Target(f"{folder}/part-{number:05d}.parquet", every if rows == "all" else block.test)

    return write_scores(
        scoring, block.ids, block.matrix, store, target("predict"), target("explain"), f"partition {number}"
    )
