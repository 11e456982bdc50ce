"""Scoring of many masks or networks in one compiled call.

:class:`Scorer` scores masks with given weights and minibatches; :class:`Evaluator`
draws both from a seed.
"""

from zcpt_jax.scoring.config import Execution, ScoringConfig
from zcpt_jax.scoring.evaluator import Evaluator
from zcpt_jax.scoring.scorer import Program, Scorer, score_masks

__all__ = [
    "Evaluator",
    "Execution",
    "Program",
    "Scorer",
    "ScoringConfig",
    "score_masks",
]
