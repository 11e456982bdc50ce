"""Rules by which scores decide which candidates of a decision stay."""

import itertools
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from zcpt_jax.masks import REMOVE, Perturbation
from zcpt_jax.types import Array, Decision, InputError, Masks, ScoreError


@dataclass(frozen=True)
class DecisionRule:
    """Rule by which the scores of a decision's candidates decide which of them stay.

    Attributes:
      perturbation: perturbation that compares candidates: each removed, or each alone.
      comparable: function from raw scores ``[n]``, or ``[n, M]`` of an ensemble, to
        ``[n]``, higher is better (``Proxy.comparable``).
      permits: predicate of allowed, partly decided masks; by default all are allowed.
    """

    perturbation: Perturbation = REMOVE
    comparable: Callable[[Array], np.ndarray] = np.asarray
    permits: Callable[[Masks], bool] = lambda masks: True

    def strengths(self, scores: Array) -> np.ndarray:
        """Convert scores to ``[n]``, where the candidate to keep has the highest."""
        return self.perturbation.strengths(self.comparable(scores))


def compare_together(
    scores: Mapping[str, Array], comparable: Callable[[Array], np.ndarray]
) -> dict[str, np.ndarray]:
    """Make the scores of several decisions comparable, all with each other.

    Args:
      scores: map from the name of a decision to the raw scores of its candidates.
      comparable: function as in :class:`DecisionRule`.
    """
    parts = [np.asarray(part) for part in scores.values()]
    together = comparable(np.concatenate(parts))
    split = np.split(together, np.cumsum([len(part) for part in parts])[:-1])
    return dict(zip(scores, split, strict=True))


def keep_best(
    scores: np.ndarray,
    decision: Decision,
    where: str,
    permits: Callable[[list[int]], bool] = lambda kept: True,
    perturbation: Perturbation = REMOVE,
) -> list[int]:
    """Return the candidates that stay: those whose removal gives the lowest scores.

    If each candidate was tried alone instead, those with the highest scores stay. If
    candidates are dropped one by one, all but the worst stay. NaN is ignored with a
    warning, as in ``np.nanargmin``; ties go to the first. Minus infinity is the lowest
    possible score: a network that cannot distinguish any two images.

    Args:
      scores: ``[O]``, score of each candidate's mask, higher is better.
      decision: the decision to take.
      where: proposal and step, for messages.
      permits: predicate of allowed choices; the best allowed choice is taken, compared
        by its best score first.
      perturbation: perturbation that made the masks.

    Returns:
      Indices of the candidates that stay, ascending.

    Raises:
      ScoreError: if too few scores are numbers, one is plus infinity, or all are minus
        infinity.
      InputError: if no choice is allowed.
    """
    scores = np.asarray(scores)
    keep = len(scores) - 1 if decision.one_by_one else decision.keep
    edge = f"edge {decision.name}, {where}"
    listed = dict(zip(decision.candidates, scores.tolist(), strict=True))
    usable = ~np.isnan(scores)
    if usable.sum() < keep or (scores[usable] == -np.inf).all():
        raise ScoreError(f"no usable score for {edge}: {listed}")
    if (scores == np.inf).any():
        names = [name for name, value in listed.items() if value == np.inf]
        raise ScoreError(
            f"the score {perturbation.name} {names[0]} is infinite for {edge}: {listed}"
        )
    if not usable.all():
        names = [c for c, ok in zip(decision.candidates, usable, strict=True) if not ok]
        warnings.warn(
            f"the score {perturbation.name} {', '.join(names)} is NaN for {edge}; "
            "ignored",
            stacklevel=2,
        )
    strengths = perturbation.strengths(scores)
    order = np.argsort(np.where(usable, -strengths, np.inf), kind="stable").tolist()
    for choice in itertools.combinations(order[: usable.sum()], keep):
        if permits(sorted(choice)):
            return sorted(choice)
    raise InputError(
        f"no choice on {edge} keeps within all budgets together, though each can be "
        "kept alone; relax one of them"
    )
