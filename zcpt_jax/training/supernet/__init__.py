"""Alternating training of a supernet's weights and alphas, as in first-order DARTS.

Liu et al., DARTS, ICLR 2019, section 2.3 with xi = 0, with the settings of Wang et al.,
Rethinking Architecture Selection in Differentiable NAS, ICLR 2021, for the supernets of
``darts-pt``. Architecture weights are the softmax of the alphas.
"""

from zcpt_jax.io.checkpoints import read_metrics
from zcpt_jax.search.operation_scores import Trained, mixture
from zcpt_jax.training.supernet._config import SupernetConfig
from zcpt_jax.training.supernet._train import load_supernet, train_supernet

__all__ = [
    "SupernetConfig",
    "Trained",
    "load_supernet",
    "mixture",
    "read_metrics",
    "train_supernet",
]
