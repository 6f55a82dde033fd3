"""Stage `publish`: makes what the other stages wrote visible, as table versions and a model bundle.

Files are linked or copied into the tables and committed in one step a table. The run's manifest,
which the pipeline writes last, names the versions: what no manifest names does not exist.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import pyarrow as pa

from treadle.engine import card, delta
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
    Source,
    SplitRule,
    TableRecord,
    Trained,
    Tuned,
    deciding,
    source_of,
)
from treadle.engine.bundle import BundleDocument, fingerprint_of, is_sound, replayable, versions, write_bundle
from treadle.engine.context import Context
from treadle.engine.events import now
from treadle.engine.expectations import EachRow, named
from treadle.engine.inputs import Inspected
from treadle.engine.program import Program
from treadle.engine.rows import replay_of
from treadle.engine.sampling import sample_of
from treadle.engine.skew import Sample, SampleRecord
from treadle.engine.text_input import text_options
from treadle.versions import version_of

REVISION = 3
LIBRARIES = ("treadle", "xgboost", "scikit-learn", "numpy", "pandas", "pyarrow", "dask", "deltalake")


def run(
    context: Context,
    made: Mapping[str, Artifact],
    fingerprints: Mapping[str, str],
    inputs: Mapping[str, Inspected],
) -> Publication:
    """Commits every table that the job made, then the bundle; `inputs` are by the section that names them."""
    prepared = made["etl"]
    assert isinstance(prepared, Prepared)
    tables: list[TableRecord] = []

    def commit(name: str, parts: Sequence[Part], stage: str) -> None:
        if parts:
            tables.append(_commit(context, name, parts, fingerprints[stage]))
            context.progress(len(tables), 0)

    commit("quarantine", prepared.source.quarantine, "contract" if context.job.sets_aside else "read")
    if prepared.table is not None:
        commit("etl", prepared.table, "etl")
        return Publication(tables=tuple(tables), model=None)
    features = made["features"]
    assert isinstance(features, Features)
    commit("features", features.table, "features")
    if "evaluate" not in made:
        return Publication(tables=tuple(tables), model=None)
    evaluation, rule = made["evaluate"], made["split"]
    assert isinstance(evaluation, Evaluation)
    assert isinstance(rule, SplitRule)
    commit("leaderboard", [_rows(context, "leaderboard", evaluation.rows)], "evaluate")
    if (last := deciding(made)) is not None:
        comparison = made[last]
        assert isinstance(comparison, Comparison)
        commit("folds", [_rows(context, "folds", comparison.folds)], last)
    if isinstance(raced := made.get("race"), Raced):
        commit("race", [_rows(context, "race", raced.heats)], "race")
    if isinstance(tuned := made.get("tune"), Tuned):
        commit("trials", [_rows(context, "trials", tuned.trials)], "tune")
    if isinstance(predictions := made.get("predict"), Predictions):
        commit("predictions", predictions.table, "predict")
    if isinstance(explanation := made.get("explain"), Explanation):
        commit("explanations", explanation.table, "explain")
    best = made["refit"] if "refit" in made else made[f"train:{evaluation.best}"]
    assert isinstance(best, Trained)
    raw = source_of(made[context.job.rows_from])
    told = functools.partial(
        card.Facts.of,
        context.job,
        made=made,
        best=best,
        spec_digest=context.spec_digest,
        device=context.backend.name,
        stages=fingerprints,
        tables=tables,
        inputs=inputs,
    )
    model = _bundle(context, prepared, raw, rule, features, evaluation, best, fingerprints["publish"], told)
    return Publication(tables=tuple(tables), model=model)


def _commit(context: Context, name: str, parts: Sequence[Part], fingerprint: str) -> TableRecord:
    import pyarrow.parquet as pq

    store = context.store
    with store.fs.open(store.path(parts[0].path), "rb") as file:
        schema = pq.read_schema(file)
    relative = f"tables/{context.job.name}/{name}"
    version = delta.commit_table(
        store.fs,
        store.path(relative),
        [delta.DataFile(store.path(part.path), part.rows, part.bytes) for part in parts],
        schema,
        fingerprint=fingerprint,
        metadata={
            "treadle.run": context.run_id,
            "treadle.spec": context.spec_digest,
            "treadle.version": version_of("treadle"),
        },
    )
    return TableRecord(
        name=name,
        path=relative,
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


def _bundle(
    context: Context,
    prepared: Prepared,
    raw: Source,
    rule: SplitRule,
    features: Features,
    evaluation: Evaluation,
    best: Trained,
    fingerprint: str,
    told: Callable[..., card.Facts],
) -> str:
    store, job = context.store, context.job
    files = (*best.files, *features.level_files)
    existing = versions(store, job.name)
    if existing and fingerprint_of(store, job.name, existing[-1]) == fingerprint:
        folder = f"models/{job.name}/{existing[-1]}"
        copies = [part.model_copy(update={"path": f"{folder}/{part.path.rsplit('/', 1)[-1]}"}) for part in files]
        if all(store.has(copy) for copy in copies) and is_sound(store, job.name, existing[-1]):
            return f"{job.name}:{existing[-1]}"
    program, left_out = replayable(replay_of(context, prepared), features.inputs, job.data.target or "")
    found = sample_of(context, prepared, raw, (program, left_out), features, best)
    sample = found if isinstance(found, Sample) else None
    document = BundleDocument(
        name=job.name,
        version=_reserve(context),
        fingerprint=fingerprint,
        run=context.run_id,
        created=now(),
        task=rule.task,
        classes=rule.classes,
        target=job.data.target or "",
        id=program.id_column,
        csv=asdict(text_options(job.data)),
        inputs={},
        steps=(),
        left_out=tuple(step.where for step in left_out),
        contract=_contract(context, prepared, program),
        feature_inputs=tuple(features.inputs),
        operations=features.operations,
        features=features.names,
        sample=SampleRecord(rows=len(found.ids)) if isinstance(found, Sample) else SampleRecord(rows=0, reason=found),
        model=best.model,
        metrics=_metrics(evaluation, best.name),
        libraries={name: version_of(name) for name in LIBRARIES},
    )
    card.write(store, f"models/{job.name}/{document.version}", told(document=document, columns=dict(program.kinds)))
    return write_bundle(store, document, files, program, sample).reference


def _contract(context: Context, prepared: Prepared, program: Program) -> dict[str, EachRow]:
    """The expectations that can be held against a row to predict by itself, by name."""
    if prepared.first > 0:
        return {}  # what is predicted are rows that the operations made, not the input's
    columns = set(dict(program.kinds))
    return {
        name: expectation
        for name, expectation in named(context.job.contract)
        if isinstance(expectation, EachRow) and columns.issuperset(expectation.reads)
    }


def _reserve(context: Context) -> int:
    """The next version number; the folder is made here, so that two runs at once do not share it."""
    store, name = context.store, context.job.name
    while True:
        numbers = [int(v) for v in store.list(f"models/{name}") if v.isdigit()]
        version = max(numbers, default=0) + 1
        try:
            store.fs.makedirs(store.path(f"models/{name}/{version}"), exist_ok=False)
        except FileExistsError:
            continue
        return version


def _metrics(evaluation: Evaluation, name: str) -> dict[str, Any]:
    (row,) = [row for row in evaluation.rows if row["model"] == name]
    held_out = {f"test_{key}": value for key, value in (evaluation.held_out or {}).items()}
    return {key: value for key, value in row.items() if isinstance(value, float)} | held_out
