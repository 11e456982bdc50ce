"""Zero-Cost-PT: proposals by perturbation, then validation.

:func:`zero_cost_pt` is the whole search. :func:`propose` and :func:`validate` are its
two stages, for any masks and scores.
"""

from zcpt_jax.search._zero_cost_pt import SearchResult, zero_cost_pt
from zcpt_jax.search.budgets import Budget, make_budgets
from zcpt_jax.search.config import SearchConfig
from zcpt_jax.search.decision_rule import DecisionRule
from zcpt_jax.search.edge_orders import ORDERS, get_order
from zcpt_jax.search.memory import DecisionRecord, Memory, NoMemory
from zcpt_jax.search.operation_scores import OPERATION_SCORES, get_operation_score
from zcpt_jax.search.proposal import propose
from zcpt_jax.search.validation import validate

__all__ = [
    "OPERATION_SCORES",
    "ORDERS",
    "Budget",
    "DecisionRecord",
    "DecisionRule",
    "Memory",
    "NoMemory",
    "SearchConfig",
    "SearchResult",
    "get_operation_score",
    "get_order",
    "make_budgets",
    "propose",
    "validate",
    "zero_cost_pt",
]
