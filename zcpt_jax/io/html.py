"""``report.html``: one page that shows what a search found and how."""

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from zcpt_jax.io.genotype_svg import COLOURS, draw
from zcpt_jax.io.timings import Timings
from zcpt_jax.tables import Standing
from zcpt_jax.types import Drawing

_STYLE = """
:root { --ink: #1d2433; --soft: #667085; --line: #e4e7ec; --accent: #2a9d8f; }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); margin: 2rem auto;
  max-width: 72rem; padding: 0 1.25rem; background: #fff; }
h1 { font-size: 1.55rem; margin: 0; } h2 { font-size: 1.1rem; margin: 2.2rem 0 .6rem; }
p.lead { color: var(--soft); margin: .2rem 0 1rem; }
code { font: 13px/1.4 ui-monospace, monospace; overflow-wrap: anywhere; }
.cards { display: flex; flex-wrap: wrap; gap: .8rem; }
.card { border: 1px solid var(--line); border-radius: .6rem; padding: .6rem 1rem; }
.card b { display: block; font-size: 1.25rem; } .card span { color: var(--soft); }
.grid { display: grid; gap: 1.2rem;
  grid-template-columns: repeat(auto-fill, minmax(27rem, 1fr)); }
.grid > div { overflow-x: auto; min-width: 0; }
table { border-collapse: collapse; width: 100%; font-size: 13px; }
th { text-align: left; font-weight: 600; color: var(--soft); }
th, td { padding: .22rem .45rem; border-bottom: 1px solid var(--line); }
table.heat td { text-align: right; font-variant-numeric: tabular-nums; }
table.heat th + th { text-align: right; }
table.heat td.name { text-align: left; white-space: nowrap; }
table.heat td.kept { outline: 2px solid var(--ink); outline-offset: -2px;
  font-weight: 700; }
tr.best { background: #e9f7f5; font-weight: 600; }
.bar { height: .7rem; border-radius: .35rem; background: var(--accent); }
.time { display: flex; height: 1.6rem; border-radius: .4rem; overflow: hidden; }
.key { display: inline-block; width: .8rem; height: .8rem; border-radius: .2rem;
  margin: 0 .35rem 0 1rem; vertical-align: -1px; }
svg { max-width: 100%; height: auto; } svg text { font: 600 13px system-ui; }
details { margin-top: 1.5rem; } summary { cursor: pointer; color: var(--soft); }
"""


@dataclass(frozen=True)
class ProposalRow:
    """A proposal in the table of proposals.

    Attributes:
      genotype: its genotype, None if it was dropped.
      score: mean validation score, higher is better; of an ensemble, its standing.
      accuracy: percent by the table's first column, None without a table.
    """

    genotype: str | None
    score: float
    accuracy: float | None


@dataclass(frozen=True)
class Report:
    """Everything on the page.

    Attributes:
      title: headline.
      lead: the line below it.
      genotype: what was found.
      forms: other notations of it.
      drawings: its pictures.
      facts: name and value of each card.
      standings: its standing in a table, if there is one.
      training: the command that trains it.
      proposals: all N proposals, in order.
      decisions: the lines of the run's decisions file.
      explanation: what the numbers of a decision are.
      dark_is_low: whether the lowest of them is drawn darkest, or the highest.
      timings: where the time went.
      config: name and value of each setting.
      environment: versions, command.
    """

    title: str
    lead: str
    genotype: str
    forms: Mapping[str, str]
    drawings: Sequence[Drawing]
    facts: Sequence[tuple[str, str]]
    standings: Sequence[Standing]
    training: str
    proposals: Sequence[ProposalRow]
    decisions: Sequence[Mapping[str, Any]]
    explanation: str
    dark_is_low: bool
    timings: Timings
    config: Mapping[str, Any]
    environment: Mapping[str, Any]


def render(report: Report) -> str:
    """The page as HTML that needs nothing else."""
    cards = list(report.facts)
    for standing in report.standings:
        value = f"{standing.accuracy:.2f} %"
        note = (
            f"{standing.column} · rank {standing.rank:,} of {standing.count:,} · "
            f"regret {standing.regret:.2f} · at random {standing.mean:.2f} %"
        )
        cards.append((note, value))
    body = [
        f"<h1>{text(report.title)}</h1><p class=lead>{text(report.lead)}</p>",
        f"<p><code>{text(report.genotype)}</code></p>",
        *(
            f"<p>{text(name)}: <code>{text(form)}</code></p>"
            for name, form in report.forms.items()
        ),
        f"<div class=cards>{''.join(card(*fact) for fact in cards)}</div>",
        "<h2>What was found</h2>",
        *(draw(drawing) for drawing in report.drawings),
        f"<p>To train it from scratch: <code>{text(report.training)}</code>, with the "
        "<code>--data_dir</code> of the search if it had one. "
        "<code>--flagfile=launch/flagfiles/retrain_*.flags</code> are published "
        "recipes; the training has a report of its own.</p>",
        "<h2>Proposals and their validation</h2>",
        _proposals(report),
        "<h2>Decisions, in the order they were taken</h2>",
        f"<p class=lead>{text(report.explanation)}; the one that stays is framed. "
        "Colours compare within a row.</p>",
        f"<div class=grid>{_decisions(report.decisions, report.dark_is_low)}</div>",
        "<h2>Wall time</h2>",
        _wall_time(report.timings.seconds),
        _work(report.timings),
        details("Settings", report.config),
        details("Versions and command", report.environment),
    ]
    return page(report.title, body)


def page(title: str, body: Sequence[str]) -> str:
    """A page of its own, in the style of all reports.

    Args:
      title: of the browser's tab, plain text.
      body: HTML, part by part.
    """
    return (
        "<!doctype html><html lang=en><meta charset=utf-8>"
        '<meta name=viewport content="width=device-width">'
        f"<title>{text(title)}</title><style>{_STYLE}</style>"
        f"<body>{''.join(body)}</body></html>\n"
    )


def _proposals(report: Report) -> str:
    scores = [row.score for row in report.proposals if math.isfinite(row.score)]
    low, high = (min(scores), max(scores)) if scores else (0.0, 0.0)
    rows = []
    for number, row in enumerate(report.proposals):
        share = _share(row.score, low, high, alike=1.0)
        width = 6 + 94 * share if math.isfinite(share) else 0
        accuracy = "" if row.accuracy is None else f"{row.accuracy:.2f} %"
        best = ' class="best"' if row.genotype == report.genotype else ""
        shown = f"<code>{text(row.genotype)}</code>"
        if row.genotype is None:
            shown = "dropped: its scores decided nothing"
        rows.append(
            f"<tr{best}><td>{number}</td><td>{shown}</td>"
            f"<td>{_number(row.score)}</td><td style='min-width:9rem'>"
            f"<div class=bar style='width:{width:.0f}%'></div></td>"
            f"<td>{accuracy}</td></tr>"
        )
    column = report.standings[0].column if report.standings else ""
    return (
        "<table><tr><th>#</th><th>genotype</th><th>mean score</th><th></th>"
        f"<th>{text(column)}</th></tr>{''.join(rows)}</table>"
    )


def _decisions(decisions: Sequence[Mapping[str, Any]], dark_is_low: bool) -> str:
    by_proposal: dict[int, list[Mapping[str, Any]]] = {}
    for line in decisions:
        if line["edge"] is not None:
            by_proposal.setdefault(line["proposal"], []).append(line)
    return "".join(
        _heat_map(n, by_proposal[n], dark_is_low) for n in sorted(by_proposal)
    )


def _heat_map(
    proposal: int, lines: Sequence[Mapping[str, Any]], dark_is_low: bool
) -> str:
    parts, header = [], None
    for line in lines:
        if line["candidates"] != header:
            header = line["candidates"]
            names = "".join(f"<th>{text(name)}</th>" for name in header)
            parts.append(f"<tr><th>edge</th>{names}</tr>")
        parts.append(_heat_row(line, dark_is_low))
    table = f"<table class=heat>{''.join(parts)}</table>"
    return f"<div><b>Proposal {proposal}</b>{table}</div>"


def _share(value: float, low: float, high: float, alike: float) -> float:
    """Where a value lies between two; ``alike`` if they are one, NaN if it is none."""
    if not math.isfinite(value):
        return math.nan
    return (value - low) / (high - low) if high > low else alike


def _heat_row(line: Mapping[str, Any], dark_is_low: bool) -> str:
    scores = line["scores"][line["edge"]]
    finite = [s for s in scores if math.isfinite(s)]
    low, high = (min(finite), max(finite)) if finite else (0.0, 0.0)
    cells = []
    for name, score in zip(line["candidates"], scores, strict=True):
        share = _share(score, low, high, alike=0.0 if dark_is_low else 1.0)
        dark = 1 - share if dark_is_low else share
        alpha = 0.75 * dark if math.isfinite(dark) else 0.0
        kept = " class=kept" if name in line["kept"] else ""
        cells.append(
            f'<td{kept} style="background:rgba(42,157,143,{alpha:.2f})">'
            f"{_number(score)}</td>"
        )
    return f"<tr><td class=name>{text(line['edge'])}</td>{''.join(cells)}</tr>"


def _wall_time(seconds: Mapping[str, float]) -> str:
    total = sum(seconds.values()) or 1.0
    bars, keys = [], []
    for index, (phase, value) in enumerate(seconds.items()):
        colour = COLOURS[index % len(COLOURS)]
        share = 100 * max(value, 0) / total
        bars.append(f'<div style="width:{share:.2f}%;background:{colour}"></div>')
        keys.append(
            f'<span class=key style="background:{colour}"></span>'
            f"{text(phase)} {value:.1f} s"
        )
    return (
        f"<div class=time>{''.join(bars)}</div>"
        f"<p>{''.join(keys)} &nbsp; <b>together {total:.1f} s</b></p>"
    )


def _work(timings: Timings) -> str:
    rows = [
        [
            program.name,
            program.chunk,
            f"{program.trace_seconds:.1f} s",
            f"{program.compile_seconds:.1f} s",
            f"{program.bytes / 1e9:.2f} GB" if program.bytes else "",
        ]
        for program in timings.programs
    ]
    head = ("program", "masks put together", "tracing", "compiling", "memory")
    lines = [
        "".join(f"<{cell}>{text(value)}</{cell}>" for value in row)
        for cell, row in (("th", head), *(("td", row) for row in rows))
    ]
    table = "".join(f"<tr>{line}</tr>" for line in lines)
    return f"<p>{text(timings.describe())}</p><table>{table}</table>"


def details(title: str, values: Mapping[str, Any]) -> str:
    """Names and values, folded away below a title."""
    rows = "".join(
        f"<tr><td>{text(key)}</td><td><code>{text(value)}</code></td></tr>"
        for key, value in values.items()
    )
    return f"<details><summary>{title}</summary><table>{rows}</table></details>"


def card(name: str, value: str) -> str:
    """One fact, its value large."""
    return f"<div class=card><b>{text(value)}</b><span>{text(name)}</span></div>"


def _number(value: float) -> str:
    return f"{value:.6g}" if math.isfinite(value) else str(value)


def text(value: Any) -> str:
    """Anything as text that HTML takes."""
    return html.escape(str(value))
