"""Scores that a search has made: what is recorded of them, and who remembers them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

Scores = tuple[Any, ...]
"""Scores as the proxy gives them: a number each, an ensemble M numbers each."""


@dataclass(frozen=True)
class DecisionRecord:
    """One decision of one proposal, or a survey that decides nothing.

    Attributes:
      proposal: which of the N proposals.
      step: counts minibatches; decisions of several tracks share one.
      phase: name of the phase.
      edge: name of the decision, None for a survey.
      kept: names of the candidates that stay; none if the scores decided nothing.
      candidates: names of all candidates of ``edge``.
      scores: for each decision that was scored, the score without each candidate, or
        with it alone, as the perturbation is. Scores are as the proxy gives them.
    """

    proposal: int
    step: int
    phase: str
    edge: str | None
    kept: tuple[str, ...]
    candidates: tuple[str, ...]
    scores: Mapping[str, Scores]


class Memory(Protocol):
    """Keeps scores as proxies give them, so that an interrupted search goes on."""

    def recall(self, proposal: int, step: int, edge: str) -> Sequence[Any] | None:
        """Return the scores of a decision's candidates of an earlier run, or None."""
        ...

    def keep(self, records: Sequence[DecisionRecord]) -> None:
        """Take the decisions that were just made, all together."""
        ...

    def recall_validation(self, genotype: str, start: int) -> Sequence[Any] | None:
        """Return scores of minibatches ``start``, ... of an earlier run, or None."""
        ...

    def keep_validation(self, genotype: str, start: int, scores: np.ndarray) -> None:
        """Take validation scores that were just made."""
        ...


class NoMemory:
    """Forgets everything: for searches that are not to be resumed."""

    def recall(self, proposal: int, step: int, edge: str) -> None:
        """Return None."""

    def keep(self, records: Sequence[DecisionRecord]) -> None:
        """Do nothing."""

    def recall_validation(self, genotype: str, start: int) -> None:
        """Return None."""

    def keep_validation(self, genotype: str, start: int, scores: np.ndarray) -> None:
        """Do nothing."""
