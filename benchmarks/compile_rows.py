"""Compile checks, each in a process of its own, and what is told of each."""

import dataclasses
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

from benchmarks.compile_list import GPUS, TPUS, Check

ROOT = Path(__file__).resolve().parents[1]
COLUMNS = (
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


def run_checks(checks: Sequence[Check]) -> Iterator[dict[str, Any]]:
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
    for _, key, form, _ in COLUMNS:
        value = row.get(key)
        cells.append("-" if value is None else form.format(value))
    return line(cells)


def line(cells: Sequence[str]) -> str:
    """One row of the table, its cells as wide as their columns."""
    texts = []
    for cell, (_, key, _, width) in zip(cells, COLUMNS, strict=True):
        text = key in ("what", "chip", "result")
        texts.append(cell.ljust(width) if text else cell.rjust(width))
    return "  ".join(texts).rstrip()
