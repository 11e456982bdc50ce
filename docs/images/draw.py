"""Draw the pictures of the documentation: ``python docs/images/draw.py``."""

import re
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))

from zcpt_jax import get_space  # noqa: E402
from zcpt_jax.io.genotype_svg import draw  # noqa: E402

# docs/results.md: NAS-Bench-201, CIFAR-10, seed 0.
CELL = (
    "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_1x1~1|+"
    "|skip_connect~0|nor_conv_3x3~1|nor_conv_3x3~2|"
)


def main() -> None:
    """Write the drawings of a report's cells as SVG files on white paper."""
    figure = draw(get_space("nasbench201").drawings(CELL)[0])
    svg = re.search(r"<svg.*</svg>", figure, re.DOTALL)[0]
    left, top, width, height = re.search(r'viewBox="([^"]+)"', svg)[1].split()
    paper = (
        "<style>text { font: 600 13px system-ui, sans-serif; }</style>"
        f'<rect x="{left}" y="{top}" width="{width}" height="{height}" fill="#fff"/>'
    )
    svg = svg.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)
    svg = svg.replace("<defs>", f"{paper}<defs>", 1)
    (HERE / "nasbench201_cell.svg").write_text(svg + "\n")


if __name__ == "__main__":
    main()
