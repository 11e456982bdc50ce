"""Zero-Cost-PT: proposals by perturbation, then validation, from one seed.

Xiang et al., Zero-Cost Operation Scoring in Differentiable Architecture Search, AAAI
2023. :func:`zero_cost_pt` puts the two stages of :mod:`zcpt_jax.search.proposal` and
:mod:`zcpt_jax.search.validation` together with a space, a proxy and a dataset.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from jax.sharding import Mesh

from zcpt_jax.data import Dataset
from zcpt_jax.lowering import Lowering
from zcpt_jax.scoring.evaluator import Evaluator, Initialisations
from zcpt_jax.search.budgets import Budget
from zcpt_jax.search.edge_orders import get_order
from zcpt_jax.search.operation_scores import (
    OPERATION_SCORES,
    Accuracies,
    OperationScore,
    Setting,
    Trained,
)
from zcpt_jax.search.proposal import Memory, NoMemory, Step, propose
from zcpt_jax.search.validation import (
    NoValidationMemory,
    ValidationMemory,
    best_genotype,
    total_scores,
    validate,
)
from zcpt_jax.stopwatch import Stopwatch
from zcpt_jax.types import InputError, Masks, Proxy, ScoreError, Space, Variables

Progress = Callable[[str, float, int, str], None]
"""``(stage, done, total, note)``, called after every chunk of masks and every step."""


class RunMemory(Memory, ValidationMemory, Protocol):
    """Both memories in one."""


class NoRunMemory(NoMemory, NoValidationMemory):
    """Forgets everything."""


@dataclass(frozen=True)
class SearchResult:
    """What a search found.

    Attributes:
      genotype: the best proposal.
      proposals: genotypes of all N proposals.
      validation: distinct genotype to its V scores ``[V]``, as the proxy gives them;
        an ensemble of M gives ``[V, M]``.
      worth: distinct genotype to what decided: the sum of its validation scores, higher
        being better; of an ensemble, how it stands among them.
      seconds: wall time by phase: data, initialisation, compile, proposal, validation.
    """

    genotype: str
    proposals: tuple[str, ...]
    validation: dict[str, np.ndarray]
    worth: dict[str, float]
    seconds: dict[str, float]


def zero_cost_pt(
    space: Space,
    proxy: Proxy,
    dataset: Dataset,
    *,
    edge_order: str = "random",
    num_proposals: int = 10,
    num_validation_batches: int = 100,
    batch_size: int = 64,
    seed: int = 0,
    operation_score: OperationScore = OPERATION_SCORES["zc-pt"],
    initialisations: Initialisations = "one",
    score_batches: int = 1,
    trained: Trained | None = None,
    accuracies: Accuracies | None = None,
    budgets: Sequence[Budget] = (),
    form: Lowering | None = None,
    mesh: Mesh | None = None,
    memory: RunMemory | None = None,
    progress: Progress | None = None,
    stopwatch: Stopwatch | None = None,
) -> SearchResult:
    """Searches a space without training.

    Weights, edge orders and minibatches all derive from ``seed``. A proposal depends on
    the seed and its index, a validation score on the seed and the genotype, neither on
    N, V or the chunk size.

    Args:
      space: the search space.
      proxy: what scores networks.
      dataset: where minibatches come from.
      edge_order: a name in :data:`zcpt_jax.search.edge_orders.ORDERS`.
      num_proposals: N of the paper.
      num_validation_batches: V of the paper.
      batch_size: images of a minibatch.
      seed: from 0 to 2**32 - 1.
      operation_score: what decides between candidates: ``zc-pt`` is the paper's,
        ``random`` the random search it is compared with, validation included.
      initialisations: ``one`` as published: a supernet, and each proposal's network,
        have the same initial weights throughout. ``each`` draws new ones at each step
        and for each validation minibatch, so that one draw does not decide for all.
      score_batches: minibatches over which the score of a mask is summed; one as
        published.
      trained: a trained supernet, for the operation scores that need one.
      accuracies: of the space's networks, for those that need them.
      budgets: what the network found must keep (:func:`zcpt_jax.make_budgets`).
      form: how operations are written (:mod:`zcpt_jax.lowering`), how many masks are
        put together and with which precision; by default as suits the devices.
      mesh: devices that share the masks (:func:`zcpt_jax.sharding.make_mesh`); one by
        default. With several processes each makes the same call.
      memory: where scores are kept and recalled from, to resume.
      progress: called after every step.
      stopwatch: takes the wall time by phase; a new one by default.

    Returns:
      The genotype found and how it came about.

    Raises:
      InputError: if an argument is out of range.
      ScoreError: if scores decide nothing; it names the proxy, edge and minibatch.
    """
    _check(
        seed,
        num_proposals=num_proposals,
        num_validation_batches=num_validation_batches,
        batch_size=batch_size,
        score_batches=score_batches,
    )
    dataset.check_batch_size(batch_size)
    order = get_order(edge_order)
    watch = stopwatch or Stopwatch()
    memory = memory or NoRunMemory()
    report = progress or (lambda stage, done, total, note: None)
    rates = operation_score.needs == "proxy"
    telling = _Telling(
        memory,
        report,
        num_proposals * _decisions_of(space),
        proxy if rates and proxy.combine is None else None,
    )

    made: dict[tuple[str, bool], Evaluator] = {}

    def evaluate(which: Proxy, variables: Variables | None) -> Evaluator:
        key = (which.name, variables is None)
        if key not in made:  # proposals and networks are scored by the same program
            made[key] = Evaluator(
                space,
                which,
                dataset,
                batch_size=batch_size,
                seed=seed,
                together=num_proposals,
                initialisations=initialisations,
                score_batches=score_batches,
                variables=variables,
                form=form,
                mesh=mesh,
                stopwatch=watch,
                on_chunk=telling.tell_share,
            )
        return made[key]

    networks = evaluate(proxy, None)
    setting = Setting(space, seed, evaluate, proxy, trained, accuracies)
    scores = operation_score.scores(setting)
    report("proposal", 0, telling.total, telling.note)
    networks.ahead = rates
    try:
        with watch.measure("proposal"):
            masks = propose(
                setting.start(),
                space.phases(),
                scores,
                order,
                num_proposals=num_proposals,
                seed=seed,
                perturbation=operation_score.perturbation,
                combine=proxy.combine if rates else None,
                memory=telling,
                permits=lambda masks: all(b.permits(masks) for b in budgets),
            )
        proposals = tuple(space.genotype(mask) for mask in masks)
        decided = dict(zip(proposals, masks, strict=True))
        with watch.measure("validation"):
            validation = _validate(
                networks, decided, num_validation_batches, memory, report
            )
        worth = total_scores(validation, proxy)
        best = best_genotype(worth)
    except ScoreError as error:
        raise ScoreError(f"proxy {proxy.name}: {error}") from error
    return SearchResult(best, proposals, validation, worth, watch.seconds())


def _check(seed: int, **counts: int) -> None:
    for name, value in counts.items():
        if value < 1:
            raise InputError(f"{name} must be at least 1, got {value}")
    if not 0 <= seed < 2**32:  # JAX keys drop higher bits
        raise InputError(f"seed must be from 0 to 2**32 - 1, got {seed}")


def _decisions_of(space: Space) -> int:
    """Decisions of one proposal, rounds of candidates that go one by one included."""
    return sum(
        len(d.candidates) - d.keep if d.one_by_one else 1 for d in space.all_decisions()
    )


def _validate(
    networks: Evaluator,
    decided: Mapping[str, Masks],
    num_batches: int,
    memory: ValidationMemory,
    report: Progress,
) -> dict[str, np.ndarray]:
    """Validation scores of genotypes with their decided masks."""
    distinct = list(decided)
    total = num_batches * len(distinct)

    def score(some: Sequence[str], start: int, stop: int) -> np.ndarray:
        before = start * len(distinct) + distinct.index(some[0]) * (stop - start)
        report("validation", before, total, some[0])
        return networks.score_networks(some, [decided[g] for g in some], start, stop)

    scores = validate(
        distinct,
        score,
        num_batches=num_batches,
        together=len(distinct) if networks.form.loops else 1,
        memory=memory,
    )
    report("validation", total, total, "done")
    return scores


class _Telling:
    """Turns signs between search and memory, and tells of each decision."""

    def __init__(
        self, memory: Memory, report: Progress, total: int, proxy: Proxy | None
    ) -> None:
        self.memory, self.report, self.total = memory, report, total
        # Memory holds a proxy's scores as it gives them.
        self.sign = 1.0 if proxy is None or proxy.higher_is_better else -1.0
        self.done, self.last, self.note = 0, 0, "compiling"

    def tell_share(self, share: float) -> None:
        """Tells that a share of the masks of the step at hand is scored."""
        done = self.done + share * self.last if share < 1 else self.done
        self.report("proposal", done, self.total, self.note)

    def recall(self, proposal: int, step: int, edge: str) -> Sequence[float] | None:
        found = self.memory.recall(proposal, step, edge)
        return None if found is None else [self.sign * value for value in found]

    def keep(self, steps: Sequence[Step]) -> None:
        raw = [dataclasses.replace(step, scores=self._raw(step)) for step in steps]
        self.memory.keep(raw)
        self.last = sum(step.edge is not None for step in steps)
        self.done += self.last
        self.note = _describe(raw[-1])
        self.report("proposal", self.done, self.total, self.note)

    def _raw(self, step: Step) -> dict[str, tuple[float, ...]]:
        return {
            edge: tuple(self.sign * value for value in values)
            for edge, values in step.scores.items()
        }


def _describe(step: Step) -> str:
    if step.edge is None:
        return f"{step.phase}: survey"
    listed = " ".join(f"{value:.6g}" for value in step.scores[step.edge])
    return f"{step.edge} keeps {', '.join(step.kept)} | {listed}"
