"""Files of a study: one line per trial, and tables of all trials."""

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from zcpt_jax.analysis.study import Agreement, Line, Trial
from zcpt_jax.io.files import append, complete_lines, write_atomically
from zcpt_jax.json_text import parse_json
from zcpt_jax.types import InputError

TRIALS, TABLE, RESULTS, FIGURE = "trials.jsonl", "study.csv", "study.json", "study.png"


def append_trial(folder: Path, trial: Trial) -> None:
    """Append one trial to the folder's file."""
    record = {**trial._asdict(), "lines": [line._asdict() for line in trial.lines]}
    append(folder / TRIALS, json.dumps(record) + "\n")


def read_trials(folder: Path) -> list[Trial]:
    """Read the trials made so far; a line truncated by a kill is ignored.

    Raises:
      InputError: if a line is damaged.
    """
    trials = []
    for number, text in enumerate(complete_lines(folder / TRIALS), 1):
        try:
            fields = parse_json(text)
            lines = tuple(
                Line(
                    mode=line["mode"],
                    edge=line["edge"],
                    candidates=tuple(line["candidates"]),
                    strengths=tuple(map(float, line["strengths"])),
                    truth={k: tuple(map(float, v)) for k, v in line["truth"].items()},
                )
                for line in fields.pop("lines")
            )
            trials.append(Trial(lines=lines, **fields))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(
                f"{folder / TRIALS}, line {number} is damaged ({error}); delete that "
                "line and run again: its trial is made anew"
            ) from error
    return trials


def write_tables(
    folder: Path, trials: Sequence[Trial], found: Sequence[Agreement]
) -> None:
    """Write ``study.csv``, a row per agreement, and ``study.json`` with the picks."""
    rows = [_row(agreement) for agreement in found]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(folder / TABLE, text.getvalue())
    picks = [
        {k: v for k, v in trial._asdict().items() if k != "lines"} for trial in trials
    ]
    record = {"agreements": [_finite(row) for row in rows], "picks": picks}
    write_atomically(folder / RESULTS, json.dumps(record, indent=2) + "\n")


def _row(agreement: Agreement) -> dict[str, Any]:
    row: dict[str, Any] = {
        "scorer": agreement.scorer,
        "mode": agreement.mode,
        "reference": agreement.reference,
        "seeds": agreement.spearman.seeds,
    }
    for name in ("spearman", "kendall"):
        interval = getattr(agreement, name)
        row |= {
            name: round(interval.mean, 4),
            f"{name}_low": round(interval.low, 4),
            f"{name}_high": round(interval.high, 4),
        }
    return row


def _finite(row: dict[str, Any]) -> dict[str, Any]:
    """Replace NaN, the interval of a single seed, with None, as JSON has no NaN."""
    return {
        key: None if isinstance(value, float) and np.isnan(value) else value
        for key, value in row.items()
    }


def summary(trials: Sequence[Trial], found: Sequence[Agreement]) -> str:
    """Format the study as a text table with one line per scorer."""
    scorers = list(dict.fromkeys(agreement.scorer for agreement in found))
    lines = [
        f"{'scorer':<22}  {'initial':^29}  {'progressive':^29}  {'its network':^24}",
        f"{'':<22}  {'best-acc':>14} {'avg-acc':>14}  {'best-acc':>14} "
        f"{'avg-acc':>14}  {'accuracy':>10} {'rank':>12}",
    ]
    for scorer in scorers:
        cells = [_cell(a) for a in found if a.scorer == scorer]
        mine = [trial for trial in trials if trial.scorer == scorer]
        accuracy = float(np.mean([trial.accuracy for trial in mine]))
        rank = float(np.mean([trial.rank for trial in mine]))
        lines.append(
            f"{scorer:<22}  {cells[0]:>14} {cells[1]:>14}  {cells[2]:>14} "
            f"{cells[3]:>14}  {accuracy:>8.2f} % {rank:>12,.0f}"
        )
    return "\n".join(lines)


def _cell(agreement: Agreement) -> str:
    interval = agreement.spearman
    if np.isnan(interval.low):
        return f"{interval.mean:.3f}"
    return f"{interval.mean:.3f} +-{interval.high - interval.mean:.2f}"
