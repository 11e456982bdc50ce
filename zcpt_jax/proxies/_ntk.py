"""The neural tangent kernel of a batch: its condition number and its trace."""

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
"""Images whose gradients are computed side by side: memory grows with it."""


def ntk_cond(
    apply_fn: ApplyFn, variables: Variables, batch: Batch, masks: Any
) -> jax.Array:
    """Largest over smallest eigenvalue of ``J J^T``, the condition of the NTK.

    Row ``i`` of ``J`` is the gradient of the sum of image ``i``'s logits with respect
    to every convolution, linear layer and BatchNorm scale, with BatchNorm on the
    statistics of the batch (Chen et al. 2021; the parameters are those that PyTorch
    calls "weight", as in the published code). Lower is better.

    The published code divides by a smallest eigenvalue of any sign, and Zero-Cost-PT
    puts 1e5 in the place of NaN. Here a kernel that float32 cannot tell from a singular
    one has no condition number: the score is ``inf``. So it is in the DARTS spaces,
    whose every path ends in a BatchNorm before the average over positions: the sum of
    all images' logits is fixed then, the rows of ``J`` sum to zero.

    Args:
      apply_fn: the network.
      variables: its variables.
      batch: images ``[B, H, W, C]``; the labels are not used.
      masks: operation weights.

    Returns:
      A scalar of at least one, ``inf`` where the smallest eigenvalue is zero, negative
      or within float32 rounding of zero (``B * eps`` times the largest), and where a
      gradient is not finite.

    Raises:
      InputError: if the network has no kernel.
    """

    def row(gradients: Weights) -> list[jax.Array]:
        return [gradient.ravel() for gradient in gradients.values()]

    rows = _of_each_image(row, apply_fn, variables, batch, masks)
    # A product a weight: one over all of them would need J twice in memory.
    values = jnp.linalg.eigvalsh(sum(part @ part.T for part in rows))
    smallest, largest = values[0], values[-1]
    rounding = len(values) * np.finfo(np.float32).eps * largest
    return jnp.where(smallest > rounding, largest / smallest, jnp.inf)


def ntk_trace(
    apply_fn: ApplyFn, variables: Variables, batch: Batch, masks: Any
) -> jax.Array:
    """Trace of ``J J^T``, which is the NTK's trace norm.

    With ``J`` as in :func:`ntk_cond`, the sum over images of the squared norm of the
    gradient of the image's summed logits. Shu et al. 2022 take all parameters and, to
    save time, the gradient of a batch instead of those of its images; biases are left
    out here, those of the classifier being the same for every network.

    Args:
      apply_fn: the network.
      variables: its variables.
      batch: images ``[B, H, W, C]``; the labels are not used.
      masks: operation weights.

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
    """What ``read`` makes of the gradient of each image's summed logits, stacked.

    BatchNorm ties the images of a batch to each other, so that each gradient takes a
    backward pass over the whole batch.
    """
    capture.kernels(variables)  # refuses a network that has none
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

    # Cotangents, one an image. On CPU gradients of convolutions inside a loop take 10
    # to 30 times as long as outside; elsewhere a loop saves compilation.
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
