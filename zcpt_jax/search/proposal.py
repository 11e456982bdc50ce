"""Stage 1 of the search: N proposals, decided edge by edge in lockstep.

This module is independent of space and proxy: it receives decisions and a function that
scores masks.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from zcpt_jax import masks as mask_algebra
from zcpt_jax.search.decision_rule import DecisionRule, compare_together, keep_best
from zcpt_jax.search.edge_orders import EdgeOrder
from zcpt_jax.search.memory import DecisionRecord, Memory, NoMemory
from zcpt_jax.types import Decision, Masks, Phase, ScoreError

_ORDER_STREAM = 0  # separates the draws of edges from those of minibatches

ScoreStep = Callable[[int, Masks, np.ndarray], np.ndarray]
"""Function ``(step, masks [K, ...], proposal [K]) -> raw scores [K]``.

Every proposal has a separate minibatch at every step. For an ensemble of M, scores are
``[K, M]``.
"""


@dataclass
class _Proposal:
    """A partly decided proposal.

    Attributes:
      index: index of the proposal.
      masks: current masks.
      remaining: for each track, indices of the decisions not yet taken.
      ranking: for each track, the order found by a survey.
      dropped: reason for dropping the proposal, None if it was not dropped.
    """

    index: int
    masks: Masks
    remaining: list[list[int]] = field(default_factory=list)
    ranking: list[list[int]] = field(default_factory=list)
    dropped: str | None = None


_Scores = dict[str, np.ndarray]
"""Map from the name of a decision to the raw scores of its candidates."""


def propose(
    masks: Masks,
    phases: Sequence[Phase],
    score: ScoreStep,
    order: EdgeOrder,
    *,
    num_proposals: int,
    seed: int,
    rule: DecisionRule | None = None,
    memory: Memory | None = None,
) -> list[Masks | None]:
    """Decide every edge of N proposals (Xiang et al. 2023, algorithm 1, stage 1).

    An edge keeps the candidate without which the score is lowest or, with another
    perturbation, the one with which it is highest. A proposal depends only on the seed
    and its index, not on the number of proposals. A proposal whose scores allow no
    decision is dropped with a warning.

    Args:
      masks: undecided masks.
      phases: phases with all decisions.
      score: function that scores masks; called once per step (and track) for all
        proposals together.
      order: edge order, which determines the next decision.
      num_proposals: number N of proposals.
      seed: seed of random edge orders.
      rule: rule by which scores decide; by default the candidate stays without which
        the score is lowest.
      memory: store of earlier and new scores.

    Returns:
      The discretised masks of each proposal, None for one that was dropped.

    Raises:
      ScoreError: if all proposals were dropped.
      InputError: if the rule permits no candidate of an edge.
    """
    run = _Run(score, order, seed, rule or DecisionRule(), memory or NoMemory())
    proposals = [_Proposal(index, masks) for index in range(num_proposals)]
    for phase in phases:
        run.phase(phase, proposals)
    _left(proposals)
    return [p.masks if p.dropped is None else None for p in proposals]


class _Run:
    def __init__(
        self,
        score: ScoreStep,
        order: EdgeOrder,
        seed: int,
        rule: DecisionRule,
        memory: Memory,
    ) -> None:
        self.score, self.order, self.seed = score, order, seed
        self.rule, self.memory = rule, memory
        self.step = 0

    def phase(self, phase: Phase, proposals: list[_Proposal]) -> None:
        for proposal in proposals:
            proposal.remaining = [list(range(len(track))) for track in phase.tracks]
            proposal.ranking = [[] for _ in phase.tracks]
        if self.order.survey == "once":
            for number, track in enumerate(phase.tracks):
                self._survey(phase.name, number, track, _left(proposals))
            self.step += 1
        for round_ in range(max(len(track) for track in phase.tracks)):
            for number, track in enumerate(phase.tracks):
                if round_ < len(track):
                    self._decide(phase.name, number, track, _left(proposals))
            self.step += 1

    def _survey(
        self,
        phase: str,
        number: int,
        track: Sequence[Decision],
        proposals: list[_Proposal],
    ) -> None:
        scores = self._scores([(p, track) for p in proposals])
        records = []
        for proposal, found in zip(proposals, scores, strict=True):
            comparable = self._comparable(found)
            ranks = self.order.rank([comparable[d.name] for d in track])
            proposal.ranking[number] = list(ranks)
            records.append(self._record(proposal, phase, None, (), found))
        self.memory.keep(records)

    def _decide(
        self,
        phase: str,
        number: int,
        track: Sequence[Decision],
        proposals: list[_Proposal],
    ) -> None:
        asked = [(p, self._to_score(p, number)) for p in proposals]
        scores = self._scores([(p, [track[i] for i in rows]) for p, rows in asked])
        pending: list[tuple[_Proposal, Decision, _Scores]] = []
        for (proposal, rows), found in zip(asked, scores, strict=True):
            chosen = rows[0]
            if len(rows) > 1:
                comparable = self._comparable(found)
                ranks = self.order.rank([comparable[track[i].name] for i in rows])
                chosen = rows[ranks[0]]
            proposal.remaining[number].remove(chosen)
            pending.append((proposal, track[chosen], found))
        while pending:  # repeats if candidates are dropped one by one
            pending = self._apply(phase, pending)

    def _apply(
        self,
        phase: str,
        scored: Sequence[tuple[_Proposal, Decision, _Scores]],
    ) -> list[tuple[_Proposal, Decision, _Scores]]:
        """Apply scored decisions; return the remaining decisions, scored again."""
        records, again = [], []
        for proposal, decision, found in scored:
            kept = self._choose(proposal, decision, found)
            if kept is None:
                records.append(self._record(proposal, phase, decision, (), found))
                continue
            proposal.masks = mask_algebra.apply_decision(proposal.masks, decision, kept)
            names = tuple(decision.candidates[k] for k in kept)
            records.append(self._record(proposal, phase, decision, names, found))
            rest = mask_algebra.remaining_decision(decision, kept)
            if rest is not None:
                again.append((proposal, rest))
        self.memory.keep(records)
        scores = self._scores([(proposal, [rest]) for proposal, rest in again])
        return [(p, rest, f) for (p, rest), f in zip(again, scores, strict=True)]

    def _choose(
        self, proposal: _Proposal, decision: Decision, found: _Scores
    ) -> list[int] | None:
        """Return the candidates that stay, or None if the proposal is dropped."""

        def permits(kept: list[int]) -> bool:
            masks = mask_algebra.apply_decision(proposal.masks, decision, kept)
            return self.rule.permits(masks)

        where = f"proposal {proposal.index}, minibatch {self.step}"
        try:
            return keep_best(
                self._comparable(found)[decision.name],
                decision,
                where,
                permits,
                self.rule.perturbation,
            )
        except ScoreError as error:
            proposal.dropped = str(error)
            warnings.warn(f"dropped proposal {proposal.index}: {error}", stacklevel=2)
            return None

    def _to_score(self, proposal: _Proposal, track: int) -> list[int]:
        remaining = proposal.remaining[track]
        if self.order.survey == "each_step":
            return list(remaining)
        if self.order.survey == "once":
            return [next(i for i in proposal.ranking[track] if i in remaining)]
        assert self.order.pick is not None
        entropy = [self.seed, _ORDER_STREAM, proposal.index, self.step]
        entropy += [track] if track else []  # each track has its own order
        return [self.order.pick(np.random.default_rng(entropy), remaining)]

    def _scores(
        self, asked: Sequence[tuple[_Proposal, Sequence[Decision]]]
    ) -> list[_Scores]:
        """Return scores of the requested decisions, from memory or one fused call."""
        found: list[_Scores] = []
        missing: list[tuple[int, _Proposal, Decision]] = []
        for row, (proposal, decisions) in enumerate(asked):
            found.append({})
            for decision in decisions:
                old = self.memory.recall(proposal.index, self.step, decision.name)
                found[row][decision.name] = np.asarray(old or (), np.float64)
                if old is None:
                    missing.append((row, proposal, decision))
        if missing:
            perturb = self.rule.perturbation.apply
            stacks = [perturb(p.masks, decision) for _, p, decision in missing]
            counts = [len(d.candidates) for _, _, d in missing]
            owners = np.repeat([p.index for _, p, _ in missing], counts)
            new = self.score(self.step, mask_algebra.stack(stacks), owners)
            parts = np.split(np.asarray(new, np.float64), np.cumsum(counts)[:-1])
            for (row, _, decision), part in zip(missing, parts, strict=True):
                found[row][decision.name] = part
        return found

    def _comparable(self, found: _Scores) -> _Scores:
        """Make a proposal's scores comparable; an ensemble compares all together."""
        return compare_together(found, self.rule.comparable)

    def _record(
        self,
        proposal: _Proposal,
        phase: str,
        decision: Decision | None,
        kept: tuple[str, ...],
        found: _Scores,
    ) -> DecisionRecord:
        return DecisionRecord(
            proposal.index,
            self.step,
            phase,
            decision.name if decision else None,
            kept,
            decision.candidates if decision else (),
            {name: _as_tuple(scores.tolist()) for name, scores in found.items()},
        )


def _left(proposals: Sequence[_Proposal]) -> list[_Proposal]:
    left = [proposal for proposal in proposals if proposal.dropped is None]
    if not left:
        why = proposals[0].dropped
        raise ScoreError(f"all proposals were dropped; the first: {why}")
    return left


def _as_tuple(values: list[Any]) -> tuple[Any, ...]:
    return tuple(_as_tuple(v) if isinstance(v, list) else v for v in values)
