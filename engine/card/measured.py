"""The chapters of a card that tell what was measured, and how far that goes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from treadle.engine.card.blocks import (
    Bars,
    Block,
    Cell,
    Chapter,
    Dots,
    Items,
    Line,
    Reliability,
    Table,
    Text,
    chapter,
)
from treadle.engine.card.facts import Facts
from treadle.engine.job import LOWER_IS_BETTER, THRESHOLD
from treadle.engine.sections.about import texts_of
from treadle.engine.sections.decision import Costs

SMALL = 100
"""Rows of a group below which its rates are called uncertain: the standard error of one may be 0.05."""
TOP = 20
"""Features that are shown."""
RATES = {
    "selection_rate": "share predicted positive",
    "tpr": "of positives, predicted positive",
    "fpr": "of negatives, predicted positive",
    "accuracy": "predicted rightly",
}
MEASURED_OF = {"binary": None, "multiclass": "several classes", "regression": "numbers"}
UNSEEN = {
    "ignore": "are as if there were none",
    "other": "get the level 'other'",
    "error": "are refused",
    "zero": "count as a share of 0",
    "mean": "get the mean of all training rows",
}


def metrics(facts: Facts) -> Chapter:
    """Which metrics, by which the model was chosen, and where its classes begin."""
    metric, task = facts.evaluation.metric, facts.rule.task
    better = "less is better" if metric in LOWER_IS_BETTER else "more is better"
    said = [f"The model was chosen by {metric} ({better}).", f"Measured: {', '.join(facts.metrics)}."]
    if task == "binary":
        said.append(_threshold(facts))
    elif task == "multiclass":
        said.append("The most probable class is predicted; there is no threshold.")
    if task != "regression":
        said.append(_probabilities(facts))
    return chapter("Metrics", Items(tuple(said)))


def _threshold(facts: Facts) -> str:
    threshold = facts.evaluation.thresholds.get(facts.best.name)
    asked = facts.job.decision.threshold
    if asked is None:
        chosen = "the default; it was not chosen by what errors cost"
    elif isinstance(asked, Costs):
        chosen = (
            f"chosen on out-of-fold scores by costs of {asked.false_positive:g} a false positive and "
            f"{asked.false_negative:g} a false negative"
        )
    else:
        chosen = "named by the spec" if isinstance(asked, float) else f"chosen on out-of-fold scores by {asked}"
    if threshold is None and asked is not None and not isinstance(asked, float):
        return f"Threshold: {chosen}; model.json in the bundle has it."
    value = threshold if threshold is not None else asked if isinstance(asked, float) else THRESHOLD
    return f"A row is called positive above a score of {value:.4g}: {chosen}."


def has_probabilities(facts: Facts) -> bool | None:
    """Whether the scores are probabilities; None where nothing tells."""
    if facts.rule.task == "regression":
        return None
    row = {**facts.row, **(facts.evaluation.held_out or {})}
    return "log_loss" in row or facts.job.decision.calibrate is not None


def _probabilities(facts: Facts) -> str:
    if (kind := facts.job.decision.calibrate) is not None:
        return f"Scores are probabilities, calibrated ({kind}) on the scores of rows that were left out of training."
    if has_probabilities(facts):
        return "Scores are probabilities as the model has them; they were not calibrated."
    return "Scores are no probabilities: the model has none, and was not calibrated."


def quantities(facts: Facts) -> Chapter:
    """The model's own metrics, over folds and on the test, by group; and its calibration."""
    blocks: list[Block | None] = [_overall(facts), _comparison_chart(facts), _by_fold(facts)]
    return chapter("Quantitative analyses", *blocks, *_by_group(facts), *_calibration(facts))


def _overall(facts: Facts) -> Table:
    """Metrics of the model, on each kind of rows that it was measured on."""
    row, held_out, rule, folds = facts.row, facts.evaluation.held_out, facts.rule, facts.folds
    test = held_out if folds is not None else (row if facts.tested else {})
    values = [(name, (test or {}).get(name)) for name in facts.metrics]
    if folds is None:
        return Table(f"{facts.best.name} on {rule.test_rows:,} test rows", ("metric", "test"), tuple(values))
    rows = [(name, value, row.get(name), row.get(f"{name}_std")) for name, value in values]
    caption = f"{facts.best.name} on {rule.test_rows:,} test rows, and on {sum(folds.rows):,} training rows by folds"
    return Table(caption, ("metric", "test", "mean of folds", "standard deviation"), tuple(rows))


def _comparison_chart(facts: Facts) -> Block | None:
    metric = facts.evaluation.metric
    lines = [
        Line(row["model"], (float(row[metric]),), row.get(f"{metric}_std"))
        for row in facts.evaluation.rows
        if _is_number(row.get(metric))
    ]
    if len(lines) < 2:
        return None
    ends = [value + sign * (line.spread or 0) for line in lines for value in line.values if value is not None
            for sign in (-1, 1)]  # fmt: skip
    return Dots(f"{metric} of every model", (metric,), tuple(lines), min(ends), max(ends))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and value == value and abs(value) != float("inf")


def _by_fold(facts: Facts) -> Block | None:
    if facts.comparison is None:
        return None
    own = [row for row in facts.comparison.folds if row["model"] == facts.evaluation.best]
    rows = [(str(row["fold"]), *(row.get(name) for name in facts.metrics)) for row in own]
    return Table(f"{facts.evaluation.best}, fold by fold", ("fold", *facts.metrics), tuple(rows))


def _by_group(facts: Facts) -> list[Block]:
    protected = facts.job.data.protected
    if not protected:
        return [Text("Results by group: not measured, since no protected columns are named.")]
    if (task := MEASURED_OF[facts.rule.task]) is not None:
        return [Text(f"Results by group: not measured; they are for two classes, and this target has {task}.")]
    if not facts.tested:
        return [Text("Results by group: not measured, since there are no test rows.")]
    told = "; ".join(f"{name}: {text}" for name, text in RATES.items())
    blocks: list[Block] = [Text(f"Results by group, on test rows. {told}. Groups below {SMALL} rows are small.")]
    for column in protected:
        groups = facts.evaluation.groups.get(column)
        if groups is None:
            blocks.append(Text(f"Results by {column}: not measured, since it has too many values; a warning tells."))
        else:
            blocks += _of_column(column, groups)
    blocks.append(Text("Results by several protected columns together were not measured."))
    return blocks


def _of_column(column: str, groups: Mapping[str, Mapping[str, float | None]]) -> list[Block]:
    rows = [
        (value, int(rates["n"] or 0), *(rates[name] for name in RATES), "small" if small(rates) else "enough")
        for value, rates in groups.items()
    ]
    head = (column, "rows", *RATES, "size")
    apart = [gap(name, groups) for name in RATES]
    lines = tuple(
        Line(f"{value} ({int(rates['n'] or 0):,})", tuple(rates[name] for name in RATES))
        for value, rates in groups.items()
    )
    return [
        Table(f"Test rows by {column}", head, tuple(rows), missing="undefined"),
        Table(
            f"Largest differences by {column}",
            ("rate", "difference", "lowest", "of", "highest", "of"),
            tuple(row for row in apart if row is not None),
        ),
        Dots(f"Rates by {column}, with numbers of rows", tuple(RATES), lines, 0.0, 1.0),
    ]


def small(rates: Mapping[str, float | None]) -> bool:
    """Whether a group has too few rows for its rates to tell much."""
    return (rates["n"] or 0) < SMALL


def gap(name: str, groups: Mapping[str, Mapping[str, float | None]]) -> tuple[Cell, ...] | None:
    """Of a rate: largest minus least over the groups that have one, and which these are; None of fewer than two."""
    found = {value: rate for value, rates in groups.items() if (rate := rates[name]) is not None}
    if len(found) < 2:
        return None
    low, high = min(found, key=lambda value: found[value]), max(found, key=lambda value: found[value])
    return (name, found[high] - found[low], found[low], low, found[high], high)


def calibration_error(bins: Sequence[Mapping[str, float | None]]) -> float | None:
    """Mean over rows of |share of positives - mean score| of the row's bin; None without rows."""
    rows = sum(part["count"] or 0 for part in bins)
    gaps = sum(
        (part["count"] or 0) * abs(part["positive_rate"] - part["mean_score"])
        for part in bins
        if part["positive_rate"] is not None and part["mean_score"] is not None
    )
    return gaps / rows if rows else None


def _calibration(facts: Facts) -> list[Block]:
    bins = facts.evaluation.calibration.get(facts.best.name)
    if facts.rule.task == "regression":
        return []
    if not bins:
        if facts.rule.task == "multiclass":
            why = "it is for two classes"
        elif not facts.tested:
            why = "there are no test rows"
        else:
            why = "the model has no probabilities"
        return [Text(f"Calibration: not measured; {why}.")]
    rows = [
        (f"{part['lower']:.1f} to {part['upper']:.1f}", int(part["count"] or 0), part["mean_score"],
         part["positive_rate"])
        for part in bins
    ]  # fmt: skip
    points = tuple(
        (part["mean_score"], part["positive_rate"], int(part["count"] or 0))
        for part in bins
        if part["mean_score"] is not None and part["positive_rate"] is not None
    )
    positive = sum(round(rate * count) for _, rate, count in points)
    total = sum(count for _, _, count in points)
    error = calibration_error(bins)
    return [
        Text(
            f"Calibration: of {total:,} test rows {positive:,} are positive; a score misses the share of positives "
            f"among rows of its bin by {error:.4f} in the mean (expected calibration error, 10 bins)."
        ),
        Table(
            "Calibration on test rows",
            ("score", "rows", "mean score", "share positive"),
            tuple(rows),
            missing="no rows",
        ),
        Reliability("Share of positives by score; on the line they are as often positive as the score says", points),
    ]


def explanations(facts: Facts) -> Chapter:
    """Which features mattered, by what method, and how exactly."""
    found = facts.explanation
    if found is None:
        return chapter("Explanations", Text("Not measured: the spec asks for none (explain.rows)."))
    rows = sum(part.rows for part in found.table)
    explained = rows // len(facts.rule.classes) if facts.rule.task == "multiclass" else rows
    if not explained:
        return chapter("Explanations", Text("Not measured: there were no rows to explain."))
    top = list(found.importance.items())[:TOP]
    where = {"test": "test rows", "all": "rows"}[facts.job.explain.rows]
    said = [
        f"Contributions to the margin of {explained:,} {where}; method: {found.method}.",
        f"Contributions add up to the margin within {found.additivity_error:.2g} in every row.",
        "A contribution tells what the model makes of a feature, and not what causes the target.",
    ]
    return chapter(
        "Explanations",
        Items(tuple(said)),
        Table(
            f"Features by mean |contribution|, {len(top)} of {len(found.importance)}",
            ("feature", "mean |contribution|"),
            tuple(top),
        ),
        Bars("Mean |contribution| of the first features", tuple(Line(name, (value,)) for name, value in top)),
    )


def caveats(facts: Facts) -> Chapter:
    """What the numbers do not say; first what the spec's authors know."""
    said = [*texts_of(facts.about.limitations), *_of_measuring(facts), *_of_predicting(facts)]
    said += [f"The run warned: {text}" for text in facts.warnings]
    return chapter("Caveats and recommendations", Items(tuple(said)))


def _of_measuring(facts: Facts) -> list[str]:
    rule, folds, models = facts.rule, facts.folds, len(facts.evaluation.rows)
    said = []
    if not facts.tested:
        said.append("Nothing was measured on rows that had no part in making the model: there are no test rows.")
    elif folds is None and models > 1:
        said.append(
            f"The best of {models} models was chosen by the same {rule.test_rows:,} test rows that it is measured on, "
            "so its metrics are better than new rows will have them; compare by folds to know."
        )
    elif folds is not None:
        said.append("Metrics of folds had a part in choosing the model; those on the test rows had none.")
    if facts.tested:
        said.append(
            f"All that is said of test rows was measured on {rule.test_rows:,} rows, once; no intervals were measured."
        )
    tiny = [
        f"{column} = {value} ({int(rates['n'] or 0):,})"
        for column, groups in facts.evaluation.groups.items()
        for value, rates in groups.items()
        if small(rates)
    ]
    if tiny:
        said.append(f"Groups of fewer than {SMALL} test rows, whose rates are uncertain: {', '.join(tiny)}.")
    if facts.duplicates is None:
        said.append("Whether rows repeat each other, also across training and test, was not measured.")
    if facts.contract is None:
        said.append("The input was held against no contract: what it should be like was not checked.")
    said.append("Drift of data since this model was published was not measured.")
    return said


def _of_predicting(facts: Facts) -> list[str]:
    said = []
    if facts.document.left_out:
        said.append(f"Not replayed on rows to predict, for they need the target: {', '.join(facts.document.left_out)}.")
    by_rule: dict[str, list[str]] = {}
    for operation in facts.document.operations:
        if isinstance(unseen := getattr(operation, "unseen", None), str):
            by_rule.setdefault(unseen, []).extend(operation.names)
    for unseen, names in by_rule.items():
        said.append(f"Values that training rows did not have {UNSEEN[unseen]}: {', '.join(dict.fromkeys(names))}.")
    sample = facts.document.sample
    if sample is not None and not sample.rows:
        said.append(f"That rows are predicted as in training is not checked when the model is loaded: {sample.reason}")
    if has_probabilities(facts) is False:
        said.append("Scores order rows, and are not to be read as probabilities.")
    return said
