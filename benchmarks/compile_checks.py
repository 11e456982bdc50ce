"""Compile the library's programs for absent accelerators: ``make accelerators``.

Every row is one program compiled for one chip from shapes alone: the program of a
search (its images, initial weights and masks as :class:`zcpt_jax.scoring.Evaluator`
passes them), or one step of a trainer. Nothing runs. The command fails, and names the
rows, if the compiler aborts, if a program does not fit into the chip's memory with one
mask, if it exchanges data with the host, if a search needs more programs than expected,
or if a check takes longer than its limit.

The masks are those that the chip scores together. The chip's memory is what JAX can
allocate there; a search uses 92 % of it at most and puts fewer masks together until a
program fits, and so does the check. TPU programs are compiled at the lowest effort
(``jax_exec_time_optimization_effort=-1``), which takes a fifth of the time or less.

The time of a mask is an estimate for TPUs: the sum of XLA's ``estimated_cycles`` at
1.5 GHz, divided by the masks of a group. Every instruction counts once. The sum is
therefore only a lower bound for what is inside loops within a network, and counts all
branches of a condition. XLA gives neither times nor code sizes for GPUs.
"""

import dataclasses
import importlib.util
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import app, flags

from benchmarks.compile_list import EXTENTS, GPUS, TPUS, Check, list_checks
from benchmarks.compile_rows import COLUMNS, line, render, run_checks
from launch import _command
from zcpt_jax.io.files import make_folder, write_atomically
from zcpt_jax.types import InputError

_PACKAGES = {"libtpu": TPUS, "jax_cuda12_plugin|jax_cuda13_plugin": GPUS}
_PROGRAMS = flags.DEFINE_enum(
    "programs",
    "default",
    list(EXTENTS),
    "default: published sizes of the main spaces, and reduced networks; reduced: every "
    "space with every proxy, reduced; all: every space and proxy at full size (hours)",
)
_ONLY = flags.DEFINE_string(
    "only", "", "compile only programs whose name has this in it, such as 'darts nwot'"
)
_CHIPS = flags.DEFINE_list(
    "chips", [*GPUS, *TPUS], f"of {', '.join((*GPUS, *TPUS))}; default: all of them"
)
_LIMIT = flags.DEFINE_integer(
    "limit", None, "seconds for one check; default: 600 for reduced networks, else 900"
)
_OUTPUT = flags.DEFINE_string(
    "output", None, "the report; default: runs/benchmarks/accelerators-<utc time>.json"
)


def main(argv: list[str]) -> None:
    """Compile what the flags select and report on it."""
    _command.no_arguments(argv)
    checks = _select()
    output = Path(_OUTPUT.value or _default_output())
    make_folder(output.parent)
    print(line([heading for heading, *_ in COLUMNS]), flush=True)
    rows: list[dict[str, Any]] = []
    for row in run_checks(checks):
        rows.append(row)
        print(render(row), flush=True)
        write_atomically(output, json.dumps({"rows": rows}, indent=1) + "\n")
    failed = [row for row in rows if row["result"] != "ok"]
    print(f"\nreport     {output}")
    if failed:
        names = "\n".join(f"  {row['name']}: {row['result']}" for row in failed)
        sys.exit(f"{len(failed)} of {len(rows)} checks failed:\n{names}")


def _select() -> list[Check]:
    """The checks that the flags ask for.

    Raises:
      InputError: if there are none, or packages or chips are unknown or missing.
    """
    unknown = sorted(set(_CHIPS.value) - {*GPUS, *TPUS})
    if unknown:
        known = ", ".join((*GPUS, *TPUS))
        raise InputError(f"--chips: unknown {unknown[0]!r}; known: {known}")
    if _LIMIT.value is not None and _LIMIT.value < 1:
        raise InputError(f"--limit must be at least 1, got {_LIMIT.value}")
    _require_packages(_CHIPS.value)
    checks = list_checks(_PROGRAMS.value, _CHIPS.value)
    checks = [check for check in checks if _ONLY.value in check.name]
    if not checks:
        raise InputError(f"--only={_ONLY.value}: no such program for these chips")
    if _LIMIT.value is None:
        return checks
    return [dataclasses.replace(check, limit=_LIMIT.value) for check in checks]


def _require_packages(chips: Sequence[str]) -> None:
    for names, needed_by in _PACKAGES.items():
        there = any(importlib.util.find_spec(name) for name in names.split("|"))
        if not there and set(chips) & set(needed_by):
            raise InputError(
                f"compiling for {', '.join(needed_by)} needs {names.split('|')[0]}; "
                "run make accelerators, which installs it"
            )


def _default_output() -> str:
    name = time.strftime("accelerators-%Y%m%dT%H%M%SZ", time.gmtime())
    return str(Path("runs", "benchmarks", f"{name}.json"))


if __name__ == "__main__":
    app.run(_command.without_traceback(main))
