"""How the published PyTorch code scores supernets, written anew as a yardstick.

Xiang et al., Zero-Cost Operation Scoring in Differentiable Architecture Search, AAAI
2023: one perturbation at a time, eager, NCHW. PyTorch is imported nowhere else.
"""

from torch import nn

from benchmarks.torch_reference.darts import Darts
from benchmarks.torch_reference.nasbench201 import NasBench201

SUPERNETS: dict[str, type[nn.Module]] = {"nasbench201": NasBench201, "darts": Darts}
"""The supernets by the name of their space."""
