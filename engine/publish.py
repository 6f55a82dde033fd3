"""Stage `publish`: makes what the other stages wrote visible, as table versions and a model bundle.

What it does is numbered, and can be followed in the run's events. The run's manifest, which is written last, names
the versions: what no manifest names does not exist.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from treadle.engine import layout
from treadle.engine.artifacts import (
    Artifact,
    Comparison,
    Evaluation,
    Explanation,
    Features,
    Predictions,
    Prepared,
    Publication,
    Raced,
    Trained,
    Tuned,
    deciding,
)
from treadle.engine.bundling import Bundling
from treadle.engine.commit_all import COMMON_STEPS, Steps, commit_all
from treadle.engine.context import Context
from treadle.engine.document import Part
from treadle.engine.inputs import Inspected

REVISION = 3


def run(
    context: Context,
    made: Mapping[str, Artifact],
    fingerprints: Mapping[str, str],
    inputs: Mapping[str, Inspected],
) -> Publication:
    """Makes every table of the job a new version, and the best model one, all of them at once.

    The files are placed in the tables' folders, and checked; then all of it is committed (`commit_all`).
    """
    publishing = context.publishing
    assert publishing is not None
    outputs = [(name, parts, stage) for name, parts, stage in _outputs(context, made) if parts]
    best = _best(made)
    steps = Steps(
        lambda done, total, note: context.events.emit("publish", "progress", done=done, total=total, note=note),
        2 * len(outputs) + COMMON_STEPS,
    )
    ready, spare = {}, []
    for name, parts, stage in outputs:
        ready[name], split = layout.prepare(context, name, parts, fingerprints[stage])
        spare += split
        steps.done(f"the files of {name} are checked")
    bundling = None if best is None else Bundling(context, made, best, fingerprints, inputs)
    found, model = commit_all(context.store, publishing, context.run_id, context.job.name, ready, bundling, steps)
    context.store.remove(*spare)
    return Publication(tables=tuple(version.record(context.job.name) for version in found.values()), model=model)


def _outputs(context: Context, made: Mapping[str, Artifact]) -> Iterator[tuple[str, Sequence[Part], str]]:
    """Every table of the job: its name, its files, and the stage that they are from."""
    prepared = made["etl"]
    assert isinstance(prepared, Prepared)
    yield "quarantine", prepared.source.quarantine, "contract" if context.job.sets_aside else "read"
    if prepared.table is not None:
        yield "etl", prepared.table, "etl"
    if isinstance(features := made.get("features"), Features):
        yield "features", features.table, "features"
    if isinstance(evaluation := made.get("evaluate"), Evaluation):
        yield "leaderboard", [_rows(context, "leaderboard", evaluation.rows)], "evaluate"
    if (last := deciding(made)) is not None and isinstance(comparison := made[last], Comparison):
        yield "folds", [_rows(context, "folds", comparison.folds)], last
    if isinstance(raced := made.get("race"), Raced):
        yield "race", [_rows(context, "race", raced.heats)], "race"
    if isinstance(tuned := made.get("tune"), Tuned):
        yield "trials", [_rows(context, "trials", tuned.trials)], "tune"
    if isinstance(predictions := made.get("predict"), Predictions):
        yield "predictions", predictions.table, "predict"
    if isinstance(explanation := made.get("explain"), Explanation):
        yield "explanations", explanation.table, "explain"


def _best(made: Mapping[str, Artifact]) -> Trained | None:
    """The model that the evaluation puts first; None in a job without models."""
    if not isinstance(evaluation := made.get("evaluate"), Evaluation):
        return None
    best = made["refit"] if "refit" in made else made[f"train:{evaluation.best}"]
    assert isinstance(best, Trained)
    return best


def _rows(context: Context, name: str, rows: Sequence[Mapping[str, Any]]) -> Part:
    """Rows about models as a Parquet file, a leaderboard's say: metrics, and what each model cost."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    whole = dict.fromkeys(("rows_used", "peak_bytes", "fold", "number", "folds", "heat", "rows"), pa.int64())
    types = {**dict.fromkeys(("model", "state", "params", "error"), pa.string()), **whole, "kept": pa.bool_()}
    schema = pa.schema([(name, types.get(name, pa.float64())) for name in names])
    table = pa.Table.from_pylist([dict(row) for row in rows], schema)
    return context.store.write_parquet(f"{context.folder}/{name}.parquet", table)
