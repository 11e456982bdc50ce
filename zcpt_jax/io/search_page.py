"""``report.html`` of a search: one page that shows what it found and how."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from zcpt_jax.io import html
from zcpt_jax.io._decision_tables import by_proposal, decision_table, number, share_of
from zcpt_jax.io.colours import Colours, assign_colours
from zcpt_jax.io.timings import Timings
from zcpt_jax.tables import TableRank
from zcpt_jax.types import Drawing

_DROPPED = (
    "dropped: at one of its decisions no score was a usable number, as a warning of "
    "the search said; its decisions up to there are below"
)


@dataclass(frozen=True)
class ProposalRow:
    """A proposal in the table of proposals.

    Attributes:
      genotype: its genotype, None if it was dropped.
      score: mean validation score, higher is better; of an ensemble, its standing.
      accuracy: percent by the table's first column, None without a table.
      operations: its operations in the order of its drawings, if it has any.
    """

    genotype: str | None
    score: float
    accuracy: float | None
    operations: Sequence[str] = ()


@dataclass(frozen=True)
class Report:
    """Everything on the page.

    Attributes:
      title: headline.
      lead: the line below it.
      genotype: the genotype that was found.
      forms: other notations of it.
      operations: names of all operations of the space.
      drawings: its pictures.
      facts: name and value of each card.
      table_ranks: its standing in a table, if there is one.
      training: the command that trains it.
      proposals: all N proposals, in order.
      decisions: the lines of the run's decisions file.
      explanation: sentence on the numbers of a decision.
      low_is_strong: whether the lowest of them has the strongest colour, or the
        highest.
      timings: wall time and compiled programs.
      config: name and value of each setting.
      environment: versions, command.
    """

    title: str
    lead: str
    genotype: str
    forms: Mapping[str, str]
    operations: frozenset[str]
    drawings: Sequence[Drawing]
    facts: Sequence[tuple[str, str]]
    table_ranks: Sequence[TableRank]
    training: str
    proposals: Sequence[ProposalRow]
    decisions: Sequence[Mapping[str, Any]]
    explanation: str
    low_is_strong: bool
    timings: Timings
    config: Mapping[str, Any]
    environment: Mapping[str, Any]


def render(report: Report) -> str:
    """Return the page as HTML that needs nothing else."""
    colours = assign_colours(report.operations, report.drawings)
    body = [
        f"<h1>{html.text(report.title)}</h1><p class=lead>{html.text(report.lead)}</p>",
        _cards(report),
        "<h2>What was found</h2>",
        html.pictures(report.drawings, colours),
        html.notations(report.genotype, report.forms),
        f"<p>To train it from scratch: {html.copyable(report.training)}, with the "
        "<code class=whole>--data_dir</code> of the search if it had one. "
        "<code class=whole>--flagfile=launch/flagfiles/retrain_*.flags</code> are "
        "published recipes; the training has a report of its own.</p>",
        "<h2>Proposals and their validation</h2>",
        html.operation_key(colours),
        _proposals(report, colours),
        "<h2>Decisions, in the order they were taken</h2>",
        f"<p class=lead>{html.text(report.explanation)}; the one that stays is framed. "
        "Colours compare within a row.</p>",
        _decisions(report, colours),
        "<h2>Wall time</h2>",
        _wall_time(report.timings.seconds),
        _work(report.timings),
        html.details("Settings", report.config),
        html.details("Versions and command", report.environment),
    ]
    return html.page(report.title, body)


def _cards(report: Report) -> str:
    cards = [html.card(*fact) for fact in report.facts]
    for standing in report.table_ranks:
        note = (
            f"{standing.column} · rank {standing.rank:,} of {standing.count:,} · "
            f"regret {standing.regret:.2f} · at random {standing.mean:.2f} %"
        )
        cards.append(html.card(note, f"{standing.accuracy:.2f} %"))
    return f"<div class=cards>{''.join(cards)}</div>"


def _proposals(report: Report, colours: Colours) -> str:
    scores = [row.score for row in report.proposals if math.isfinite(row.score)]
    low, high = (min(scores), max(scores)) if scores else (0.0, 0.0)
    decided = by_proposal(report.decisions)
    rows = []
    for index, row in enumerate(report.proposals):
        found = row.genotype == report.genotype
        kind = "dropped" if row.genotype is None else "best" if found else ""
        link = f'<a href="#decisions-{index}">decisions</a>'
        cells = (
            f"<td>{index}</td>"
            f"<td class=what>{_proposal(row, colours, found)}</td>"
            f"<td>{link if index in decided else ''}</td>{_score(row, low, high)}"
            f"{_accuracy(row) if report.table_ranks else ''}"
        )
        rows.append(f'<tr id=proposal-{index} class="{kind}">{cells}</tr>')
    names = ["#", "proposal", "", "mean score", ""]
    names += [standing.column for standing in report.table_ranks[:1]]
    head = "".join(f"<th>{html.text(name)}</th>" for name in names)
    return html.scrolling(f"<table><tr>{head}</tr>{''.join(rows)}</table>")


def _score(row: ProposalRow, low: float, high: float) -> str:
    if row.genotype is None:
        return "<td></td><td></td>"
    share = share_of(row.score, low, high, alike=1.0)
    width = 6 + 94 * share if math.isfinite(share) else 0
    return (
        f"<td class=number>{number(row.score)}</td><td class=bars>"
        f'<div class=bar style="width:{width:.0f}%"></div></td>'
    )


def _proposal(row: ProposalRow, colours: Colours, found: bool) -> str:
    if row.genotype is None:
        return f"<div class=note>{_DROPPED}</div>"
    squares = html.strip(row.operations, colours) if row.operations else ""
    mark = " found" if found else ""
    return f"{squares}{mark}{html.notations(row.genotype, {})}"


def _accuracy(row: ProposalRow) -> str:
    shown = "" if row.accuracy is None else f"{row.accuracy:.2f} %"
    return f"<td class=number>{shown}</td>"


def _decisions(report: Report, colours: Colours) -> str:
    rows, tables = report.proposals, []
    for index, lines in by_proposal(report.decisions).items():
        dropped = index < len(rows) and rows[index].genotype is None
        note = ", dropped at the last of these decisions" if dropped else ""
        tables.append(decision_table(index, lines, colours, report.low_is_strong, note))
    return f"<div class=tables>{''.join(tables)}</div>"


def _wall_time(seconds: Mapping[str, float]) -> str:
    total = sum(seconds.values()) or 1.0
    bars, keys = [], []
    for index, (phase, value) in enumerate(seconds.items()):
        shade = f"opacity:{1 - 0.85 * index / max(len(seconds), 2):.2f}"
        share = 100 * max(value, 0) / total
        bars.append(f'<div class=shade style="width:{share:.2f}%;{shade}"></div>')
        keys.append(
            f'<span><span class="chip ink" style="{shade}"></span>'
            f"{html.text(phase)} {value:.1f} s</span>"
        )
    keys.append(f"<b>together {total:.1f} s</b>")
    return f"<div class=time>{''.join(bars)}</div><div class=keys>{''.join(keys)}</div>"


def _work(timings: Timings) -> str:
    rows = [
        [
            html.text(program.name),
            str(program.chunk),
            f"{program.trace_seconds:.1f} s",
            f"{program.compile_seconds:.1f} s",
            f"{program.bytes / 1e9:.2f} GB" if program.bytes else "",
        ]
        for program in timings.programs
    ]
    head = ("program", "masks put together", "tracing", "compiling", "memory")
    return f"<p>{html.text(timings.describe())}</p>{html.table(rows, head)}"
