"""Flax modules that mark places of a network for interception."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp


class ReLU(nn.Module):
    """A ReLU that tells activation-pattern proxies how often it is counted.

    Supernets share one ReLU among many operations and block zero-weight operations, so
    one tensor represents several ReLUs of the published code.

    Attributes:
      cap: upper limit of the output: 6 for a ReLU6, None for a ReLU.
    """

    cap: float | None = None

    @nn.compact
    def __call__(
        self, z: jax.Array, count: Any = 1.0, zero_count: Any = 0.0
    ) -> jax.Array:
        """Apply the ReLU.

        Args:
          z: input ``[B, ...]``, or a stack ``[E, B, ...]`` of E inputs.
          count: number of ReLUs with input ``z``; a number or a scalar array, ``[E]``
            for a stack.
          zero_count: number of ReLUs with an all-zero input of this shape.

        Returns:
          ``max(z, 0)``, at most ``cap``, independent of ``count`` and ``zero_count``.
        """
        del count, zero_count
        return nn.relu(z) if self.cap is None else jnp.minimum(nn.relu(z), self.cap)


class CutPoint(nn.Module):
    """Marker of states through which the whole network passes, as a cell's inputs.

    The newest state is the output of a block: the stem or a cell. Proxies whose values
    exceed float32 rescale the states. This requires the layers after it to be
    homogeneous without BatchNorm: no bias before the last linear layer, no ReLU6.

    Attributes:
      newest: index of the state that was computed last.
      homogeneous: whether states may be rescaled here.
    """

    newest: int = 0
    homogeneous: bool = True

    @nn.compact
    def __call__(self, *states: jax.Array) -> tuple[jax.Array, ...]:
        """Return the states unchanged, as a tuple."""
        return states


class DropPath(nn.Module):
    """Marker of an operation's output, whose path training may drop.

    The module itself is an identity without cost. Training intercepts the call, drops
    the path for whole images and scales up the others.
    """

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Return ``x``, ``[B, H, W, C]``, unchanged."""
        return x


class GlobalAverage(nn.Module):
    """Global average pooling before the classifier; marks the last feature map."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map ``[B, H, W, C]`` to ``[B, C]``."""
        return x.mean(axis=(1, 2))
