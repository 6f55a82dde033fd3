"""Contributions and margins of trained forests by Treadle's kernels and by their peers, in turn, in one process.

    python -m benchmarks.treeshap --repeats 5

One thread unless said. Rows a CPU second are medians; compare the ratio, which holds when the machine's
speed drifts. Ours includes binning and excludes compiling the forest and building tables, which have
columns of their own; XGBoost's excludes making its DMatrix. Peers explain fewer rows, or it would take hours.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numba
import numpy as np

from benchmarks.machine import described

RESULTS = Path(__file__).parent / "results"
LIBRARIES = ("treadle", "numba", "llvmlite", "numpy", "xgboost", "scikit-learn", "shap")
TRAIN_ROWS, ROWS = 20_000, 8_192
PEER_ROWS = 256


@dataclass(frozen=True)
class Case:
    """A model to train on made data."""

    name: str
    library: str
    trees: int
    depth: int | None
    features: int
    missing: float = 0.0
    classes: int = 1


CASES = (
    Case("depth 6, 8 features", "xgboost", 500, 6, 8),
    Case("depth 6, 14 features", "xgboost", 500, 6, 14),
    Case("depth 6, 100 features", "xgboost", 500, 6, 100),
    Case("depth 6, 14 features, 20 % missing", "xgboost", 500, 6, 14, missing=0.2),
    Case("depth 6, 14 features, 7 classes", "xgboost", 70, 6, 14, classes=7),
    Case("depth 8, 14 features", "xgboost", 300, 8, 14),
    Case("depth 10, 20 features", "xgboost", 200, 10, 20),
    Case("depth 12, 50 features", "xgboost", 200, 12, 50),
    Case("random forest, depth 16, 8 features", "sklearn", 100, 16, 8),
    Case("random forest, any depth, 20 features", "sklearn", 100, None, 20),
)


def made_data(case: Case, rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Correlated effects of a few features, some of them in pairs."""
    weights = np.random.default_rng(0).normal(size=case.features)
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, case.features)).astype(np.float32)
    y = x @ weights + 2 * np.sin(3 * x[:, 0]) * x[:, 1] + 1.5 * x[:, 2] * x[:, 3] + rng.normal(size=rows) / 2
    if case.classes > 1:
        y = np.digitize(y, np.quantile(y, np.linspace(0, 1, case.classes + 1)[1:-1]))
    x[rng.random(x.shape) < case.missing] = np.nan
    return x, y


def trained(case: Case) -> Any:
    """The case's model, of one thread when it predicts."""
    rows = TRAIN_ROWS if case.library == "xgboost" else 7_000
    x, y = made_data(case, rows, seed=1)
    if case.library == "sklearn":
        from sklearn.ensemble import RandomForestRegressor

        return RandomForestRegressor(case.trees, max_depth=case.depth, max_features=0.5, random_state=0).fit(x, y)
    import xgboost

    params: dict[str, Any] = {"max_depth": case.depth, "eta": 0.1, "seed": 1}
    if case.classes > 1:
        params |= {"objective": "multi:softprob", "num_class": case.classes}
    booster = xgboost.train(params, xgboost.DMatrix(x, y), case.trees)
    booster.set_param({"nthread": 1})
    return booster


def seconds(work: Callable[[], Any], clock: Callable[[], float]) -> float:
    started = clock()
    work()
    return clock() - started


def in_turn(works: dict[str, Callable[[], Any]], repeats: int, clock: Callable[[], float]) -> dict[str, float]:
    """Median seconds of each, run in turn after one that is not counted."""
    found: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(repeats + 1):
        for name, work in works.items():
            took = seconds(work, clock)
            if turn:
                found[name].append(took)
    return {name: statistics.median(took) for name, took in found.items()}


def measured(case: Case, repeats: int) -> dict[str, Any]:
    """One line of the table."""
    from treadle.kernels.forest import compile_forest
    from treadle.kernels.predict import predict_margin
    from treadle.kernels.treeshap import TreeExplainer

    model = trained(case)
    x, _ = made_data(case, ROWS, seed=2)
    few = x[:PEER_ROWS]
    numba.set_num_threads(1)
    started = time.process_time()
    forest = compile_forest(model)
    compiling = time.process_time() - started
    explainer = TreeExplainer(forest)
    building = seconds(lambda: explainer.shap_values(x[:1]), time.process_time)
    if case.library == "xgboost":
        import xgboost

        data, one = xgboost.DMatrix(few, nthread=1), xgboost.DMatrix(x[:1], nthread=1)
        explain = lambda: model.predict(data, pred_contribs=True)  # noqa: E731
        explain_one = lambda: model.predict(one, pred_contribs=True)  # noqa: E731
        predict = lambda: model.inplace_predict(x, predict_type="margin")  # noqa: E731
        expected = explain()[..., :-1]
    else:
        import shap

        theirs = shap.TreeExplainer(model)
        few = few[: PEER_ROWS // 4]
        explain = lambda: theirs.shap_values(few)  # noqa: E731
        explain_one = lambda: theirs.shap_values(x[:1])  # noqa: E731
        predict = lambda: model.predict(x)  # noqa: E731
        expected = explain()
    values = explainer.shap_values(few)
    contributions = in_turn({"ours": lambda: explainer.shap_values(x), "peer": explain}, repeats, time.process_time)
    single = in_turn({"ours": lambda: explainer.shap_values(x[:1]), "peer": explain_one}, 20, time.perf_counter)
    margins = in_turn({"ours": lambda: predict_margin(forest, x), "peer": predict}, repeats, time.process_time)
    ours, peer = ROWS / contributions["ours"], len(few) / contributions["peer"]
    one_thread = in_turn({"ours": lambda: explainer.shap_values(x)}, repeats, time.perf_counter)["ours"]
    numba.set_num_threads(2)
    two_threads = in_turn({"ours": lambda: explainer.shap_values(x)}, repeats, time.perf_counter)["ours"]
    return {
        "case": case.name,
        "leaves_a_tree": forest.n_leaves / forest.n_trees,
        "peer": "xgboost" if case.library == "xgboost" else "shap",
        "rows_per_cpu_second": {"treadle": ours, "peer": peer, "ratio": ours / peer},
        "largest_difference": float(np.abs(values[..., :-1] - expected).max() / np.abs(expected).max()),
        "one_row_seconds": {**single, "ratio": single["peer"] / single["ours"]},
        "margin_rows_per_cpu_second": {
            "treadle": ROWS / margins["ours"],
            "peer": ROWS / margins["peer"],
            "ratio": margins["peer"] / margins["ours"],
        },
        "compile_cpu_seconds": compiling,
        "build_cpu_seconds": building,
        "two_threads_wall_ratio": one_thread / two_threads,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", help="Cases whose name contains this; nothing is written.")
    arguments = parser.parse_args()
    # scikit-learn's trees are asked for float32 rows without names; nothing else is said here.
    warnings.simplefilter("ignore")
    lines = []
    print(
        f"{'model':<40}{'rows/CPU s':>12}{'peer':>10}{'ratio':>8}{'error':>10}{'one row':>9}{'margin':>8}{'2 thr':>7}"
    )
    for case in CASES:
        if arguments.only and arguments.only not in case.name:
            continue
        line = measured(case, arguments.repeats)
        rates = line["rows_per_cpu_second"]
        print(
            f"{case.name:<40}{rates['treadle']:>12.0f}{rates['peer']:>10.1f}{rates['ratio']:>8.0f}"
            f"{line['largest_difference']:>10.1e}{line['one_row_seconds']['ratio']:>9.1f}"
            f"{line['margin_rows_per_cpu_second']['ratio']:>8.1f}{line['two_threads_wall_ratio']:>7.2f}",
            flush=True,
        )
        lines.append(line)
    if not arguments.only:
        RESULTS.mkdir(exist_ok=True)
        path = RESULTS / "treeshap-cpu.json"
        result = {"benchmark": "treeshap", "repeats": arguments.repeats, **described(LIBRARIES), "table": lines}
        path.write_text(json.dumps(result, indent=1) + "\n")
        print(f"written to {path}")


if __name__ == "__main__":
    main()
