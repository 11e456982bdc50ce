"""The decisions of proposals as tables whose cells are coloured by score."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from zcpt_jax.io import html
from zcpt_jax.io.colours import Colours

Lines = Sequence[Mapping[str, Any]]


def by_proposal(decisions: Lines) -> dict[int, Lines]:
    """Return the lines of a decisions file that took a decision, by proposal."""
    found: dict[int, list[Mapping[str, Any]]] = {}
    for line in decisions:
        if line["edge"] is not None:
            found.setdefault(line["proposal"], []).append(line)
    return {number: found[number] for number in sorted(found)}


def decision_table(
    proposal: int, lines: Lines, colours: Colours, low_is_strong: bool, note: str
) -> str:
    """Return the decisions of a proposal as a table, with a way back to its row.

    Args:
      proposal: its number.
      lines: its lines of the decisions file.
      colours: CSS class of each operation.
      low_is_strong: whether the lowest score has the strongest colour, or the highest.
      note: addition to the title, plain text.
    """
    parts, header = [], None
    for line in lines:
        if line["candidates"] != header:
            header = line["candidates"]
            names = "".join(_heading(name, colours) for name in header)
            parts.append(f"<tr><th>edge</th>{names}</tr>")
        parts.append(_row(line, low_is_strong))
    table = html.scrolling(f"<table class=heat>{''.join(parts)}</table>")
    return (
        f"<div id=decisions-{proposal}><h3>Proposal {proposal}{html.text(note)}"
        f'<a href="#proposal-{proposal}">all proposals</a></h3>{table}</div>'
    )


def _heading(name: str, colours: Colours) -> str:
    square = html.chip(colours[name]) if name in colours else ""
    broken = html.text(name).replace("_", "_<wbr>")
    return f"<th><span class=head>{square}{broken}</span></th>"


def _row(line: Mapping[str, Any], low_is_strong: bool) -> str:
    scores = line["scores"][line["edge"]]
    finite = [score for score in scores if math.isfinite(score)]
    low, high = (min(finite), max(finite)) if finite else (0.0, 0.0)
    cells = []
    for name, score in zip(line["candidates"], scores, strict=True):
        share = share_of(score, low, high, alike=0.0 if low_is_strong else 1.0)
        strength = 1 - share if low_is_strong else share
        kept = " kept" if name in line["kept"] else ""
        shade = f"{0.75 * strength if math.isfinite(share) else 0:.2f}"
        cells.append(
            f'<td class="number{kept}" style="--share:{shade}">{number(score)}</td>'
        )
    return f"<tr><td class=name>{html.text(line['edge'])}</td>{''.join(cells)}</tr>"


def share_of(value: float, low: float, high: float, alike: float) -> float:
    """Return where a value lies between two.

    Args:
      value: any; one that is not finite lies nowhere, which is NaN.
      low: gives 0.
      high: gives 1.
      alike: the result if both are one.
    """
    if not math.isfinite(value):
        return math.nan
    return (value - low) / (high - low) if high > low else alike


def number(value: float) -> str:
    """Return a score as text."""
    return f"{value:.6g}" if math.isfinite(value) else str(value)
