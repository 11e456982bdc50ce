"""Layers as PyTorch has them, and looking inside networks of any kind.

:mod:`~zcpt_jax.nn.capture` sees what layers compute, :mod:`~zcpt_jax.nn.zero_weights`
leaves out operations of weight zero, :mod:`~zcpt_jax.nn.layers` and
:mod:`~zcpt_jax.nn.windows` are convolutions and pools,
:mod:`~zcpt_jax.nn.torch_init` draws initial weights,
:mod:`~zcpt_jax.nn.train_forward` is a pass on batch statistics, and
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
