"""Genotypes as SVG pictures: directed graphs with a colour for each operation.

The pictures take their colours from the style sheet of the page.
"""

import html
import math
from collections.abc import Callable, Sequence

from zcpt_jax.io.colours import MUTED, PLAIN, Colours, assign_colours
from zcpt_jax.types import Drawing

_SCALE = 170  # pixels between two positions of a drawing
_NARROW, _DOWN = 360, 140  # width that fits a telephone, pixels between positions there
_HALF = 20  # half the height of a node
_MARGIN = 10

Point = tuple[float, float]


def draw(drawing: Drawing, colours: Colours | None = None, narrow: bool = False) -> str:
    """Return a drawing as inline SVG.

    Nodes with a label are boxes in the label's colour, with their name above; others
    show their name. Edges carry their label in its colour.

    Args:
      drawing: the drawing of a cell.
      colours: CSS class of each operation of the page; by default of the drawing's.
      narrow: whether it must fit a telephone; it then runs from top to bottom if that
        makes it narrower.
    """
    colours = assign_colours((), (drawing,)) if colours is None else colours
    width = {n: _half_width(drawing.labels.get(n, n)) for n in drawing.nodes}
    move = _to_fit(drawing, max(width.values())) if narrow else _sideways
    place = {name: move(position) for name, position in drawing.nodes.items()}
    lines, texts = [], []
    reach = [(*place[name], width[name]) for name in drawing.nodes]
    for source, target, label in drawing.edges:
        colour = colours.get(label, PLAIN)
        ends = place[source], place[target]
        lines.append(_edge(*ends, width[source], width[target], colour))
        if label:
            x, y = _off_middle(*ends)
            texts.append(_words(x, y + 4, label, f"halo {colour}"))
            reach.append((x, y, _half_width(label)))
    boxes = [
        _node(name, place[name], width[name], drawing.labels.get(name), colours)
        for name in drawing.nodes
    ]
    # Texts lie on top of every edge.
    return (
        f'<svg role="img" aria-label="{_text(drawing.title)}" '
        f'class="{"narrow" if narrow else "wide"}" '
        f"{_size(reach, 25 if drawing.labels else 0)}>"
        f"{''.join((*lines, *texts, *boxes))}</svg>"
    )


def _size(reach: Sequence[tuple[float, float, float]], above: float) -> str:
    """Return the attributes that make a picture hold all its nodes and labels.

    Args:
      reach: their centres, and half their widths.
      above: height of the text above nodes.
    """
    left = min(x - half for x, _, half in reach) - _MARGIN
    width = max(x + half for x, _, half in reach) + _MARGIN - left
    top = min(y for _, y, _ in reach) - _HALF - above
    height = max(y for _, y, _ in reach) + _HALF - top
    return (
        f'width="{width:.0f}" viewBox="{left:.0f} {top:.0f} {width:.0f} {height:.0f}"'
    )


def draw_both(drawing: Drawing, colours: Colours) -> str:
    """Return a drawing twice; the page shows the one that fits its width."""
    return draw(drawing, colours) + draw(drawing, colours, narrow=True)


def _sideways(position: Point) -> Point:
    return position[0] * _SCALE, -position[1] * _SCALE


def _to_fit(drawing: Drawing, half: float) -> Callable[[Point], Point]:
    """Return where positions lie in a picture that is as narrow as it can be."""
    xs, ys = zip(*drawing.nodes.values(), strict=True)
    across, down = max(xs) - min(xs), max(ys) - min(ys)
    upright = down < across
    span = min(across, down)
    scale = min(_SCALE, max(70.0, (_NARROW - 2 * half - 2 * _MARGIN) / (span or 1.0)))
    if upright:
        return lambda position: (position[1] * scale, position[0] * _DOWN)
    return lambda position: (position[0] * scale, -position[1] * _DOWN)


def _half_width(text: str) -> float:
    return max(_HALF, 4.2 * len(text) + 8)


def _node(
    name: str, centre: Point, half: float, label: str | None, colours: Colours
) -> str:
    x, y = centre
    fill = "ink" if label is None else colours.get(label, PLAIN)
    above = "" if label is None else _words(x, y - _HALF - 6, name, "halo plain")
    return (
        f'<rect class="box {fill}" x="{x - half:.0f}" y="{y - _HALF:.0f}" '
        f'width="{2 * half:.0f}" height="{2 * _HALF}" rx="{_HALF}"/>'
        f"{_words(x, y + 5, name if label is None else label, 'on-box')}{above}"
    )


def _words(x: float, y: float, text: str, colour: str) -> str:
    return f'<text class="{colour}" x="{x:.0f}" y="{y:.0f}">{_text(text)}</text>'


def _edge(
    start: Point, end: Point, start_half: float, end_half: float, colour: str
) -> str:
    dx, dy = end[0] - start[0], end[1] - start[1]
    length = math.hypot(dx, dy)
    ux, uy = dx / length, dy / length
    gone, left = _to_border(ux, uy, start_half), _to_border(ux, uy, end_half) + 2
    x1, y1 = start[0] + gone * ux, start[1] + gone * uy
    x2, y2 = end[0] - left * ux, end[1] - left * uy
    size = 9 if colour in (MUTED, PLAIN) else 15
    bx, by = x2 - size * ux, y2 - size * uy  # the line ends where the arrow begins
    wx, wy = -uy * size / 2.4, ux * size / 2.4
    return (
        f'<path class="edge {colour}" d="M{x1:.1f} {y1:.1f}L{bx:.1f} {by:.1f}"/>'
        f'<path class="arrow {colour}" d="M{x2:.1f} {y2:.1f}'
        f'L{bx + wx:.1f} {by + wy:.1f}L{bx - wx:.1f} {by - wy:.1f}z"/>'
    )


def _to_border(ux: float, uy: float, half: float) -> float:
    """Return how far a box reaches from its centre in a direction."""
    across = half / abs(ux) if ux else math.inf
    return min(across, _HALF / abs(uy) if uy else math.inf)


def _off_middle(start: Point, end: Point) -> Point:
    """Return where the label of an edge lies: not in the middle, where edges cross."""
    return (
        start[0] + 0.4 * (end[0] - start[0]),
        start[1] + 0.4 * (end[1] - start[1]),
    )


def _text(value: str) -> str:
    return html.escape(value)
