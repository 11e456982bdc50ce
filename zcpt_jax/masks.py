"""Mask algebra: pure functions on architecture weights.

Masks map a group to an array ``[E, O]`` of architecture weights. An undecided edge
holds ``1/O`` in every entry and a discretised edge is one-hot. Removing an operation
sets its entry to zero and leaves the others unchanged, without renormalising (Xiang et
al. 2023, section 4.1, and the authors' published code).

The functions run on the host, on NumPy arrays: they are the bookkeeping of a search,
not part of the traced computation.
"""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from zcpt_jax.types import Array, Decision, InputError, Masks


def undecided(edges: int, ops: int) -> np.ndarray:
    """Return uniform architecture weights.

    The published supernets use the softmax of 1e-3 * N(0, 1), which is 1/O to three
    digits; we use 1/O exactly.

    Args:
      edges: number of edges E.
      ops: number of candidate operations O of each edge.

    Returns:
      float32 ``[E, O]``, every entry ``1/O``.
    """
    return np.full((edges, ops), 1.0 / ops, np.float32)


def edge_decisions(
    group: str, edges: Sequence[str], candidates: Sequence[Sequence[str]]
) -> tuple[Decision, ...]:
    """Return one decision per edge of a mask group, each keeping one operation.

    Args:
      group: name of the mask group.
      edges: names of its E edges.
      candidates: names of each edge's operations, which take the first of the mask's O
        columns or all of them.

    Returns:
      One decision per edge, in the order of ``edges``.
    """
    width = max(len(ops) for ops in candidates)
    decisions = []
    for row, (edge, ops) in enumerate(zip(edges, candidates, strict=True)):
        region = np.zeros((len(ops), len(edges), width), bool)
        region[np.arange(len(ops)), row, np.arange(len(ops))] = True
        decisions.append(Decision(edge, tuple(ops), {group: region}))
    return tuple(decisions)


def removals(masks: Masks, decision: Decision) -> Masks:
    """Return the masks with each candidate of a decision removed in turn.

    Args:
      masks: map from group to ``[E, O]``.
      decision: the decision whose O candidates are removed.

    Returns:
      Map from group to ``[O, E, O]``; entry ``o`` is the mask without candidate ``o``.
    """
    count = len(decision.candidates)

    def remove(group: str, weights: Array) -> np.ndarray:
        stacked = np.repeat(np.asarray(weights)[None], count, axis=0)
        region = decision.regions.get(group)
        return stacked if region is None else np.where(region, 0, stacked)

    return {group: remove(group, weights) for group, weights in masks.items()}


def discretisations(masks: Masks, decision: Decision) -> Masks:
    """Return the masks discretised to each candidate of a decision in turn.

    Args:
      masks: map from group to ``[E, O]``.
      decision: the decision whose O candidates are tried.

    Returns:
      Map from group to ``[O, E, O]``; in entry ``o`` only candidate ``o`` remains, with
      weight 1.
    """
    count = range(len(decision.candidates))
    alone = [_keep(masks, decision, [index], final=True) for index in count]
    return {group: np.stack([one[group] for one in alone]) for group in masks}


@dataclasses.dataclass(frozen=True)
class Perturbation:
    """Perturbation of masks by which the candidates of a decision are compared.

    Attributes:
      name: word for messages about a candidate's score, as in "the score without it".
      apply: function from masks and a decision to a mask for each candidate.
      lowest_stays: whether the candidate with the lowest score stays; otherwise the
        one with the highest.
    """

    name: str
    apply: Callable[[Masks, Decision], Masks]
    lowest_stays: bool

    def strengths(self, comparable: np.ndarray) -> np.ndarray:
        """Turn comparable scores ``[n]`` so that the candidate to keep is highest."""
        return -comparable if self.lowest_stays else comparable


REMOVE = Perturbation("without", removals, lowest_stays=True)
"""Remove each candidate; the one whose removal costs most stays."""

DISCRETISE = Perturbation("with only", discretisations, lowest_stays=False)
"""Try each candidate alone; the best one stays."""


def apply_decision(masks: Masks, decision: Decision, kept: Sequence[int]) -> Masks:
    """Apply a decision to masks.

    Entries of dropped candidates become zero. Once only ``decision.keep`` candidates
    remain, their nonzero entries become one.

    Args:
      masks: map from group to ``[E, O]``.
      decision: the decision taken.
      kept: indices of the candidates that stay: ``decision.keep`` of them, or more if
        candidates are dropped one by one.

    Returns:
      Map from group to ``[E, O]``, new arrays.

    Raises:
      InputError: if ``kept`` names a candidate that does not exist, or their number is
        not as stated above.
    """
    count = len(decision.candidates)
    final = len(set(kept)) == decision.keep
    partial = decision.one_by_one and len(set(kept)) > decision.keep
    if not (final or partial) or not set(kept) <= set(range(count)):
        raise InputError(
            f"decision {decision.name!r} keeps {decision.keep} of the candidates "
            f"0..{count - 1}, got {list(kept)}"
        )
    return _keep(masks, decision, kept, final)


def _keep(
    masks: Masks, decision: Decision, kept: Sequence[int], final: bool
) -> dict[str, np.ndarray]:
    """Drop all but the kept candidates; ``final`` sets their nonzero entries to 1."""
    result = {}
    for group, array in masks.items():
        weights = np.asarray(array)
        region = decision.regions.get(group)
        if region is not None:
            stays = region[list(kept)].any(axis=0)
            goes = region.any(axis=0) & ~stays
            weights = np.where(goes, 0, weights)
            if final:
                weights = np.where(stays & (weights != 0), 1, weights)
        result[group] = weights.astype(np.float32)
    return result


def remaining_decision(decision: Decision, kept: Sequence[int]) -> Decision | None:
    """Return the remaining decision when candidates are dropped one by one.

    Args:
      decision: the decision of which the candidates ``kept`` remain.
      kept: indices of the remaining candidates.

    Returns:
      The decision among those, or None if no more candidates are to be dropped.
    """
    if len(kept) <= decision.keep:
        return None
    name = decision.name.removesuffix(f" ({len(decision.candidates)} left)")
    name += f" ({len(kept)} left)"
    names = tuple(decision.candidates[index] for index in kept)
    regions = {group: region[list(kept)] for group, region in decision.regions.items()}
    return dataclasses.replace(decision, name=name, candidates=names, regions=regions)


def stack(many: Sequence[Masks]) -> Masks:
    """Concatenate stacks of masks ``[K_i, ...]`` into one ``[sum K_i, ...]``."""
    return {group: np.concatenate([m[group] for m in many]) for group in many[0]}


def one_hot(choices: np.ndarray, ops: int) -> np.ndarray:
    """Return the discretised mask with one operation per edge.

    Args:
      choices: int ``[E]``, the index of the operation on each edge.
      ops: number of candidate operations O.

    Returns:
      float32 ``[E, O]``.
    """
    return np.eye(ops, dtype=np.float32)[np.asarray(choices)]


def chosen(weights: Array, group: str) -> np.ndarray:
    """Return the operation on each edge of a discretised mask.

    Args:
      weights: architecture weights ``[E, O]``.
      group: name of the group, for the error message.

    Returns:
      int ``[E]``.

    Raises:
      InputError: if an edge is not one-hot.
    """
    weights = np.asarray(weights)
    decided = (np.count_nonzero(weights, axis=-1) == 1) & (weights.max(-1) == 1)
    if not decided.all():
        row = int(np.flatnonzero(~decided)[0])
        raise InputError(
            f"edge {row} of mask group {group!r} is not decided: {weights[row]}; "
            "a genotype needs exactly one operation of weight 1 on every edge"
        )
    return weights.argmax(axis=-1)
