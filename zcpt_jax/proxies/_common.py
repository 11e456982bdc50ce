"""What several proxies share: the loss, gradients of weights, the positive network."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from zcpt_jax.nn import capture
from zcpt_jax.types import ApplyFn, Batch, Norm, Variables

Kernels = Mapping[capture.Path, jax.Array]


def cross_entropy(logits: jax.Array, labels: Any) -> jax.Array:
    """Mean cross-entropy of logits ``[B, classes]`` and integer labels ``[B]``."""
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
    """The loss of one batch as a function of the kernels alone."""

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
    """Kernels W and dL/dW, with BatchNorm on the statistics of the batch."""
    kernels = capture.kernels(variables)
    loss = loss_of_kernels(apply_fn, variables, batch, masks)
    return kernels, jax.grad(loss)(kernels)


def layer_gradients(
    apply_fn: ApplyFn, variables: Variables, batch: Batch, masks: Any
) -> Kernels:
    """dL/dW of each layer, with BatchNorm on the statistics of the batch.

    Layers in a loop (``nn.scan``) have one for each iteration, as if the loop was
    written out.
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
    """How alike the network's responses to changes of two images are.

    The rows that are correlated are the gradients of the sum of all logits with
    respect to each image, with BatchNorm on the statistics of the batch.

    Returns:
      The correlation matrix ``[B, B]``, NaN where an image has no influence at all; and
      the logits ``[B, classes]``.
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
    """Absolute weights and one image of ones: the network of path weights.

    With BatchNorm skipped every unit is then a sum of non-negative terms, and the sum
    of the logits is the total weight of all paths (Tanaka et al. 2020, section 5).
    """
    images = jnp.ones((1, *batch.images.shape[1:]), jnp.float32)
    return jax.tree.map(jnp.abs, variables), images
