"""What a job would otherwise compile while it runs."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd


def warm_up() -> float:
    """Compiles the kernels of tables, features, predictions and explanations, unless on disk; seconds that took."""
    from treadle.kernels.warmup import warm_up as warm_up_kernels

    started = time.perf_counter()
    _make_tables()
    warm_up_kernels()
    return time.perf_counter() - started


def set_up() -> None:
    """Has Numba set itself up, which takes the first kernel of a process a quarter of a second."""
    import numpy as np

    from treadle.kernels.network import affine

    affine(np.zeros((1, 1)), np.zeros((1, 1)), np.zeros(1))


def _make_tables() -> None:
    """Groups and windows over a few rows, with every function that has a kernel, of floats and of whole numbers."""
    import pandas as pd

    from treadle.engine.backend import Backend

    frame = pd.DataFrame(
        {
            "key": pd.array([1, 1, 2], dtype="Int64"),
            "at": pd.to_datetime(["2024-01-01", "2024-01-02", "2024-01-02"]).as_unit("us"),
            "float": [0.5, None, 1.5],
            "int": pd.array([1, None, 2], dtype="Int64"),
        }
    )
    # Columns that are read from files may not be written to, for which Numba compiles anew.
    for rows in (frame, Backend().frame(Backend().table(frame))):
        _make_groups_and_windows(rows)


def _make_groups_and_windows(frame: pd.DataFrame) -> None:
    from treadle.engine.relational import Aggregate, Dedupe, Window

    for column in ("float", "int"):
        functions = (
            "sum",
            "mean",
            "std",
            "min",
            "max",
            "count",
            "nunique",
            "approx_nunique",
            "first",
            "last",
            "median",
        )
        aggregations = {name: {"function": name, "column": column} for name in functions}
        groups = Aggregate.model_validate({"op": "aggregate", "by": ["key"], "aggregations": aggregations})
        groups.finish(groups.merge([groups.partial(frame), groups.partial(frame)]))
        rolling = [{"function": f"rolling_{name}", "column": column} for name in ("sum", "mean", "std", "min", "max")]
        others: list[dict[str, Any]] = [{"function": "rank"}, {"function": "lag", "column": column}]
        outputs = [{**each, **width} for each in rolling for width in ({"rows": 2}, {"span": "2d"})] + others
        window = {"op": "window", "by": ["key"], "order": "at", "outputs": {f"o{i}": o for i, o in enumerate(outputs)}}
        Window.model_validate(window).apply(frame)
        Dedupe(op="dedupe", columns=("key",), order=column, keep="last").apply(frame.dropna())


def kept_code() -> tuple[Path, int]:
    """The folder for the kernels' machine code, and of how many functions it has some."""
    from treadle.kernels.warmup import kept_code as kept

    return kept()
