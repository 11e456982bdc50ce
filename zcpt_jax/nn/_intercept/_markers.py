"""Flax modules that mark places of a network, and change nothing themselves."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp


class ReLU(nn.Module):
    """A ReLU that tells activation-pattern proxies how often it counts.

    Supernets share one ReLU among many operations and block operations of weight
    zero, so that one tensor stands for several ReLUs of the published code.

    Attributes:
      cap: where the output is cut off: 6 for a ReLU6, None for a ReLU.
    """

    cap: float | None = None

    @nn.compact
    def __call__(
        self, z: jax.Array, count: Any = 1.0, zero_count: Any = 0.0
    ) -> jax.Array:
        """Applies the ReLU.

        Args:
          z: ``[B, ...]``, or a stack ``[E, B, ...]`` of E of them.
          count: how many ReLUs see ``z``; a number or a scalar array, ``[E]`` for a
            stack.
          zero_count: how many ReLUs see a tensor of this shape that is all zeros.

        Returns:
          ``max(z, 0)``, at most ``cap``. ``count`` and ``zero_count`` do not enter it.
        """
        del count, zero_count
        return nn.relu(z) if self.cap is None else jnp.minimum(nn.relu(z), self.cap)


class CutPoint(nn.Module):
    """Marks states through which the whole network passes, such as a cell's inputs.

    The newest of them is the output of a block: of the stem, or of a cell. Proxies
    whose values grow beyond float32 rescale the states; what follows has to be
    homogeneous for that once BatchNorm is skipped: no bias before the last linear
    layer, no ReLU6.

    Attributes:
      newest: which of the states was computed last.
      homogeneous: whether states may be rescaled here.
    """

    newest: int = 0
    homogeneous: bool = True

    @nn.compact
    def __call__(self, *states: jax.Array) -> tuple[jax.Array, ...]:
        """Returns the states unchanged, as a tuple."""
        return states


class DropPath(nn.Module):
    """Marks the output of an operation, whose path training may drop.

    Here it does nothing and costs nothing: regularisation is the training's, which
    intercepts the call, drops whole images of the path and scales the others up.
    """

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns ``x``, ``[B, H, W, C]``, unchanged."""
        return x


class GlobalAverage(nn.Module):
    """The average over positions before the classifier; marks the last feature map."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps ``[B, H, W, C]`` to ``[B, C]``."""
        return x.mean(axis=(1, 2))
