"""What tests share: small networks, batches, tolerances."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from zcpt_jax import masks as mask_algebra
from zcpt_jax.spaces import get_space
from zcpt_jax.types import Batch

CHUNK_RTOL = 1e-5
"""Stated in Scorer: what a score may differ by between chunk sizes.

Forward proxies are equal bit for bit on CPU; gradients are summed in another order.
"""


def tiny_space():
    return get_space("nasbench201", channels=4, cells_per_stage=1)


def batch(size=8, image_size=16, classes=10, seed=0):
    rng = np.random.default_rng(seed)
    images = rng.normal(size=(size, image_size, image_size, 3)).astype(np.float32)
    return Batch(images, rng.integers(classes, size=size).astype(np.int32))


def tiny_supernet(image_size=16):
    space = tiny_space()
    net = space.supernet(10)
    shape = (image_size, image_size, 3)
    variables = space.init_variables(net, jax.random.key(0), shape)
    return space, net, variables


def all_removals(space):
    """Every single-operation perturbation of the undecided masks, [K, E, O]."""
    masks = space.init_masks()
    decisions = [d for p in space.phases() for t in p.tracks for d in t]
    return mask_algebra.stack([mask_algebra.removals(masks, d) for d in decisions])


class PlainNet(nn.Module):
    """A network written by somebody who never heard of this library."""

    classes: int = 5

    @nn.compact
    def __call__(self, x, mask):
        x = nn.Conv(6, (3, 3), use_bias=False)(x)
        x = nn.BatchNorm(use_running_average=False)(x)
        a = nn.relu(nn.Conv(6, (3, 3), use_bias=False)(x))
        b = nn.relu6(nn.Conv(6, (1, 1), use_bias=False)(x))
        x = mask[0] * a + mask[1] * b
        return nn.Dense(self.classes)(jnp.maximum(x, 0).mean((1, 2)))


def plain_net(data):
    net = PlainNet()
    mask = jnp.full((2,), 0.5)
    return net, net.init(jax.random.key(1), jnp.asarray(data.images), mask), mask
