"""``report.html`` of a retraining: what was trained, how it went, how good it is."""

from collections.abc import Mapping
from pathlib import Path

from zcpt_jax.io import html
from zcpt_jax.io.checkpoints import read_metrics, read_record
from zcpt_jax.io.colours import assign_colours, space_operations
from zcpt_jax.io.files import write_atomically
from zcpt_jax.training._curves import draw_curves
from zcpt_jax.training._export import NetworkFile
from zcpt_jax.training._store import KIND
from zcpt_jax.types import Space

REPORT = "report.html"


def write_report(
    folder: Path, record: NetworkFile, space: Space, facts: Mapping[str, str]
) -> None:
    """Write the page, which needs nothing else.

    Args:
      folder: of the run, with its configuration and metrics.
      record: what was trained.
      space: its space.
      facts: name and value of what is to be said of it.

    Raises:
      InputError: if it cannot be written.
    """
    written = read_record(folder, KIND)
    config = written.pop("config")
    title = f"{record.space}: a network trained on {record.dataset}"
    drawings = space.drawings(record.genotype)
    colours = assign_colours(space_operations(space), drawings)
    rows = [(f"<b>{html.text(k)}</b>", html.text(v)) for k, v in facts.items()]
    body = [
        f"<h1>{html.text(title)}</h1>",
        html.table(rows),
        "<h2>Curves</h2>",
        draw_curves(read_metrics(folder)),
        "<h2>The network</h2>",
        html.pictures(drawings, colours),
        html.notations(record.genotype, space.forms(record.genotype)),
        html.details("Settings", config),
        html.details("Versions and command", written),
    ]
    write_atomically(folder / REPORT, html.page(title, body))


def best_test(folder: Path) -> Mapping[str, float]:
    """Return the line of a run's metrics with the best top-1 on the test images.

    The published results are the best over epochs, not the last.
    """
    lines = [line for line in read_metrics(folder) if "test_top1" in line]
    return max(lines, key=lambda line: line["test_top1"])
