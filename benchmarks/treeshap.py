"""Contributions and interaction values by Treadle's kernels and by other libraries, in turn, in one process.

One thread each unless said. Rows a CPU second are what to compare, and their ratio, which holds when the
machine's speed drifts. Ours include binning and exclude compiling the forest and building tables, which
have figures of their own; peers' exclude making XGBoost's DMatrix and parsing models. Every figure says of
how many rows it is: a call gets as many of the batch as it does in about `SECONDS`. That of a single row is
of `SINGLES` calls, each with a row of its own.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numba
from numpy.typing import NDArray

from treadle.benchmarks.models import Trained, made_data
from treadle.benchmarks.peers.contributions import (
    EXPLAINERS,
    INTERACTIONS,
    Contributions,
    LightGBM,
    Shap,
    Treadle,
    TreadleOfLightGBM,
    XGBoost,
)
from treadle.benchmarks.report import Benchmark, ratio, shown
from treadle.benchmarks.sides import installed, made
from treadle.benchmarks.timing import LONGEST, clocked, contest, in_turn, largest, one_by_one, threads

BATCH = 10_000
SMALL = 100
LARGE = 200_000
SECONDS, LARGE_SECONDS = 0.75, 4.0
"""Wall seconds of a call, and of one on the large batch."""
SINGLES = 20
"""Rows that are explained one by one."""
REFERENCE_ROWS = 8
"""Rows whose values are held against shap's."""

Values = NDArray[Any]


def measured(trained: Trained, repeats: int) -> dict[str, Any]:
    """A model's part of the result."""
    case = trained.case
    own = trained.models[case.library]
    x, _ = made_data(case, LARGE, seed=2)
    compiling, ours = clocked(lambda: Treadle(own, case))
    building, _ = clocked(ours.call(x[:1]))
    sides, errors = made(EXPLAINERS, trained)
    figures, values, failed = contest(sides, x[:BATCH], repeats, SECONDS)
    batches = {str(BATCH): figures}
    errors |= failed
    rivals = {name: sides[name] for name in (Treadle.name, rival(case.library).name) if name in figures}
    batches[str(SMALL)], _, failed = contest(rivals, x[:SMALL], repeats, SECONDS)
    errors |= {f"{name}, {SMALL} rows": why for name, why in failed.items()}
    batches["1"] = one_by_one(rivals, x[:SINGLES], repeats)
    batches[str(LARGE)], _, failed = contest({ours.name: ours}, x, repeats, LARGE_SECONDS)
    errors |= {f"{name}, {LARGE} rows": why for name, why in failed.items()}
    found = {
        "leaves_a_tree": ours.forest.n_leaves / ours.forest.n_trees,
        "compile_cpu_seconds": compiling.cpu,
        "build_cpu_seconds": building.cpu,
        "contributions": batches,
        "largest_error": largest_errors(trained, x[:REFERENCE_ROWS], values),
        "cold": cold(trained, [type(side) for side in rivals.values()], x[:1], repeats),
        "two_threads": two_threads(ours, x[: batches[str(LARGE)][ours.name]["rows"]], repeats),
    }
    if case.interactions:
        found["interactions"], failed = interactions(trained, x[:BATCH], repeats)
        errors |= {f"{name}, interactions": why for name, why in failed.items()}
    return {**found, "errors": errors}


def rival(library: str) -> type[Contributions]:
    """Who else explains a library's models best: XGBoost its own, shap those of scikit-learn."""
    return XGBoost if library == "xgboost" else Shap


def largest_errors(trained: Trained, x: Values, values: dict[str, Values]) -> dict[str, float]:
    """By side, the largest error of the first rows as a part of the largest contribution.

    The truth is what shap's C code gives in float64, and for LightGBM's model what LightGBM does. Without
    shap there is none for the others.
    """
    case = trained.case
    truth: dict[str, Values] = {}
    if installed("shap"):
        shap = Shap(trained.models[case.library], case)
        exact = shap.values(shap.call(x)())
        truth = {name: exact for name in values if name not in (LightGBM.name, TreadleOfLightGBM.name, Shap.name)}
    if LightGBM.name in values:
        truth[TreadleOfLightGBM.name] = values[LightGBM.name][: len(x)]
    return {name: largest(values[name], right) for name, right in truth.items() if name in values}


def cold(trained: Trained, kinds: list[type[Any]], x: Values, repeats: int) -> dict[str, dict[str, float]]:
    """Seconds from a trained model, of which nothing is prepared, to the first row explained; the code is loaded."""
    case = trained.case
    makers = {kind.name: partial(kind.first, trained.models[case.library], case, x) for kind in kinds}
    return {
        name: {"cpu_seconds": took.cpu, "wall_seconds": took.wall} for name, took in in_turn(makers, repeats).items()
    }


def two_threads(ours: Treadle, x: Values, repeats: int) -> dict[str, float] | None:
    """Wall seconds of one thread and of two on the large batch; None on a machine with one core."""
    if numba.config.NUMBA_NUM_THREADS < 2:
        return None

    def explain(number: int) -> None:
        with threads(number):
            ours.explainer.shap_values(x)

    explain(2)  # starts the threads
    took = in_turn({name: partial(partial, explain, number) for name, number in (("one", 1), ("two", 2))}, repeats)
    one, two = took["one"].wall, took["two"].wall
    return {"rows": len(x), "one_wall_seconds": one, "two_wall_seconds": two, "ratio": one / two}


def interactions(trained: Trained, x: Values, repeats: int) -> tuple[dict[str, Any], dict[str, str]]:
    """Figures of interaction values, with the largest difference from XGBoost's, and errors by side."""
    sides, errors = made(INTERACTIONS, trained)
    figures, values, failed = contest(sides, x, repeats, SECONDS)
    found: dict[str, Any] = {"figures": figures}
    if len(values) == 2:
        found["largest_difference"] = largest(values["treadle"], values["xgboost"])
    return found, errors | failed


NAMES = tuple(kind.name for kind in EXPLAINERS)
HEADER = (
    f"{'':<38}{'contributions of ' + format(BATCH, ',') + ' rows or as many as fit: rows a CPU second':<76}"
    "ratio to XGBoost, else shap\n"
    f"{'model':<38}"
    + "".join(f"{name:>17}" if ":" in name else f"{name:>10}" for name in NAMES)
    + f"{'error':>9}{'ratio':>8}{'1 row':>7}{'cold':>7}{'pairs':>8}{'2 thr':>7}"
)


def lines(found: dict[str, Any]) -> list[str]:
    """The line of a model: "1 row" and "cold" are ratios of wall seconds, "2 thr" that of one thread to two."""
    batches, other = found["contributions"], rival(found["case"]["library"]).name
    figures = batches[str(BATCH)]
    line = f"{found['model']:<38}"
    for name in NAMES:
        rate = f"{figures[name]['rows_per_cpu_second']:,.0f}" if name in figures else "-"
        line += f"{rate:>17}" if ":" in name else f"{rate:>10}"
    error = found["largest_error"].get("treadle")
    line += f"{'-' if error is None else format(error, '.0e'):>9}"
    line += shown(ratio(figures, other, "cpu_seconds"), 8) + shown(ratio(batches["1"], other, "wall_seconds"), 7)
    line += shown(ratio(found["cold"], other, "wall_seconds"), 7)
    line += shown(ratio(found.get("interactions", {}).get("figures", {}), other, "cpu_seconds"), 8)
    threaded = found["two_threads"]
    line += f"{'-' if threaded is None else format(threaded['ratio'], '.2f'):>7}"
    large, faster = batches[str(LARGE)]["treadle"], ratio(batches[str(SMALL)], other, "wall_seconds")
    single, hundred = batches["1"]["treadle"], batches[str(SMALL)]["treadle"]
    return [
        line,
        f"  treadle: 1 row {single['wall_seconds'] / single['rows'] * 1e3:.2f} ms, 100 rows "
        f"{hundred['wall_seconds'] * 1e3:.2f} ms{f' ({shown(faster, 0)} times as fast)' if faster else ''}, "
        f"{large['rows']:,} rows at {large['rows_per_cpu_second']:,.0f} a CPU second; cold "
        f"{found['cold']['treadle']['wall_seconds'] * 1e3:.1f} ms",
    ]


BENCHMARK = Benchmark(
    name="treeshap",
    sides=EXPLAINERS,
    setting={"seconds_a_call": {str(BATCH): SECONDS, str(LARGE): LARGE_SECONDS}, "seconds_at_most": LONGEST},
    measured=measured,
    lines=lines,
    header=HEADER,
)
