"""Small charts as SVG, in the colours of the page. Each says in words what it shows; the numbers stand in a table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from treadle.engine.card.blocks import Bars, Dots, Line, Reliability, shown, visible

NAMES, PLOT, ROW = 200, 380, 26
"""Pixels: width of the names, width of the scale, height of a line."""
MARGIN = 24
NAME_LENGTH = 28
"""Characters of a name; the table has all of it."""
TITLE_LENGTH = 80


def chart(block: Dots | Bars | Reliability, name: str) -> str:
    """An `svg` element; `name` is unique in the page."""
    match block:
        case Dots():
            return _dots(block, name)
        case Bars():
            return _bars(block, name)
        case Reliability():
            return _reliability(block, name)


def _svg(name: str, title: str, described: str, width: float, height: float, parts: Sequence[str]) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-labelledby="{name}-t {name}-d" '
        f'viewBox="0 0 {width:g} {height:g}" width="{width:g}" height="{height:g}">'
        f'<title id="{name}-t">{_said(title)}</title><desc id="{name}-d">{_said(described)}</desc>'
        f"{''.join(parts)}</svg>"
    )


def _said(text: str) -> str:
    return escape(visible(text))


def _text(x: float, y: float, text: str, anchor: str = "start", kind: str = "", longest: int = NAME_LENGTH) -> str:
    said = visible(text)
    said = said if len(said) <= longest else f"{said[: longest - 3]}..."
    known = f' class="{kind}"' if kind else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{known}>{escape(said)}</text>'


def _mark(series: int, x: float, y: float) -> str:
    """Series differ in shape as well as in colour."""
    kind = f'class="s{series % 4}"'
    match series % 4:
        case 0:
            return f'<circle {kind} cx="{x:.1f}" cy="{y:.1f}" r="5"/>'
        case 1:
            return f'<rect {kind} x="{x - 4.5:.1f}" y="{y - 4.5:.1f}" width="9" height="9"/>'
        case 2:
            return f'<polygon {kind} points="{x:.1f},{y - 6:.1f} {x + 6:.1f},{y + 5:.1f} {x - 6:.1f},{y + 5:.1f}"/>'
        case _:
            points = ((x, y - 6), (x + 6, y), (x, y + 6), (x - 6, y))
            return f'<polygon {kind} points="{" ".join(f"{a:.1f},{b:.1f}" for a, b in points)}"/>'


def _dots(block: Dots, name: str) -> str:
    low, high = block.low, block.high
    if high <= low:
        low, high = low - 0.5, high + 0.5
    several = len(block.series) > 1
    top = MARGIN + (ROW if several else 0)
    height = top + ROW * len(block.lines) + MARGIN

    def place(value: float) -> float:
        return NAMES + PLOT * (value - low) / (high - low)

    parts = [_text(0, 16, block.title, longest=TITLE_LENGTH)]
    if several:
        step = (NAMES + PLOT) / len(block.series)
        for i, series in enumerate(block.series):
            parts += [_mark(i, 8 + i * step, top - 14), _text(20 + i * step, top - 10, series)]
    for number, line in enumerate(block.lines):
        y = top + ROW * number + ROW / 2
        parts.append(_text(0, y + 4, line.name))
        parts.append(f'<line x1="{NAMES}" y1="{y:.1f}" x2="{NAMES + PLOT}" y2="{y:.1f}" stroke-opacity="0.3"/>')
        first = line.values[0]
        if line.spread and first is not None:
            ends = [place(first - line.spread), place(first + line.spread)]
            parts.append(
                f'<line class="s0" x1="{ends[0]:.1f}" y1="{y:.1f}" x2="{ends[1]:.1f}" y2="{y:.1f}" stroke-width="2"/>'
            )
        parts += [_mark(i, place(value), y) for i, value in enumerate(line.values) if value is not None]
    foot = height - 6
    parts += [_text(NAMES, foot, shown(low), "start", "soft"), _text(NAMES + PLOT, foot, shown(high), "end", "soft")]
    return _svg(name, block.title, _told(block.series, block.lines), NAMES + PLOT + MARGIN, height, parts)


def _bars(block: Bars, name: str) -> str:
    most = max((value for line in block.lines for value in line.values if value is not None), default=0.0) or 1.0
    height = MARGIN + ROW * len(block.lines) + 8
    parts = [_text(0, 16, block.title, longest=TITLE_LENGTH)]
    for number, line in enumerate(block.lines):
        y = MARGIN + ROW * number + ROW / 2
        value = line.values[0] or 0.0
        width = max((PLOT - 70) * value / most, 0.0)
        parts += [
            _text(0, y + 4, line.name),
            f'<rect class="s0" x="{NAMES}" y="{y - 8:.1f}" width="{width:.1f}" height="16"/>',
            _text(NAMES + width + 6, y + 4, shown(value)),
        ]
    return _svg(name, block.title, _told(("",), block.lines), NAMES + PLOT + MARGIN, height, parts)


def _reliability(block: Reliability, name: str) -> str:
    side, left, top = 280.0, 40.0, 12.0
    largest = max((rows for _, _, rows in block.points), default=1)

    def at(score: float, rate: float) -> tuple[float, float]:
        return left + side * score, top + side * (1 - rate)

    parts = [
        f'<path d="M{left:g} {top:g}V{top + side:g}H{left + side:g}"/>',
        f'<line x1="{left:g}" y1="{top + side:g}" x2="{left + side:g}" y2="{top:g}" stroke-dasharray="4 4"/>',
        _text(left, top + side + 18, "0", "middle", "soft"),
        _text(left + side, top + side + 18, "1", "middle", "soft"),
        _text(left + side / 2, top + side + 18, "mean score", "middle", "soft"),
        _text(left - 8, top + 5, "1", "end", "soft"),
        _text(left - 8, top + side + 4, "0", "end", "soft"),
        f'<text class="soft" text-anchor="middle" transform="translate(14 {top + side / 2:g}) rotate(-90)">'
        "share positive</text>",
    ]
    for score, rate, rows in block.points:
        x, y = at(score, rate)
        # The area goes by the rows.
        radius = 3 + 7 * (rows / largest) ** 0.5
        parts.append(f'<circle class="s0" fill-opacity="0.6" cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}"/>')
    told = "; ".join(f"score {score:.2f}: {rate:.2f} of {rows} rows" for score, rate, rows in block.points)
    return _svg(name, block.title, told, left + side + MARGIN, top + side + 28, parts)


def _told(series: Sequence[str], lines: Sequence[Line]) -> str:
    def values(line: Line) -> Iterator[str]:
        for name, value in zip(series, line.values, strict=True):
            if value is not None:
                yield f"{name} {shown(value)}".strip()

    return "; ".join(f"{line.name}: {', '.join(values(line))}" for line in lines)
