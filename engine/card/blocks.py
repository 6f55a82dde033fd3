"""What a card consists of, whatever it is written as. All texts are plain: who writes them escapes them."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

NOT_MEASURED = "not measured"
LONGEST = 300
"""Characters of a table's cell that are shown."""
_HIDING = {*range(0x202A, 0x202F), *range(0x2066, 0x206A), 0x200E, 0x200F, 0x061C}
"""Characters that change the direction of the text around them, so that it reads as something else."""

Cell = str | int | float | None


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str


@dataclass(frozen=True)
class Items:
    """A list of texts."""

    items: tuple[str, ...]


@dataclass(frozen=True)
class Links:
    """A list of texts; those that are addresses of the web lead there."""

    items: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """Rows under a head; the first cell of a row names it."""

    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    missing: str = NOT_MEASURED
    """What is written where a cell has no value."""


@dataclass(frozen=True)
class Line:
    """A named line of a chart: marks at values, of which None are left out, and a spread around the first."""

    name: str
    values: tuple[float | None, ...]
    spread: float | None = None


@dataclass(frozen=True)
class Dots:
    """A mark a line and series on one scale; `low` and `high` are its ends."""

    title: str
    series: tuple[str, ...]
    lines: tuple[Line, ...]
    low: float
    high: float


@dataclass(frozen=True)
class Bars:
    """A bar a line, from 0."""

    title: str
    lines: tuple[Line, ...]


@dataclass(frozen=True)
class Reliability:
    """How often rows were positive, by the mean of their scores: (score, rate, rows)."""

    title: str
    points: tuple[tuple[float, float, int], ...]


Block = Text | Items | Links | Table | Dots | Bars | Reliability


@dataclass(frozen=True)
class Chapter:
    """A heading and what stands under it."""

    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Card:
    """A whole card."""

    title: str
    lead: str
    chapters: tuple[Chapter, ...]


def chapter(title: str, *blocks: Block | None) -> Chapter:
    """Without the blocks that there is nothing for."""
    return Chapter(title, tuple(block for block in blocks if block is not None))


def items(texts: Sequence[str]) -> Items | None:
    """None of no texts."""
    return Items(tuple(texts)) if texts else None


def is_number(cell: Cell) -> bool:
    return isinstance(cell, int | float) and not isinstance(cell, bool)


def shown(cell: Cell, missing: str = NOT_MEASURED) -> str:
    """A cell as a text; numbers with four digits after the point, or with four that count."""
    if cell is None:
        return missing
    if isinstance(cell, str | bool):
        found = visible(str(cell))
        return found if len(found) <= LONGEST else f"{found[: LONGEST - 3]}..."
    if isinstance(cell, int):
        return f"{cell:,}"
    if math.isnan(cell):
        return "undefined"
    return f"{cell:.4f}" if cell == 0 or 1e-3 <= abs(cell) < 1e5 else f"{cell:.4g}"


def visible(text: str) -> str:
    """On one line, and with a mark in place of every character that cannot be seen."""
    line = " ".join(text.split())
    return "".join("\ufffd" if unicodedata.category(c) in ("Cc", "Cs") or ord(c) in _HIDING else c for c in line)
