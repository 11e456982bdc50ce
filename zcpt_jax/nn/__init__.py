"""PyTorch-like layers, and capture of intermediates in any network.

:mod:`~zcpt_jax.nn.capture` intercepts what layers compute,
:mod:`~zcpt_jax.nn.zero_weights` skips zero-weight operations,
:mod:`~zcpt_jax.nn.layers` and :mod:`~zcpt_jax.nn.windows` have convolutions and
pooling, :mod:`~zcpt_jax.nn.torch_init` draws initial weights,
:mod:`~zcpt_jax.nn.train_forward` runs a network on batch statistics, and
:mod:`~zcpt_jax.nn.size` counts parameters and multiply-adds.
"""

from zcpt_jax.nn.capture import (
    CutPoint,
    DropPath,
    GlobalAverage,
    ReLU,
    forward,
    kernels,
)
from zcpt_jax.nn.size import count_flops, count_params

__all__ = [
    "CutPoint",
    "DropPath",
    "GlobalAverage",
    "ReLU",
    "count_flops",
    "count_params",
    "forward",
    "kernels",
]
