"""Stage 1 of the search: N proposals, each decided edge by edge, in lockstep.

Knows neither space nor proxy: it is handed decisions and a function that scores masks.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from zcpt_jax import masks as mask_algebra
from zcpt_jax.orders import EdgeOrder
from zcpt_jax.types import Decision, Masks, Phase, ScoreError

_ORDER_STREAM = 0  # keeps the draws of edges apart from those of minibatches

ScoreStep = Callable[[int, Masks, np.ndarray], np.ndarray]
"""``(step, masks [K, ...], proposal [K]) -> scores [K]``, higher is better.

Every proposal has a minibatch of its own at every step.
"""


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
      scores: for each decision that was scored, the score without each candidate.
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
    memory: Memory | None = None,
) -> list[Masks]:
    """Decides every edge of N proposals (Xiang et al. 2023, algorithm 1, stage 1).

    An edge keeps the candidate without which the score is lowest. A proposal depends
    on the seed and its own index only, not on how many others there are.

    Args:
      masks: the undecided masks.
      phases: the decisions.
      score: scores masks; called once a step (and track) for all proposals together.
      order: which decision comes next.
      num_proposals: N.
      seed: of the random order.
      memory: earlier scores, and where new ones go.

    Returns:
      The decided masks of each proposal.

    Raises:
      ScoreError: if the scores of an edge decide nothing.
    """
    run = _Run(score, order, seed, memory or NoMemory())
    proposals = [_Proposal(index, masks) for index in range(num_proposals)]
    for phase in phases:
        run.phase(phase, proposals)
    return [proposal.masks for proposal in proposals]


class _Run:
    def __init__(
        self, score: ScoreStep, order: EdgeOrder, seed: int, memory: Memory
    ) -> None:
        self.score, self.order, self.seed, self.memory = score, order, seed, memory
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
        scores = self._scores(track, [(s, s.undecided) for s in states])
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
        scores = self._scores(track, asked)
        steps = []
        for (state, indices), found in zip(asked, scores, strict=True):
            if len(indices) > 1:
                first = self.order.rank([found[track[i].name] for i in indices])[0]
                chosen = indices[first]
            else:
                chosen = indices[0]
            decision = track[chosen]
            where = f"proposal {state.index}, minibatch {self.step}"
            kept = keep_lowest(found[decision.name], decision, where)
            state.masks = mask_algebra.settle(state.masks, decision, kept)
            state.undecided.remove(chosen)
            names = tuple(decision.candidates[k] for k in kept)
            steps.append(self._record(state, phase, decision, names, found))
        self.memory.keep(steps)

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
        self,
        track: Sequence[Decision],
        asked: Sequence[tuple[_Proposal, Sequence[int]]],
    ) -> list[dict[str, np.ndarray]]:
        """Scores of each asked decision, from memory or by one fused call."""
        found: list[dict[str, np.ndarray]] = []
        missing: list[tuple[int, _Proposal, Decision]] = []
        for row, (state, indices) in enumerate(asked):
            found.append({})
            for decision in (track[index] for index in indices):
                old = self.memory.recall(state.index, self.step, decision.name)
                found[row][decision.name] = np.asarray(old or (), np.float64)
                if old is None:
                    missing.append((row, state, decision))
        if missing:
            stacks = [mask_algebra.removals(s.masks, d) for _, s, d in missing]
            counts = [len(d.candidates) for _, _, d in missing]
            owners = np.repeat([s.index for _, s, _ in missing], counts)
            new = self.score(self.step, mask_algebra.stack(stacks), owners)
            parts = np.split(np.asarray(new, np.float64), np.cumsum(counts)[:-1])
            for (row, _, decision), part in zip(missing, parts, strict=True):
                found[row][decision.name] = part
        return found

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


def keep_lowest(scores: np.ndarray, decision: Decision, where: str) -> list[int]:
    """The candidates that stay: those whose removal leaves the lowest scores.

    NaN is ignored, as ``np.nanargmin`` does, with a warning; ties go to the first.
    Minus infinity is the lowest score there is: without that candidate the network
    tells no two images apart.

    Args:
      scores: ``[O]``, the score without each candidate, higher is better.
      decision: what is decided.
      where: which proposal and step, for messages.

    Returns:
      ``decision.keep`` indices, ascending.

    Raises:
      ScoreError: if too few scores are numbers, one is plus infinity, or all are minus
        infinity.
    """
    scores = np.asarray(scores)
    edge = f"edge {decision.name}, {where}"
    listed = dict(zip(decision.candidates, scores.tolist(), strict=True))
    usable = ~np.isnan(scores)
    if usable.sum() < decision.keep or (scores[usable] == -np.inf).all():
        raise ScoreError(f"no usable score for {edge}: {listed}")
    if (scores == np.inf).any():
        names = [name for name, value in listed.items() if value == np.inf]
        raise ScoreError(
            f"the score without {names[0]} is infinite for {edge}: {listed}"
        )
    if not usable.all():
        names = [c for c, ok in zip(decision.candidates, usable, strict=True) if not ok]
        warnings.warn(
            f"the score without {', '.join(names)} is NaN for {edge}; ignored",
            stacklevel=2,
        )
    lowest = np.argsort(np.where(usable, scores, np.inf), kind="stable")
    return sorted(int(index) for index in lowest[: decision.keep])
