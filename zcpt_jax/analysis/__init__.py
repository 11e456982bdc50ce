"""Agreement of scores with accuracies: rank correlation and the paper's study.

:mod:`~zcpt_jax.analysis.figures` draws both and needs matplotlib.
"""

from zcpt_jax.analysis.correlation import kendall, spearman
from zcpt_jax.analysis.score_networks import score_networks
from zcpt_jax.analysis.study import agreements, get_method, run_trial

__all__ = [
    "agreements",
    "get_method",
    "kendall",
    "run_trial",
    "score_networks",
    "spearman",
]
