"""The rows that models are trained on, where they are too many for one worker: blocks, and what is known of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from treadle.engine.artifacts import Features, SplitRule
from treadle.engine.blocks import Block, blocks_of
from treadle.engine.context import Context

if TYPE_CHECKING:
    from distributed import Future


@dataclass(frozen=True)
class TrainingRows:
    """Blocks on the workers, of training rows and of those that models are measured on."""

    context: Context
    names: tuple[str, ...]
    """Features, in the order of the blocks' columns."""
    rule: SplitRule
    blocks: Callable[[], list[Future]]
    """Asked for again when workers were lost."""
    key: str
    """Under which checkpoints of a training are kept."""
    features: Features | None = None
    """The features that all training rows have; None of the rows of a fold."""
    found: dict[str, Any] = field(default_factory=dict)
    """What was gathered of them, for all models."""

    @classmethod
    def of(cls, context: Context, features: Features, rule: SplitRule) -> TrainingRows:
        """Those of the run: every stage gets the same."""
        found = context.live.setdefault("gathered", {})
        return cls(
            context,
            features.names,
            rule,
            lambda: blocks_of(context, features, rule),
            context.fingerprint,
            features,
            found,
        )

    def null_features(self) -> list[str]:
        """Features that are null in some row, to train on or to measure on."""
        if "nulls" not in self.found:
            nulls = self.context.gather(self.context.submit_like(null_columns, self.blocks()))
            self.found["nulls"] = np.any(nulls, axis=0)
        return [name for name, has_nulls in zip(self.names, self.found["nulls"], strict=True) if has_nulls]


def null_columns(block: Block) -> np.ndarray:
    """On a worker: whether a column has nulls, bool (features,)."""
    return np.isnan(block.matrix).any(axis=0)
