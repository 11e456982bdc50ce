"""Scoring of many networks of a space, with the supernet's weights or their own.

With the supernet's weights, a network is a one-hot mask: all networks share the
weights, and BatchNorm in the cells is not affine. With its own weights, it is the
discrete network with separate initial weights, as in a search's validation. One
compiled function serves all networks in both cases, except with own weights in spaces
without a masked network, where each network is compiled by itself.
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
    """Score networks by the mean over minibatches.

    Args:
      evaluator: evaluator of the space and of a proxy, or of several by
        :func:`zcpt_jax.proxies.jointly`.
      genotypes: genotypes of n networks.
      masks: discretised masks of the networks; may be None with own weights, see
        :meth:`zcpt_jax.scoring.Evaluator.score_networks`.
      num_batches: number of minibatches, which are the same for all networks.
      own_weights: whether each network has its own initial weights; otherwise all have
        those of the supernet.

    Returns:
      Raw scores ``[n, M]`` of M proxies.
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
        evaluator.drop(genotype)
    return np.concatenate(parts, axis=1).mean(axis=1).reshape(len(genotypes), -1)
