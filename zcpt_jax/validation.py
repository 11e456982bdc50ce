"""Stage 2 of the search: the proposals' networks, scored on the same minibatches."""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import numpy as np

from zcpt_jax.types import ScoreError

BLOCK = 10
"""Minibatches in memory at once: 100 of ImageNet's size would be 4 GB."""

ScoreBlock = Callable[[str, int, int], np.ndarray]
"""``(genotype, start, stop) -> scores [stop - start]``, higher is better."""


class ValidationMemory(Protocol):
    """Where validation scores are kept, so that an interrupted search goes on."""

    def recall_validation(self, genotype: str, start: int) -> Sequence[float] | None:
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
    memory: ValidationMemory | None = None,
) -> dict[str, np.ndarray]:
    """Scores each distinct genotype on V minibatches (Xiang et al. 2023, stage 2).

    Args:
      genotypes: the proposals, repetitions allowed.
      score: scores one genotype's network on consecutive minibatches, which are the
        same for all genotypes.
      num_batches: V.
      memory: earlier scores, and where new ones go.

    Returns:
      distinct genotype, in order of appearance, to its scores ``[V]``.
    """
    memory = memory or NoValidationMemory()
    distinct = list(dict.fromkeys(genotypes))
    blocks: dict[str, list[np.ndarray]] = {genotype: [] for genotype in distinct}
    for start in range(0, num_batches, BLOCK):
        stop = min(start + BLOCK, num_batches)
        for genotype in distinct:
            old = memory.recall_validation(genotype, start)
            if old is None:
                new = score(genotype, start, stop)
                memory.keep_validation(genotype, start, new)
            found = new if old is None else old
            blocks[genotype].append(np.asarray(found, np.float64))
    return {genotype: np.concatenate(parts) for genotype, parts in blocks.items()}


def best_genotype(scores: Mapping[str, np.ndarray]) -> str:
    """The genotype with the highest sum of scores.

    NaN and minus infinity are passed over, ties go to the first.

    Args:
      scores: genotype to ``[V]``.

    Raises:
      ScoreError: if a score is plus infinity, or no sum is a finite number.
    """
    totals = {genotype: float(np.sum(values)) for genotype, values in scores.items()}
    for genotype, values in scores.items():
        if (values == np.inf).any():
            batch = int(np.flatnonzero(values == np.inf)[0])
            raise ScoreError(
                f"the validation score of {genotype} on minibatch {batch} is infinite"
            )
    finite = {g: value for g, value in totals.items() if np.isfinite(value)}
    if not finite:
        raise ScoreError(f"no proposal has a finite validation score: {totals}")
    return max(finite, key=lambda genotype: finite[genotype])
