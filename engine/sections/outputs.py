"""Section `artifacts.tables`: how tables are laid out, and what may become of their columns."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from treadle.engine.sections.base import Section

ROW_TABLES = ("etl", "features", "predictions", "explanations")
"""Tables of rows, which may be partitioned."""
COSTS = ("train_seconds", "predict_seconds", "seconds", "peak_bytes")
"""Columns of the tables about models that are others whenever models are trained, however much they are the same."""
TABLES = (*ROW_TABLES, "quarantine", "leaderboard", "folds", "race", "trials")


class Output(Section):
    """One table."""

    partition_by: tuple[str, ...] = ()
    """Columns by whose values the files lie in folders, so that readers skip those that they do not want."""
    schema_: Literal["any", "add", "fixed"] = Field(default="any", alias="schema")
    """What a new version may change: anything, only add columns, or nothing."""
