"""Zen: sensitivity of the last feature map to the images, corrected for BatchNorm."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from zcpt_jax.nn import capture
from zcpt_jax.proxies._common import Kernels
from zcpt_jax.proxies._inputs import noise_images
from zcpt_jax.types import ApplyFn, Array, Batch, Proxy, Variables

_IMAGES = 16
_STEP = 0.01


def zen(apply_fn: ApplyFn, variables: Variables, batch: Batch, masks: Any) -> jax.Array:
    """Sum of ``log E|f(x + a e) - f(x)|`` and the logarithms of BatchNorm's divisors.

    ``f`` is the feature map before the global average (the logits of a network without
    :class:`zcpt_jax.nn.GlobalAverage`), ``x`` and ``e`` are 16 noise images each,
    ``a`` = 0.01 and ``|.|`` sums over the feature map. BatchNorm uses the statistics of
    the batch, and each adds the logarithm of the square root of its input's variance,
    averaged over channels (Lin et al. 2021, as in their code).

    Differences from the published code: it draws all weights from N(0, 1); here each
    given kernel is divided by its root mean square, which brings it to that scale. With
    PyTorch's small initial kernels the logarithms are negative and every layer lowers
    the score: over 100 small NAS-Bench-201 networks the rank correlation with accuracy
    is then -0.63, and 0.72 at the published scale. The variances are those of ``x``
    rather than running averages. A BatchNorm counts if a path of non-zero weight leads
    from it to the features, so that a supernet with one operation per edge scores as
    the discrete network does. One draw of noise replaces 32 of noise and weights.

    Args:
      apply_fn: network as a function.
      variables: variables of the network.
      batch: minibatch; only the shape of its images and its key are used. Without a key
        the noise is the same every time.
      masks: architecture weights, one array per group.

    Returns:
      A scalar; ``-inf`` for a network whose output does not depend on its input.
    """
    noise = noise_images(batch, 2 * _IMAGES)
    images, moved = noise[:_IMAGES], noise[:_IMAGES] + _STEP * noise[_IMAGES:]
    layers: list[capture.Path] = []

    def run(images: Array, gains: Any = None) -> tuple[jax.Array, list[jax.Array]]:
        return _features_and_scales(apply_fn, variables, images, masks, gains, layers)

    def energy(gains: Any) -> tuple[jax.Array, Any]:
        features, scales = run(images, gains)
        return jnp.square(features).sum(), (features, scales)

    shapes = jax.eval_shape(run, images)[1]
    variables = _at_unit_scale(layers, apply_fn, variables, images, masks)
    gains = [np.ones(scale.shape, np.float32) for scale in shapes]
    flow, (features, scales) = jax.grad(energy, has_aux=True)(gains)
    distance = jnp.abs(run(moved)[0] - features).sum() / _IMAGES
    counted = [
        jnp.where(used != 0, scale, 0).sum()
        for used, scale in zip(flow, scales, strict=True)
    ]
    return sum(counted, jnp.log(distance))


def _at_unit_scale(
    layers: list[capture.Path],
    apply_fn: ApplyFn,
    variables: Variables,
    images: Array,
    masks: Any,
) -> Variables:
    """Divide each layer's kernel by its root mean square."""

    def split(kernels: Kernels) -> Kernels:
        return capture.by_layer(kernels, layers, apply_fn, variables, images, masks)

    # The transpose of ``split`` joins the kernels of a loop's iterations.
    kernels, join = jax.vjp(split, capture.kernels(variables))
    scaled = {}
    for path, kernel in kernels.items():
        size = jnp.sqrt(jnp.square(kernel).mean())
        scaled[path] = kernel / jnp.where(size > 0, size, 1)
    return capture.with_kernels(variables, join(scaled)[0])


def _features_and_scales(
    apply_fn: ApplyFn,
    variables: Variables,
    images: Array,
    masks: Any,
    gains: Any,
    layers: list[capture.Path],
) -> tuple[jax.Array, list[jax.Array]]:
    """Features, and the logarithm of each BatchNorm's divisor.

    Args:
      apply_fn: network as a function.
      variables: variables of the network.
      images: images ``[B, H, W, C]``.
      masks: architecture weights, one array per group.
      gains: factor of the output of each BatchNorm, None for no factors.
      layers: list that receives the paths of the layers.

    Returns:
      Features, and the logarithms in order of execution: a scalar each, ``[E]`` for a
      BatchNorm of a stack.
    """
    features: list[jax.Array] = []
    scales: list[jax.Array] = []

    def keep(x: jax.Array) -> jax.Array:
        features.append(x)
        return x

    def measure(x: jax.Array, out: jax.Array, apart: tuple[int, ...]) -> jax.Array:
        variance = x.var(axis=[a for a in range(x.ndim) if a not in apart])
        scales.append(jnp.log(variance.mean(axis=-1)) / 2)
        if gains is None:
            return out
        gain = gains[len(scales) - 1]
        return out * gain.reshape(gain.shape + (1,) * (x.ndim - gain.ndim))

    logits = capture.forward(
        apply_fn,
        variables,
        images,
        masks,
        norm="batch",
        on_kernel=lambda path, kernel: layers.append(path),
        on_norm=measure,
        on_features=keep,
    )
    return (features or [logits])[-1], scales


ZEN = Proxy(
    name="zen",
    score=zen,
    norm="batch",
    needs_labels=False,
    data_free=True,
    draws=True,
    range="any, grows with depth and width",
    reference="Lin et al., Zen-NAS, ICCV 2021",
)
