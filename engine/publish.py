"""Stage `publish`: makes what the other stages wrote visible, as table versions and a model bundle.

What it does is numbered, and can be followed in the run's events. The run's manifest, which is written last, names
the versions: what no manifest names does not exist.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from treadle.engine.artifacts import (
    Artifact,
    Comparison,
    Evaluation,
    Explanation,
    Features,
    Part,
    Predictions,
    Prepared,
    Publication,
    Raced,
    TableRecord,
    Trained,
    Tuned,
    deciding,
)
from treadle.engine.bundle import publish_bundle
from treadle.engine.bundling import Bundling
from treadle.engine.commits import Ready, prepare_table
from treadle.engine.context import Context
from treadle.engine.delta import RUN, TableVersion
from treadle.engine.delta_files import DataFile
from treadle.engine.publication import Publishing, hide, settle
from treadle.signals import held
from treadle.versions import version_of

REVISION = 2


def run(context: Context, made: Mapping[str, Artifact], fingerprints: Mapping[str, str]) -> Publication:
    """Makes every table of the job a new version, and the best model one, all of them at once.

    1. The files are placed in the tables' folders, and checked. 2. The run waits for its turn, and takes back what
    a killed one left. 3. It says what it will change. 4. The bundle's files are written and checked. 5. The tables
    are committed, one after the other. 6. bundle.json. The manifest, which the runner writes, makes all of it
    visible. Where all of it is there already, nothing is done.
    """
    publishing = context.publishing
    assert publishing is not None
    outputs = [(name, parts, stage) for name, parts, stage in _outputs(context, made) if parts]
    best = _best(made)
    steps = Steps(context, 2 * len(outputs) + 3)
    ready = {}
    for name, parts, stage in outputs:
        ready[name] = _prepare(context, name, parts, fingerprints[stage])
        steps.done(f"the files of {name} are checked")
    bundling = None if best is None else Bundling(context, made, best, fingerprints["publish"])
    while (begun := _begin(context, publishing, ready, bundling, steps)) is None:
        pass  # another driver came first, so its turn is waited for
    if isinstance(begun, Publication):
        return begun
    before, model, is_new = begun
    bundle = bundling.write(model) if bundling is not None and model is not None and is_new else None
    steps.done("the files of the model's bundle are there" if model else "there is no model")
    # Too late to cancel: from the first table to the manifest nothing is left half published.
    publishing.ending.enter_context(held())
    tables = []
    for name, table in ready.items():
        tables.append(_record(context, name, table.commit(before.get(name))))
        steps.done(f"{name} is committed")
    if bundle is not None:
        publish_bundle(bundle)
    steps.done("all is committed")
    return Publication(tables=tuple(tables), model=model)


def _begin(
    context: Context, publishing: Publishing, ready: Mapping[str, Ready], bundling: Bundling | None, steps: Steps
) -> tuple[dict[str, int | None], str | None, bool] | Publication | None:
    """Waits for the turn of this run, and says what it will change.

    That is the versions that its tables had before, its model, and whether that is a new one; or the publication
    where all of it is there already; or None where another driver came first, as one can on an object store.
    """
    turn = publishing.turn(lambda: steps.say("waits for another run that is publishing"))
    steps.say("no other run is publishing")
    model = None if bundling is None else bundling.existing()
    there = {name: found for name, table in ready.items() if (found := table.existing()) is not None}
    left = turn.left
    if left is None and there.keys() == ready.keys() and (bundling is None or model is not None):
        return Publication(tables=tuple(_record(context, name, found) for name, found in there.items()), model=model)
    if left is not None:
        settle(context.store, left, context.run_id, keep=there)
        if left.model not in (None, model):
            hide(context.store, left.model)
    before = {name: table.current for name, table in ready.items() if name not in there}
    if left is not None:  # what both make is there, but hidden until this run has its manifest
        before |= {name: left.before[name] for name in there.keys() & left.before.keys()}
    is_new = bundling is not None and model is None
    if bundling is not None and model is None:
        model = bundling.next_reference(left)
    claim = publishing.begin(turn, before, model if is_new or (left is not None and left.model == model) else None)
    if claim is None:
        return None
    steps.done(f"publication {claim.number} of {context.job.name} has begun")
    return before, model, is_new


class Steps:
    """Numbered steps, as events of the run."""

    def __init__(self, context: Context, total: int) -> None:
        self._context = context
        self._total = total
        self._done = 0

    def done(self, note: str) -> None:
        """Another step is done."""
        self._done += 1
        self.say(note)

    def say(self, note: str) -> None:
        self._context.events.emit("publish", "progress", done=self._done, total=self._total, note=note)


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


def _prepare(context: Context, name: str, parts: Sequence[Part], fingerprint: str) -> Ready:
    import pyarrow.parquet as pq

    store = context.store
    with store.fs.open(store.path(parts[0].path), "rb") as file:
        schema = pq.read_schema(file)
    return prepare_table(
        store.fs,
        store.path(f"tables/{context.job.name}/{name}"),
        [DataFile(store.path(part.path), part.rows, part.bytes) for part in parts],
        schema,
        fingerprint=fingerprint,
        metadata={
            RUN: context.run_id,
            "treadle.spec": context.spec_digest,
            "treadle.version": version_of("treadle"),
        },
    )


def _record(context: Context, name: str, version: TableVersion) -> TableRecord:
    return TableRecord(
        name=name,
        path=f"tables/{context.job.name}/{name}",
        version=version.version,
        rows=version.rows,
        bytes=version.bytes,
        files=version.files,
    )


def _rows(context: Context, name: str, rows: Sequence[Mapping[str, Any]]) -> Part:
    """Rows about models as a Parquet file, a leaderboard's say: metrics, and what each model cost."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    whole = dict.fromkeys(("rows_used", "peak_bytes", "fold", "number", "folds", "heat", "rows"), pa.int64())
    types = {**dict.fromkeys(("model", "state", "params", "error"), pa.string()), **whole, "kept": pa.bool_()}
    schema = pa.schema([(name, types.get(name, pa.float64())) for name in names])
    table = pa.Table.from_pylist([dict(row) for row in rows], schema)
    return context.store.write_parquet(f"{context.folder}/{name}.parquet", table)
