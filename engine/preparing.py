"""Rows prepared where a backend computes: the operations themselves on the host, queries of them for a GPU."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from treadle.engine.backend import Backend, simulated
from treadle.engine.operation import Placed

if TYPE_CHECKING:
    import pandas as pd

    from treadle.engine.encoders import Fitted, Training
    from treadle.engine.encoders.columns import Columns
    from treadle.engine.relational import Aggregate, Pivot
    from treadle.engine.relational.aggregate import Partial


def apply_steps(
    backend: Backend, steps: Iterable[tuple[Placed, pd.DataFrame | None]], frame: pd.DataFrame
) -> pd.DataFrame:
    """The steps of a program, each with the small table that it may take, on rows in memory."""
    if _by_queries(backend):
        from treadle.engine.queries.running import applied

        return applied(steps, frame, backend)
    for step, side in steps:
        frame = step.applied(frame, side)
    return frame


def contribution(backend: Backend, operation: Aggregate | Pivot, frame: pd.DataFrame, where: str) -> Partial:
    """What rows contribute to an operation, at its place in the spec."""
    if _by_queries(backend):
        from treadle.engine.queries.running import contributed

        return contributed(operation, frame, where, backend)
    return operation.partial(frame)


def apply_features(
    backend: Backend, columns: Columns, fitted: Sequence[Fitted], training: Training | None = None
) -> Columns:
    """The columns of rows after fitted feature operations; without training rows no row is one of these."""
    if _by_queries(backend):
        from treadle.engine.queries.features import applied

        return applied(columns, fitted, training, backend)
    for operation in fitted:
        columns = operation.apply(columns, training)
    return columns


def _by_queries(backend: Backend) -> bool:
    """Whether there is what computes queries; without it all is done on the host, which is told."""
    if backend.name == "cpu":
        return False
    for module in ("polars", *(() if simulated() else ("cudf_polars", "rmm"))):
        if importlib.util.find_spec(module) is None:
            backend.fell_back("rows and features", f"prepared on the host, since {module} is not installed")
            return False
    return True
