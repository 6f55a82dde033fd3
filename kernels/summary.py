"""What fitting wants to know of columns of numbers, each passed over once: moments, and a quantile table.

The values of a column are gathered, without nulls, into memory that stays in the cache for what
follows: mean and deviations, then counting (a small hash table while few values are distinct, else
sorting in place). All columns of a partition use the same memory.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from treadle.kernels.counting import Scratch, count_floats
from treadle.kernels.moments import Moments, gather, moments_of
from treadle.kernels.sketch import DEFAULT_LIMIT, QuantileSketch


@dataclass(frozen=True)
class Summary:
    """Moments and quantiles of a column; None for what was not asked for."""

    moments: Moments | None
    sketch: QuantileSketch | None


class Summariser:
    """Summaries of columns of at most `rows` values."""

    def __init__(self, rows: int) -> None:
        self._scratch = Scratch(rows)

    def of(self, values: NDArray[np.float64], moments: bool, sketch: bool) -> Summary:
        """Of a 1-D float64 array, NaN for null."""
        scratch = self._scratch
        numbers, ends = gather(np.ascontiguousarray(values), scratch.numbers)
        found = moments_of(numbers, *ends, len(values)) if moments else None
        if not sketch:
            return Summary(found, None)
        return Summary(found, QuantileSketch(*count_floats(len(numbers), scratch, DEFAULT_LIMIT), DEFAULT_LIMIT))
