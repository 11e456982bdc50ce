"""Helpers of several proxies: loss, weight gradients and the all-positive network."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from zcpt_jax.nn import capture
from zcpt_jax.types import ApplyFn, Batch, Norm, Variables

Kernels = Mapping[capture.Path, jax.Array]


def cross_entropy(logits: jax.Array, labels: Any) -> jax.Array:
    """Compute the mean cross-entropy of logits ``[B, classes]`` and labels ``[B]``."""
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    return losses.mean()


def loss_of_kernels(
    apply_fn: ApplyFn,
    variables: Variables,
    batch: Batch,
    masks: Any,
    norm: Norm = "batch",
    on_kernel: capture.KernelTap | None = None,
) -> Any:
    """Return the loss of one batch as a function of the kernels only."""

    def loss(kernels: Kernels) -> jax.Array:
        logits = capture.forward(
            apply_fn,
            capture.with_kernels(variables, kernels),
            batch.images,
            masks,
            norm=norm,
            on_kernel=on_kernel,
        )
        return cross_entropy(logits, batch.labels)

    return loss


def kernel_gradients(
    apply_fn: ApplyFn, variables: Variables, batch: Batch, masks: Any
) -> tuple[Kernels, Kernels]:
    """Compute kernels W and dL/dW, with BatchNorm on the statistics of the batch."""
    kernels = capture.kernels(variables)
    loss = loss_of_kernels(apply_fn, variables, batch, masks)
    return kernels, jax.grad(loss)(kernels)


def layer_gradients(
    apply_fn: ApplyFn, variables: Variables, batch: Batch, masks: Any
) -> Kernels:
    """Compute dL/dW of each layer, with BatchNorm on the statistics of the batch.

    Layers in a loop (``nn.scan``) have one gradient per iteration, as if the loop was
    unrolled.
    """
    layers: list[capture.Path] = []
    loss = loss_of_kernels(
        apply_fn,
        variables,
        batch,
        masks,
        on_kernel=lambda path, kernel: layers.append(path),
    )
    grads = jax.grad(loss)(capture.kernels(variables))
    return capture.by_layer(grads, layers, apply_fn, variables, batch.images, masks)


def image_correlations(
    apply_fn: ApplyFn, variables: Variables, batch: Batch, masks: Any
) -> tuple[jax.Array, jax.Array]:
    """Correlate the input gradients of the images of a batch.

    The correlated rows are the gradients of the sum of all logits with respect to each
    image, with BatchNorm on the statistics of the batch.

    Returns:
      Correlation matrix ``[B, B]``, NaN where an image has no influence at all, and
      logits ``[B, classes]``.
    """

    def total(images: Any) -> tuple[jax.Array, jax.Array]:
        logits = capture.forward(apply_fn, variables, images, masks, norm="batch")
        return logits.sum(), logits

    gradients, logits = jax.grad(total, has_aux=True)(batch.images)
    rows = gradients.reshape(batch.images.shape[0], -1)
    rows = rows - rows.mean(axis=1, keepdims=True)
    rows = rows / jnp.linalg.norm(rows, axis=1, keepdims=True)
    return rows @ rows.T, logits


def positive_inputs(variables: Variables, batch: Batch) -> tuple[Variables, jax.Array]:
    """Return absolute weights and one image of ones for the all-positive network.

    Without BatchNorm every unit is then a sum of non-negative terms, and the sum of the
    logits is the total weight of all paths (Tanaka et al. 2020, section 5).
    """
    images = jnp.ones((1, *batch.images.shape[1:]), jnp.float32)
    return jax.tree.map(jnp.abs, variables), images
