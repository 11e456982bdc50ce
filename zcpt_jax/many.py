"""Scoring many networks of a space, in the supernet's weights or in their own.

In the supernet's weights a network is a one-hot mask: all share the weights, BatchNorm
of the cells is not affine, and one compiled function serves all. In its own it is the
discrete network with initial weights of its own, as a search's validation scores it,
and each is compiled by itself.
"""

from collections.abc import Sequence

import numpy as np

from zcpt_jax.evaluator import Evaluator
from zcpt_jax.types import Masks
from zcpt_jax.validation import BLOCK


def score_networks(
    evaluator: Evaluator,
    genotypes: Sequence[str],
    masks: Sequence[Masks] | None,
    num_batches: int,
) -> np.ndarray:
    """Scores networks, the mean over minibatches.

    Args:
      evaluator: of the space, and of a proxy or :func:`zcpt_jax.proxies.jointly` of
        several.
      genotypes: of n networks.
      masks: their decided masks, to score them in the supernet's weights; None for
        discrete networks with weights of their own.
      num_batches: minibatches, the same for all networks.

    Returns:
      ``[n, M]``, the scores of M proxies as they give them.
    """
    if masks is None:
        rows = [
            _network_scores(evaluator, genotype, num_batches) for genotype in genotypes
        ]
        return np.stack(rows)
    stack = {group: np.stack([one[group] for one in masks]) for group in masks[0]}
    owners = np.zeros(len(masks), int)
    total = sum(
        evaluator.score_masks(step, stack, owners) for step in range(num_batches)
    )
    means = np.asarray(total) / num_batches
    # Turned back, to scores as the proxies give them.
    return evaluator.proxy.signed(means).reshape(len(masks), -1)


def _network_scores(
    evaluator: Evaluator, genotype: str, num_batches: int
) -> np.ndarray:
    parts = [
        evaluator.score_network(genotype, start, min(start + BLOCK, num_batches))
        for start in range(0, num_batches, BLOCK)
    ]
    evaluator.forget(genotype)
    return np.concatenate(parts).mean(axis=0).reshape(-1)
