"""Bars and curves as SVG: pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

_WIDTH, _LABEL_WIDTH, _ROW, _MARGIN = 900, 210, 26, 20
_COLOURS = ("#1f6feb", "#d1495b", "#2e8b57", "#8a5cd1", "#b8860b", "#00808a", "#555555")
_OURS, _THEIRS = "#1f6feb", "#a9b4c2"
_STYLE = (
    "<style>text{font:13px sans-serif;fill:#222}.title{font-weight:bold}"
    ".axis{stroke:#999}.grid{stroke:#ddd}</style>"
    '<rect width="100%" height="100%" fill="white"/>'
)
Points = Sequence[tuple[float, float]]


def bars(title: str, seconds: Mapping[str, float]) -> str:
    """Return bars, the longest one first; opskit's own are in another colour."""
    ordered = sorted(seconds.items(), key=lambda item: -item[1])
    longest = max(seconds.values())
    room = _WIDTH - _LABEL_WIDTH - 90
    parts = [_text(_MARGIN, 26, title, "title")]
    for row, (name, value) in enumerate(ordered):
        top = 44 + row * _ROW
        width = max(1.0, room * value / longest)
        colour = _OURS if name.startswith("opskit") else _THEIRS
        parts += [
            _text(_MARGIN, top + 14, name),
            f'<rect x="{_LABEL_WIDTH}" y="{top}" width="{width:.1f}" height="18" '
            f'fill="{colour}"/>',
            _text(_LABEL_WIDTH + width + 6, top + 14, f"{value:.2f} s"),
        ]
    return _svg(parts, height=44 + len(ordered) * _ROW + _MARGIN)


def curves(
    title: str,
    axis: str,
    lines: Mapping[str, Points],
    dashed: Mapping[str, Points] | None = None,
    *,
    unit: str = " s",
) -> str:
    """Return lines with both axes logarithmic: a straight one is a power.

    A dashed line belongs to the line with its name.
    """
    dashed = dashed or {}
    every = [p for each in (lines, dashed) for line in each.values() for p in line]
    across = _scale([x for x, _ in every], _MARGIN + 50, _WIDTH - 220)
    down = _scale([y for _, y in every], 400, 50)
    parts = [_text(_MARGIN, 26, title, "title"), _text(_MARGIN, 450, axis)]
    for x in sorted({x for x, _ in every}):
        parts.append(_line("grid", across(x), 50, across(x), 400))
        parts.append(_text(across(x) - 12, 420, f"{x:,.0f}"))
    for y in _decades([y for _, y in every]):
        parts.append(_line("grid", _MARGIN + 50, down(y), _WIDTH - 220, down(y)))
        parts.append(
            _text(_MARGIN, down(y) + 4, f"{y:{',.0f' if y >= 10 else '.2g'}}{unit}")
        )
    for number, (name, points) in enumerate(lines.items()):
        colour = _COLOURS[number % len(_COLOURS)]
        drawn = [(points, f'stroke="{colour}" stroke-width="2.5"')]
        if name in dashed:
            drawn.append((dashed[name], 'stroke="#222" stroke-dasharray="5 5"'))
        for each, style in drawn:
            path = " ".join(f"{across(x):.1f},{down(y):.1f}" for x, y in sorted(each))
            parts.append(f'<polyline points="{path}" fill="none" {style}/>')
        parts += [
            f'<circle cx="{across(x):.1f}" cy="{down(y):.1f}" r="4" fill="{colour}"/>'
            for x, y in points
        ]
        top = 70 + number * 22
        parts.append(
            f'<rect x="{_WIDTH - 205}" y="{top - 11}" width="12" height="12" '
            f'fill="{colour}"/>'
        )
        parts.append(_text(_WIDTH - 187, top, name))
    return _svg(parts, height=465)


class _scale:
    """Where a value lies between two places, logarithmically."""

    def __init__(self, values: Sequence[float], first: float, last: float) -> None:
        self._low, high = math.log(min(values)), math.log(max(values))
        self._span = high - self._low or 1.0
        self._first, self._last = first, last

    def __call__(self, value: float) -> float:
        part = (math.log(value) - self._low) / self._span
        return self._first + part * (self._last - self._first)


def _decades(values: Sequence[float]) -> list[float]:
    low, high = min(values), max(values)
    inside = [
        10.0**power
        for power in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        if low <= 10.0**power <= high
    ]
    return [low, *inside, high] if len(inside) < 2 else inside


def _text(x: float, y: float, words: str, kind: str = "") -> str:
    attribute = f' class="{kind}"' if kind else ""
    return f'<text x="{x:.1f}" y="{y:.1f}"{attribute}>{escape(words)}</text>'


def _line(kind: str, x1: float, y1: float, x2: float, y2: float) -> str:
    return (
        f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" '
        f'y2="{y2:.1f}"/>'
    )


def _svg(parts: Sequence[str], *, height: float) -> str:
    inside = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height:.0f}" '
        f'width="{_WIDTH}" height="{height:.0f}">\n{_STYLE}\n{inside}\n</svg>\n'
    )
