"""The section `race` of a spec: heats on growing samples, so that few models are compared by all folds.

Successive halving: each heat trains on more rows, and the better half of the models goes on.

Source: Jamieson and Talwalkar, "Non-stochastic best arm identification and hyperparameter optimization", AISTATS 2016.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from treadle.engine.sections.base import Section

GROWTH = 4
"""Rows of a heat over those of the one before."""


class Race(Section):
    """Models trained on samples; those that are best on the largest are compared by all folds."""

    rows: Annotated[int, Field(strict=True, ge=100)] = 2000
    """Training rows of the first heat; each of the next has `GROWTH` times as many, and half of the models."""
    keep: Annotated[int, Field(strict=True, ge=1)] = 4
    """Models that are compared by all folds."""
