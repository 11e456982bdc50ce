"""Live layers: those that are part of the network under the masks."""

from typing import Any

import jax
import jax.numpy as jnp

from zcpt_jax.nn import capture
from zcpt_jax.types import ApplyFn, Batch, InputError, Variables


def reach(
    apply_fn: ApplyFn, variables: Variables, batch: Batch, masks: Any
) -> dict[capture.Path, jax.Array]:
    """Determine which layers lie on a path of operations of non-zero weight.

    Supernets also run operations of weight zero, so a layer's output is not enough. The
    network is run with positive weights, without BatchNorm, on one image of ones: a
    layer counts if its output is not zero and the logits depend on it. Each layer's
    output is scaled to at most 1, so that nothing overflows and no ReLU6 saturates.

    Args:
      apply_fn: network as a function.
      variables: variables of the network; a weight that is zero cuts no path.
      batch: minibatch; only the shape of its images is used.
      masks: architecture weights, one array per group.

    Returns:
      Boolean scalar for each layer's path, as ``on_layer`` of
      :func:`zcpt_jax.nn.forward` receives it.

    Raises:
      InputError: if the network has kernels but no Flax module that uses them.
    """
    positive = jax.tree.map(lambda leaf: jnp.abs(leaf) + 1, variables)
    images = jnp.ones((1, *batch.images.shape[1:]), jnp.float32)
    calls: list[tuple[capture.Path, tuple[int, ...]]] = []

    def run(on_layer: capture.LayerTap) -> jax.Array:
        return capture.forward(
            apply_fn,
            positive,
            images,
            masks,
            norm="identity",
            on_layer=on_layer,
            on_cut=_rescale,
        )

    def look(path: capture.Path, out: jax.Array) -> jax.Array:
        calls.append((path, out.shape))
        return out

    jax.eval_shape(lambda: run(look))
    if not calls:
        raise InputError(
            "no layer of the network can be looked at: layers are Flax (linen) modules "
            "with a parameter named 'kernel', run by their __call__"
        )

    def total(gains: list[jax.Array]) -> jax.Array:
        left = iter(gains)

        def gain(path: capture.Path, out: jax.Array) -> jax.Array:
            del path
            return _rescale((out,))[0] * next(left)

        return run(gain).sum()

    # One gain per value: a normalisation layer would cancel a gain common to all.
    flows = jax.grad(total)([jnp.ones(shape) for _, shape in calls])
    unreached = jnp.zeros((), bool)
    reached = dict.fromkeys(capture.kernels(variables), unreached)
    for (path, _), flow in zip(calls, flows, strict=True):
        reached[path] = reached.get(path, unreached) | (flow != 0).any()
    return reached


def _rescale(states: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
    largest = jnp.stack([jnp.abs(state).max() for state in states]).max()
    largest = jax.lax.stop_gradient(largest)
    return tuple(state / jnp.where(largest > 0, largest, 1) for state in states)
