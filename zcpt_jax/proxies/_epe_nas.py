"""EPE-NAS: correlation of the network's responses to images of one class."""

from typing import Any

import jax
import jax.numpy as jnp

from zcpt_jax.proxies._common import image_correlations
from zcpt_jax.types import ApplyFn, Batch, Proxy, Variables

_EPS = 1e-5
_MANY_CLASSES = 100


def epe_nas(
    apply_fn: ApplyFn, variables: Variables, batch: Batch, masks: Any
) -> jax.Array:
    """Sum over classes of ``|sum log(|corr| + k)|`` over the class's correlations.

    The correlated rows are those of :func:`zcpt_jax.proxies.jacob_cov`: the gradients
    of the sum of all logits with respect to each image, with BatchNorm on the
    statistics of the batch; k = 1e-5. The correlations of a class are those between its
    own images (Lopes et al. 2021). With more than 100 classes, each class's sum is
    divided by its number of images, classes of a single image do not count, and the
    score is the sum over all ordered pairs of classes of the absolute difference,
    divided by the number of classes. All of this follows the published code.

    Like jacob_cov it is undefined in the DARTS spaces, where every path ends in a
    BatchNorm before the average over positions: the sum of all logits does not depend
    on the images, and only correlations of rounding errors remain.

    Args:
      apply_fn: network as a function.
      variables: variables of the network.
      batch: images ``[B, H, W, C]`` and labels ``[B]``.
      masks: architecture weights, one array per group.

    Returns:
      A scalar, non-negative; NaN if an image has no influence at all, and, with more
      than 100 classes, if no two images have the same label.
    """
    correlations, logits = image_correlations(apply_fn, variables, batch, masks)
    correlations = jnp.abs(jnp.clip(correlations, -1, 1))
    # The number of classes and their sizes are unknown at compile time, so every image
    # represents its class with weight 1/size.
    labels = jnp.asarray(batch.labels)
    same = (labels[:, None] == labels[None]).astype(correlations.dtype)
    size = same.sum(axis=1)
    total = same @ (same * jnp.log(correlations + _EPS)).sum(axis=1)
    if logits.shape[1] <= _MANY_CLASSES:
        return (jnp.abs(total) / size).sum()
    share = jnp.where(size > 1, 1 / size, 0)
    mean = total / size
    apart = jnp.abs(mean[:, None] - mean[None])
    return (share[:, None] * share[None] * apart).sum() / share.sum()


EPE_NAS = Proxy(
    name="epe_nas",
    score=epe_nas,
    norm="batch",
    needs_labels=True,
    data_free=False,
    range="non-negative, grows with the images of each class",
    reference="Lopes et al., EPE-NAS, ICANN 2021",
)
