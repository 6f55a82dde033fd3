"""Relational operations of the `tables:` part of a spec: configuration and effect, side by side.

Each operation is a function of one partition, given at most one small table that was gathered
or read before (a group table, the other side of a join). What of them cuDF computes on GPUs is in
`treadle.engine.queries`.
"""

from typing import Annotated

from pydantic import Field

from treadle.engine.relational.aggregate import Aggregate
from treadle.engine.relational.cast import Cast
from treadle.engine.relational.columns import Drop, Rename, Select
from treadle.engine.relational.dedupe import Dedupe, Sample
from treadle.engine.relational.join import Format, Join, Side
from treadle.engine.relational.reshape import Pivot, Union
from treadle.engine.relational.rows import Derive, Filter
from treadle.engine.relational.window import Window

TableOperation = Annotated[
    Filter | Derive | Cast | Rename | Select | Drop | Dedupe | Sample | Join | Union | Aggregate | Pivot | Window,
    Field(discriminator="op"),
]

__all__ = [
    "Aggregate",
    "Cast",
    "Dedupe",
    "Derive",
    "Drop",
    "Filter",
    "Format",
    "Join",
    "Pivot",
    "Rename",
    "Sample",
    "Select",
    "Side",
    "TableOperation",
    "Union",
    "Window",
]
