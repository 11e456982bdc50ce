"""MeCo: linear independence of the channels of feature maps."""

from typing import Any

import jax
import jax.numpy as jnp

from zcpt_jax.nn import capture
from zcpt_jax.proxies._inputs import noise_images
from zcpt_jax.proxies._reach import reach
from zcpt_jax.proxies._spectra import eigenvalues
from zcpt_jax.types import ApplyFn, Batch, InputError, Proxy, Variables


def meco(
    apply_fn: ApplyFn, variables: Variables, batch: Batch, masks: Any
) -> jax.Array:
    """Sum over layers of the smallest eigenvalue of their channels' correlations.

    The correlations are Pearson's, between the channels of a convolution's output for
    one noise image, with BatchNorm on that image's statistics; those of a constant
    channel are zero (Jiang et al. 2023).

    The published code captures the output of every module, so a BatchNorm, which does
    not change correlations, and its enclosing module count the convolution again; here
    only convolutions that are part of the network under the masks count. It uses a
    64x64 image; here the image has the size of the batch's images. A layer with no more
    positions than channels scores zero, as its channels are linearly dependent. Every
    other layer costs one eigenvalue problem of the size of its channels.

    Args:
      apply_fn: network as a function.
      variables: variables of the network.
      batch: minibatch; only the shape of its images and its key are used.
      masks: architecture weights, one array per group.

    Returns:
      A scalar.

    Raises:
      InputError: if no layer has more positions than channels.
    """
    maps: list[tuple[capture.Path, jax.Array]] = []

    def look(path: capture.Path, out: jax.Array) -> jax.Array:
        if out.ndim == 4 and out.shape[-1] < out.shape[1] * out.shape[2]:
            maps.append((path, out[0]))
        return out

    image = noise_images(batch, 1)
    capture.forward(apply_fn, variables, image, masks, norm="batch", on_layer=look)
    if not maps:
        raise InputError(
            "meco needs a convolution whose output has more positions than channels; "
            f"there is none for images of {image.shape[1]}x{image.shape[2]}"
        )
    reached = reach(apply_fn, variables, batch, masks)
    spectra = eigenvalues([_correlations(one) for _, one in maps])
    smallest = [
        values[0] * reached[path]
        for (path, _), values in zip(maps, spectra, strict=True)
    ]
    return jnp.stack(smallest).sum()


def _correlations(one: jax.Array) -> jax.Array:
    """Pearson correlations ``[C, C]`` of the channels of a map ``[H, W, C]``."""
    rows = one.reshape(-1, one.shape[-1])
    rows = rows - rows.mean(axis=0, keepdims=True)
    norms = jnp.linalg.norm(rows, axis=0, keepdims=True)
    rows = rows / jnp.where(norms > 0, norms, 1)
    return rows.T @ rows


MECO = Proxy(
    name="meco",
    score=meco,
    norm="batch",
    needs_labels=False,
    data_free=True,
    draws=True,
    range="between 0 and the number of layers",
    reference="Jiang et al., MeCo: Zero-Shot NAS with One Data and Single Forward Pass "
    "via Minimum Eigenvalue of Correlation, NeurIPS 2023",
)
