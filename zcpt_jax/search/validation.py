"""Stage 2 of the search: the proposals' networks, scored on the same minibatches."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from zcpt_jax.scoring.minibatches import VALIDATION_BLOCK
from zcpt_jax.types import Proxy, ScoreError

ScoreBlock = Callable[[Sequence[str], int, int], np.ndarray]
"""``(n genotypes, start, stop) -> scores [n, stop - start]``, or ``[..., M]``."""


class ValidationMemory(Protocol):
    """Where validation scores are kept, so that an interrupted search goes on."""

    def recall_validation(self, genotype: str, start: int) -> Sequence[Any] | None:
        """Scores of minibatches ``start``, ... of an earlier run, or None."""
        ...

    def keep_validation(self, genotype: str, start: int, scores: np.ndarray) -> None:
        """Takes the scores that were just made."""
        ...


class NoValidationMemory:
    """Forgets everything."""

    def recall_validation(self, genotype: str, start: int) -> None:
        """Returns None."""

    def keep_validation(self, genotype: str, start: int, scores: np.ndarray) -> None:
        """Does nothing."""


def validate(
    genotypes: Sequence[str],
    score: ScoreBlock,
    *,
    num_batches: int,
    together: int = 1,
    memory: ValidationMemory | None = None,
) -> dict[str, np.ndarray]:
    """Scores each distinct genotype on V minibatches (Xiang et al. 2023, stage 2).

    Args:
      genotypes: the proposals, repetitions allowed.
      score: scores genotypes' networks on consecutive minibatches, which are the same
        for all genotypes.
      num_batches: V.
      together: genotypes that are scored at once.
      memory: earlier scores, and where new ones go.

    Returns:
      distinct genotype, in order of appearance, to its scores ``[V]``, or ``[V, M]``
      of an ensemble.
    """
    memory = memory or NoValidationMemory()
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
    """What each genotype is worth: the sum of its scores, higher being better.

    The scores of an ensemble are summed member by member, and then combined.

    Args:
      scores: genotype to ``[V]``, or ``[V, M]`` of an ensemble of M.
      proxy: whose scores they are.

    Returns:
      genotype to one number.

    Raises:
      ScoreError: if a score is infinitely good.
    """
    totals = []
    for genotype, values in scores.items():
        signed = proxy.signed(values)
        best = (signed == np.inf).reshape(len(signed), -1).any(axis=1)
        if best.any():
            raise ScoreError(
                f"the validation score of {genotype} on minibatch "
                f"{int(best.argmax())} is infinite"
            )
        totals.append(signed.sum(axis=0))
    worth = proxy.compare(np.array(totals))
    return dict(zip(scores, worth.tolist(), strict=True))


def best_genotype(worth: Mapping[str, float]) -> str:
    """The genotype that is worth most.

    NaN and minus infinity are passed over, ties go to the first.

    Args:
      worth: genotype to what it is worth.

    Raises:
      ScoreError: if none is worth a finite number.
    """
    finite = {g: value for g, value in worth.items() if np.isfinite(value)}
    if not finite:
        raise ScoreError(f"no proposal has a finite validation score: {dict(worth)}")
    return max(finite, key=lambda genotype: finite[genotype])
