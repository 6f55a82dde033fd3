"""What computes queries: cuDF on a GPU, or Polars; and what is said where cuDF cannot."""

from __future__ import annotations

import re
from typing import Any

import polars as pl

from treadle.engine.backend import Backend
from treadle.engine.queries.values import Unsupported

HOST_ENGINE = "in-memory"
"""Polars' own, which takes every query."""
_CAUSE = re.compile(r"unsupported operations.*?\\n- (.+?)(?:\\n- |[\"'], \[)", re.DOTALL)
"""Where cudf-polars says which operation it does not take, in an error that Polars quotes."""


def collected(lazy: pl.LazyFrame, engine: Any) -> pl.DataFrame:
    """A query's outcome, on the host."""
    found: pl.DataFrame = lazy.collect(engine=engine)
    return found


def engine_of(backend: Backend) -> Any:
    """What computes queries. Unsupported where it cannot be had."""
    try:
        return backend.engine()
    except Exception as error:
        raise Unsupported(f"cuDF cannot be used: {first_line(error)}") from error


def no_memory(on_host: int, rows: int, size: int) -> str:
    """What is said of rows of a partition of so many, and bytes, for which a device had not the memory."""
    return (
        f"{on_host} rows of a partition of {rows} ({size / 2**20:.0f} MiB) on the host, for want of memory on the GPU; "
        "more data.partitions make smaller ones"
    )


def reason_of(error: Exception) -> str:
    """Why the host does what a device was to do."""
    return str(error) if isinstance(error, Unsupported) else f"cuDF failed: {first_line(error)}"


def first_line(error: BaseException) -> str:
    """What kind of error it is, and what it says first."""
    if (cause := _CAUSE.search(str(error))) is not None:
        return cause[1][:200]
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__
