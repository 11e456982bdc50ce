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
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

_CHILD = Path(__file__).with_name("child.py")
IMAGE_SIZE = 32
CLASSES = 10


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
    if done.returncode < 0:
        hint = "; the machine may be out of memory" if done.returncode == -9 else ""
        return f"killed by signal {-done.returncode}{hint}"
    lines = done.stderr.strip().splitlines()
    return lines[-1] if lines else f"exit code {done.returncode}"


def cores_in_use() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def processor() -> str:
    """The processor as the system names it."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if "model name" in line]
    return names[0] if names else platform.processor() or platform.machine()
