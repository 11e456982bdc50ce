r"""Draw the pictures of the documentation: ``python docs/images/draw.py``.

``report.png`` is a screenshot of the report of this search, 1200 pixels wide:

    zcpt-search --dataset=digits --image_size=16 --seed=0 --num_proposals=4 \
      --num_validation_batches=4 --batch_size=16 --output_dir=runs/report \
      --space_options=channels=4,cells_per_stage=1
"""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))

from zcpt_jax import get_space  # noqa: E402
from zcpt_jax.io.svg_file import svg_file  # noqa: E402

# docs/results.md: NAS-Bench-201, CIFAR-10, seed 0.
CELL = (
    "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_1x1~1|+"
    "|skip_connect~0|nor_conv_3x3~1|nor_conv_3x3~2|"
)


def main() -> None:
    """Write the cell as an SVG file."""
    space = get_space("nasbench201")
    (drawing,) = space.drawings(CELL)
    (HERE / "nasbench201_cell.svg").write_text(svg_file(drawing, space))


if __name__ == "__main__":
    main()
