"""Records of a search's scores, and memories from which a search resumes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

Scores = tuple[Any, ...]
"""Raw scores of a proxy: one number each, or M numbers each for an ensemble of M."""


@dataclass(frozen=True)
class DecisionRecord:
    """One decision of one proposal, or a survey, which takes no decision.

    Attributes:
      proposal: index of the proposal among N.
      step: index of the minibatch; decisions of several tracks share one.
      phase: name of the phase.
      edge: name of the decision, None for a survey.
      kept: names of the candidates that stay; empty if the scores allowed no decision.
      candidates: names of all candidates of ``edge``.
      scores: for each scored decision, the raw score without each candidate or with it
        alone, depending on the perturbation.
    """

    proposal: int
    step: int
    phase: str
    edge: str | None
    kept: tuple[str, ...]
    candidates: tuple[str, ...]
    scores: Mapping[str, Scores]


class Memory(Protocol):
    """Store of raw scores from which an interrupted search resumes."""

    def recall(self, proposal: int, step: int, edge: str) -> Sequence[Any] | None:
        """Return an earlier run's scores of a decision's candidates, or None."""
        ...

    def keep(self, records: Sequence[DecisionRecord]) -> None:
        """Store the decisions that were just taken, all together."""
        ...

    def recall_validation(self, genotype: str, start: int) -> Sequence[Any] | None:
        """Return an earlier run's scores of minibatches from ``start``, or None."""
        ...

    def keep_validation(self, genotype: str, start: int, scores: np.ndarray) -> None:
        """Store validation scores that were just computed."""
        ...


class NoMemory:
    """Memory that stores nothing, for searches that will not be resumed."""

    def recall(self, proposal: int, step: int, edge: str) -> None:
        """Return None."""

    def keep(self, records: Sequence[DecisionRecord]) -> None:
        """Do nothing."""

    def recall_validation(self, genotype: str, start: int) -> None:
        """Return None."""

    def keep_validation(self, genotype: str, start: int, scores: np.ndarray) -> None:
        """Do nothing."""
