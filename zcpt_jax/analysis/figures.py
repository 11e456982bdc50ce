"""Figures of studies and scores, drawn by Matplotlib without a display."""

import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from zcpt_jax.analysis.correlation import spearman
from zcpt_jax.analysis.study import REFERENCES, Agreement, Trial, between


def draw_study(
    path: Path, trials: Sequence[Trial], found: Sequence[Agreement], title: str
) -> None:
    """Draw the agreement between scorers, and of each with the ground truth.

    The left panel is a matrix of rank correlations on the undecided supernet. The right
    panel shows how each scorer agrees with best-acc and avg-acc, initial and
    progressive, with 95 % confidence intervals over seeds.

    Args:
      path: path of the picture; its suffix determines the format.
      trials: trials of all scorers.
      found: agreements of the scorers.
      title: title above the figure.
    """
    names, matrix = between(trials)
    scorers = list(dict.fromkeys(agreement.scorer for agreement in found))
    height = max(4.5, 0.42 * len(names) + 2)
    figure = Figure(figsize=(13, height), layout="constrained")
    figure.suptitle(title)
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.1))
    _matrix(figure, left, names, matrix)
    _bars(right, scorers, found)
    save(figure, path)


def _matrix(figure: Figure, ax: Any, names: list[str], matrix: np.ndarray) -> None:
    picture = ax.imshow(matrix, cmap="RdBu", vmin=-1, vmax=1)
    places = range(len(names))
    ax.set_xticks(places, names, rotation=45, ha="right")
    ax.set_yticks(places, names)
    for row in places:
        for column in places:
            value = matrix[row, column]
            if np.isfinite(value):
                colour = "white" if abs(value) > 0.6 else "black"
                ax.text(
                    column,
                    row,
                    f"{value:.2f}",
                    ha="center",
                    va="center",
                    color=colour,
                    fontsize=8,
                )
    ax.set_title("Spearman between scorers, undecided supernet", fontsize=10)
    figure.colorbar(picture, ax=ax, shrink=0.7)


def _bars(ax: Any, scorers: list[str], found: Sequence[Agreement]) -> None:
    kinds = [(mode, ref) for ref in REFERENCES for mode in ("initial", "progressive")]
    colours = ("#2a9d8f", "#9fd3cc", "#e76f51", "#f4c1b3")
    width = 0.8 / len(kinds)
    for number, ((mode, reference), colour) in enumerate(
        zip(kinds, colours, strict=True)
    ):
        mine = [a for a in found if (a.mode, a.reference) == (mode, reference)]
        means = np.array([a.spearman.mean for a in mine])
        reach = np.nan_to_num([a.spearman.high - a.spearman.mean for a in mine])
        places = np.arange(len(scorers)) + (number - 1.5) * width
        label = f"{reference}, {mode}"
        ax.barh(places, means, width, xerr=reach, color=colour, label=label)
    ax.set_yticks(range(len(scorers)), scorers)
    ax.invert_yaxis()
    ax.axvline(0, color="black", linewidth=0.8)
    ax.set_xlim(-1, 1)
    ax.legend(fontsize=8, loc="lower left")
    ax.set_title("Spearman with the truth, mean over edges and seeds", fontsize=10)


def draw_scores(
    path: Path,
    scores: Mapping[str, np.ndarray],
    accuracy: np.ndarray,
    label: str,
    title: str,
) -> None:
    """Draw scores against accuracies, with one panel per proxy.

    Args:
      path: path of the picture.
      scores: map from proxy to ``[networks]``, higher is better.
      accuracy: accuracies, or other numbers of a table, ``[networks]``.
      label: label of the accuracies' axis, with the unit.
      title: title above the figure.
    """
    figure = Figure(figsize=(4.2 * len(scores), 4), layout="constrained")
    figure.suptitle(title)
    panels = np.atleast_1d(figure.subplots(1, len(scores), sharey=True))
    for ax, (name, values) in zip(panels, scores.items(), strict=True):
        shown = np.isfinite(values)
        ax.scatter(values[shown], accuracy[shown], s=3, alpha=0.3, linewidths=0)
        ax.set_title(f"{name}: Spearman {spearman(values, accuracy):.3f}", fontsize=10)
        ax.set_xlabel(name)
    panels[0].set_ylabel(label)
    save(figure, path)


def save(figure: Figure, path: Path) -> None:
    """Write a figure under a temporary name and rename it into place."""
    handle, name = tempfile.mkstemp(dir=path.parent, suffix=path.suffix)
    os.close(handle)
    figure.savefig(name, dpi=150)
    Path(name).chmod(0o644)
    Path(name).replace(path)
