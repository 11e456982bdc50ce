"""Drawings of genotypes as SVG files, for documents and notebooks."""

import re

from zcpt_jax.io._style import DRAWING_STYLE
from zcpt_jax.io.colours import assign_colours, space_operations
from zcpt_jax.io.genotype_svg import draw
from zcpt_jax.types import Drawing, Space


def svg_file(drawing: Drawing, space: Space) -> str:
    """Return a drawing as the text of an SVG file, with its style sheet in it.

    Args:
      drawing: the drawing, one of ``space.drawings(genotype)``.
      space: the space, each of whose operations has a colour of its own.
    """
    svg = draw(drawing, assign_colours(space_operations(space), (drawing,)))
    head, _, body = svg.replace(' class="wide"', "", 1).partition(">")
    head = head.replace("<svg", '<svg xmlns="http://www.w3.org/2000/svg"', 1)
    x, y, width, height = re.findall(r"-?\d+", head.partition("viewBox=")[2])
    paper = (
        f'<rect x="{x}" y="{y}" width="{width}" height="{height}" fill="var(--back)"/>'
    )
    return f"{head}><style>{DRAWING_STYLE}</style>{paper}{body}\n"
