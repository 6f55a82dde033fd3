"""Feature operations of the `features:` part of a spec: configuration, fit and effect, side by side.

An operation is fitted on statistics of the training rows that merge over partitions, and becomes
a `Fitted` operation: plain JSON and, where there are many levels, Parquet, kept in the model bundle and
replayed unchanged at prediction. Columns are carried as a dict while features are made, because most
operations touch a few columns and one_hot adds many.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from treadle.engine.encoders.base import MAX_LEVELS, Fitted, Kind, Level, Operation, Selector, Statistic
from treadle.engine.encoders.categories import OTHER, FittedLevels, OneHot, Ordinal
from treadle.engine.encoders.columns import FLOAT32_MAX, Training, numbers, to_matrix
from treadle.engine.encoders.dates import DateParts, FittedDateParts
from treadle.engine.encoders.hashed import FittedHash, FittedText, HashEncode, Text
from treadle.engine.encoders.impute import FittedImpute, Impute
from treadle.engine.encoders.levels import Levels, Shelf
from treadle.engine.encoders.products import FittedInteractions, Interactions
from treadle.engine.encoders.scale import Bin, Clip, FittedBin, FittedClip, FittedQuantiles, FittedScale, Scale
from treadle.engine.encoders.worth import FittedFrequency, FittedTarget, Frequency, TargetEncode

if TYPE_CHECKING:
    import pandas as pd

    from treadle.engine.encoders.columns import Columns

__all__ = [
    "FLOAT32_MAX",
    "MAX_LEVELS",
    "OTHER",
    "AnyFitted",
    "DateParts",
    "FeatureOperation",
    "Fitted",
    "FittedImpute",
    "FittedLevels",
    "FittedTarget",
    "Impute",
    "Kind",
    "Level",
    "Levels",
    "Operation",
    "Selector",
    "Shelf",
    "Statistic",
    "TargetEncode",
    "Training",
    "apply",
    "columns_for",
    "numbers",
    "to_matrix",
]  # fmt: skip

FeatureOperation = Annotated[
    Impute
    | Clip
    | Scale
    | Bin
    | OneHot
    | Ordinal
    | Frequency
    | HashEncode
    | TargetEncode
    | DateParts
    | Text
    | Interactions,
    Field(discriminator="op"),
]
AnyFitted = Annotated[
    FittedImpute
    | FittedClip
    | FittedScale
    | FittedQuantiles
    | FittedBin
    | FittedLevels
    | FittedFrequency
    | FittedHash
    | FittedTarget
    | FittedDateParts
    | FittedText
    | FittedInteractions,
    Field(discriminator="op"),
]


def apply(
    frame: pd.DataFrame,
    fitted: Sequence[Fitted],
    inputs: Sequence[str],
    training: Training | None = None,
    wanted: set[str] | None = None,
) -> Columns:
    """The columns after all operations, or at least the wanted ones of them; a pure function of the partition.

    Without training rows no row is one that the operations were fitted on.
    """
    columns = columns_for(frame, fitted, inputs, wanted)
    for operation in fitted:
        columns = operation.apply(columns, training)
    return columns


def columns_for(
    frame: pd.DataFrame, fitted: Sequence[Fitted], inputs: Sequence[str], wanted: set[str] | None = None
) -> Columns:
    """The columns before all operations, or those that make the wanted ones after them."""
    needed = None if wanted is None else needs(fitted, wanted)
    return {name: frame[name] for name in inputs if needed is None or name in needed}


def needs(fitted: Sequence[Fitted], wanted: set[str]) -> set[str]:
    """The columns before all operations from which the wanted ones after them can be made."""
    for operation in reversed(fitted):
        wanted = operation.needs(wanted)
    return wanted
