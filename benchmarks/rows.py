"""Rows of the report: this library and the reference in turn, and their ratio."""

import dataclasses
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.jobs import Job, run_in_child
from zcpt_jax import masks as mask_algebra
from zcpt_jax.spaces import get_space


def measure_step(job: Job, rounds: int, reference: bool) -> dict[str, Any]:
    """A decision step of the undecided supernet.

    Args:
      job: of this library.
      rounds: how often both are measured, in turn and each time in new processes.
      reference: whether the reference is measured.

    Returns:
      The row: medians over rounds and repeats; peaks are the largest.
    """
    ours: list[dict[str, Any]] = []
    theirs: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        job = dataclasses.replace(job, masks_file=str(Path(folder, "masks.npz")))
        write_first_step(job)
        turns = [(job, ours)]
        if reference:
            turns.append((dataclasses.replace(job, side="reference"), theirs))
        for number in range(rounds):
            for turn, found in reversed(turns) if number % 2 else turns:
                found.append(run_in_child(turn))
    row = _start_row(job, ours, theirs)
    fine, their_fine = _fine(ours), _fine(theirs)
    if fine:
        row["compile_seconds"] = _median([one["compile_seconds"] for one in fine])
        row["ours_ms"] = _median([ms for one in fine for ms in one["ms"]])
        row["ours_peak_mb"] = max(one["peak_mb"] for one in fine)
        row["chunk"], row["ours_device"] = fine[0]["chunk"], fine[0]["device"]
    if their_fine:
        row["reference_ms"] = _median([ms for one in their_fine for ms in one["ms"]])
        row["reference_peak_mb"] = max(one["peak_mb"] for one in their_fine)
        row["reference_device"] = their_fine[0]["device"]
    if fine and their_fine:
        row["ratio"] = row["reference_ms"] / row["ours_ms"]
    return {**row, "rounds": {"ours": ours, "reference": theirs}}


def measure_proposal(job: Job, rounds: int, reference: bool) -> dict[str, Any]:
    """All steps of one proposal: how the ratio averages over a whole search.

    This library times every step as a whole. The reference times one mask of every
    step; that time multiplied by the number of the step's masks stands for the step.
    The ratio is that of the sums over all steps.

    Args:
      job: of this library.
      rounds: how often both are measured, in turn and each time in new processes.
      reference: whether the reference is measured.

    Returns:
      The row: milliseconds a perturbation on average, the median over rounds.
    """
    ours: list[dict[str, Any]] = []
    theirs: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        file = str(Path(folder, "masks.npz"))
        for _ in range(rounds):
            one = run_in_child(dataclasses.replace(job, side="ours", masks_file=file))
            ours.append(one)
            if reference and "error" not in one:
                its = dataclasses.replace(job, side="reference", masks_file=file)
                theirs.append(run_in_child(its))
    row = _start_row(job, ours, theirs)
    fine, their_fine = _fine(ours), _fine(theirs)
    if fine:
        counts = np.array(fine[0]["counts"])
        row["masks"], row["sampled"] = int(counts.sum()), len(counts)
        totals = [sum(one["seconds"]) for one in fine]
        row["ours_ms"] = 1e3 * _median(totals) / row["masks"]
    if fine and their_fine:
        totals = [float(counts @ one["seconds_per_mask"]) for one in their_fine]
        row["reference_ms"] = 1e3 * _median(totals) / row["masks"]
        row["ratio"] = row["reference_ms"] / row["ours_ms"]
    return {**row, "rounds": {"ours": ours, "reference": theirs}}


def write_first_step(job: Job) -> None:
    """The masks of the first decision, each of its candidates removed in turn."""
    space = get_space(job.space, **job.options)
    decision = space.phases()[0].tracks[0][0]
    masks = mask_algebra.removals(space.init_masks(), decision)
    np.savez(job.masks_file, **dict[str, Any](masks))


def _fine(found: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [one for one in found if "error" not in one]


def _start_row(job: Job, *sides: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What is measured, and the first error, to be shown in place of numbers."""
    named = zip(("ours", "reference"), sides, strict=True)
    errors = [
        f"{name}: {one['error']}"
        for name, side in named
        for one in side
        if "error" in one
    ]
    row = {"space": job.space, "proxy": job.proxy}
    return {**row, "error": errors[0]} if errors else row


def _median(values: Sequence[float]) -> float:
    return float(np.median(values))
