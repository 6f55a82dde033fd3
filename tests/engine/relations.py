"""Frames of the engine's types, operations made of their sections, and DuckDB beside them."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import duckdb
import numpy as np
import pandas as pd
from hypothesis import strategies as st
from pydantic import TypeAdapter

from treadle.engine.backend import DTYPES, Backend
from treadle.engine.operation import Operation
from treadle.engine.relational import TableOperation

BACKEND = Backend("cuda" if os.environ.get("TREADLE_TEST_DEVICE") == "cuda" else "cpu")
"""That of tests of whole programs, which `tests/engine/queries/test_programs.py` runs on a device as well."""
ADAPTER: TypeAdapter[Operation] = TypeAdapter(TableOperation)
DAY = pd.Timestamp("2024-02-28")
POOLS: dict[str, list[Any]] = {
    "int": [None, 0, 1, 2, 2**53 + 1],
    "float": [None, 0.0, 0.25, -1.5, math.inf, -math.inf],
    "bool": [None, True, False],
    "text": [None, "", "a", "B", "ä"],
    "timestamp": [None, DAY, DAY + pd.Timedelta(1, "D"), DAY + pd.Timedelta(1, "us")],
}
"""Few values of each kind, so that rows have some in common."""


def operation(**section: Any) -> Operation:
    return ADAPTER.validate_python(section)


def frame_of(kinds: Mapping[str, str], rows: Sequence[tuple[Any, ...]]) -> pd.DataFrame:
    columns = list(zip(*rows, strict=True)) or [()] * len(kinds)
    return pd.DataFrame(
        {n: pd.Series(list(c), dtype=DTYPES[k]) for (n, k), c in zip(kinds.items(), columns, strict=True)}
    )


def frames(kinds: Mapping[str, str], most: int = 14, **pools: Sequence[Any]) -> st.SearchStrategy[pd.DataFrame]:
    """Frames of up to `most` rows of values of the pools of their kinds, or their own; some columns are all null.

    They are made from seeds, which costs less than drawing each value.
    """

    def frame(rows: int, seed: int) -> pd.DataFrame:
        rng = np.random.default_rng(seed)
        columns = {}
        for name, kind in kinds.items():
            pool = list(pools.get(name, POOLS[kind]))
            empty = None in pool and rng.random() < 0.1
            values = [None if empty else pool[i] for i in rng.integers(0, len(pool), rows)]
            columns[name] = pd.Series(values, dtype=DTYPES[kind])
        return pd.DataFrame(columns)

    return st.builds(frame, st.integers(0, most), st.integers(0, 2**32 - 1))


def numbered(frame: pd.DataFrame) -> pd.DataFrame:
    """With the number of the row in the column `n`."""
    return frame.assign(n=pd.array(range(len(frame)), dtype="Int64"))


def duck(query: str, **tables: pd.DataFrame) -> pd.DataFrame:
    """What DuckDB makes of it, in the engine's types."""
    with duckdb.connect(config={"threads": 1}) as connection:
        for name, frame in tables.items():
            connection.register(name, BACKEND.table(frame))
        return BACKEND.frame(connection.sql(query).to_arrow_table())
