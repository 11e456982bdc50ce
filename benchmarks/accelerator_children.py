"""Child processes with a limit, whose rows arrive while they run."""

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.accelerator_plan import Step
from benchmarks.jobs import explain

_CHILD = Path(__file__).with_name("accelerator_steps.py")
_WAIT = 0.1


def run_step(
    step: Step,
    seconds: float,
    tell: Callable[[dict[str, Any]], None],
    child: Path = _CHILD,
) -> None:
    """Run a step in a process of its own, and kill it when its time is over.

    Args:
      step: the step.
      seconds: that it may take.
      tell: called with each row as soon as the child has written it, at last with an
        ``error`` if the child failed or was killed.
      child: the script.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = _Rows(folder / "rows.jsonl", tell)
        error = _wait(_start(step, seconds, folder, child), seconds, rows, folder)
        rows.read()
        if error:
            tell({"error": f"{step.kind}: {error}"})


class _Rows:
    """Reads lines of JSON while they are written."""

    def __init__(self, file: Path, tell: Callable[[dict[str, Any]], None]) -> None:
        self._file, self._tell, self._read = file, tell, 0

    def read(self) -> None:
        """Tell of the lines that were completed since the last time."""
        if not self._file.exists():
            return
        text = self._file.read_text()[self._read :]
        lines = text[: text.rfind("\n") + 1]
        self._read += len(lines)
        for line in lines.splitlines():
            self._tell(json.loads(line))


def _start(
    step: Step, seconds: float, folder: Path, child: Path
) -> "subprocess.Popen[bytes]":
    file = folder / "step.json"
    file.write_text(json.dumps({**dataclasses.asdict(step), "seconds": seconds}))
    # A persistent cache would make a cold compilation warm; searches have their own.
    environment = {**os.environ, "JAX_ENABLE_COMPILATION_CACHE": "false"}
    if step.kind in ("reference", "eager", "compiled"):
        environment["JAX_PLATFORMS"] = "cpu"  # the card's memory is PyTorch's
    with (folder / "stderr").open("wb") as stderr:
        return subprocess.Popen(
            [sys.executable, str(child), str(file), str(folder / "rows.jsonl")],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            env=environment,
            start_new_session=True,  # so that its own children end with it
        )


def _wait(
    process: "subprocess.Popen[bytes]", seconds: float, rows: _Rows, folder: Path
) -> str:
    """Why the child ended before its work was done; empty if it was."""
    end = time.monotonic() + seconds
    try:
        while process.poll() is None:
            if time.monotonic() > end:
                return f"not done after {seconds:.0f} s"
            rows.read()
            time.sleep(_WAIT)
    finally:
        _kill(process)
    if process.returncode == 0:
        return ""
    text = (folder / "stderr").read_text(errors="replace")
    done = subprocess.CompletedProcess(process.args, process.returncode, "", text)
    return explain(done)


def _kill(process: "subprocess.Popen[bytes]") -> None:
    """End a child and all that it started; not waiting for what cannot be ended."""
    with contextlib.suppress(ProcessLookupError, PermissionError):  # all have ended
        os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=5)
