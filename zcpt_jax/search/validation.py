"""Stage 2 of the search: the proposals' networks, scored on the same minibatches."""

import warnings
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from zcpt_jax.scoring.minibatches import VALIDATION_BLOCK
from zcpt_jax.search.memory import Memory, NoMemory
from zcpt_jax.types import Proxy, ScoreError

ScoreBlock = Callable[[Sequence[str], int, int], np.ndarray]
"""Function ``(n genotypes, start, stop) -> scores [n, stop - start]``, or ``[..., M]``
for an ensemble of M."""


def validate(
    genotypes: Sequence[str],
    score: ScoreBlock,
    *,
    num_batches: int,
    together: int = 1,
    memory: Memory | None = None,
) -> dict[str, np.ndarray]:
    """Score each distinct genotype on V minibatches (Xiang et al. 2023, stage 2).

    Args:
      genotypes: genotypes of the proposals; repetitions are allowed.
      score: function that scores genotypes' networks on consecutive minibatches, which
        are the same for all genotypes.
      num_batches: number V of minibatches.
      together: number of genotypes scored at once.
      memory: store of earlier and new scores.

    Returns:
      Map from distinct genotype, in order of appearance, to its scores ``[V]``, or
      ``[V, M]`` for an ensemble.
    """
    memory = memory or NoMemory()
    distinct = list(dict.fromkeys(genotypes))
    blocks: dict[str, list[np.ndarray]] = {genotype: [] for genotype in distinct}
    for start in range(0, num_batches, VALIDATION_BLOCK):
        stop = min(start + VALIDATION_BLOCK, num_batches)
        old = {g: memory.recall_validation(g, start) for g in distinct}
        missing = [genotype for genotype in distinct if old[genotype] is None]
        for first in range(0, len(missing), together):
            some = missing[first : first + together]
            for genotype, new in zip(some, score(some, start, stop), strict=True):
                memory.keep_validation(genotype, start, new)
                old[genotype] = new
        for genotype in distinct:
            blocks[genotype].append(np.asarray(old[genotype], np.float64))
    return {genotype: np.concatenate(parts) for genotype, parts in blocks.items()}


def total_scores(scores: Mapping[str, np.ndarray], proxy: Proxy) -> dict[str, float]:
    """Return each genotype's total score: the sum of its scores, higher is better.

    The scores of an ensemble are summed for each member and then combined. A genotype
    with an infinitely good score is treated as having no score, with a warning, because
    no network is that good.

    Args:
      scores: map from genotype to ``[V]``, or ``[V, M]`` for an ensemble of M.
      proxy: the proxy that gave the scores.

    Returns:
      Map from genotype to its total score.
    """
    totals = []
    for genotype, values in scores.items():
        signed = proxy.signed(values)
        infinite = (signed == np.inf).reshape(len(signed), -1).any(axis=1)
        if infinite.any():
            warnings.warn(
                f"dropped {genotype}: its validation score on minibatch "
                f"{int(infinite.argmax())} is infinite",
                stacklevel=2,
            )
            signed = np.full_like(signed, np.nan)
        totals.append(signed.sum(axis=0))
    combined = proxy.combined(np.array(totals))
    return dict(zip(scores, combined.tolist(), strict=True))


def best_genotype(worth: Mapping[str, float]) -> str:
    """Return the genotype with the highest total score.

    NaN and minus infinity are skipped; ties go to the first.

    Args:
      worth: map from genotype to its total score.

    Raises:
      ScoreError: if no total score is finite.
    """
    finite = {g: value for g, value in worth.items() if np.isfinite(value)}
    if not finite:
        raise ScoreError(f"no proposal has a finite validation score: {dict(worth)}")
    return max(finite, key=lambda genotype: finite[genotype])
