"""The kernels on a GPU: are they right, and how fast beside XGBoost's own CUDA code.

`python -m treadle.benchmarks.gpu_kernels [MODEL ...]` prints a line of JSON for each model as soon as it is
measured, so that what is done stays when the time is up. In Numba's simulator (NUMBA_ENABLE_CUDASIM=1) it runs
without a GPU, on a few rows, and only says whether values are right.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from treadle.benchmarks.models import Trained, chosen, made_data, trained
from treadle.benchmarks.peers.devices import EXPLAINERS, PREDICTORS, Treadle
from treadle.benchmarks.sides import made, told
from treadle.benchmarks.timing import contest, largest

ROWS = 1_000_000
SECONDS = 0.5
"""Wall seconds of a call."""
REPEATS = 3
CHECKED = 2_000
"""Rows whose values are held against the host's, and XGBoost's on the CPU."""
SIMULATED = 12
"""Rows of everything in the simulator, which takes seconds for each."""
SIMULATED_SECONDS = 30.0
BOUND = 1e-4
"""Largest accepted difference from the host, as a part of the largest contribution."""

Values = NDArray[Any]


def measured(model: Trained, rows: int, seconds: float, repeats: int) -> dict[str, Any]:
    """A model's part of the result: figures, ratios, and the largest differences."""
    case = model.case
    x, _ = made_data(case, rows, seed=2)
    found: dict[str, Any] = {"model": case.name, "case": asdict(case), "errors": {}}
    for what, kinds in (("contributions", EXPLAINERS), ("margins", PREDICTORS)):
        sides, errors = made(kinds, model)
        if simulated():
            # XGBoost has no simulator, and the host's copy is the same kernel once more.
            sides = {name: side for name, side in sides.items() if name == Treadle.name}
        figures, values, failed = contest(sides, x, repeats, seconds)
        checked = x[: min(CHECKED, rows)]
        found[what] = {
            "figures": figures,
            "ratio": _ratios(figures),
            "largest_difference": _differences(model, values, checked, what),
        }
        found["errors"] |= {f"{what}, {name}": why for name, why in (errors | failed).items()}
    found["device_bytes"] = _device_bytes()
    found["right"] = not found["errors"] and all(
        found[what]["largest_difference"].get("treadle", np.inf) <= BOUND for what in ("contributions", "margins")
    )
    return found


def simulated() -> bool:
    return bool(numba.config.ENABLE_CUDASIM)


def _ratios(figures: dict[str, Any]) -> dict[str, float]:
    """How many times as many rows a second each of ours does as XGBoost."""
    if "xgboost" not in figures:
        return {}
    theirs = figures["xgboost"]["rows_per_wall_second"]
    return {name: f["rows_per_wall_second"] / theirs for name, f in figures.items() if name != "xgboost"}


def _differences(model: Trained, values: dict[str, Values], x: Values, what: str) -> dict[str, float]:
    """By side, the largest difference of the first rows from our kernels on the host."""
    from treadle.kernels.forest import compile_forest
    from treadle.kernels.predict import predict_margin
    from treadle.kernels.treeshap import TreeExplainer

    case, forest = model.case, compile_forest(model.models[model.case.library])
    if what == "margins":
        right = predict_margin(forest, x).reshape(len(x), case.classes)
    else:
        right = TreeExplainer(forest).shap_values(x).reshape(len(x), case.classes, -1)[..., :-1]
    return {name: largest(found, right) for name, found in values.items()}


def _device_bytes() -> int | None:
    """Memory of the device that is taken now, by all that was kept for this model."""
    if simulated():
        return None
    from numba import cuda

    free, total = cuda.current_context().get_memory_info()
    return int(total - free)


def results(texts: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The models whose name contains one of the texts, or all, one after the other."""
    rows, seconds, repeats = (SIMULATED, SIMULATED_SECONDS, 1) if simulated() else (ROWS, SECONDS, REPEATS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for case in chosen(texts):
            try:
                yield measured(trained(case, threads=0 if not simulated() else 1, peers=False), rows, seconds, repeats)
            except Exception as error:  # the other models are to be measured all the same
                yield {"model": case.name, "case": asdict(case), "errors": {"all": told(error)}, "right": False}


if __name__ == "__main__":
    for result in results(sys.argv[1:]):
        print(json.dumps(result), flush=True)
