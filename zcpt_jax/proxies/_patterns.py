"""Counts of distinct activation patterns, of images over units or vice versa."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax.errors import FlaxError

from zcpt_jax.nn import capture
from zcpt_jax.types import (
    ApplyFn,
    Array,
    Batch,
    InputError,
    Norm,
    Proxy,
    Variables,
)

_CROPS = 3000
_CROP_SIZES = (4, 8)


class Pattern(NamedTuple):
    """Activation pattern of one ReLU or a stack of ReLUs.

    Attributes:
      active: whether the input is positive, bool ``[B, units]``.
      counts: whether the unit is part of the network, bool ``[units]``.
    """

    active: jax.Array
    counts: jax.Array


def linear_regions(
    apply_fn: ApplyFn, variables: Variables, batch: Batch, masks: Any
) -> jax.Array:
    """Count the linear regions of the network that contain about 3000 tiny gray crops.

    Two crops are in one region if every ReLU unit is active on both or on neither;
    BatchNorm is in evaluation mode (Chen et al. 2021, and as Zero-Cost-PT scores it).
    The published code crops 3x3 pixels of one random channel and feeds them to a copy
    of the network with a one-channel stem; here the channel is repeated, which equals a
    stem whose kernel is the sum over its input channels. The crops have 4x4 pixels, or
    8x8 if the network rejects those, because the networks here halve their images
    without rounding. They lie on the same grid in every image, so that the count does
    not depend on the order of the images. Few and small images give fewer crops.

    With random images or too many units every crop lies in a different region, and the
    score is uninformative.

    Args:
      apply_fn: network as a function. Its :class:`zcpt_jax.nn.ReLU` modules count if an
        operation of non-zero weight reads them; if it has none, every ``max(z, 0)``
        counts, except in normalisation layers
        (:func:`zcpt_jax.nn.capture.read_relus`).
      variables: variables of the network.
      batch: images ``[B, H, W, C]``; the labels are not used.
      masks: architecture weights, one array per group.

    Returns:
      A scalar, a whole number.

    Raises:
      InputError: if the network has no ReLU, has one that cannot be captured, or
        accepts no images as small as 8x8.
    """
    crops = _gray_crops(apply_fn, variables, batch, masks)
    patterns = _patterns(
        "linear_regions", apply_fn, variables, crops, masks, norm="running"
    )
    random = np.random.default_rng(0)
    hashes = []
    for active, counts in patterns:
        factors = _random_factors(random, active.shape[1])
        hashes.append([_hash(active & counts[None], f[None], 1) for f in factors])
    first, second = zip(*hashes, strict=True)
    return _count_distinct(sum(first), sum(second))


def swap(
    apply_fn: ApplyFn, variables: Variables, batch: Batch, masks: Any
) -> jax.Array:
    """Count the distinct activation patterns of the network's units over the images.

    The pattern of a ReLU unit is the set of images on which it is active; the score is
    the number of distinct patterns, with BatchNorm on the statistics of the batch (Peng
    et al. 2024, without their regularisation by the number of parameters). Their code
    leaves ReLU6 out and averages over 32 draws of weights from N(0, 1). They score 16
    images: with many more, nearly every unit has a unique pattern and the score is
    almost the number of units.

    Args:
      apply_fn: network as a function. Its :class:`zcpt_jax.nn.ReLU` modules count if an
        operation of non-zero weight reads them; if it has none, every ``max(z, 0)``
        counts, except in normalisation layers
        (:func:`zcpt_jax.nn.capture.read_relus`).
      variables: variables of the network.
      batch: images ``[B, H, W, C]``; the labels are not used.
      masks: architecture weights, one array per group.

    Returns:
      A scalar, a whole number.

    Raises:
      InputError: if the network has no ReLU, or one that cannot be captured.
    """
    patterns = _patterns("swap", apply_fn, variables, batch.images, masks, norm="batch")
    factors = _random_factors(np.random.default_rng(0), batch.images.shape[0])
    absent = np.uint32(2**32 - 1)
    hashes = [
        jnp.concatenate(
            [
                jnp.where(counts, _hash(active, factor[:, None], 0), absent)
                for active, counts in patterns
            ]
            + [jnp.full(1, absent)]
        )
        for factor in factors
    ]
    return _count_distinct(*hashes) - 1


def _patterns(
    name: str,
    apply_fn: ApplyFn,
    variables: Variables,
    images: Array,
    masks: Any,
    norm: Norm,
) -> list[Pattern]:
    """Activation patterns of every ReLU of a network.

    A ReLU is part of the network if operations of non-zero weight read it. Supernets
    of NAS-Bench-201 share one ReLU among the convolutions that read a node and count
    each convolution's wrapper whatever its weight, so the ReLU is part of the network
    if and only if ``count`` exceeds ``zero_count``.
    """

    def pattern(z: jax.Array, count: Any, zero_count: Any) -> Pattern:
        counts = jnp.asarray(count) > jnp.asarray(zero_count)
        if counts.ndim:  # a stack of ReLUs
            z = jnp.moveaxis(z, 0, 1)
            counts = jnp.repeat(counts, z[0, 0].size)
        active = (z > 0).reshape(z.shape[0], -1)
        return Pattern(active, jnp.broadcast_to(counts, active.shape[1:]))

    found = capture.read_relus(
        apply_fn, variables, images, masks, norm=norm, read=pattern
    )
    if not found:
        raise InputError(
            f"{name} found no ReLU in the network; it counts zcpt_jax.nn.ReLU "
            "modules, and max(z, 0) as nn.relu computes it"
        )
    return found


def _random_factors(random: np.random.Generator, count: int) -> np.ndarray:
    """Factors of two hash functions of ``count`` bits, ``[2, count]``."""
    return random.integers(2**32, size=(2, count), dtype=np.uint32)


def _hash(bits: jax.Array, factors: np.ndarray, axis: int) -> jax.Array:
    """Hash rows of bits by sums of random numbers modulo 2^32.

    Two different rows have the same sum with probability 2^-32, and the same two sums
    with probability 2^-64, so no collision is expected among the 10^12 pairs of a
    million patterns. An exact matrix of agreements would take a thousand times as long.
    """
    return jnp.where(bits, factors, np.uint32(0)).sum(axis=axis, dtype=jnp.uint32)


def _count_distinct(first: jax.Array, second: jax.Array) -> jax.Array:
    """Number of distinct pairs as a float32, exact up to 2^24."""
    a, b = jax.lax.sort((first, second), num_keys=2)
    changes = (a[1:] != a[:-1]) | (b[1:] != b[:-1])
    return changes.sum().astype(jnp.float32) + 1


def _gray_crops(
    apply_fn: ApplyFn, variables: Variables, batch: Batch, masks: Any
) -> jax.Array:
    """Crops of single channels, repeated to ``[N, size, size, C]``."""
    images = jnp.asarray(batch.images)
    count, height, width, channels = images.shape
    size = _crop_size(apply_fn, variables, images.shape, masks)
    places = _grid(height - size + 1, width - size + 1, channels, _CROPS // count)
    top, left, channel = (place[:, None, None] for place in places)
    offset = np.arange(size)
    crops = images[:, top + offset[:, None], left + offset[None], channel]
    crops = crops.reshape(-1, size, size, 1)
    return jnp.broadcast_to(crops, (*crops.shape[:3], channels))


def _crop_size(
    apply_fn: ApplyFn, variables: Variables, shape: tuple[int, ...], masks: Any
) -> int:
    refused: Exception | None = None
    for size in _CROP_SIZES:
        if size > min(shape[1:3]):
            break
        crop = jax.ShapeDtypeStruct((2, size, size, shape[3]), jnp.float32)

        def run(images: Array) -> jax.Array:
            return capture.forward(apply_fn, variables, images, masks, norm="running")

        try:
            jax.eval_shape(run, crop)
        except (ValueError, TypeError, FlaxError) as error:
            refused = error
        else:
            return size
    reason = f" ({refused})" if refused else ""
    raise InputError(
        "linear_regions counts the regions that crops of 4x4 or 8x8 pixels lie in, and "
        f"this network takes no such crops of images {shape[1]}x{shape[2]}{reason}; "
        "larger crops would all lie in regions of their own: use another proxy"
    ) from refused


def _grid(rows: int, columns: int, channels: int, count: int) -> Sequence[np.ndarray]:
    """About ``count`` crops, at least one, as top rows, left columns and channels."""
    count = min(max(count, 1), rows * columns * channels)
    side = 1
    while min(side, rows) * min(side, columns) * channels < count:
        side += 1
    places = np.meshgrid(
        np.linspace(0, rows - 1, min(side, rows)).round().astype(int),
        np.linspace(0, columns - 1, min(side, columns)).round().astype(int),
        np.arange(channels),
        indexing="ij",
    )
    chosen = np.linspace(0, places[0].size - 1, count).round().astype(int)
    return [place.ravel()[chosen] for place in places]


LINEAR_REGIONS = Proxy(
    name="linear_regions",
    score=linear_regions,
    norm="running",
    needs_labels=False,
    data_free=False,
    forward_only=True,
    range="1 to about 3000, the number of crops",
    reference="Chen et al., TE-NAS, ICLR 2021",
)

SWAP = Proxy(
    name="swap",
    score=swap,
    norm="batch",
    needs_labels=False,
    data_free=False,
    forward_only=True,
    range="1 to the number of units, at most 2^B",
    reference="Peng et al., SWAP-NAS, ICLR 2024",
)
