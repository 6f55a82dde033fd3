"""Fifteen classifiers compared by ten folds: Treadle, a plain scikit-learn loop, and PyCaret.

Every side reads the same training rows, makes its folds and fits features inside each. Sides take turns, each in a
process of its own, and use two processes with a thread each. What a job does before and after it compares, and the
start of its cluster, are told by themselves: the peers do nothing of the kind.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from treadle.benchmarks.leaderboard_data import CLASSIFIERS, DATA_SETS, FOLDS, STAND_IN, models_of, written_down
from treadle.benchmarks.machine import described
from treadle.benchmarks.process import measured
from treadle.benchmarks.report import FOLDER, Say, written
from treadle.errors import RequestError, did_you_mean

PEERS = ("sklearn", "pycaret")
LIBRARIES = (
    "treadle",
    "dask",
    "distributed",
    "scikit-learn",
    "xgboost",
    "lightgbm",
    "catboost",
    "numpy",
    "pandas",
    "numba",
)
AFTER = ("refit", "evaluate", "publish")
"""Stages that come after the leaderboard."""
PYCARET = "pip install 'pycaret==3.3.*' xgboost lightgbm catboost pyarrow"


def run(
    name: str,
    repeats: int,
    data: Path | None,
    models: Sequence[str],
    peers: Sequence[str],
    pycaret: Path | None,
    out: Path | None,
    say: Say,
    folds: int = FOLDS,
) -> dict[str, Any]:
    """Measures the sides on one data set, which the folder `data` has; writes and returns the result.

    `pycaret` is the interpreter of an environment that has PyCaret.

    Raises
    ------
    RequestError
        A data set, model or peer is not known, or PyCaret was not found.
    DataError
        The folder lacks the data set.
    TreadleError
        A side did not end well.
    """
    _check(name, peers, pycaret)
    chosen = models_of(models)
    found: dict[str, list[dict[str, Any]]] = {side: [] for side in ("treadle", *peers)}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch).resolve()
        work = written_down(name, data, chosen, folder, folds)
        if data is None:
            say(f"without --data, scikit-learn's {STAND_IN} stands in")
        for number in range(repeats):
            for side, turns in found.items():
                turns.append(_turn(side, folder, pycaret))
                spent = turns[-1]["process_wall_seconds"], turns[-1]["process_cpu_seconds"]
                say(f"turn {number + 1} of {repeats}: {side:<8}{spent[0]:>8.1f} s{spent[1]:>9.1f} CPU s")
    result = {
        "benchmark": "leaderboard",
        "data_set": work["data_set"],
        "rows": work["rows"],
        "folds": folds,
        "repeats": repeats,
        **described(LIBRARIES),
        "estimators": work["models"],
        "table": [_row(side, turns) for side, turns in found.items()],
        "models": [_of_model(model, found) for model in chosen],
        "turns": found,
    }
    show(result, say)
    whole = data is not None and folds == FOLDS and chosen == CLASSIFIERS and "sklearn" in peers
    written(result, f"leaderboard-{work['data_set']}-cpu", out, whole=whole, say=say)
    return result


def _check(name: str, peers: Sequence[str], pycaret: Path | None) -> None:
    if name not in DATA_SETS:
        raise RequestError(
            f"bench leaderboard: '{name}' is no data set. Allowed: [{', '.join(DATA_SETS)}, all]."
            f"{did_you_mean(name, DATA_SETS)}"
        )
    for peer in peers:
        if peer not in PEERS:
            raise RequestError(
                f"bench leaderboard: '{peer}' is no peer. Allowed: [{', '.join(PEERS)}].{did_you_mean(peer, PEERS)}"
            )
    if "pycaret" not in peers:
        return
    if pycaret is None:
        raise RequestError(
            "bench leaderboard: PyCaret needs an environment of its own, with Python 3.11 at most: make one, "
            f"{PYCARET} there, and name its interpreter by --pycaret-python."
        )
    if not pycaret.is_file():
        raise RequestError(f"bench leaderboard: --pycaret-python: there is no {pycaret}.")


def _turn(side: str, folder: Path, pycaret: Path | None) -> dict[str, Any]:
    if side == "treadle":
        with tempfile.TemporaryDirectory() as root:
            return measured(["-m", "treadle.benchmarks.leaderboard_job", str(folder), root])
    if side == "pycaret":
        script = FOLDER / "peers" / "leaderboard_pycaret.py"
        # What it logs goes to the working folder.
        return measured(["-I", str(script), str(folder)], python=str(pycaret and pycaret.absolute()), folder=folder)
    return measured(["-m", "treadle.benchmarks.peers.leaderboard_sklearn", str(folder)])


def seconds_of(turn: dict[str, Any]) -> dict[str, float]:
    """Wall seconds of one turn of any side.

    `compared` are from the first look at the rows to the leaderboard; `whole` are those of the process, but for the
    start of a cluster and for what a job does afterwards; `start` and `after` are these two.
    """
    process = turn["process_wall_seconds"]
    if "stages" not in turn:
        return {"compared": turn["loop_seconds"], "whole": process, "start": 0.0, "after": 0.0}
    start = turn["cluster_start_seconds"]
    after = sum(turn["stages"][stage]["wall_seconds"] for stage in AFTER)
    before = sum(record["wall_seconds"] for stage, record in turn["stages"].items() if stage not in AFTER)
    return {"compared": before, "whole": process - start - after, "start": start, "after": after}


def _row(side: str, turns: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Medians of a side; CPU seconds are of the whole process, with all that it started and did."""
    seconds = [seconds_of(turn) for turn in turns]
    return {
        "side": side,
        **{f"{name}_seconds": statistics.median(one[name] for one in seconds) for name in seconds[0]},
        "process_wall_seconds": statistics.median(turn["process_wall_seconds"] for turn in turns),
        "process_cpu_seconds": statistics.median(turn["process_cpu_seconds"] for turn in turns),
        "peak_bytes": max(turn["process_peak_bytes"] for turn in turns),
    }


def _of_model(name: str, found: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Seconds a fold and AUC of a model by each side: means over folds, medians of turns.

    The loop's include the features, and scores of all metrics; ours are the model's training and its margins alone.
    """
    sides: dict[str, Any] = {}
    for side, turns in found.items():
        of_turns = [turn["models"].get(name, {"error": "it was left out"}) for turn in turns]
        failed = next((one["error"] for one in of_turns if one["error"] is not None), None)
        if failed is not None:
            sides[side] = {"error": failed}
            continue
        sides[side] = {"auc": of_turns[-1]["auc"], "error": None}
        for part in ("fit_seconds", "score_seconds"):
            if part in of_turns[0]:
                sides[side][part] = statistics.median(statistics.mean(one[part]) for one in of_turns)
    return {"model": name, "sides": sides}


def show(result: dict[str, Any], say: Say) -> None:
    """The tables, as they stand in docs."""
    ours = result["table"][0]
    say(
        f"\n{result['data_set']}, {result['rows']} rows, {result['folds']} folds\n"
        f"{'side':<10}{'compared s':>12}{'ours is':>9}{'whole s':>10}{'ours is':>9}{'CPU s':>9}"
        f"{'cluster s':>11}{'after s':>9}"
    )
    for row in result["table"]:
        compared, whole = (row[key] / ours[key] for key in ("compared_seconds", "whole_seconds"))
        say(
            f"{row['side']:<10}{row['compared_seconds']:>12.1f}{compared:>8.2f}x{row['whole_seconds']:>10.1f}"
            f"{whole:>8.2f}x{row['process_cpu_seconds']:>9.1f}{row['start_seconds']:>11.1f}{row['after_seconds']:>9.1f}"
        )
    say(f"\n{'milliseconds a fold':<21}{'treadle':>18}{'sklearn':>18}{'AUC':>16}")
    for model in result["models"]:
        sides = model["sides"]
        said = f"{model['model']:<21}{_spent(sides['treadle']):>18}{_spent(sides.get('sklearn', {})):>18}"
        areas = [f"{one['auc']:.4f}" for one in sides.values() if one.get("auc") is not None]
        say(f"{said}  {' '.join(areas)}")
        for side, one in sides.items():
            if one["error"] is not None:
                say(f"  {side}: {one['error'][:200]}")


def _spent(side: dict[str, Any]) -> str:
    if "fit_seconds" not in side:
        return "-"
    return f"{side['fit_seconds'] * 1000:.1f} + {side['score_seconds'] * 1000:.1f}"


def data_sets(name: str, data: Path | None, out: Path | None) -> tuple[str, ...]:
    """The data sets that are asked for; one of them where the same stands in for all.

    Raises
    ------
    RequestError
        One file is to hold the results of several.
    """
    if name != "all":
        return (name,)
    if data is None:
        return tuple(DATA_SETS)[:1]
    if out is not None:
        raise RequestError("bench leaderboard: --out is for one result; choose one by --data-set.")
    return tuple(DATA_SETS)
