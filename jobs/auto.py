"""`treadle auto`: from files and a target to a model within a time, and the spec that trains that model again."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from treadle.engine.events import Listener
from treadle.engine.job import CLASSIFICATION_METRICS, MAX_FOLDS, REGRESSION_METRICS
from treadle.engine.relational.window import microseconds
from treadle.engine.sections.ensemble import ENSEMBLE
from treadle.errors import RequestError, did_you_mean, listed
from treadle.jobs.draft import make_draft
from treadle.jobs.profile import profile_input
from treadle.jobs.run import Run
from treadle.jobs.runner import run as run_spec
from treadle.jobs.spec import JobSpec, load_spec
from treadle.jobs.yaml_text import inline

RACED_FROM = 5000
"""Rows from which samples are much smaller than all: with fewer, all models are compared by all folds."""
KEPT = 6
TUNED = 3
TRIALS = 1000
"""More than any budget has time for."""
LEAST_SECONDS = 5.0
"""Of a search, whatever the profile took."""


@dataclass(frozen=True)
class Found:
    """The run of a search, and the spec of its winner."""

    run: Run
    spec: str
    """YAML: what the input is made into, with reasons as comments, and the model that was found."""


def auto(
    paths: str | Sequence[str],
    target: str,
    budget: str = "10min",
    *,
    metric: str | None = None,
    folds: int = 5,
    seed: int | None = None,
    format_: str | None = None,
    workers: int | None = None,
    root: str | None = None,
    overrides: Sequence[str] = (),
    beside: Path | None = None,
    listener: Listener | None = None,
) -> Found:
    """Profiles files, proposes what is made of their columns, and searches for the best model within the budget.

    The budget is wall clock, and the profile and the start of the workers count; a search ends a little late rather
    than without a model. Test rows, a quarter, have no part in it: they measure the winner.

    Parameters
    ----------
    metric, folds, seed
        As `metric`, `compare.folds` and `seed` of a spec.
    format_, workers, overrides, beside
        As of `treadle.jobs.profile.profile_input`.
    root
        Artifacts root instead of the spec's.

    Raises
    ------
    RequestError
        An input or column is not there, or the target cannot be predicted.
    DataError
        The input has no rows, or cannot be read.
    TreadleError
        No model could be trained.
    """
    end = time.monotonic() + seconds_of(budget)
    _check(metric, folds, seed)
    given = [paths] if isinstance(paths, str) else list(paths)
    profiled = profile_input(
        given, format_=format_, target=target, workers=workers, overrides=overrides, beside=beside, listener=listener
    )
    if reason := make_draft(profiled.profile, profiled.request.data).no_models:
        raise RequestError(f"auto: {reason}")
    always = _always(profiled.request, metric, seed)
    left = max(LEAST_SECONDS, end - time.monotonic())
    search = [*_search(profiled.profile.rows, folds), f"budget: {left:.0f}s", *always, "explain: {rows: none}"]
    root = root or profiled.request.artifacts.root
    run = run_spec(_loaded(profiled.propose(Path.cwd(), search)), root=root, listener=listener)
    return Found(run, profiled.propose(beside or Path.cwd(), [*_winner(run, folds), *always]))


def _check(metric: str | None, folds: int, seed: int | None) -> None:
    """Refuses before the profile what the spec of the search would be refused for after it."""
    metrics = (*CLASSIFICATION_METRICS, *REGRESSION_METRICS)
    if metric is not None and metric not in metrics:
        raise RequestError(
            f"--metric: '{metric}' is not known. Allowed: [{listed(metrics)}].{did_you_mean(metric, metrics)}"
        )
    if not 2 <= folds <= MAX_FOLDS:
        raise RequestError(f"--folds: {folds} is not allowed; use 2 to {MAX_FOLDS}.")
    if seed is not None and not 0 <= seed < 2**31:
        raise RequestError(f"--seed: {seed} is not allowed; use 0 to {2**31 - 1}.")


def seconds_of(budget: str) -> float:
    """As of a spec's spans; `10m` is ten minutes, too."""
    text = budget.strip().lower()
    try:
        return microseconds(f"{text}in" if text.endswith("m") else text) / 1e6
    except ValueError as error:
        raise RequestError(f"--budget: {error}") from None


def _search(rows: int, folds: int) -> list[str]:
    race = [f"race: {{keep: {KEPT}}}"] if rows >= RACED_FROM else []
    return [
        "models: all",
        *race,
        f"compare: {{folds: {folds}}}",
        f"tune: {{models: {TUNED}, trials: {TRIALS}}}",
        "ensemble: {kind: greedy}",
    ]


def _always(request: JobSpec, metric: str | None, seed: int | None) -> list[str]:
    """What the search and the winner have in common beside the proposal."""
    cluster = request.cluster.model_dump(mode="json", exclude_unset=True)
    lines = [f"metric: {metric}"] if metric is not None else []
    lines += [f"seed: {seed}"] if seed is not None else []
    return lines + ([f"cluster: {inline(cluster)}"] if "cluster" in request.model_fields_set else [])


def _loaded(text: str) -> JobSpec:
    with tempfile.TemporaryDirectory(prefix="treadle-auto-") as folder:
        path = Path(folder) / "search.yaml"
        path.write_text(text, encoding="utf-8")
        return load_spec(path)


def _winner(run: Run, folds: int) -> list[str]:
    """The models of the winner with their params; an ensemble is selected among them again, by the same folds."""
    results: Mapping[str, Any] = run.manifest["results"]
    evaluation = results["evaluate"]
    metric = evaluation["metric"]
    value = evaluation["rows"][0][metric]
    held_out = evaluation["held_out"] or {}
    lines = [
        f"# Found by `treadle auto` in run {run.id}: {evaluation['best']} has {metric} {value:.4f} by {folds} folds"
        + (f", and {held_out[metric]:.4f} on the test rows." if metric in held_out else "."),
        "models:",
    ]
    for member in results["refit"]["members"]:
        lines.append(f"  - name: {member['name']}")
        lines += [f"    label: {member['label']}"] if member["label"] else []
        lines += [f"    params: {inline(member['params'])}"] if member["params"] else []
    lines.append(f"compare: {{folds: {folds}}}")
    if evaluation["best"] == ENSEMBLE:
        # With more steps than it was kept after, those that are left to choose from may be selected otherwise.
        lines.append(f"ensemble: {{kind: greedy, size: {results['ensemble']['ensemble']['steps']}}}")
    return lines
