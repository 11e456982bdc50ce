"""``report.html`` of a retraining: what was trained, how it went, how good it is."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from zcpt_jax.io import html
from zcpt_jax.io.checkpoints import read_metrics, read_record
from zcpt_jax.io.files import write_atomically
from zcpt_jax.io.genotype_svg import draw
from zcpt_jax.training._export import NetworkFile
from zcpt_jax.training._store import KIND
from zcpt_jax.types import Drawing

REPORT = "report.html"


def write_report(
    folder: Path,
    record: NetworkFile,
    drawings: Sequence[Drawing],
    facts: Mapping[str, str],
) -> None:
    """Writes the page, which needs nothing else.

    Args:
      folder: of the run, with its configuration and metrics.
      record: what was trained.
      drawings: its pictures.
      facts: name and value of what is to be said of it.

    Raises:
      InputError: if it cannot be written.
    """
    written = read_record(folder, KIND)
    config = written.pop("config")
    title = f"{record.space}: a network trained on {record.dataset}"
    rows = "".join(
        f"<tr><th>{html.text(name)}</th><td>{html.text(value)}</td></tr>"
        for name, value in facts.items()
    )
    body = [
        f"<h1>{html.text(title)}</h1>",
        f"<table>{rows}</table>",
        "<h2>Curves</h2>",
        draw_curves(read_metrics(folder)),
        "<h2>The network</h2>",
        *(draw(drawing) for drawing in drawings),
        html.details("Settings", config),
        html.details("Versions and command", written),
    ]
    write_atomically(folder / REPORT, html.page(title, body))


def best_test(folder: Path) -> Mapping[str, float]:
    """The line of a run's metrics with the best top-1 on the test images.

    The published results are the best over epochs, not the last.
    """
    lines = [line for line in read_metrics(folder) if "test_top1" in line]
    return max(lines, key=lambda line: line["test_top1"])


def draw_curves(metrics: Sequence[Mapping[str, float]]) -> str:
    """Loss, accuracy and learning rate over the epochs, as SVG."""
    figure = Figure(figsize=(12, 3.6), layout="constrained")
    loss, accuracy, rate = figure.subplots(1, 3)
    for ax, name in ((loss, "loss"), (accuracy, "top1")):
        _curve(ax, metrics, name, "training", "tab:gray")
        _curve(ax, metrics, f"test_{name}", "test", "tab:blue")
        ax.legend()
    _curve(rate, metrics, "learning_rate", "", "tab:orange")
    for ax, label in (
        (loss, "loss"),
        (accuracy, "top-1, %"),
        (rate, "learning rate"),
    ):
        ax.set_xlabel("epoch")
        ax.set_ylabel(label)
        ax.grid(alpha=0.3)
    text = io.StringIO()
    figure.savefig(text, format="svg")
    svg = text.getvalue()
    return svg[svg.index("<svg") :]  # what comes before has no place within HTML


def _curve(
    ax: Any, metrics: Sequence[Mapping[str, float]], name: str, label: str, colour: str
) -> None:
    points = [(line["epoch"], line[name]) for line in metrics if name in line]
    marker = "." if len(points) < 40 else ""
    ax.plot(*zip(*points, strict=True), label=label, color=colour, marker=marker)
