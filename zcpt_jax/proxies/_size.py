"""params and flops: the size of the network, the baselines for every proxy."""

import math
from typing import Any

import jax
import jax.numpy as jnp

from zcpt_jax.nn import capture
from zcpt_jax.proxies._reach import reach
from zcpt_jax.types import ApplyFn, Batch, Proxy, Variables


def params(
    apply_fn: ApplyFn, variables: Variables, batch: Batch, masks: Any
) -> jax.Array:
    """Count the weights of the layers that are part of the network.

    Convolutions and linear layers count, biases and BatchNorm do not. For the masks of
    a genotype the result is the number of weights of its network, except operations on
    no path to the output, which are left out.

    Args:
      apply_fn: network as a function.
      variables: variables of the network; only their shapes matter.
      batch: minibatch; only the shape of its images is used.
      masks: architecture weights, one array per group.

    Returns:
      A float32 scalar, exact up to 2^24.
    """
    reached = reach(apply_fn, variables, batch, masks)
    kernels = capture.by_layer(
        capture.kernels(variables), reached, apply_fn, variables, batch.images, masks
    )
    return jnp.stack(
        [reached[path] * float(kernels[path].size) for path in kernels]
    ).sum()


def flops(
    apply_fn: ApplyFn, variables: Variables, batch: Batch, masks: Any
) -> jax.Array:
    """Count the multiply-adds per image of the layers that are part of the network.

    The count is that of :func:`zcpt_jax.nn.size.count_flops`, and that of the network
    of a genotype, except that operations on no path to the output are left out.

    Args:
      apply_fn: network as a function.
      variables: variables of the network; only their shapes matter.
      batch: minibatch; only the shape of its images is used.
      masks: architecture weights, one array per group.

    Returns:
      A float32 scalar, exact up to 2^24.
    """
    kernels: dict[capture.Path, tuple[int, ...]] = {}
    counts: list[tuple[capture.Path, int]] = []

    def note(path: capture.Path, kernel: jax.Array) -> None:
        kernels[path] = kernel.shape

    def count(path: capture.Path, out: jax.Array) -> jax.Array:
        kernel = kernels[path]
        counts.append((path, math.prod(out.shape[1:]) * math.prod(kernel[:-1])))
        return out

    def run(images: jax.Array) -> jax.Array:
        return capture.forward(
            apply_fn,
            variables,
            images,
            masks,
            norm="identity",
            on_layer=count,
            on_kernel=note,
        )

    shape = (1, *batch.images.shape[1:])
    jax.eval_shape(run, jax.ShapeDtypeStruct(shape, jnp.float32))
    reached = reach(apply_fn, variables, batch, masks)
    return jnp.stack([reached[path] * float(number) for path, number in counts]).sum()


PARAMS = Proxy(
    name="params",
    score=params,
    norm="identity",
    needs_labels=False,
    data_free=True,
    range="positive",
    reference="a baseline in Krishnakumar et al., NAS-Bench-Suite-Zero, NeurIPS 2022",
)

FLOPS = Proxy(
    name="flops",
    score=flops,
    norm="identity",
    needs_labels=False,
    data_free=True,
    range="positive",
    reference="a baseline in Krishnakumar et al., NAS-Bench-Suite-Zero, NeurIPS 2022; "
    "the complexity of AZ-NAS, Lee and Ham, CVPR 2024",
)
