"""The same measurements of the PyTorch reference; needs PyTorch."""

import time
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch

from benchmarks.jobs import CLASSES, Job, cores_in_use
from benchmarks.torch_reference import SUPERNETS
from benchmarks.torch_reference.proxies import PROXIES, Batch

Masks = Mapping[str, np.ndarray]
"""Stacks of masks, ``[K, ...]`` each."""


class _Supernet:
    """A supernet in PyTorch's own initialisation, scored one mask at a time."""

    def __init__(self, job: Job) -> None:
        torch.set_num_threads(cores_in_use())
        torch.manual_seed(job.seed)
        self.job, self.proxy = job, PROXIES[job.proxy]
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.net = SUPERNETS[job.space](classes=CLASSES, **job.options).to(self.device)

    def batch(self, *name: int) -> Batch:
        """The minibatch that this library gets by that name."""
        images, labels = self.job.batch(*name)
        channels_first = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
        return Batch(
            torch.from_numpy(channels_first).to(self.device),
            torch.from_numpy(labels.astype(np.int64)).to(self.device),
        )

    def timed(self, batch: Batch, masks: Masks, row: int) -> float:
        """Seconds to score one mask of a stack; the score ends up on the host."""
        one = {
            group: torch.as_tensor(stack[row], device=self.device)
            for group, stack in masks.items()
        }
        start = time.perf_counter()
        self.proxy(self.net, batch, one)
        return time.perf_counter() - start

    def median(self, batch: Batch, masks: Masks, row: int) -> float:
        """The median of several timings of one mask."""
        times = [self.timed(batch, masks, row) for _ in range(self.job.repeats)]
        return float(np.median(times))

    @property
    def device_name(self) -> str:
        """What it runs on."""
        cuda = self.device.type == "cuda"
        return torch.cuda.get_device_name() if cuda else "cpu"


def step(job: Job) -> dict[str, Any]:
    """Milliseconds a perturbation of the undecided supernet, after a warm-up.

    The masks are scored in turn, until each was once and there are ``repeats`` times.
    """
    net = _Supernet(job)
    masks = _read(job)
    batch = net.batch(0, 0)
    count = len(next(iter(masks.values())))
    net.timed(batch, masks, 0)
    rows = range(max(job.repeats, count))
    seconds = [net.timed(batch, masks, row % count) for row in rows]
    return {"ms": [1e3 * value for value in seconds], "device": net.device_name}


def proposal(job: Job) -> dict[str, Any]:
    """Seconds a mask in every step of the proposal that this library made.

    A sample: one mask of each step, the removed candidate being the first in the first
    step, the second in the second and so on. Its time stands for those of its step.
    """
    net = _Supernet(job)
    stacks = _read(job)
    counts = stacks.pop("counts")
    net.timed(net.batch(1, 0, 0), stacks, 0)
    seconds = [
        net.median(net.batch(1, number, 0), stacks, row)
        for number, row in enumerate(_sample(counts))
    ]
    return {"seconds_per_mask": seconds}


def _read(job: Job) -> dict[str, np.ndarray]:
    with np.load(job.masks_file) as archive:
        return dict(archive)


def _sample(counts: Iterable[int]) -> list[int]:
    """For each step the row of one of its masks in the whole stack."""
    rows, start = [], 0
    for number, count in enumerate(counts):
        rows.append(start + number % int(count))
        start += int(count)
    return rows
