"""The auxiliary head of the DARTS networks: a second classifier used in training."""

import flax.linen as nn
import jax

from zcpt_jax.nn import layers
from zcpt_jax.nn.capture import ReLU
from zcpt_jax.nn.torch_init import kernel_init
from zcpt_jax.types import InputError

_WINDOW = 5


class AuxiliaryHead(nn.Module):
    """Auxiliary classifier that pools a feature map to 2x2.

    The head of Liu et al., DARTS, ICLR 2019. For ImageNet the second convolution has no
    BatchNorm: the published code, and so its results, omit it. If a large feature map
    leaves several positions, they are averaged.

    Attributes:
      num_classes: number of logits.
      imagenet: whether the head is for 7x7 rather than 8x8 feature maps.
    """

    num_classes: int
    imagenet: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map ``[B, H, W, C]`` to logits ``[B, num_classes]``.

        Raises:
          InputError: if the feature map is too small for the pooling.
        """
        stride = 2 if self.imagenet else 3
        _check(x, _WINDOW + stride)
        x = ReLU(name="relu_1")(x)
        x = nn.avg_pool(x, (_WINDOW, _WINDOW), strides=(stride, stride))
        x = layers.batch_norm(name="norm_1")(layers.Conv(128, 1, name="conv_1")(x))
        x = _Conv2x2(768, name="conv_2")(ReLU(name="relu_2")(x))
        if not self.imagenet:
            x = layers.batch_norm(name="norm_2")(x)
        x = ReLU(name="relu_3")(x).mean(axis=(1, 2))
        return layers.Linear(self.num_classes, name="classifier")(x)


def _check(x: jax.Array, least: int) -> None:
    height, width = x.shape[1:3]
    if min(height, width) < least:
        raise InputError(
            f"the auxiliary head needs a feature map of at least {least}x{least}, got "
            f"{height}x{width}: use larger images, or train without it"
        )


class _Conv2x2(nn.Module):
    """A 2x2 convolution without bias and without padding."""

    features: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map ``[B, H, W, C]`` to ``[B, H-1, W-1, features]``."""
        shape = (2, 2, x.shape[-1], self.features)
        kernel = self.param("kernel", kernel_init, shape)
        dims = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(
            x, kernel, (1, 1), "VALID", dimension_numbers=dims
        )
