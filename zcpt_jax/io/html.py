"""Elements that the reports of searches and of trainings share."""

import html
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from zcpt_jax.io._style import SCRIPT, STYLE
from zcpt_jax.io.colours import PLAIN, Colours
from zcpt_jax.io.genotype_svg import draw_both
from zcpt_jax.types import Drawing


def page(title: str, body: Sequence[str]) -> str:
    """Return a whole page that loads nothing, in the style of all reports.

    Args:
      title: title of the browser's tab, plain text.
      body: HTML, part by part.
    """
    return (
        "<!doctype html><html lang=en><meta charset=utf-8>"
        '<meta name=viewport content="width=device-width, initial-scale=1">'
        f"<title>{text(title)}</title><style>{STYLE}</style>"
        f"<body>{''.join(body)}<script>{SCRIPT}</script></body></html>\n"
    )


def pictures(drawings: Sequence[Drawing], colours: Colours) -> str:
    """Return the drawings, below their titles if there are several."""
    several = len(drawings) > 1
    return "".join(
        (f"<h3>{text(drawing.title)}</h3>" if several else "")
        + f"<figure>{draw_both(drawing, colours)}</figure>"
        for drawing in drawings
    )


def notations(genotype: str, forms: Mapping[str, str]) -> str:
    """Return a genotype and other notations of it, folded, each with a copy button."""
    others = "".join(f"<p>{text(k)}: {copyable(v)}</p>" for k, v in forms.items())
    title = "Genotype, other notations" if forms else "Genotype"
    return (
        f"<details><summary>{title}</summary>"
        f"<p>{copyable(genotype)}</p>{others}</details>"
    )


def copyable(value: str) -> str:
    """Return code with a button that copies it, which shows where scripts run."""
    return f"<code>{text(value)}</code><button class=copy hidden>copy</button>"


def details(title: str, values: Mapping[str, Any]) -> str:
    """Return names and values, folded below a title."""
    rows = [(text(name), f"<code>{text(v)}</code>") for name, v in values.items()]
    return f"<details><summary>{text(title)}</summary>{table(rows)}</details>"


def table(rows: Iterable[Sequence[str]], head: Sequence[str] = ()) -> str:
    """Return a table that scrolls sideways within the page if it must.

    Args:
      rows: HTML of the cells.
      head: titles of the columns, plain text.
    """
    first = "".join(f"<th>{text(name)}</th>" for name in head)
    lines = ["".join(f"<td>{cell}</td>" for cell in row) for row in rows]
    body = "".join(f"<tr>{line}</tr>" for line in ([first] if first else []) + lines)
    return scrolling(f"<table>{body}</table>")


def scrolling(inner: str) -> str:
    """Return HTML that scrolls sideways within the page if it must."""
    return f"<div class=scroll>{inner}</div>"


def card(name: str, value: str) -> str:
    """Return one fact, its value large."""
    return f"<div class=card><b>{text(value)}</b><span>{text(name)}</span></div>"


def chip(colour: str, title: str = "") -> str:
    """Return a small square.

    Args:
      colour: CSS class of the colour.
      title: text that shows while the pointer is on it.
    """
    hint = f' title="{text(title)}"' if title else ""
    return f'<span class="chip {colour}"{hint}></span>'


def strip(operations: Sequence[str], colours: Colours) -> str:
    """Return a row of squares, one an operation, in the operations' colours."""
    chips = "".join(chip(colours.get(name, PLAIN), name) for name in operations)
    names = text(", ".join(operations))
    return f'<span class=strip role=img aria-label="{names}">{chips}</span>'


def operation_key(colours: Colours) -> str:
    """Return what operation each colour stands for."""
    names = sorted(colours)
    entries = "".join(f"<span>{chip(colours[n])}{text(n)}</span>" for n in names)
    return f"<div class=keys>{entries}</div>"


def text(value: Any) -> str:
    """Return anything as text, escaped for HTML."""
    return html.escape(str(value))
