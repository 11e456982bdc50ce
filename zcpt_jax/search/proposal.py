"""Stage 1 of the search: N proposals, each decided edge by edge, in lockstep.

Knows neither space nor proxy: it is handed decisions and a function that scores masks.
"""

import itertools
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from zcpt_jax import masks as mask_algebra
from zcpt_jax.masks import REMOVE, Perturbation
from zcpt_jax.search.edge_orders import EdgeOrder
from zcpt_jax.types import Combine, Decision, InputError, Masks, Phase, ScoreError

_ORDER_STREAM = 0  # keeps the draws of edges apart from those of minibatches

ScoreStep = Callable[[int, Masks, np.ndarray], np.ndarray]
"""``(step, masks [K, ...], proposal [K]) -> scores [K]``, higher is better.

Every proposal has a minibatch of its own at every step. An ensemble of M gives
``[K, M]``.
"""

Permits = Callable[[Masks], bool]
"""Whether masks, decided in part, can still end within all budgets."""


@dataclass(frozen=True)
class Step:
    """One decision of one proposal, or a survey that decides nothing.

    Attributes:
      proposal: which of the N proposals.
      step: counts minibatches; decisions of several tracks share one.
      phase: name of the phase.
      edge: name of what was decided, None for a survey.
      kept: names of the candidates that stay.
      candidates: names of all candidates of ``edge``.
      scores: for each decision that was scored, the score without each candidate, or
        with it alone, as the perturbation is.
    """

    proposal: int
    step: int
    phase: str
    edge: str | None
    kept: tuple[str, ...]
    candidates: tuple[str, ...]
    scores: Mapping[str, tuple[float, ...]]


class Memory(Protocol):
    """Where steps are kept, so that an interrupted search goes on from there."""

    def recall(self, proposal: int, step: int, edge: str) -> Sequence[float] | None:
        """Scores of an earlier run, or None."""
        ...

    def keep(self, steps: Sequence[Step]) -> None:
        """Takes the steps that were just made, all together."""
        ...


class NoMemory:
    """Forgets everything: for searches that are not to be resumed."""

    def recall(self, proposal: int, step: int, edge: str) -> None:
        """Returns None."""

    def keep(self, steps: Sequence[Step]) -> None:
        """Does nothing."""


@dataclass
class _Proposal:
    index: int
    masks: Masks
    undecided: list[int] = field(default_factory=list)
    ranking: list[int] = field(default_factory=list)


def propose(
    masks: Masks,
    phases: Sequence[Phase],
    score: ScoreStep,
    order: EdgeOrder,
    *,
    num_proposals: int,
    seed: int,
    perturbation: Perturbation = REMOVE,
    combine: Combine | None = None,
    memory: Memory | None = None,
    permits: Permits | None = None,
) -> list[Masks]:
    """Decides every edge of N proposals (Xiang et al. 2023, algorithm 1, stage 1).

    An edge keeps the candidate without which the score is lowest, or, with another
    perturbation, the one with which it is highest. A proposal depends on the seed and
    its own index only, not on how many others there are.

    Args:
      masks: the undecided masks.
      phases: the decisions.
      score: scores masks; called once a step (and track) for all proposals together.
      order: which decision comes next.
      num_proposals: N.
      seed: of the random order.
      perturbation: how candidates are compared.
      combine: how an ensemble's scores of the candidates that a step compares become
        one score each.
      memory: earlier scores, and where new ones go.
      permits: which masks a decision may lead to; all by default.

    Returns:
      The decided masks of each proposal.

    Raises:
      ScoreError: if the scores of an edge decide nothing.
      InputError: if ``permits`` leaves an edge no choice.
    """
    run = _Run(
        score,
        order,
        seed,
        perturbation,
        combine,
        memory or NoMemory(),
        permits or (lambda _: True),
    )
    proposals = [_Proposal(index, masks) for index in range(num_proposals)]
    for phase in phases:
        run.phase(phase, proposals)
    return [proposal.masks for proposal in proposals]


class _Run:
    def __init__(
        self,
        score: ScoreStep,
        order: EdgeOrder,
        seed: int,
        perturbation: Perturbation,
        combine: Combine | None,
        memory: Memory,
        permits: Permits,
    ) -> None:
        self.score, self.order, self.seed = score, order, seed
        self.perturbation, self.combine = perturbation, combine
        self.memory, self.permits = memory, permits
        self.step = 0

    def phase(self, phase: Phase, proposals: list[_Proposal]) -> None:
        tracks = [
            [_Proposal(p.index, p.masks, list(range(len(track)))) for p in proposals]
            for track in phase.tracks
        ]
        if self.order.survey == "once":
            for track, states in zip(phase.tracks, tracks, strict=True):
                self._share_masks(proposals, states)
                self._survey(phase.name, track, states)
            self.step += 1
        for _ in range(max(len(track) for track in phase.tracks)):
            for number, (track, states) in enumerate(
                zip(phase.tracks, tracks, strict=True)
            ):
                if states[0].undecided:
                    self._share_masks(proposals, states)
                    self._decide(phase.name, number, track, states)
                    self._share_masks(states, proposals)
            self.step += 1

    @staticmethod
    def _share_masks(source: list[_Proposal], target: list[_Proposal]) -> None:
        for new, old in zip(source, target, strict=True):
            old.masks = new.masks

    def _survey(
        self, phase: str, track: Sequence[Decision], states: list[_Proposal]
    ) -> None:
        asked = [(s, [track[i] for i in s.undecided]) for s in states]
        scores = self._scores(asked)
        steps = []
        for state, found in zip(states, scores, strict=True):
            ranks = self.order.rank([found[track[i].name] for i in state.undecided])
            state.ranking = [state.undecided[rank] for rank in ranks]
            steps.append(self._record(state, phase, None, (), found))
        self.memory.keep(steps)

    def _decide(
        self,
        phase: str,
        number: int,
        track: Sequence[Decision],
        states: list[_Proposal],
    ) -> None:
        asked = [(state, self._to_score(state, number)) for state in states]
        scores = self._scores([(s, [track[i] for i in rows]) for s, rows in asked])
        pending: list[tuple[_Proposal, Decision, Mapping[str, np.ndarray]]] = []
        for (state, rows), found in zip(asked, scores, strict=True):
            chosen = rows[0]
            if len(rows) > 1:
                chosen = rows[self.order.rank([found[track[i].name] for i in rows])[0]]
            state.undecided.remove(chosen)
            pending.append((state, track[chosen], found))
        while pending:  # more than once where candidates go one by one
            pending = self._settle(phase, pending)

    def _settle(
        self,
        phase: str,
        scored: Sequence[tuple[_Proposal, Decision, Mapping[str, np.ndarray]]],
    ) -> list[tuple[_Proposal, Decision, Mapping[str, np.ndarray]]]:
        """Takes scored decisions; returns what is left to decide, scored anew."""
        steps, left = [], []
        for state, decision, found in scored:
            kept = self._choose(state, decision, found[decision.name])
            state.masks = mask_algebra.settle(state.masks, decision, kept)
            names = tuple(decision.candidates[k] for k in kept)
            steps.append(self._record(state, phase, decision, names, found))
            rest = mask_algebra.rest(decision, kept)
            if rest is not None:
                left.append((state, rest))
        self.memory.keep(steps)
        scores = self._scores([(state, [rest]) for state, rest in left])
        return [(s, rest, f) for (s, rest), f in zip(left, scores, strict=True)]

    def _choose(
        self, state: _Proposal, decision: Decision, scores: np.ndarray
    ) -> list[int]:
        where = f"proposal {state.index}, minibatch {self.step}"
        return keep_best(
            scores,
            decision,
            where,
            lambda kept: self.permits(mask_algebra.settle(state.masks, decision, kept)),
            self.perturbation,
        )

    def _to_score(self, state: _Proposal, track: int) -> list[int]:
        if self.order.survey == "each_step":
            return list(state.undecided)
        if self.order.survey == "once":
            return [next(i for i in state.ranking if i in state.undecided)]
        assert self.order.pick is not None
        entropy = [self.seed, _ORDER_STREAM, state.index, self.step]
        entropy += [track] if track else []  # tracks take orders of their own
        return [self.order.pick(np.random.default_rng(entropy), state.undecided)]

    def _scores(
        self, asked: Sequence[tuple[_Proposal, Sequence[Decision]]]
    ) -> list[dict[str, np.ndarray]]:
        """Scores of each asked decision, from memory or by one fused call."""
        found: list[dict[str, np.ndarray]] = []
        missing: list[tuple[int, _Proposal, Decision]] = []
        for row, (state, decisions) in enumerate(asked):
            found.append({})
            for decision in decisions:
                old = self.memory.recall(state.index, self.step, decision.name)
                found[row][decision.name] = np.asarray(old or (), np.float64)
                if old is None:
                    missing.append((row, state, decision))
        if missing:
            stacks = [self.perturbation.apply(s.masks, d) for _, s, d in missing]
            counts = [len(d.candidates) for _, _, d in missing]
            owners = np.repeat([s.index for _, s, _ in missing], counts)
            new = self.score(self.step, mask_algebra.stack(stacks), owners)
            new = self._combine(np.asarray(new, np.float64), owners)
            parts = np.split(new, np.cumsum(counts)[:-1])
            for (row, _, decision), part in zip(missing, parts, strict=True):
                found[row][decision.name] = part
        return found

    def _combine(self, scores: np.ndarray, owners: np.ndarray) -> np.ndarray:
        """One score a mask; an ensemble compares what one proposal asks together."""
        if self.combine is None:
            return scores
        combined = np.empty(len(scores))
        for owner in np.unique(owners):
            combined[owners == owner] = self.combine(scores[owners == owner])
        return combined

    def _record(
        self,
        state: _Proposal,
        phase: str,
        decision: Decision | None,
        kept: tuple[str, ...],
        found: Mapping[str, np.ndarray],
    ) -> Step:
        return Step(
            state.index,
            self.step,
            phase,
            decision.name if decision else None,
            kept,
            decision.candidates if decision else (),
            {name: tuple(float(v) for v in s) for name, s in found.items()},
        )


def keep_best(
    scores: np.ndarray,
    decision: Decision,
    where: str,
    permits: Callable[[list[int]], bool] = lambda kept: True,
    perturbation: Perturbation = REMOVE,
) -> list[int]:
    """The candidates that stay: those whose removal leaves the lowest scores.

    Where each candidate was tried alone instead, those with the highest. Where
    candidates go one by one, all but the worst. NaN is ignored, as ``np.nanargmin``
    does, with a warning; ties go to the first. Minus infinity is the lowest score there
    is: a network that tells no two images apart.

    Args:
      scores: ``[O]``, the score of each candidate's mask, higher is better.
      decision: what is decided.
      where: which proposal and step, for messages.
      permits: which choices are allowed; the best that is allowed is taken, where the
        best score counts most.
      perturbation: what the masks were.

    Returns:
      Their indices, ascending.

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
    worth = -scores if perturbation.lowest_stays else scores
    order = np.argsort(np.where(usable, -worth, np.inf), kind="stable").tolist()
    for choice in itertools.combinations(order[: usable.sum()], keep):
        if permits(sorted(choice)):
            return sorted(choice)
    raise InputError(
        f"no choice on {edge} keeps within all budgets together, though each can be "
        "kept alone; relax one of them"
    )
