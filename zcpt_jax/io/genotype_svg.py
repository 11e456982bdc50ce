"""Genotypes as SVG pictures: directed graphs with a colour for each operation."""

import html
import math
from collections.abc import Mapping

from zcpt_jax.types import Drawing

COLOURS = ("#2a9d8f", "#e76f51", "#4361ee", "#b5179e", "#bc6c25", "#588157", "#6c757d")
_INK, _MUTED, _PLAIN = "#1d2433", "#c3c8d0", "#8a93a3"
_SCALE = 170  # pixels between two positions of a drawing
_HALF = 20  # half the height of a node

Point = tuple[float, float]


def draw(drawing: Drawing) -> str:
    """A drawing as an HTML figure with inline SVG.

    Nodes with a label are boxes in the label's colour, with their name above; others
    show their name. Edges carry their label in its colour.

    Args:
      drawing: what to draw.
    """
    colours = _colours(drawing)
    place = {n: (x * _SCALE, -y * _SCALE) for n, (x, y) in drawing.nodes.items()}
    width = {n: _half_width(drawing.labels.get(n, n)) for n in drawing.nodes}
    heads = "".join(_arrow_head(c) for c in sorted({*colours.values(), _MUTED, _PLAIN}))
    lines, texts = [], []
    for source, target, label in drawing.edges:
        muted = label != "" and label in drawing.muted
        colour = _PLAIN if label == "" else colours[label]
        ends = place[source], place[target]
        lines.append(_edge(*ends, width[source], width[target], colour, muted))
        if label:
            texts.append(_edge_label(*ends, label, colour))
    boxes = [
        _node(name, place[name], width[name], drawing.labels.get(name), colours)
        for name in drawing.nodes
    ]
    # Texts lie on top of every edge.
    body = f"<defs>{heads}</defs>{''.join(lines)}{''.join(texts)}{''.join(boxes)}"
    left = min(x - width[n] for n, (x, _) in place.items()) - 10
    right = max(x + width[n] for n, (x, _) in place.items()) + 10
    top = min(y for _, y in place.values()) - 50
    bottom = max(y for _, y in place.values()) + 40
    title = _text(drawing.title)
    return (
        f'<figure><svg role="img" aria-label="{title}" width="{right - left:.0f}" '
        f'viewBox="{left:.0f} {top:.0f} {right - left:.0f} {bottom - top:.0f}">'
        f"{body}</svg><figcaption>{title}</figcaption></figure>"
    )


def _colours(drawing: Drawing) -> dict[str, str]:
    """A colour for each label; muted ones are pale."""
    labels = {label for _, _, label in drawing.edges} | set(drawing.labels.values())
    shown = sorted(labels - drawing.muted - {""})
    colours = {v: COLOURS[i % len(COLOURS)] for i, v in enumerate(shown)}
    return {**dict.fromkeys(drawing.muted, _MUTED), **colours}


def _half_width(text: str) -> float:
    return max(_HALF, 4.2 * len(text) + 8)


def _node(
    name: str,
    centre: Point,
    half: float,
    label: str | None,
    colours: Mapping[str, str],
) -> str:
    x, y = centre
    fill = _INK if label is None else colours[label]
    ink = _INK if fill == _MUTED else "#fff"
    above = "" if label is None else _words(x, y - _HALF - 6, name, _PLAIN)
    return (
        f'<rect x="{x - half:.0f}" y="{y - _HALF:.0f}" width="{2 * half:.0f}" '
        f'height="{2 * _HALF}" rx="{_HALF}" fill="{fill}"/>'
        f"{_words(x, y + 5, name if label is None else label, ink)}{above}"
    )


def _words(x: float, y: float, text: str, colour: str) -> str:
    return (
        f'<text x="{x:.0f}" y="{y:.0f}" fill="{colour}" text-anchor="middle">'
        f"{_text(text)}</text>"
    )


def _arrow_head(colour: str) -> str:
    return (
        f'<marker id="head{colour[1:]}" viewBox="0 0 10 10" refX="9" refY="5" '
        'markerWidth="7" markerHeight="7" orient="auto">'
        f'<path d="M0 0L10 5L0 10z" fill="{colour}"/></marker>'
    )


def _edge(
    start: Point,
    end: Point,
    start_half: float,
    end_half: float,
    colour: str,
    muted: bool,
) -> str:
    dx, dy = end[0] - start[0], end[1] - start[1]
    length = math.hypot(dx, dy)
    ux, uy = dx / length, dy / length
    gone, left = _to_border(ux, uy, start_half), _to_border(ux, uy, end_half) + 3
    x1, y1 = start[0] + gone * ux, start[1] + gone * uy
    x2, y2 = end[0] - left * ux, end[1] - left * uy
    dash = ' stroke-dasharray="4 5"' if muted else ""
    width = 1.5 if muted or colour == _PLAIN else 3
    return (
        f'<path d="M{x1:.1f} {y1:.1f}L{x2:.1f} {y2:.1f}" stroke="{colour}" '
        f'stroke-width="{width}" fill="none"{dash} '
        f'marker-end="url(#head{colour[1:]})"/>'
    )


def _to_border(ux: float, uy: float, half: float) -> float:
    """How far a box reaches from its centre in a direction."""
    across = half / abs(ux) if ux else math.inf
    return min(across, _HALF / abs(uy) if uy else math.inf)


def _edge_label(start: Point, end: Point, label: str, colour: str) -> str:
    # Off the middle, where edges tend to cross.
    x = start[0] + 0.4 * (end[0] - start[0])
    y = start[1] + 0.4 * (end[1] - start[1])
    return (
        f'<text x="{x:.1f}" y="{y + 4:.1f}" fill="{colour}" text-anchor="middle" '
        f'stroke="#fff" stroke-width="5" paint-order="stroke">{_text(label)}</text>'
    )


def _text(value: str) -> str:
    return html.escape(value)
