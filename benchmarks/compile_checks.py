"""Compile the library's programs for absent accelerators: ``make accelerators``.

Every row is one program compiled for one chip from shapes alone: the program of a
search (its images, initial weights and masks as :class:`zcpt_jax.evaluator.Evaluator`
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
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import app, flags

from benchmarks.compile_list import EXTENTS, GPUS, TPUS, Check, list_checks
from launch import _command
from zcpt_jax.files import make_folder, write_atomically
from zcpt_jax.types import InputError

ROOT = Path(__file__).resolve().parents[1]
_PACKAGES = {"libtpu": TPUS, "jax_cuda12_plugin|jax_cuda13_plugin": GPUS}
_COLUMNS = (
    ("program", "what", "{}", 46),
    ("chip", "chip", "{}", 4),
    ("trace s", "trace_seconds", "{:.1f}", 7),
    ("compile s", "compile_seconds", "{:.1f}", 9),
    ("masks", "chunk", "{}", 5),
    ("temp GB", "temporaries_gb", "{:.3f}", 7),
    ("code MB", "code_mb", "{:.0f}", 7),
    ("transfers", "transfers", "{}", 9),
    ("mask ms", "mask_ms", "{:.2f}", 7),
    ("result", "result", "{}", 0),
)
"""Heading, key, format and width of every column."""

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
    print(_line([heading for heading, *_ in _COLUMNS]), flush=True)
    rows: list[dict[str, Any]] = []
    for row in _run_checks(checks):
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


def _run_checks(checks: Sequence[Check]) -> Iterator[dict[str, Any]]:
    """Compile for a GPU and for a TPU at the same time; rows come as they are known.

    A compilation keeps little more than one core busy, and only one process at a time
    may load libtpu.
    """
    kinds = [[c for c in checks if c.chip in chips] for chips in (GPUS, TPUS)]
    found: queue.Queue[Any] = queue.Queue()

    def run(some: Sequence[Check]) -> None:
        for check in some:
            try:
                found.put(run_check(check))
            except Exception as error:  # raised where rows are read
                found.put(error)
                return

    for some in kinds:
        threading.Thread(target=run, args=(some,), daemon=True).start()
    for _ in checks:
        row = found.get()
        if isinstance(row, Exception):
            raise row
        yield row


def run_check(check: Check) -> dict[str, Any]:
    """Compile in a process of its own.

    Args:
      check: what to compile, for which chip.

    Returns:
      What the compiler said, and ``result``: ``ok`` or why the check failed.
    """
    row: dict[str, Any] = {"name": check.name, "what": check.what, "chip": check.chip}
    start = time.perf_counter()
    found = _run_child(check)
    row["wall_seconds"] = time.perf_counter() - start
    return {**row, **found, "result": judge(check, found)}


def _run_child(check: Check) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "check.json")
        file.write_text(json.dumps(dataclasses.asdict(check)))
        # A persistent cache would make compilations disappear.
        environment = {
            **os.environ,
            "JAX_PLATFORMS": "cpu",
            "JAX_ENABLE_COMPILATION_CACHE": "false",
        }
        try:
            done = subprocess.run(
                [sys.executable, "-m", "benchmarks.compile_child", str(file)],
                capture_output=True,
                text=True,
                env=environment,
                cwd=ROOT,
                timeout=check.limit,
            )
        except subprocess.TimeoutExpired:
            return {"error": f"not done after its limit of {check.limit} s"}
        answer = file.with_suffix(".answer")
        if done.returncode == 0 and answer.exists():
            return json.loads(answer.read_text())
        return {"error": explain(done.returncode, done.stderr)}


def explain(code: int, stderr: str) -> str:
    """Say in one line why a child process failed.

    Args:
      code: its exit code, negative for a signal.
      stderr: its messages.
    """
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    if code < 0:
        checks = [line for line in lines if "Check failed" in line]
        said = checks[-1].partition("] ")[2] or checks[-1] if checks else ""
        hint = "the machine may be out of memory" if code == -9 else said
        return f"aborted by signal {-code}" + (f": {hint}" if hint else "")
    # JAX prints the error itself before a paragraph on hidden frames.
    errors = [line for line in lines if "Error: " in line]
    said = (errors or lines or [f"exit code {code}"])[-1]
    return f"refused: {said}"


def judge(check: Check, found: Mapping[str, Any]) -> str:
    """``ok``, or why a check failed.

    Args:
      check: what was expected.
      found: what the child process measured.
    """
    if "error" in found:
        return str(found["error"])
    needed, usable = (found[f"{name}_bytes"] / 1e9 for name in ("needed", "usable"))
    if needed > usable:
        return f"needs {needed:.1f} GB, {usable:.1f} GB can be used"
    if found["transfers"]:
        return f"{found['transfers']} transfers between host and device"
    if check.programs is not None and found["programs"] > check.programs:
        return f"{found['programs']} programs, expected {check.programs}"
    return "ok"


def render(row: Mapping[str, Any]) -> str:
    """A row of the table as text."""
    cells = []
    for _, key, form, _ in _COLUMNS:
        value = row.get(key)
        cells.append("-" if value is None else form.format(value))
    return _line(cells)


def _line(cells: Sequence[str]) -> str:
    texts = []
    for cell, (_, key, _, width) in zip(cells, _COLUMNS, strict=True):
        text = key in ("what", "chip", "result")
        texts.append(cell.ljust(width) if text else cell.rjust(width))
    return "  ".join(texts).rstrip()


def _default_output() -> str:
    name = time.strftime("accelerators-%Y%m%dT%H%M%SZ", time.gmtime())
    return str(Path("runs", "benchmarks", f"{name}.json"))


if __name__ == "__main__":
    app.run(_command.without_traceback(main))
