"""How an ensemble makes one prediction of its members': a weighted average, or a linear model of theirs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from treadle.engine.models.base import Link, Task
from treadle.engine.models.linear import LinearModel

CLIP = 1e-6
"""Probabilities nearer to 0 or 1 count as this near: log-odds beyond 13.8 would say nothing but how sure one was."""


@dataclass(frozen=True, eq=False)
class Average:
    """The members' scores, averaged by weight: probabilities, or values."""

    weights: np.ndarray
    """float64 (members,), not negative; they add up to 1."""
    steps: int | None = None
    """Those of a selection after which it was kept."""
    link: ClassVar[Link] = "identity"

    def margin(self, scores: Sequence[np.ndarray]) -> np.ndarray:
        """float64 of members' scores, each (rows,) or (rows, classes)."""
        return sum((w * score for w, score in zip(self.weights, scores, strict=True)), np.zeros_like(scores[0]))

    def scores(self, margin: np.ndarray) -> np.ndarray:
        return margin


@dataclass(frozen=True, eq=False)
class Stacked:
    """A linear model of the members' log-odds, or of their values."""

    meta: LinearModel

    @property
    def link(self) -> Link:
        return self.meta.link

    def margin(self, scores: Sequence[np.ndarray]) -> np.ndarray:
        """As `Average.margin`: log-odds, of several classes up to a number that all share, or the value."""
        return self.meta.margin(meta_features(self.meta.task, scores))

    def scores(self, margin: np.ndarray) -> np.ndarray:
        return self.meta.scores(margin)


Combination = Average | Stacked


def meta_features(task: Task, scores: Sequence[np.ndarray]) -> np.ndarray:
    """float64 (rows, members * outputs) of members' scores: values, or log-odds, of each class where several."""
    columns = np.concatenate([np.reshape(score, (len(score), -1)) for score in scores], axis=1)
    if task == "regression":
        return columns
    clipped = np.clip(columns, CLIP, 1.0 - CLIP)
    odds: np.ndarray[Any, Any] = np.log(clipped) - np.log1p(-clipped)
    return odds
