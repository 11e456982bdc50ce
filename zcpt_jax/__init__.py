"""Zero-Cost-PT in JAX: training-free neural architecture search.

What most research code needs is here. :mod:`~zcpt_jax.spaces` and
:mod:`~zcpt_jax.proxies` hold what is searched and what scores;
:mod:`~zcpt_jax.scoring` and :mod:`~zcpt_jax.search` are the method.
"""

from zcpt_jax._version import __version__
from zcpt_jax.data import load_dataset
from zcpt_jax.nn.size import count_flops, count_params
from zcpt_jax.proxies import PROXIES, get_proxy
from zcpt_jax.scoring import Execution, Scorer, ScoringConfig, score_masks
from zcpt_jax.search import SearchConfig, SearchResult, zero_cost_pt
from zcpt_jax.search.budgets import make_budgets
from zcpt_jax.spaces import SPACES, get_space
from zcpt_jax.types import Batch, Proxy

__all__ = [
    "PROXIES",
    "SPACES",
    "Batch",
    "Execution",
    "Proxy",
    "Scorer",
    "ScoringConfig",
    "SearchConfig",
    "SearchResult",
    "count_flops",
    "count_params",
    "get_proxy",
    "get_space",
    "load_dataset",
    "make_budgets",
    "score_masks",
    "zero_cost_pt",
    "__version__",
]
