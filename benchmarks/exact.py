"""Models solved from sums over rows, by Treadle on all training rows and by scikit-learn on as many as fit.

The work is benchmarks/exact.yaml: lda, qda, naive Bayes, ridge and logistic regression of card fraud, on 30
features. CPU seconds a million rows are what to compare.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from treadle.benchmarks.machine import described
from treadle.benchmarks.process import measured
from treadle.benchmarks.report import Say, written
from treadle.jobs.make_data import make_transactions

LIBRARIES = ("treadle", "dask", "distributed", "scikit-learn", "numpy", "numba", "pyarrow")
PARTITION_ROWS = 500_000


def run(rows: int, fitting: int, data: Path | None, memory: str | None, out: Path | None, say: Say) -> dict[str, Any]:
    """Measures both on `data`, which `treadle make-data` wrote, or on so many new rows; writes and returns it.

    `memory` limits each of Treadle's two workers. The peer has `fitting` training rows at most.

    Raises
    ------
    TreadleError
        A side did not end well.
    """
    with tempfile.TemporaryDirectory() as scratch:
        if data is None:
            make_transactions(Path(scratch) / "data", rows, max(rows // PARTITION_ROWS, 1))
        folder = (data or Path(scratch) / "data").resolve()
        limit = [memory] if memory else []
        ours = measured(["-m", "treadle.benchmarks.exact_job", str(folder), f"{scratch}/root", *limit])
        peer = ["-m", "treadle.benchmarks.peers.exact_sklearn", str(fitting), *ours.pop("parts")]
        theirs = measured(peer)
    result = {
        "benchmark": "exact",
        "rows": rows,
        "memory": memory,
        **described(LIBRARIES),
        "treadle": ours,
        "scikit-learn": theirs,
    }
    show(result, say)
    limited = f"-{memory}" if memory else ""
    written(result, f"exact-{rows}{limited}-cpu", out, whole=True, say=say)
    return result


def show(result: dict[str, Any], say: Say) -> None:
    """The table, as it stands in docs."""
    ours, theirs = result["treadle"], result["scikit-learn"]
    say(f"{ours['rows']:,} training rows, {ours['features']} features; scikit-learn: {theirs['rows']:,}")
    say(f"{'CPU s a million rows':<22}{'Treadle':>10}{'passes':>8}{'sklearn':>10}{'ratio':>8}{'AUC':>9}{'sklearn':>9}")
    for name, own in ours["models"].items():
        other = theirs["models"][name]
        mine, its = (one["cpu_seconds"] / side["rows"] * 1e6 for one, side in ((own, ours), (other, theirs)))
        say(
            f"{name:<22}{mine:>10.2f}{own['passes']:>8}{its:>10.2f}{mine / its:>8.2f}{own['auc']:>9.4f}"
            f"{other['auc']:>9.4f}"
        )
    say(
        f"peak GiB: Treadle {ours['peak_bytes'] / 2**30:.2f} in all processes, "
        f"scikit-learn {theirs['process_peak_bytes'] / 2**30:.2f}"
    )
