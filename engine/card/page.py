"""A card as one HTML file: no scripts, nothing from elsewhere, light or dark as the reader has it."""

from __future__ import annotations

from html import escape

from treadle.engine.card.blocks import (
    Bars,
    Block,
    Card,
    Cell,
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
from treadle.engine.card.charts import chart
from treadle.engine.card.markdown import is_web

STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --paper: #ffffff; --soft: #57606a; --line: #d0d7de; --band: #f6f8fa;
  --a: #0550ae; --b: #953800; --c: #116329; --d: #8250df; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6edf3; --paper: #0d1117; --soft: #9da7b3; --line: #3d444d; --band: #161b22;
    --a: #79c0ff; --b: #ffa657; --c: #7ee787; --d: #d2a8ff; }
}
body { margin: 0 auto; padding: 1.5rem; max-width: 60rem; color: var(--ink); background: var(--paper);
  font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1, h2 { line-height: 1.25; }
h2 { margin-top: 2.5rem; border-bottom: 1px solid var(--line); padding-bottom: .25rem; }
a { color: var(--a); }
figure { margin: 1rem 0; }
.wide { overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; }
caption { text-align: left; font-weight: 600; padding: .25rem 0; }
th, td { border: 1px solid var(--line); padding: .25rem .6rem; text-align: left; vertical-align: top;
  overflow-wrap: normal; }
thead th { background: var(--band); }
tbody th { font-weight: 500; }
.number { text-align: right; font-variant-numeric: tabular-nums; }
svg { max-width: 100%; height: auto; }
svg text { fill: var(--ink); font: 13px system-ui, sans-serif; }
svg .soft { fill: var(--soft); }
svg line, svg path { stroke: var(--soft); fill: none; }
svg .s0 { fill: var(--a); stroke: var(--a); } svg .s1 { fill: var(--b); stroke: var(--b); }
svg .s2 { fill: var(--c); stroke: var(--c); } svg .s3 { fill: var(--d); stroke: var(--d); }
""".strip()
POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
"""What a browser is to load of other places: nothing, whatever a text may have become."""


def page(card: Card) -> str:
    """The whole card."""
    title = said(card.title)
    contents = "".join(
        f'<li><a href="#s{number}">{said(chapter.title)}</a></li>' for number, chapter in enumerate(card.chapters, 1)
    )
    chapters = "\n".join(
        f'<section aria-labelledby="s{number}">\n<h2 id="s{number}">{said(chapter.title)}</h2>\n'
        + "\n".join(_block(block, f"c{number}-{place}") for place, block in enumerate(chapter.blocks, 1))
        + "\n</section>"
        for number, chapter in enumerate(card.chapters, 1)
    )
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{escape(POLICY)}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>\n{STYLE}\n</style>\n</head>\n<body>\n<main>\n"
        f"<h1>{title}</h1>\n<p>{said(card.lead)}</p>\n"
        f'<nav aria-label="Chapters">\n<ol>{contents}</ol>\n</nav>\n{chapters}\n</main>\n</body>\n</html>\n'
    )


def said(text: str) -> str:
    """A text as HTML that means nothing but itself."""
    return escape(visible(text))


def _block(block: Block, name: str) -> str:
    match block:
        case Text():
            return f"<p>{said(block.text)}</p>"
        case Items():
            return f"<ul>{''.join(f'<li>{said(item)}</li>' for item in block.items)}</ul>"
        case Links():
            return f"<ul>{''.join(f'<li>{_link(item)}</li>' for item in block.items)}</ul>"
        case Table():
            return _table(block)
        case Dots() | Bars() | Reliability():
            return f"<figure>{chart(block, name)}</figure>"


def _link(text: str) -> str:
    return f'<a href="{escape(text)}" rel="noopener noreferrer">{said(text)}</a>' if is_web(text) else said(text)


def _table(table: Table) -> str:
    head = "".join(f'<th scope="col">{said(name)}</th>' for name in table.head)
    rows = "".join(
        f'<tr><th scope="row">{said(shown(row[0], table.missing))}</th>'
        f"{''.join(_cell(cell, table.missing) for cell in row[1:])}</tr>\n"
        for row in table.rows
    )
    # What is too wide is scrolled, also with the keys.
    return (
        f'<div class="wide" tabindex="0" role="region" aria-label="{said(table.caption)}">\n<table>\n'
        f"<caption>{said(table.caption)}</caption>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}</tbody>\n"
        "</table>\n</div>"
    )


def _cell(cell: Cell, missing: str) -> str:
    kind = ' class="number"' if is_number(cell) else ""
    return f"<td{kind}>{said(shown(cell, missing))}</td>"
