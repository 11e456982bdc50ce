"""Condition number and trace of the neural tangent kernel of a batch."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from zcpt_jax.lowering import current
from zcpt_jax.nn import capture
from zcpt_jax.types import ApplyFn, Batch, Proxy, Variables

Weights = Mapping[capture.Path, jax.Array]

_NAMES = ("kernel", "kernels", "scale")
_SLICE = 8
"""Number of images whose gradients are computed together; memory grows with it."""


def ntk_cond(
    apply_fn: ApplyFn, variables: Variables, batch: Batch, masks: Any
) -> jax.Array:
    """Condition number of the NTK: largest over smallest eigenvalue of ``J J^T``.

    Row ``i`` of ``J`` is the gradient of the sum of image ``i``'s logits with respect
    to every convolution, linear layer and BatchNorm scale, with BatchNorm on the
    statistics of the batch (Chen et al. 2021; the parameters are those that PyTorch
    calls "weight", as in the published code). Lower is better.

    The published code divides by a smallest eigenvalue of any sign, and Zero-Cost-PT
    replaces NaN by 1e5. Here the score is ``inf`` if the kernel is singular in float32
    precision. This is the case in the DARTS spaces, where every path ends in a
    BatchNorm before the average over positions: the sum of all images' logits is then
    constant, and the rows of ``J`` sum to zero.

    Args:
      apply_fn: network as a function.
      variables: variables of the network.
      batch: images ``[B, H, W, C]``; the labels are not used.
      masks: architecture weights, one array per group.

    Returns:
      A scalar of at least one; ``inf`` if the smallest eigenvalue is zero, negative or
      within float32 rounding of zero (``B * eps`` times the largest), or if a gradient
      is not finite.

    Raises:
      InputError: if the network has no kernel.
    """

    def row(gradients: Weights) -> list[jax.Array]:
        return [gradient.ravel() for gradient in gradients.values()]

    rows = _of_each_image(row, apply_fn, variables, batch, masks)
    # One product per weight: a product of the whole J would hold J twice in memory.
    values = jnp.linalg.eigvalsh(sum(part @ part.T for part in rows))
    smallest, largest = values[0], values[-1]
    rounding = len(values) * np.finfo(np.float32).eps * largest
    return jnp.where(smallest > rounding, largest / smallest, jnp.inf)


def ntk_trace(
    apply_fn: ApplyFn, variables: Variables, batch: Batch, masks: Any
) -> jax.Array:
    """Trace norm of the NTK: the trace of ``J J^T``.

    With ``J`` of :func:`ntk_cond`, this is the sum over images of the squared gradient
    norm of the image's summed logits. Shu et al. 2022 use all parameters and, to save
    time, the gradient of a batch instead of those of its images. Here biases are left
    out, because those of the classifier contribute the same to every network.

    Args:
      apply_fn: network as a function.
      variables: variables of the network.
      batch: images ``[B, H, W, C]``; the labels are not used.
      masks: architecture weights, one array per group.

    Returns:
      A scalar, non-negative.

    Raises:
      InputError: if the network has no kernel.
    """

    def squared_norm(gradients: Weights) -> jax.Array:
        return jnp.stack([jnp.square(g).sum() for g in gradients.values()]).sum()

    return _of_each_image(squared_norm, apply_fn, variables, batch, masks).sum()


def _of_each_image(
    read: Callable[[Weights], Any],
    apply_fn: ApplyFn,
    variables: Variables,
    batch: Batch,
    masks: Any,
) -> Any:
    """Apply ``read`` to the gradient of each image's summed logits and stack results.

    BatchNorm couples the images of a batch, so each gradient needs a backward pass over
    the whole batch.
    """
    capture.kernels(variables)  # Raises if the network has no kernel.
    flat = traverse_util.flatten_dict(dict(variables["params"]))

    def sums(weights: Weights) -> jax.Array:
        params = traverse_util.unflatten_dict({**flat, **weights})
        logits = capture.forward(
            apply_fn, {**variables, "params": params}, batch.images, masks, norm="batch"
        )
        return logits.sum(axis=1)

    weights = {path: leaf for path, leaf in flat.items() if path[-1] in _NAMES}
    pull_back = jax.vjp(sums, weights)[1]

    def of_image(cotangent: Any) -> Any:
        return read(pull_back(cotangent)[0])

    # One cotangent per image. On CPU, gradients of convolutions take 10 to 30 times as
    # long inside a loop as outside; elsewhere a loop saves compile time.
    ones = np.eye(batch.images.shape[0], dtype=np.float32)
    if current().loops:
        return jax.lax.map(of_image, ones, batch_size=_SLICE)
    slices = [
        jax.vmap(of_image)(ones[start : start + _SLICE])
        for start in range(0, len(ones), _SLICE)
    ]
    return jax.tree.map(lambda *parts: jnp.concatenate(parts), *slices)


NTK_COND = Proxy(
    name="ntk_cond",
    score=ntk_cond,
    norm="batch",
    needs_labels=False,
    data_free=False,
    over_scales=True,
    range="at least 1; inf if the kernel is singular, as in the DARTS spaces",
    reference="Chen et al., TE-NAS, ICLR 2021",
    higher_is_better=False,
)

NTK_TRACE = Proxy(
    name="ntk_trace",
    score=ntk_trace,
    norm="batch",
    needs_labels=False,
    data_free=False,
    over_scales=True,
    range="non-negative",
    reference="Shu et al., NASI, ICLR 2022",
)
