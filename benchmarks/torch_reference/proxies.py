"""Four proxies in the manner of the published code.

nwot is the hooked log-determinant of Mellor et al. 2021 as Zero-Cost-PT calls it; the
others are the measures of Abdelfattah et al., ICLR 2021, which it imports: each works
on a copy of the network. Hook and measures work in float32, synflow in float64.
"""

import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

Masks = Mapping[str, Tensor]


class Batch(NamedTuple):
    """Images ``[B, 3, H, W]`` and labels ``[B]``, both on the network's device."""

    images: Tensor
    labels: Tensor


Proxy = Callable[[nn.Module, Batch, Masks], float]


class _Kernel:
    """The sum of the kernels of activation patterns, on the host."""

    def __init__(self, size: int) -> None:
        self.sum = np.zeros((size, size), np.float32)

    def hook(self, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        """Adds the kernel of a module's input: one product for each of both signs."""
        del module, output
        on = (inputs[0].reshape(len(inputs[0]), -1) > 0).float()
        off = 1.0 - on
        self.sum += (on @ on.t()).cpu().numpy()
        self.sum += (off @ off.t()).cpu().numpy()


@torch.no_grad()
def nwot(net: nn.Module, batch: Batch, masks: Masks) -> float:
    """log|det K|, BatchNorm on its stored statistics.

    Hooks sit on every module whose class has "ReLU" in its name, wrappers included.
    The published NAS-Bench-201 search also copies the network for every score and keeps
    autograd on with anomaly detection, which is left out: it only takes time.
    """
    kernel = _Kernel(len(batch.images))
    hooked = [m for m in net.modules() if "ReLU" in type(m).__name__]
    handles = [module.register_forward_hook(kernel.hook) for module in hooked]
    training = net.training
    net.eval()
    try:
        net(batch.images, masks)
    finally:
        net.train(training)
        for handle in handles:
            handle.remove()
    return float(np.linalg.slogdet(kernel.sum)[1])


def _layers(net: nn.Module, *kinds: type[nn.Module]) -> Iterator[Any]:
    return (module for module in net.modules() if isinstance(module, kinds))


def _run_masked(layer: Any, mask: Tensor) -> Callable[..., Tensor]:
    def forward(x: Tensor) -> Tensor:
        weight = layer.weight * mask
        if isinstance(layer, nn.Linear):
            return F.linear(x, weight, layer.bias)
        return layer._conv_forward(x, weight, layer.bias)

    return forward


def snip(net: nn.Module, batch: Batch, masks: Masks) -> float:
    """Sum |dL/dm| over masks m of ones that multiply the frozen weights."""
    net = copy.deepcopy(net).train()
    ones = []
    for layer in _layers(net, nn.Conv2d, nn.Linear):
        layer.weight.requires_grad_(False)
        ones.append(torch.ones_like(layer.weight, requires_grad=True))
        layer.forward = _run_masked(layer, ones[-1])
    F.cross_entropy(net(batch.images, masks), batch.labels).backward()
    gradients = [mask.grad for mask in ones]
    return sum(g.abs().sum().item() for g in gradients if g is not None)


def synflow(net: nn.Module, batch: Batch, masks: Masks) -> float:
    """Sum |W * dR/dW| of the all-positive network without BatchNorm, in float64."""
    net = copy.deepcopy(net)
    with torch.no_grad():
        for value in net.state_dict().values():
            value.abs_()
    net.double()
    for norm in _layers(net, nn.BatchNorm2d):
        norm.forward = lambda x: x
    images = torch.ones_like(batch.images[:1], dtype=torch.float64)
    net(images, masks).sum().backward()
    weights = [layer.weight for layer in _layers(net, nn.Conv2d, nn.Linear)]
    used = [w for w in weights if w.grad is not None]
    return sum((w.detach() * w.grad).abs().sum().item() for w in used)


def jacob_cov(net: nn.Module, batch: Batch, masks: Masks) -> float:
    """-sum (log(v + k) + 1 / (v + k)), v the eigenvalues of gradients' correlations.

    The eigenvalues are those of the general solver, as published.
    """
    net = copy.deepcopy(net).train()
    images = batch.images.clone().requires_grad_(True)
    logits = net(images, masks)
    logits.backward(torch.ones_like(logits))
    gradients: Any = images.grad
    rows = gradients.reshape(len(images), -1).cpu().numpy()
    values = np.linalg.eig(np.corrcoef(rows))[0].real + 1e-5
    return float(-np.sum(np.log(values) + 1 / values))


PROXIES: dict[str, Proxy] = {
    "nwot": nwot,
    "snip": snip,
    "synflow": synflow,
    "jacob_cov": jacob_cov,
}
"""The proxies by name."""
