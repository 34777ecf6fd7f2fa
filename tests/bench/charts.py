"""Bar charts as SVG, by hand: a bar for the median, a line from the least to the greatest."""

import statistics
from collections.abc import Mapping, Sequence
from html import escape

_WIDTH, _FIGURE, _LETTER = 800, 90, 6.9
_ROW, _BAR, _TOP = 30, 16, 58
_STYLE = """\
text { font: 13px system-ui, sans-serif; fill: #24292f; }
.title { font-weight: 600; font-size: 15px; }
.unit, .figure { fill: #57606a; }
.ours { fill: #1a7f64; } .other { fill: #8c959f; }
.span { stroke: #24292f; stroke-width: 1.5; }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3; } .unit, .figure { fill: #9198a1; }
  .ours { fill: #3fb68b; } .other { fill: #6e7681; } .span { stroke: #e6edf3; }
}
"""


def bars(title: str, unit: str, samples: Mapping[str, Sequence[float]], ours: str) -> str:
    """A chart of several competitors; those whose name begins with `ours` stand out.

    Where nobody's name does, all are ours.

    Raises `ValueError` when there is nothing to show.
    """
    shown = {who: figures for who, figures in samples.items() if figures}
    if not shown:
        raise ValueError("a chart needs figures")
    most = max(max(figures) for figures in shown.values()) or 1.0
    label = min(int(_LETTER * max(map(len, shown))) + 16, _WIDTH // 2)
    scale = (_WIDTH - label - _FIGURE) / most
    marked = any(who.startswith(ours) for who in shown)
    height = _TOP + _ROW * len(shown) + 8
    rows = [
        _row(who, figures, label, _TOP + _ROW * n, scale, who.startswith(ours) or not marked)
        for n, (who, figures) in enumerate(shown.items())
    ]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" '
            f'width="{_WIDTH}" height="{height}" role="img" aria-label="{escape(title)}">',
            f"<style>{_STYLE}</style>",
            f'<text class="title" x="8" y="22">{escape(title)}</text>',
            f'<text class="unit" x="8" y="42">{escape(unit)}: bar: median; line: from least to greatest</text>',
            *rows,
            "</svg>\n",
        ]
    )


def _row(who: str, figures: Sequence[float], label: int, y: int, scale: float, ours: bool) -> str:
    middle = statistics.median(figures)
    left, right = (label + scale * figure for figure in (min(figures), max(figures)))
    center = y + _BAR / 2
    return (
        f'<text x="{label - 8}" y="{y + 13}" text-anchor="end">{escape(who)}</text>'
        f'<rect class="{"ours" if ours else "other"}" x="{label}" y="{y}" '
        f'width="{max(scale * middle, 1):.1f}" height="{_BAR}" rx="2"/>'
        f'<line class="span" x1="{left:.1f}" x2="{right:.1f}" y1="{center}" y2="{center}"/>'
        f'<text class="figure" x="{right + 8:.1f}" y="{y + 13}">{short(middle)}</text>'
    )


def short(figure: float) -> str:
    """A figure with as many digits as mean something."""
    if abs(figure) >= 1000:
        return f"{figure:,.0f}"
    return f"{figure:.3g}" if abs(figure) < 100 else f"{figure:.0f}"
