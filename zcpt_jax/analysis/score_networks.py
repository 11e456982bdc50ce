"""Scoring many networks of a space, in the supernet's weights or in their own.

In the supernet's weights a network is a one-hot mask: all share the weights, and
BatchNorm of the cells is not affine. In its own it is the discrete network with initial
weights of its own, as a search's validation scores it. One compiled function serves all
networks either way, but in spaces without a masked network, where each is compiled by
itself in its own weights.
"""

from collections.abc import Sequence

import numpy as np

from zcpt_jax.scoring.evaluator import Evaluator
from zcpt_jax.scoring.minibatches import VALIDATION_BLOCK
from zcpt_jax.types import Masks


def score_networks(
    evaluator: Evaluator,
    genotypes: Sequence[str],
    masks: Sequence[Masks] | None,
    num_batches: int,
    *,
    own_weights: bool,
) -> np.ndarray:
    """Scores networks, the mean over minibatches.

    Args:
      evaluator: of the space, and of a proxy or :func:`zcpt_jax.proxies.jointly` of
        several.
      genotypes: of n networks.
      masks: their decided masks; may be None with weights of their own, see
        :meth:`zcpt_jax.scoring.Evaluator.score_networks`.
      num_batches: minibatches, the same for all networks.
      own_weights: whether each has initial weights of its own, or all have those of the
        supernet.

    Returns:
      ``[n, M]``, the scores of M proxies as they give them.
    """
    if own_weights:
        return _in_own_weights(evaluator, genotypes, masks, num_batches)
    assert masks is not None
    stack = {group: np.stack([one[group] for one in masks]) for group in masks[0]}
    owners = np.zeros(len(masks), int)
    total = sum(
        evaluator.score_masks(step, stack, owners) for step in range(num_batches)
    )
    return (np.asarray(total) / num_batches).reshape(len(masks), -1)


def _in_own_weights(
    evaluator: Evaluator,
    genotypes: Sequence[str],
    masks: Sequence[Masks] | None,
    num_batches: int,
) -> np.ndarray:
    parts = [
        evaluator.score_networks(
            genotypes, masks, start, min(start + VALIDATION_BLOCK, num_batches)
        )
        for start in range(0, num_batches, VALIDATION_BLOCK)
    ]
    for genotype in genotypes:
        evaluator.forget(genotype)
    return np.concatenate(parts, axis=1).mean(axis=1).reshape(len(genotypes), -1)
