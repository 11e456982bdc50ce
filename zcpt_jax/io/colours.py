"""One colour for each operation of a page, in light and in dark schemes.

Pages name colours by CSS classes, whose values :mod:`zcpt_jax.io._style` sets.
"""

from collections.abc import Iterable, Mapping, Sequence

from zcpt_jax.types import Drawing, Space

# For a light and for a dark background. As text, each has a contrast of 4.5 or more.
PALETTE = (
    ("#c2410c", "#ff9a5c"),
    ("#2563eb", "#7fb0ff"),
    ("#a21caf", "#ee8cf5"),
    ("#8a6100", "#e3c04a"),
    ("#3f7d20", "#8fd46a"),
    ("#0b7285", "#5fd0e0"),
    ("#475569", "#cbd5e1"),
    ("#be123c", "#ff8095"),
    ("#6d4fc4", "#b8a3ff"),
    ("#7c3f1d", "#d3a07a"),
)
MUTED, PLAIN = "muted", "plain"

Colours = Mapping[str, str]
"""Name of an operation to its CSS class."""


def space_operations(space: Space) -> frozenset[str]:
    """Return the names of all operations of a space.

    Spaces decide operations in their first phase, and inputs of nodes in later ones.
    """
    tracks = space.phases()[0].tracks
    return frozenset(n for track in tracks for d in track for n in d.candidates)


def assign_colours(operations: Iterable[str], drawings: Sequence[Drawing]) -> Colours:
    """Assign a CSS class to each operation of a page.

    The class depends on an operation's place among the sorted names of all operations,
    so every drawing and table of a space agrees. A space with more operations than the
    palette has colours uses colours again.

    Args:
      operations: names of all operations of the space.
      drawings: the drawings of the page, which say what is muted.
    """
    names = {*operations, *drawn_operations(drawings)}
    muted = names & {name for drawing in drawings for name in drawing.muted}
    classes = {n: f"op{i % len(PALETTE)}" for i, n in enumerate(sorted(names - muted))}
    return {**dict.fromkeys(muted, MUTED), **classes}


def drawn_operations(drawings: Sequence[Drawing]) -> tuple[str, ...]:
    """Return the operation on every edge and node of the drawings, in order."""
    edges = (label for drawing in drawings for *_, label in drawing.edges if label)
    nodes = (label for drawing in drawings for label in drawing.labels.values())
    return (*edges, *nodes)
