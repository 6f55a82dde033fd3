"""The stages of a job, in order. Each is skipped when its outcome is there already.

    read -> duplicates -> contract -> etl -> split -> features -> train:<model>...
         -> evaluate -> explain, predict -> publish

A stage's fingerprint is a digest of its configuration, of the fingerprints of the stages that it
needs, of the input's content and of its code's revision. An outcome under that fingerprint is
final, so the same mechanism is a cache between runs and the way to resume after a crash. `explain` and
`predict` share one pass over the rows (`treadle.engine.scored`); each is cached by itself all the same.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from treadle.engine import (
    compare,
    contract,
    duplicates,
    ensemble,
    etl,
    evaluate,
    explain,
    features,
    folds,
    layout,
    predict,
    publish,
    race,
    read,
    split,
    train,
    tune,
)
from treadle.engine.artifacts import (
    Artifact,
    Comparison,
    Contracted,
    Deduplicated,
    Evaluation,
    Explanation,
    Features,
    Folds,
    Predictions,
    Prepared,
    Publication,
    Raced,
    Source,
    SplitRule,
    Trained,
    Tuned,
    deciding,
    source_of,
)
from treadle.engine.bundle import replayable
from treadle.engine.cache import Cache
from treadle.engine.chain import Chain, Made, Record, Stage, content_of, input_config, trials_base
from treadle.engine.checkpoints import forget_checkpoints
from treadle.engine.context import Context
from treadle.engine.continuing import check_earlier
from treadle.engine.fallbacks import told
from treadle.engine.job import Compare, Job, Model
from treadle.engine.job_inputs import Inputs
from treadle.engine.meter import Meter
from treadle.engine.models.catalogue import CATALOGUE, check_models, entry_of
from treadle.engine.models.decision import check_decision
from treadle.engine.models.spaces import check_tuning
from treadle.engine.program import Program
from treadle.engine.recipe import inputs_of
from treadle.engine.store import OUTCOME, Store
from treadle.engine.trials.base import Trials
from treadle.engine.trials.placement import Placement, trials_of
from treadle.errors import DataError, RequestError, StorageError, column_not_found
from treadle.versions import version_of

HOST_STAGES: Mapping[str, str] = {
    "read": "files are read on the host, by Arrow",
    "duplicates": "on the host: there are no queries for it",
    "contract": "on the host: there are no queries for it",
    "split": "on the host: the hash of ids has no version for GPUs",
    **dict.fromkeys(("race", "compare", "tune"), "predictions and metrics of folds on the host"),
    "ensemble": "on the host, from what models predicted for folds",
    "evaluate": "on the host: the metrics' kernels have no version for GPUs",
}
"""What stages of a job on GPUs always do without them, and why; all else their workers tell."""


def check(job: Job, inputs: Inputs, store: Store) -> tuple[list[Program], list[str]]:
    """Resolves every operation against the inputs' columns.

    Returns the programs before each operation of `tables` and after the last, and the features known so far.

    Raises
    ------
    RequestError
        The first expectation, operation, column, model or decision that does not fit.
    DataError
        The input has no rows, or columns of another type than the contract says.
    """

    if inputs.main.rows == 0:
        raise DataError(f"The input {job.data.path} has no rows.")
    if inputs.test is not None:
        read.check_test(inputs.main, inputs.test)
    read.check_left_out(job, inputs.main, inputs.sides)
    contract.check(job, inputs.main, inputs.known)
    programs = etl.outlines(job, inputs.main, inputs.sides, store)
    kinds = programs[-1].output()
    layout.check(job, kinds)
    if job.is_etl:
        return programs, []
    named = [job.data.target, job.data.weight, *job.data.protected, *job.split_columns]
    for name in named:
        if name is not None and name not in kinds:
            raise column_not_found(name, "the rows after tables", kinds)
    task = split.check(job, kinds)
    check_models(job, task)
    check_tuning(job, task)
    check_decision(job, task, has_folds=job.compared is not None)
    if job.models:
        _check_replay(job, programs[-1], kinds)
    names = features.check(job, kinds)
    check_earlier(job, task, names, store)
    return programs, names


def _check_replay(job: Job, program: Program, kinds: Mapping[str, str]) -> None:
    """Refuses features that rows to predict could not have, because they are made from the target."""
    target = job.data.target or ""
    try:
        replayable(program, inputs_of(job, kinds), target)[0].empty()
    except RequestError as error:
        raise RequestError(
            f"Features are made from the target '{target}', which rows to predict do not have: {error} "
            "Drop in tables what is made from it."
        ) from error


def stages_of(
    job: Job, inputs: Inputs, earlier: Mapping[str, str] = {}, beside: Mapping[str, Any] = {}
) -> tuple[Stage, ...]:
    """The stages that a job has, with their fingerprints.

    `earlier` are the digests of `digests_of`; `beside`, by keys of the spec, is what else holds for a published model.
    """
    chain = Chain()
    data = job.data

    chain.add(
        "read",
        Source,
        (),
        {
            "data": {
                **input_config(inputs.main),
                **(asdict(inputs.main.options) if inputs.main.options else {}),
                "bad_rows": {"limit": data.bad_rows.limit},
                "partitions": data.partitions,
            },
            **({} if inputs.test is None else {"split": input_config(inputs.test)}),
        },
        read.REVISION,
        lambda c, m: read.run(c, inputs.main, inputs.test),
        inputs={"data": inputs.main, "split": inputs.test},
    )
    rows = "read"
    if data.duplicates != "keep":
        chain.add(
            "duplicates",
            Deduplicated,
            ("read",),
            {"data.duplicates": data.duplicates},
            duplicates.REVISION,
            lambda c, m: duplicates.run(c, m["read"]),
        )
        # Where they are only counted, the rows stay as they are; so they do where a contract sets nothing aside.
        rows = "duplicates" if data.duplicates == "drop" else rows
    if job.contract:
        _add_contract(chain, job, inputs, rows)
    rows = job.rows_from
    tables = [operation.model_dump(mode="json", by_alias=True) for operation in job.tables]
    for i, side in inputs.sides.items():
        tables[i]["with"] = content_of(tables[i]["with"], side)
    chain.add(
        "etl",
        Prepared,
        (rows,),
        {
            "tables": tables,
            "data.id": data.id,
            "models or features": not job.is_etl,
            "models or split.path": not job.keeps_no_tables,
        },
        etl.REVISION,
        lambda c, m: etl.run(c, source_of(m[rows]), inputs.sides),
        inputs={f"tables.{i}.with": side for i, side in inputs.sides.items()},
    )
    if not job.is_etl:
        _add_feature_stages(chain, job)
    if job.models:
        _add_model_stages(chain, job, earlier)
    before = tuple(chain.stages)
    # A version never changes, its card neither: what is said anew of the same model makes a new version of it.
    about = None if job.about is None or not job.models else job.about.model_dump(mode="json")
    chain.add(
        "publish",
        Publication,
        before,
        {"name": job.name, "artifacts.sample": job.artifacts.sample, "about": about, **beside},
        publish.REVISION,
        lambda c, m: _publish(c, m, chain.stages, inputs),
        always=True,
    )
    return tuple(chain.stages.values())


def _add_contract(chain: Chain, job: Job, inputs: Inputs, rows: str) -> None:
    """The stage that a spec with a contract has; `rows` is the one before, whose rows it looks at."""
    expectations = [expectation.model_dump(mode="json", by_alias=True) for expectation in job.contract]
    for i, inspected in inputs.known.items():
        expectations[i]["in"] = content_of(expectations[i]["in"], inspected)
    chain.add(
        "contract",
        Contracted,
        (rows,),
        {"contract": expectations},
        contract.REVISION,
        lambda c, m: contract.run(c, source_of(m[rows]), inputs.known),
        inputs={f"contract.{i}.in": inspected for i, inspected in inputs.known.items()},
    )


def _add_feature_stages(chain: Chain, job: Job) -> None:
    """What a job with features or models has after `etl`; without models it is split only where the spec says so."""
    splitting = job.split.model_dump(mode="json", exclude={"path"}) if job.split else None
    target = {
        "data.target": job.data.target,
        "data.positive_class": job.data.positive_class,
        "data.task": job.data.task,
        "metric": job.metric,
        "split": splitting,
        "seed": job.seed,
    }
    is_split = bool(job.models) or job.split is not None
    if is_split:
        chain.add("split", SplitRule, ("etl",), target, split.REVISION, lambda c, m: split.run(c, m["etl"]))
    operations = [operation.model_dump(mode="json") for operation in job.features]
    chain.add(
        "features",
        Features,
        ("etl", "split") if is_split else ("etl",),
        {
            "features": operations,
            "data.protected": job.data.protected,
            "data.weight": job.data.weight,
            "models": bool(job.models),
            **({} if is_split else target),
        },
        features.REVISION,
        lambda c, m: features.run(c, m["etl"], m.get("split")),
    )


def _add_model_stages(chain: Chain, job: Job, earlier: Mapping[str, str]) -> None:
    """What a job with models has after `features`."""
    decision = {"decision": job.decision.model_dump(mode="json")}
    if job.compared is not None:
        trains = _add_comparison(chain, job, job.compared, decision)
    else:
        for model in job.listed_models:
            asked = f"models.{model.title}"
            before = {} if model.continue_from is None else {f"{asked}.continue_from.content": earlier[model.title]}
            chain.add(
                f"train:{model.title}",
                Trained,
                ("features", "split"),
                {asked: model.model_dump(mode="json"), "seed": job.seed, **_library(model), **decision, **before},
                train.REVISION,
                lambda c, m, model=model: train.run(c, m["features"], m["split"], model),  # type: ignore[misc]
            )
        trains = tuple(name for name in chain.stages if name.startswith("train:"))
    last = deciding(chain.stages)
    chain.add(
        "evaluate",
        Evaluation,
        ("features", "split", *trains, *((last,) if last else ())),
        {"metric": job.metric, "data.protected": job.data.protected},
        evaluate.REVISION,
        lambda c, m: evaluate.run(c, m["features"], m["split"], [m[t] for t in trains], m[last] if last else None),
    )
    needs = ("features", "split", "evaluate")
    if job.explain.rows != "none":
        chain.add(
            "explain",
            Explanation,
            needs,
            {"explain": job.explain.model_dump(mode="json")},
            explain.REVISION,
            lambda c, m: explain.run(c, m["features"], m["split"], best_of(m)),
        )
    if job.predict.rows != "none":
        chain.add(
            "predict",
            Predictions,
            needs,
            {"predict": job.predict.model_dump(mode="json")},
            predict.REVISION,
            lambda c, m: predict.run(c, m["features"], m["split"], best_of(m)),
        )


def _library(model: Model) -> dict[str, str]:
    """The version of what trains a model, by its name in a fingerprint."""
    entry = entry_of(model)
    return {f"libraries.{model.estimator or entry.library}": entry.version()}


def _add_comparison(chain: Chain, job: Job, compared: Compare, decision: Mapping[str, Any]) -> tuple[str, ...]:
    """What comes before `evaluate` where models are compared by folds; the stage that trains the best."""
    chain.add(
        "folds",
        Folds,
        ("etl", "split"),
        {"compare": compared.model_dump(mode="json", exclude={"time_limit"})},
        folds.REVISION,
        lambda c, m: folds.run(c, m["etl"], m["split"]),
    )
    base = trials_base(chain.stages["features"].fingerprint, chain.stages["folds"].fingerprint)

    def trials(context: Context, made: Made) -> tuple[Trials, Placement]:
        return trials_of(context, made["etl"], made["split"], len(made["features"].names), made["folds"], base)

    models = job.models if isinstance(job.models, str) else [model.model_dump(mode="json") for model in job.models]
    asked = {
        "models": models,
        "metric": job.metric,
        "seed": job.seed,
        "compare.time_limit": compared.time_limit,
        "libraries": {entry.library: entry.version() for entry in CATALOGUE.values() if entry.installed},
        "budget": job.budget,
        **decision,
    }
    if (race_section := job.race) is not None:
        chain.add(
            "race",
            Raced,
            ("features", "folds"),
            {"race": race_section.model_dump(mode="json"), **asked},
            race.REVISION,
            lambda c, m: race.run(c, race_section, m["split"], m["folds"], trials(c, m)[0]),
        )
    chain.add(
        "compare",
        Comparison,
        ("features", "folds", *(("race",) if job.race is not None else ())),
        asked,
        compare.REVISION,
        lambda c, m: compare.run(c, m["split"], m["folds"], m.get("race"), *trials(c, m)),
    )
    if job.tune is not None:
        chain.add(
            "tune",
            Tuned,
            ("features", "folds", "compare"),
            {
                "tune": job.tune.model_dump(mode="json"),
                "seed": job.seed,
                "libraries.optuna": version_of("optuna"),
                "budget": job.budget,
            },
            tune.REVISION,
            lambda c, m: tune.run(c, m["split"], m["folds"], m["compare"], trials(c, m)[0]),
        )
    if (section := job.ensemble) is not None:
        before = deciding(chain.stages)
        assert before is not None
        chain.add(
            "ensemble",
            Comparison,
            ("features", "folds", before),
            {"ensemble": section.model_dump(mode="json"), **decision},
            ensemble.REVISION,
            lambda c, m: ensemble.run(c, m["split"], m["folds"], m[before], section, trials(c, m)[0]),
        )
    last = deciding(chain.stages)
    assert last is not None
    chain.add(
        "refit",
        Trained,
        ("features", "split", last),
        {"seed": job.seed, **decision},
        train.REVISION,
        lambda c, m: train.refit(c, m["features"], m["split"], m[last], trials(c, m)[0]),
    )
    return ("refit",)


def best_of(made: Made) -> Trained:
    """The model that the evaluation puts first."""
    best: Trained = made["refit"] if "refit" in made else made[f"train:{made['evaluate'].best}"]
    return best


def _publish(context: Context, made: Made, stages: Mapping[str, Stage], inputs: Inputs) -> Publication:
    return publish.run(context, made, {name: stage.fingerprint for name, stage in stages.items()}, inputs.named())


def run(context: Context, stages: tuple[Stage, ...], fresh: bool = False) -> tuple[dict[str, Artifact], list[Record]]:
    """Runs the stages that have no outcome yet, or all of them when `fresh`."""
    made: dict[str, Artifact] = {}
    records: list[Record] = []
    unsettled: set[str] = set()
    """Stages of which another attempt might make something else, and those that are made from them."""
    cache = Cache(context.store, context.job.name, stages, fresh)
    context.missing = {stage.name: stage.folder for stage in stages if stage.name in cache.whys}
    with cache.noting(made, unsettled):
        for stage in stages:
            context.stage, context.fingerprint = stage.name, stage.fingerprint
            context.backend = context.backend.of_stage(context.run_id, stage.name)
            found, why = cache.outcomes.get(stage.name), cache.whys.get(stage.name)
            if found is not None:
                made[stage.name] = found
                records.append(Record(stage.name, stage.fingerprint, "cached", 0.0, 0.0, 0))
                context.events.emit(stage.name, "cached", fingerprint=stage.fingerprint)
                continue
            if stage.name == "publish":
                context.before_publish()
            context.events.emit(stage.name, "started", fingerprint=stage.fingerprint, why=why)
            try:
                with Meter(context.device_memory) as meter:
                    context.store.forget(stage.folder)
                    if fresh and stage.artifact is Trained:
                        forget_checkpoints(context.store, stage.fingerprint)
                    artifact = _with_fallbacks(context, stage.function(context, made))
                    unsettled |= {stage.name} if not artifact.is_final or unsettled & set(stage.needs) else set()
                    if stage.name not in unsettled and not stage.always:
                        context.store.write_json(f"{stage.folder}/{OUTCOME}", artifact.model_dump(mode="json"))
                        if stage.artifact is Trained:
                            forget_checkpoints(context.store, stage.fingerprint)
            except BaseException as error:
                with contextlib.suppress(StorageError):  # what failed may be the disk
                    context.events.emit(stage.name, "failed", error=f"{type(error).__name__}: {error}")
                raise
            made[stage.name] = artifact
            record = Record(stage.name, stage.fingerprint, "finished", **asdict(meter.cost), why=why)
            records.append(record)
            context.events.emit(stage.name, "finished", **asdict(meter.cost), warnings=artifact.warnings)
    return made, records


def _with_fallbacks(context: Context, artifact: Artifact) -> Artifact:
    """With what the host did of a stage that runs on GPUs, as its function said or its workers told."""
    if context.backend.name == "cpu":
        return artifact
    said = [*artifact.fell_back, *(f"{context.stage}: {text}" for text in told(context.client, context.backend.topic))]
    if context.stage in HOST_STAGES:
        said.append(f"{context.stage}: {HOST_STAGES[context.stage]}")
    return artifact.model_copy(update={"fell_back": tuple(said)})
