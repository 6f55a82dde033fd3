"""A card as Markdown: CommonMark with the tables of GitHub. Every text is escaped; charts are left to the page."""

from __future__ import annotations

import re
from collections.abc import Iterator

from treadle.engine.card.blocks import (
    Bars,
    Block,
    Card,
    Dots,
    Items,
    Links,
    Reliability,
    Table,
    Text,
    is_number,
    shown,
    visible,
)

_ACTIVE = re.compile(r"([\\`*_{}\[\]<>|~&#$])")
_ADDRESS = re.compile(r"(?<=[A-Za-z0-9])(:)(?=//)|(?<=www)(\.)", re.IGNORECASE)
_START = re.compile(r"^(?:([-+=])|(\d+)([.)])(?=\s|$))")
_WEB = re.compile(r"https?://[A-Za-z0-9.-]+(:\d+)?(/[A-Za-z0-9._~/?#@!$&'()*+,;=%:-]*)?")


def escaped(text: str) -> str:
    """A text of one line that means nothing but itself, also where it begins a line."""
    return _START.sub(lambda found: f"\\{found[1]}" if found[1] else f"{found[2]}\\{found[3]}", _inline(text))


def _inline(text: str) -> str:
    """As `escaped`, where it begins no line."""
    line = _ACTIVE.sub(r"\\\1", visible(text))
    return _ADDRESS.sub(lambda found: f"\\{found[0]}", line)


def is_web(text: str) -> bool:
    """Whether a text is an address of the web, and nothing that could be taken for another one."""
    return _WEB.fullmatch(text) is not None


def markdown(card: Card) -> str:
    """The whole card."""
    parts = [f"# {escaped(card.title)}", escaped(card.lead)]
    for chapter in card.chapters:
        parts.append(f"## {escaped(chapter.title)}")
        parts += [written for block in chapter.blocks for written in _block(block)]
    return "\n\n".join(parts) + "\n"


def _block(block: Block) -> Iterator[str]:
    match block:
        case Text():
            yield escaped(block.text)
        case Items():
            yield "\n".join(f"- {escaped(item)}" for item in block.items)
        case Links():
            yield "\n".join(f"- <{item}>" if is_web(item) else f"- {escaped(item)}" for item in block.items)
        case Table():
            yield f"**{escaped(block.caption)}**"
            yield _table(block)
        case Dots() | Bars() | Reliability():
            return


def _table(table: Table) -> str:
    """Numbers stand at the right, in columns that hold nothing else but what is missing."""
    columns = list(zip(*table.rows, strict=True)) or [()] * len(table.head)
    numeric = [
        any(is_number(cell) for cell in cells) and all(is_number(cell) or cell is None for cell in cells)
        for cells in columns
    ]
    rule = ["---:" if right and i else "---" for i, right in enumerate(numeric)]
    lines = [[_inline(name) for name in table.head], rule]
    lines += [[_inline(shown(cell, table.missing)) for cell in row] for row in table.rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
