"""Margins by Treadle's kernels and by other libraries, in turn, in one process.

As `treadle.benchmarks.treeshap`: one thread each unless said, medians, as many rows of a batch as fit into
about `SECONDS`. Ours include binning and exclude compiling the forest.
"""

from __future__ import annotations

from typing import Any

from treadle.benchmarks.models import Trained, made_data
from treadle.benchmarks.peers.margins import PREDICTORS, LightGBM, TreadleOfLightGBM
from treadle.benchmarks.report import Benchmark, ratio, shown
from treadle.benchmarks.sides import made
from treadle.benchmarks.timing import contest, largest, one_by_one

BATCHES = (100, 10_000, 200_000)
SECONDS = 0.2
"""Wall seconds of a call."""
SINGLES = 20
"""Rows that are predicted one by one."""


def measured(trained: Trained, repeats: int) -> dict[str, Any]:
    """A model's part of the result."""
    case = trained.case
    x, _ = made_data(case, BATCHES[-1], seed=2)
    sides, errors = made(PREDICTORS, trained)
    margins: dict[str, Any] = {}
    differences: dict[str, float] = {}
    for rows in BATCHES:
        figures, values, failed = contest(sides, x[:rows], repeats, SECONDS)
        margins[str(rows)] = figures
        errors |= {f"{name}, {rows} rows": why for name, why in failed.items()}
        for name, margin in values.items():
            own = LightGBM.name if name == TreadleOfLightGBM.name else case.library
            if own in values and name not in (own, LightGBM.name):
                differences[name] = max(differences.get(name, 0.0), largest(margin, values[own]))
    able = {name: side for name, side in sides.items() if name in margins[str(BATCHES[0])]}
    margins = {"1": one_by_one(able, x[:SINGLES], repeats), **margins}
    return {"margins": margins, "largest_difference": differences, "errors": errors}


NAMES = ("treadle", "xgboost", "sklearn", "treadle:lightgbm", "lightgbm", "treelite")
HEADER = (
    f"{'':<38}{'margins of ' + format(BATCHES[-1], ',') + ' rows or as many as fit: rows a CPU second':<76}"
    "ratio to the model's library, in batches of\n"
    f"{'model':<38}"
    + "".join(f"{name:>17}" if ":" in name else f"{name:>11}" for name in NAMES)
    + "".join(f"{rows:>8}" for rows in (1, *BATCHES))
    + f"{'2 thr':>7}{'theirs':>7}"
)


def lines(found: dict[str, Any]) -> list[str]:
    """The line of a model: ratios are of wall seconds, "2 thr" that of one thread to two and then the library's."""
    own, large = found["case"]["library"], found["margins"][str(BATCHES[-1])]
    line = f"{found['model']:<38}"
    for name in NAMES:
        rate = f"{large[name]['rows_per_cpu_second']:,.0f}" if name in large else "-"
        line += f"{rate:>17}" if ":" in name else f"{rate:>11}"
    line += "".join(shown(ratio(found["margins"][rows], own, "wall_seconds"), 8) for rows in found["margins"])
    for name in ("treadle", own):
        line += shown(ratio(large, name, "wall_seconds", f"{name}, 2 threads"), 7)
    return [line]


BENCHMARK = Benchmark(
    name="predict",
    sides=PREDICTORS,
    setting={"seconds_a_call": SECONDS},
    measured=measured,
    lines=lines,
    header=HEADER,
)
