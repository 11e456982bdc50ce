"""Curves of a training as SVG in the colours of the page, or as a table."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from zcpt_jax.io import html

Metrics = Sequence[Mapping[str, float]]

_WIDTH, _HEIGHT = 384, 240
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 12, 12, 40
_DOTTED = 40  # curves of fewer points show each of them


class _Curve(NamedTuple):
    """A curve: the name of its metric, what it is called, and its CSS class."""

    metric: str
    label: str
    colour: str


_CHARTS = (
    (
        "loss",
        (_Curve("loss", "training", "soft"), _Curve("test_loss", "test", "accent")),
    ),
    (
        "top-1, %",
        (_Curve("top1", "training", "soft"), _Curve("test_top1", "test", "accent")),
    ),
    ("learning rate", (_Curve("learning_rate", "", "accent"),)),
)


def draw_curves(metrics: Metrics) -> str:
    """Return loss, accuracy and learning rate over the epochs as HTML.

    A curve needs two epochs; one epoch is a table.

    Args:
      metrics: a line for each epoch.
    """
    if len(metrics) < 2:
        return _table(metrics)
    charts = "".join(_chart(title, curves, metrics) for title, curves in _CHARTS)
    return f"<div class=charts>{charts}</div>"


def _table(metrics: Metrics) -> str:
    columns = [("epoch", "epoch")]
    for title, curves in _CHARTS:
        columns += [(c.metric, f"{c.label} {title}".strip()) for c in curves]
    present = [(m, name) for m, name in columns if any(m in line for line in metrics)]
    rows = [
        [f"{line[metric]:.6g}" if metric in line else "" for metric, _ in present]
        for line in metrics
    ]
    return html.table(rows, [name for _, name in present])


def _chart(title: str, curves: Sequence[_Curve], metrics: Metrics) -> str:
    points = {
        curve: [
            (float(line["epoch"]), float(line[curve.metric]))
            for line in metrics
            if math.isfinite(line.get(curve.metric, math.nan))
        ]
        for curve in curves
    }
    everywhere = [point for found in points.values() for point in found]
    if not everywhere:
        return ""
    xs, ys = zip(*everywhere, strict=True)
    across = _Axis(min(xs), max(xs), _LEFT, _WIDTH - _RIGHT)
    up = _Axis(min(ys), max(ys), _HEIGHT - _BOTTOM, _TOP)
    lines = "".join(_line(found, c.colour, across, up) for c, found in points.items())
    keys = "".join(
        f"<span>{html.chip(curve.colour)}{curve.label}</span>"
        for curve, found in points.items()
        if curve.label and found
    )
    return (
        f"<div><h3>{title}</h3><svg role=img "
        f'aria-label="{title} over the epochs" viewBox="0 0 {_WIDTH} {_HEIGHT}">'
        f"{_grid(across, up)}{lines}</svg><div class=keys>{keys}</div></div>"
    )


class _Axis:
    """A linear axis: where values lie on the picture, and what ticks it has."""

    def __init__(self, low: float, high: float, first: float, last: float) -> None:
        if low == high:
            margin = abs(low) / 10 or 1.0
            low, high = low - margin, high + margin
        self.low, self.high, self.first, self.last = low, high, first, last

    def at(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return self.first + share * (self.last - self.first)

    def ticks(self, whole: bool = False) -> list[float]:
        """Return up to six round values, integers if so asked."""
        rough = (self.high - self.low) / 5
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(f * power for f in (1, 2, 2.5, 5, 10) if f * power >= 0.999 * rough)
        step = math.ceil(step) if whole else step
        first, last = math.ceil(self.low / step), math.floor(self.high / step)
        return [step * number for number in range(first, last + 1)]


def _line(
    points: Sequence[tuple[float, float]], colour: str, across: _Axis, up: _Axis
) -> str:
    if not points:
        return ""
    places = [f"{across.at(x):.1f} {up.at(y):.1f}" for x, y in points]
    line = f'<path class="curve {colour}" d="M{"L".join(places)}"/>'
    if len(points) >= _DOTTED:
        return line
    dots = "".join(f"M{place}h0" for place in places)
    return f'{line}<path class="curve dots {colour}" d="{dots}"/>'


def _grid(across: _Axis, up: _Axis) -> str:
    parts = []
    for value in up.ticks():
        y = up.at(value)
        parts.append(
            f'<path class=axis d="M{_LEFT} {y:.1f}H{_WIDTH - _RIGHT}"/>'
            f'<text class="end soft" x="{_LEFT - 8}" y="{y + 4:.1f}">{value:.4g}</text>'
        )
    for value in across.ticks(whole=True):
        x, y = across.at(value), _HEIGHT - _BOTTOM
        parts.append(
            f'<path class=axis d="M{x:.1f} {_TOP}V{y}"/>'
            f'<text class=soft x="{x:.1f}" y="{y + 17}">{value:.0f}</text>'
        )
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    return (
        f'{"".join(parts)}<text class=soft x="{middle}" y="{_HEIGHT - 5}">epoch</text>'
    )
