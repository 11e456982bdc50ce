"""The same training steps in PyTorch: eager or by ``torch.compile``, channels last."""

import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

from benchmarks.jobs import CLASSES, IMAGE_SIZE, Tell, Training, cores_in_use
from benchmarks.torch_reference.darts_evaluation import DartsV2

_DROPPED = 0.1  # of the paths, what the published schedule has half-way


def measure(job: Training, compiled: bool, tell: Tell) -> None:
    """Time steps on one batch that lies on the device, without augmentation.

    As PyTorch comes, convolutions of float32 run as TF32 on GPUs that have it, and
    matrix products do not.

    Args:
      job: sizes and precision.
      compiled: whether ``torch.compile`` compiles the network.
      tell: takes numbers as soon as they are known.
    """
    torch.set_num_threads(cores_in_use())
    torch.manual_seed(0)
    torch.backends.cudnn.benchmark = True
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    step = _make_step(job, compiled, device)
    name = "compiled" if compiled else "eager"
    start = time.perf_counter()
    step()
    _wait(device)
    tell({f"{name}_first_step_seconds": time.perf_counter() - start})
    seconds = _time(job, step, device)
    tell({f"{name}_ms": 1e3 * seconds, f"{name}_images": job.batch_size / seconds})


def _make_step(
    job: Training, compiled: bool, device: torch.device
) -> Callable[[], None]:
    """A function that takes one step of SGD: both losses, clipping, weight decay."""
    net: Any = DartsV2(job.channels, job.cells, CLASSES).to(device)
    net = net.to(memory_format=torch.channels_last)
    parameters = list(net.parameters())
    optimiser = torch.optim.SGD(
        parameters, lr=0.025, momentum=0.9, weight_decay=3e-4, foreach=True
    )
    shape = (job.batch_size, 3, IMAGE_SIZE, IMAGE_SIZE)
    images = torch.randn(shape, device=device).to(memory_format=torch.channels_last)
    labels = torch.randint(CLASSES, (job.batch_size,), device=device)
    net = torch.compile(net) if compiled else net
    low = job.precision == "bfloat16"

    def step() -> None:
        optimiser.zero_grad(set_to_none=True)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=low):
            logits, second = net(images, _DROPPED)
        loss = F.cross_entropy(logits.float(), labels)
        loss = loss + 0.4 * F.cross_entropy(second.float(), labels)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 5.0)
        optimiser.step()

    return step


def _time(job: Training, step: Callable[[], None], device: torch.device) -> float:
    """Seconds of a step, the mean over those that fit into ``job.seconds``."""
    for _ in range(job.warm_up):
        step()
    _wait(device)
    start, count = time.perf_counter(), 0
    while count < 1 or time.perf_counter() - start < job.seconds:
        for _ in range(job.warm_up):
            step()
            count += 1
        _wait(device)
    return (time.perf_counter() - start) / count


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()
