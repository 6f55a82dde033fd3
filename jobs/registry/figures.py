"""Figures of a run as SVG, which browsers and MLflow's page show: text, which needs no library and little time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

WIDTH, ROW, BAR = 640, 22, 380
SIDE = 360
"""Of the square of a calibration curve, in pixels."""
MOST = 20
"""Features that are shown."""
BLUE, GREY = "#3465a4", "#888"


def importance(values: Mapping[str, float]) -> str:
    """Bars of mean |contribution| a feature, the largest first."""
    shown = sorted(values.items(), key=lambda item: -item[1])[:MOST]
    largest = max((value for _, value in shown), default=0.0) or 1.0
    lines = []
    for i, (name, value) in enumerate(shown):
        y, width = 30 + i * ROW, BAR * value / largest
        label = name if len(name) <= 28 else f"{name[:27]}…"
        lines += [
            _text(190, y + 12, label, "end"),
            f'<rect x="196" y="{y}" width="{width:.1f}" height="15" fill="{BLUE}"/>',
            _text(200 + width, y + 12, f"{value:.3g}"),
        ]
    return _svg(WIDTH, 40 + len(shown) * ROW, [_text(10, 18, "Mean |contribution| to the margin"), *lines])


def calibration(curves: Mapping[str, Sequence[Mapping[str, float | None]]], best: str) -> str:
    """Share of positive rows over mean score, a line a model, the best one in colour; right is on the diagonal."""
    lines = [
        f'<rect x="50" y="30" width="{SIDE}" height="{SIDE}" fill="none" stroke="{GREY}"/>',
        f'<line x1="50" y1="{30 + SIDE}" x2="{50 + SIDE}" y2="30" stroke="{GREY}" stroke-dasharray="4"/>',
        _text(50 + SIDE / 2, 62 + SIDE, "mean score", "middle"),
        _text(10, 18, "Share of positive rows"),
    ]
    for edge in (0.0, 0.5, 1.0):
        lines.append(_text(50 + SIDE * edge, 46 + SIDE, f"{edge:g}", "middle"))
        lines.append(_text(44, 34 + SIDE * (1 - edge), f"{edge:g}", "end"))
    for name, bins in sorted(curves.items(), key=lambda item: item[0] == best):
        points = [
            (50 + SIDE * one["mean_score"], 30 + SIDE * (1 - one["positive_rate"]))
            for one in bins
            if one["mean_score"] is not None and one["positive_rate"] is not None
        ]
        colour, width = (BLUE, 2.5) if name == best else ("#bbb", 1)
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        lines.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="{width}"/>')
        if name == best:
            lines += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colour}"/>' for x, y in points]
            lines.append(_text(60, 48, name, colour=colour))
    return _svg(SIDE + 80, SIDE + 80, lines)


def _text(x: float, y: float, text: str, anchor: str = "start", colour: str = "#222") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}">{escape(text)}</text>'


def _svg(width: int, height: int, lines: Sequence[str]) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif" font-size="12">'
    )
    return "\n".join([head, f'<rect width="{width}" height="{height}" fill="white"/>', *lines, "</svg>\n"])
