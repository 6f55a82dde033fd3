"""Relational operations of the `tables:` part of a spec: configuration and effect, side by side.

Each operation is a function of one partition, given at most one small table that was gathered
or read before (a group table, the other side of a join). Only the part of the frame API that
pandas and cuDF share is used.
"""

from typing import Annotated

from pydantic import Field

from treadle.engine.relational.aggregate import Aggregate
from treadle.engine.relational.cast import Cast
from treadle.engine.relational.columns import Drop, Rename, Select
from treadle.engine.relational.join import Join, Side
from treadle.engine.relational.rows import Derive, Filter

TableOperation = Annotated[
    Filter | Derive | Cast | Rename | Select | Drop | Join | Aggregate, Field(discriminator="op")
]

__all__ = ["Aggregate", "Cast", "Derive", "Drop", "Filter", "Join", "Rename", "Select", "Side", "TableOperation"]
