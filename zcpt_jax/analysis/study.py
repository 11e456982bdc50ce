"""Study of how well each operation score agrees with the ground truth.

Xiang et al. 2023, section 3: for each edge, the rank correlation of its operations'
scores with best-acc and avg-acc, on the undecided supernet ("initial") and while edges
are being decided ("progressive").
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np

from zcpt_jax import masks as mask_algebra
from zcpt_jax.analysis.correlation import Interval, kendall, mean_interval, spearman
from zcpt_jax.masks import DISCRETISE
from zcpt_jax.proxies import get_proxy
from zcpt_jax.scoring.evaluator import Evaluator
from zcpt_jax.search.decision_rule import DecisionRule
from zcpt_jax.search.edge_orders import EdgeOrder
from zcpt_jax.search.memory import DecisionRecord, NoMemory
from zcpt_jax.search.operation_scores import (
    ACCURACY,
    Accuracies,
    OperationScore,
    Setting,
    Trained,
    get_operation_score,
)
from zcpt_jax.search.proposal import ScoreStep, propose
from zcpt_jax.types import (
    Decision,
    InputError,
    Masks,
    Proxy,
    ScoreError,
    Space,
    Variables,
)

REFERENCES: dict[str, Callable[[np.ndarray], Any]] = {
    "best-acc": np.max,
    "avg-acc": np.mean,
}
"""References for scorers: statistics of accuracies of networks with an operation."""

MODES = ("initial", "progressive")


@dataclass(frozen=True)
class Method:
    """Scorer in the study: an operation score and its proxy, if it uses one.

    Attributes:
      name: name such as ``zc-pt(nwot)`` or ``darts``.
      operation: the operation score.
      proxy: the proxy, None for operation scores that use none.
    """

    name: str
    operation: OperationScore
    proxy: Proxy | None

    @property
    def rule(self) -> DecisionRule:
        """Rule by which its scores decide."""
        comparable = self.proxy.comparable if self.proxy else np.asarray
        return DecisionRule(self.operation.perturbation, comparable)


def get_method(name: str) -> Method:
    """Return a scorer by name: ``zc-pt(nwot)``, ``disc-zc(synflow)``, ``darts`` etc.

    Raises:
      InputError: if the name is not of this form, or its parts are unknown.
    """
    found = re.fullmatch(r"([a-z-]+)(?:\(([\w+]+)\))?", name)
    if not found:
        raise InputError(
            f"{name!r} is no scorer; expected the form zc-pt(nwot), or darts"
        )
    operation = get_operation_score(found[1])
    if (operation.needs == "proxy") != (found[2] is not None):
        raise InputError(
            f"scorer {name!r}: {operation.name} "
            + (
                f"scores by a proxy, as in {operation.name}(nwot)"
                if operation.needs == "proxy"
                else "uses no proxy"
            )
        )
    return Method(name, operation, get_proxy(found[2]) if found[2] else None)


class Line(NamedTuple):
    """Scores of one scorer for one decision, with the ground truth.

    Attributes:
      mode: ``initial`` or ``progressive``.
      edge: name of the decision.
      candidates: names of the decision's candidates.
      strengths: score of each candidate, where the highest is kept.
      truth: for each of :data:`REFERENCES`, its value for each candidate.
    """

    mode: str
    edge: str
    candidates: tuple[str, ...]
    strengths: tuple[float, ...]
    truth: dict[str, tuple[float, ...]]


class Trial(NamedTuple):
    """Result of one scorer with one seed.

    Attributes:
      scorer: name of the scorer.
      seed: seed of weights, minibatches and the edge order.
      lines: scores of each decision, initial and then progressive.
      genotype: genotype of the network that the scorer finds.
      accuracy: accuracy of that network in percent.
      rank: table rank of that network among all of the space, 1 for the best.
    """

    scorer: str
    seed: int
    lines: tuple[Line, ...]
    genotype: str
    accuracy: float
    rank: int


class MakeEvaluator(Protocol):
    """Factory of evaluators."""

    def __call__(
        self, seed: int, proxy: Proxy, variables: Variables | None, /
    ) -> Evaluator:
        """Make the evaluator of a seed and proxy, with given or untrained variables."""
        ...


def run_trial(
    space: Space,
    scorer: Method,
    seed: int,
    evaluator: MakeEvaluator,
    accuracies: Accuracies,
    order: EdgeOrder,
    trained: Trained | None = None,
) -> Trial:
    """Score and then decide every edge with one scorer, and compare with ground truth.

    Args:
      space: a search space with a table of all its networks.
      scorer: the scorer.
      seed: seed of all draws.
      evaluator: factory of evaluators.
      accuracies: accuracies of all networks.
      order: edge order, which determines the edge decided next.
      trained: trained supernet, for scorers that need one.

    Raises:
      InputError: if an input that the scorer needs is not given.
      ScoreError: if scores allow no decision.
    """
    setting = Setting(
        space,
        seed,
        lambda proxy, variables: evaluator(seed, proxy, variables),
        scorer.proxy or ACCURACY,  # placeholder, not used by scorers without a proxy
        trained,
        accuracies,
    )
    score = scorer.operation.scores(setting)
    lines = _initial(setting, scorer, score, accuracies)
    steps = _Steps()
    (decided,) = propose(
        setting.start(),
        space.phases(),
        score,
        order,
        num_proposals=1,
        seed=seed,
        rule=scorer.rule,
        memory=steps,
    )
    lines += _progressive(setting, scorer, steps.steps, accuracies)
    if decided is None:
        raise ScoreError(f"{scorer.name}, seed {seed}: no usable score")
    genotype = space.genotype(decided)
    accuracy = float(accuracies.under({g: m[None] for g, m in decided.items()}, max)[0])
    rank = 1 + int((accuracies.values > accuracy).sum())
    return Trial(scorer.name, seed, tuple(lines), genotype, accuracy, rank)


class _Steps(NoMemory):
    def __init__(self) -> None:
        self.steps: list[DecisionRecord] = []

    def keep(self, records: Sequence[DecisionRecord]) -> None:
        self.steps += records


def _initial(
    setting: Setting, scorer: Method, score: ScoreStep, accuracies: Accuracies
) -> list[Line]:
    """Score every decision of the first phase, each on a separate minibatch."""
    masks, lines = setting.start(), []
    for step, decision in enumerate(_operations(setting.space)):
        stack = scorer.operation.perturbation.apply(masks, decision)
        owners = np.zeros(len(decision.candidates), int)
        scores = np.asarray(score(step, stack, owners), np.float64)
        lines.append(_line("initial", decision, scorer, scores, masks, accuracies))
    return lines


def _progressive(
    setting: Setting,
    scorer: Method,
    steps: Sequence[DecisionRecord],
    accuracies: Accuracies,
) -> list[Line]:
    """Return the first phase's decisions in order, each given the previous ones."""
    decisions = {decision.name: decision for decision in _operations(setting.space)}
    masks, lines = setting.start(), []
    for step in steps:
        if step.edge is None or step.edge not in decisions:
            continue
        decision = decisions[step.edge]
        scores = np.asarray(step.scores[step.edge])
        lines.append(_line("progressive", decision, scorer, scores, masks, accuracies))
        kept = [decision.candidates.index(name) for name in step.kept]
        masks = mask_algebra.apply_decision(masks, decision, kept)
    return lines


def _operations(space: Space) -> list[Decision]:
    return [decision for track in space.phases()[0].tracks for decision in track]


def _line(
    mode: str,
    decision: Decision,
    scorer: Method,
    scores: np.ndarray,
    masks: Masks,
    accuracies: Accuracies,
) -> Line:
    alone = DISCRETISE.apply(masks, decision)
    truth = {
        name: tuple(float(v) for v in accuracies.under(alone, how))
        for name, how in REFERENCES.items()
    }
    strengths = tuple(float(value) for value in scorer.rule.strengths(scores))
    return Line(mode, decision.name, decision.candidates, strengths, truth)


class Agreement(NamedTuple):
    """Agreement of a scorer with a reference, over seeds.

    Attributes:
      scorer: name of the scorer.
      mode: ``initial`` or ``progressive``.
      reference: a key of :data:`REFERENCES`.
      spearman: Spearman's correlation, averaged over edges and then over seeds.
      kendall: Kendall's tau, averaged in the same way.
    """

    scorer: str
    mode: str
    reference: str
    spearman: Interval
    kendall: Interval


def agreements(trials: Iterable[Trial]) -> list[Agreement]:
    """Return the agreement for each scorer, mode and reference, by first appearance."""
    by_scorer: dict[str, list[Trial]] = {}
    for trial in trials:
        by_scorer.setdefault(trial.scorer, []).append(trial)
    return [
        Agreement(
            scorer,
            mode,
            reference,
            mean_interval([_mean(t, mode, reference, spearman) for t in found]),
            mean_interval([_mean(t, mode, reference, kendall) for t in found]),
        )
        for scorer, found in by_scorer.items()
        for mode in MODES
        for reference in REFERENCES
    ]


def _mean(
    trial: Trial, mode: str, reference: str, measure: Callable[..., float]
) -> float:
    values = [
        measure(line.strengths, line.truth[reference])
        for line in trial.lines
        if line.mode == mode
    ]
    return float(np.mean(values))


def between(trials: Sequence[Trial]) -> tuple[list[str], np.ndarray]:
    """Return the initial agreement of scorers with each other and the references.

    Args:
      trials: trials of all scorers, with the same seeds.

    Returns:
      Names, references first, and their Spearman correlations ``[n, n]``, averaged
      over edges and seeds.
    """
    columns: dict[str, dict[tuple[int, str], Sequence[float]]] = {}
    for trial in trials:
        for line in trial.lines:
            if line.mode == "initial":
                where = (trial.seed, line.edge)
                for name, values in line.truth.items():
                    columns.setdefault(name, {})[where] = values
                columns.setdefault(trial.scorer, {})[where] = line.strengths
    names = [*REFERENCES, *(name for name in columns if name not in REFERENCES)]
    matrix = np.array([[_agree(columns[a], columns[b]) for b in names] for a in names])
    return names, matrix


def _agree(a: Mapping[Any, Sequence[float]], b: Mapping[Any, Sequence[float]]) -> float:
    shared = [where for where in a if where in b]
    if not shared:
        return float("nan")
    return float(np.mean([spearman(a[where], b[where]) for where in shared]))
