"""The chapters of a card that tell what a model is, for what, of which data and how it was made.

Headings follow Mitchell et al., "Model cards for model reporting", FAT* 2019 (https://doi.org/10.1145/3287560.3287596):
details, intended use, factors, metrics, evaluation data, training data, quantitative analyses, ethical considerations,
caveats and recommendations. What that paper has no place for, explanations and lineage, comes besides.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from treadle.engine.card.blocks import Block, Card, Cell, Chapter, Items, Links, Table, Text, chapter, items
from treadle.engine.card.facts import Facts
from treadle.engine.card.measured import caveats, explanations, metrics, quantities
from treadle.engine.sections.about import texts_of
from treadle.engine.sections.ensemble import ENSEMBLE

NOT_SAID = "not said in the spec"
TASKS = {"binary": "classification of two classes", "multiclass": "classification", "regression": "regression"}
PAPER = "https://doi.org/10.1145/3287560.3287596"


def card_of(facts: Facts) -> Card:
    """The card of a model; the same facts give the same card."""
    d = facts.document
    lead = (
        f"{TASKS[facts.rule.task].capitalize()} of {d.target} by {_algorithm(facts)}. Numbers on this card were "
        f"measured by run {d.run}; what was not measured is named as such. What the spec's section `about` says is its "
        "authors' word."
    )
    return Card(
        f"Model card: {facts.reference}",
        lead,
        (
            _details(facts),
            _use(facts),
            _factors(facts),
            _data(facts),
            _procedure(facts),
            metrics(facts),
            quantities(facts),
            explanations(facts),
            _ethics(facts),
            caveats(facts),
            _lineage(facts),
        ),
    )


def compact(value: Any) -> str:
    """Any JSON-able value on one line."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _algorithm(facts: Facts) -> str:
    best = facts.best
    if best.name == ENSEMBLE:
        return f"an ensemble of {len(best.members)} models"
    return best.model if best.model == best.name else f"{best.model} ({best.name})"


def _details(facts: Facts) -> Chapter:
    d, about = facts.document, facts.about
    rows: list[tuple[Cell, ...]] = [
        ("name", d.name),
        ("version", str(d.version)),
        ("task", TASKS[facts.rule.task]),
        ("target", d.target),
        ("algorithm", _algorithm(facts)),
        ("features", len(d.features)),
        ("published", d.created),
        ("run", d.run),
        ("software", f"Treadle {d.libraries.get('treadle', 'of an unknown version')}"),
        ("owners", ", ".join(texts_of(about.owners)) or NOT_SAID),
        ("contact", about.contact or NOT_SAID),
        ("licence", about.licence or NOT_SAID),
    ]
    params: list[tuple[Cell, ...]] = []
    for member in facts.best.members:
        shown = member.params or {"": "as the library has them"}
        params += [(member.title, name or "all", compact(value)) for name, value in shown.items()]
        for key in ("early_stopping", "continue_from", "estimator"):
            if (value := getattr(member, key)) is not None:
                told = value if isinstance(value, str) else compact(value.model_dump(mode="json"))
                params.append((member.title, key, told))
    references = texts_of(about.references)
    return chapter(
        "Model details",
        Table("The model", ("what", "value"), tuple(rows)),
        Table("Parameters", ("model", "parameter", "value"), tuple(params)) if params else None,
        Text("References:") if references else None,
        Links(references) if references else None,
    )


def _use(facts: Facts) -> Chapter:
    about, d = facts.about, facts.document
    meant, not_meant = texts_of(about.intended_use), texts_of(about.out_of_scope)
    return chapter(
        "Intended use",
        Items(meant) if meant else Text(f"Intended use: {NOT_SAID}."),
        Text("Out of scope:" if not_meant else f"Out of scope: {NOT_SAID}."),
        items(not_meant),
        Text(
            f"Technically it predicts rows that have the {len(d.inputs)} columns below, of the kinds that the "
            f"job's input had; anything else is refused. The target {d.target} is not needed."
        ),
        Table("Columns of a row", ("column", "kind"), tuple(d.inputs.items())),
    )


def _factors(facts: Facts) -> Chapter:
    protected = facts.job.data.protected
    if not protected:
        return chapter(
            "Factors",
            Text("The spec names no protected columns (data.protected), so that no results by group were measured."),
        )
    used = [name for name in protected if name in facts.document.feature_inputs]
    told = (
        f"{', '.join(used)}: also inputs of features, so that predictions may depend on them directly."
        if used
        else "None of them is an input of features; other columns may still stand for them."
    )
    return chapter("Factors", Text(f"Protected columns: {', '.join(protected)}."), Text(told))


def _data(facts: Facts) -> Chapter:
    rule, job, source = facts.rule, facts.job, facts.source
    inputs: list[tuple[Cell, ...]] = [
        (one.section, one.name, one.format, one.files, one.bytes, "none" if one.version is None else str(one.version),
         one.digest)
        for one in facts.inputs
    ]  # fmt: skip
    counts: list[tuple[Cell, ...]] = [("rows read", source.rows), ("broken rows set aside", source.bad_rows)]
    counts.append(("rows that repeat others", facts.duplicates.repeated if facts.duplicates else None))
    if facts.duplicates is not None:
        counts.append(("of these left out", facts.duplicates.dropped))
        if facts.duplicates.in_both is not None:
            counts.append(("distinct test rows that are training rows, too", facts.duplicates.in_both))
    if facts.contract is not None:
        counts.append(("rows set aside by the contract", facts.contract.set_aside))
    counts += [
        ("rows without a target, left out", rule.dropped_rows),
        ("training rows", rule.train_rows),
        ("test rows", rule.test_rows),
    ]
    blocks: list[Block | None] = [
        Table("Inputs", ("section", "name", "format", "files", "bytes", "version", "digest"), tuple(inputs)),
        Table("Rows", ("what", "rows"), tuple(counts)),
        Text(f"Split: {_split(facts)}."),
    ]  # fmt: skip
    if rule.task != "regression":
        classes = ", ".join(str(value) for value in rule.classes)
        positive = f"; {rule.classes[-1]} is the positive one" if rule.task == "binary" else ""
        blocks.append(Text(f"Classes: {classes}{positive}."))
    if job.data.weight is not None:
        blocks.append(Text(f"Training rows count as {job.data.weight} says; rows count 1 in every metric."))
    blocks += [_operations("Operations on rows, before the split (tables)", job.tables),
               _operations("Operations fitted on the training rows (features)", job.features),
               _contract(facts)]  # fmt: skip
    return chapter("Training and evaluation data", *blocks)


def _split(facts: Facts) -> str:
    rule, section = facts.rule, facts.job.split
    told = {
        "random": "rows drawn for the test by a hash of their ids",
        "stratified": "rows drawn for the test by a hash of their ids, the same share of each class",
        "time": f"the latest rows by {rule.column} are the test",
        "group": f"rows that share a value of {rule.column} stay together",
        "path": "the test is an input of its own",
        "folds": f"the folds that {getattr(section, 'column', '')} names; rows without one are the test",
        "none": "none",
    }[rule.kind]
    return f"{rule.kind}, {told}; seed {rule.seed}" if rule.kind not in ("path", "folds", "none") else told


def _operations(caption: str, operations: Sequence[Any]) -> Block:
    rows: list[tuple[Cell, ...]] = []
    for number, operation in enumerate(operations, 1):
        document = operation.model_dump(mode="json", by_alias=True, exclude_unset=True)
        document.pop("with", None)  # a path of this machine; the inputs have its name and digest
        name = document.pop("op", getattr(operation, "op", ""))
        rows.append((number, name, "; ".join(f"{key}: {compact(value)}" for key, value in document.items())))
    return Table(caption, ("number", "operation", "of"), tuple(rows)) if rows else Text(f"{caption}: none.")


def _contract(facts: Facts) -> Block:
    if facts.contract is None:
        return Text("The input was held against no contract.")
    rows = tuple((v.name, v.expect, v.status, v.rows, v.violations) for v in facts.contract.verdicts)
    head = ("expectation", "kind", "outcome", "rows checked", "rows that break it")
    return Table("Expectations on the input (contract)", head, rows, missing="on the whole input")


def _procedure(facts: Facts) -> Chapter:
    row, evaluation, folds = facts.row, facts.evaluation, facts.folds
    said = [
        f"{len(evaluation.rows)} models were compared by {evaluation.metric}; {evaluation.best} was the best."
        if len(evaluation.rows) > 1
        else "One model was trained; there was none to compare it with.",
        f"Trained on {facts.best.rows_used:,} of {facts.rule.train_rows:,} training rows, on {_device(facts)}; "
        f"seed {facts.job.seed}.",
    ]
    if folds is not None:
        said.append(
            f"Models were compared by {folds.count} folds of the training rows ({folds.kind}), each with features "
            "fitted without it; the best was then trained on all training rows."
        )
    if facts.race is not None:
        said.append(_race(facts))
    if facts.tuned is not None:
        trials = facts.tuned.trials
        done = sum(trial["state"] == "complete" for trial in trials)
        said.append(f"Parameters were looked for in {len(trials)} trials by the same folds, {done} of them on all.")
    if facts.comparison is not None and (mixture := facts.comparison.ensemble) is not None:
        parts: Sequence[str] = mixture.members
        if mixture.weights:
            parts = [f"{name} {weight:.3f}" for name, weight in zip(mixture.members, mixture.weights, strict=True)]
        said.append(f"An ensemble ({mixture.kind}) was compared, too: {', '.join(parts)}.")
    if row.get("train_seconds") is not None:
        said.append(f"Training took {row['train_seconds']:.2f} s" + (" in the mean of the folds." if folds else "."))
    return chapter("Training procedure", Items(tuple(said)), _leaderboard(facts))


def _device(facts: Facts) -> str:
    return "the CPU" if facts.device == "cpu" else f"GPUs ({facts.device})"


def _race(facts: Facts) -> str:
    assert facts.race is not None
    kept = {config.title for config in facts.race.configs}
    out = dict.fromkeys(str(heat["model"]) for heat in facts.race.heats if heat["model"] not in kept)
    sizes = sorted({int(heat["rows"]) for heat in facts.race.heats})
    return (
        f"Before that, heats on {', '.join(f'{size:,}' for size in sizes)} rows left out "
        f"{', '.join(out) or 'none'}, which no fold has measured."
    )


def _leaderboard(facts: Facts) -> Table:
    names = facts.metrics
    folds = facts.folds is not None

    def cell(row: Any, name: str) -> Cell:
        value = row.get(name)
        if value is None or f"{name}_std" not in row:
            return value if isinstance(value, float | int) else None
        return f"{value:.4f} ± {row[f'{name}_std']:.4f}"

    rows = [
        (row["model"], *(cell(row, name) for name in names), *((row.get("p_value"),) if folds else ()),
         row["rows_used"], row["train_seconds"], row["error"] or "none")
        for row in facts.evaluation.rows
    ]  # fmt: skip
    where = "means over the folds ± standard deviation" if folds else f"on {facts.rule.test_rows:,} test rows"
    head = ("model", *names, *(("p-value",) if folds else ()), "rows used", "training seconds", "error")
    return Table(f"Leaderboard, {where}", head, tuple(rows))


def _ethics(facts: Facts) -> Chapter:
    found = texts_of(facts.about.ethical_considerations)
    return chapter("Ethical considerations", Items(found) if found else Text(f"{NOT_SAID.capitalize()}."))


def _lineage(facts: Facts) -> Chapter:
    d = facts.document
    rows: list[tuple[Cell, ...]] = [
        ("run", d.run), ("digest of the spec", facts.spec_digest), ("fingerprint of the model", d.fingerprint),
        *((f"stage {name}", fingerprint) for name, fingerprint in facts.stages.items() if name != "publish"),
    ]  # fmt: skip
    tables = [(table.name, str(table.version), table.rows, table.path) for table in facts.tables]
    return chapter(
        "Lineage",
        Table("What it was made from", ("what", "value"), tuple(rows)),
        Table("Tables published with it", ("table", "version", "rows", "path under the artifacts root"), tuple(tables)),
        Table("Software", ("library", "version"), tuple(d.libraries.items())),
        Text(f"The run's manifest has plan, hardware, timings and all digests: treadle show {d.run}"),
        Text("The structure of this card follows Mitchell et al., Model cards for model reporting, FAT* 2019:"),
        Links((PAPER,)),
    )
