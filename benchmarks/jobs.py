"""One measurement, and how it gets a process of its own.

Compilers, thread pools and allocators of two frameworks, and the memory peaks of two
measurements, would mix in one process. Nothing here imports either framework.
"""

import dataclasses
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

_CHILD = Path(__file__).with_name("child.py")
IMAGE_SIZE = 32
CLASSES = 10

Tell = Callable[[dict[str, Any]], None]
"""Takes numbers of a row as soon as they are known."""


@dataclass(frozen=True)
class Job:
    """What a child process measures.

    Attributes:
      side: this library, or the PyTorch reference.
      kind: a decision step of the undecided supernet, or all steps of one proposal.
      space: the search space.
      proxy: what scores.
      options: of the space; by default the published supernet.
      batch_size: images of a minibatch.
      proposals: N of the search whose chunk size a step has.
      repeats: how often the same is timed; medians are taken.
      form: fields of the :class:`zcpt_jax.lowering.Lowering` of the device that this
        library changes.
      masks_file: masks, for the reference to score; of a proposal, this library writes
        them.
      seed: of weights, images and order.
    """

    side: Literal["ours", "reference"]
    kind: Literal["step", "proposal"]
    space: str
    proxy: str
    options: dict[str, int] = field(default_factory=dict)
    batch_size: int = 64
    proposals: int = 10
    repeats: int = 5
    form: dict[str, Any] = field(default_factory=dict)
    masks_file: str = ""
    seed: int = 0

    def batch(self, *name: int) -> tuple[np.ndarray, np.ndarray]:
        """Normally distributed images and labels, as good as any to measure time.

        Returns:
          float32 ``[B, 32, 32, 3]`` and int32 ``[B]``.
        """
        rng = np.random.default_rng([self.seed, *name])
        shape = (self.batch_size, IMAGE_SIZE, IMAGE_SIZE, 3)
        images = rng.normal(size=shape).astype(np.float32)
        return images, rng.integers(CLASSES, size=self.batch_size, dtype=np.int32)


@dataclass(frozen=True)
class Training:
    """Training steps of the DARTS_V2 network to be timed.

    Attributes:
      precision: of activations, ``float32`` or ``bfloat16``.
      channels: of the first cell's nodes.
      cells: their number.
      batch_size: images of a minibatch.
      seconds: for how long steps are timed.
      warm_up: steps before that; so many follow one another before a wait.
      dataset: of this library's steps, see ``--dataset`` of the commands.
    """

    precision: str = "float32"
    channels: int = 36
    cells: int = 20
    batch_size: int = 96
    seconds: float = 5.0
    warm_up: int = 10
    dataset: str = "digits"


def run_in_child(job: Job) -> dict[str, Any]:
    """Measures in a fresh process.

    Returns:
      What was measured, or ``{'error': ...}`` with the last line of the child's words.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "job.json")
        file.write_text(json.dumps(dataclasses.asdict(job)))
        # A persistent cache would make a cold compilation warm.
        environment = {**os.environ, "JAX_ENABLE_COMPILATION_CACHE": "false"}
        done = subprocess.run(
            [sys.executable, str(_CHILD), str(file)],
            capture_output=True,
            text=True,
            env=environment,
        )
        answer = file.with_suffix(".answer")
        if done.returncode == 0 and answer.exists():
            return json.loads(answer.read_text())
    return {"error": explain(done)}


def explain(done: subprocess.CompletedProcess[str]) -> str:
    """Why a child ended early, in one line."""
    checks = [line for line in done.stderr.splitlines() if "Check failed" in line]
    if checks:  # what XLA says before it aborts the process
        return checks[0].strip()
    if done.returncode < 0:
        hint = "; the machine may be out of memory" if done.returncode == -9 else ""
        return f"killed by signal {-done.returncode}{hint}"
    lines = done.stderr.strip().splitlines()
    return lines[-1] if lines else f"exit code {done.returncode}"


def cores_in_use() -> int:
    """How many cores this process may use; ``OMP_NUM_THREADS`` takes precedence."""
    if os.environ.get("OMP_NUM_THREADS", "").isdigit():
        return int(os.environ["OMP_NUM_THREADS"])
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def processor() -> str:
    """The processor as the system names it."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if "model name" in line]
    return names[0] if names else platform.processor() or platform.machine()
