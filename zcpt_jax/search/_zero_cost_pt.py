"""Zero-Cost-PT: proposals by perturbation, then validation, from one seed.

Xiang et al., Zero-Cost Operation Scoring in Differentiable Architecture Search, AAAI
2023. :func:`zero_cost_pt` combines the two stages of :mod:`zcpt_jax.search.proposal`
and :mod:`zcpt_jax.search.validation` with a space, a proxy and a dataset.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from zcpt_jax.data import Dataset
from zcpt_jax.scoring.config import Execution
from zcpt_jax.scoring.evaluator import Evaluator
from zcpt_jax.search.budgets import make_budgets
from zcpt_jax.search.config import SearchConfig
from zcpt_jax.search.decision_rule import DecisionRule
from zcpt_jax.search.edge_orders import get_order
from zcpt_jax.search.memory import DecisionRecord, Memory, NoMemory
from zcpt_jax.search.operation_scores import (
    Accuracies,
    Setting,
    Trained,
    get_operation_score,
)
from zcpt_jax.search.proposal import propose
from zcpt_jax.search.validation import best_genotype, total_scores, validate
from zcpt_jax.types import Masks, Progress, Proxy, ScoreError, Space, Variables


@dataclass(frozen=True)
class SearchResult:
    """Result of a search.

    Attributes:
      genotype: genotype of the best proposal.
      proposals: genotypes of all N proposals, None for one that was dropped because
        its scores allowed no decision.
      validation: map from distinct genotype to its V raw scores ``[V]``, or ``[V, M]``
        for an ensemble of M.
      totals: map from distinct genotype to its total score, the sum of its validation
        scores, higher is better; for an ensemble, relative to the other genotypes.
      seconds: wall time in seconds by phase: data, initialisation, compile, proposal,
        validation.
    """

    genotype: str
    proposals: tuple[str | None, ...]
    validation: dict[str, np.ndarray]
    totals: dict[str, float]
    seconds: dict[str, float]


def zero_cost_pt(
    space: Space,
    proxy: Proxy,
    dataset: Dataset,
    config: SearchConfig | None = None,
    *,
    evidence: Trained | Accuracies | None = None,
    execution: Execution | None = None,
    memory: Memory | None = None,
    progress: Progress | None = None,
) -> SearchResult:
    """Search a space without training.

    Weights, edge orders and minibatches are all derived from the seed. A proposal
    depends on the seed and its index, and a validation score on the seed and the
    genotype. Neither depends on N, V or the number of masks scored together.

    Args:
      space: the search space.
      proxy: the proxy that scores networks.
      dataset: source of minibatches.
      config: settings that determine the result.
      evidence: input of operation scores other than proxies: a trained supernet, or the
        accuracies of the space's networks.
      execution: devices and lowering; by default JAX's default device.
      memory: store of scores from which a search resumes.
      progress: called after every step.

    Returns:
      The genotype found, with proposals, scores and times.

    Raises:
      InputError: if a setting is out of range, or no network is within the budgets.
      ScoreError: if scores allow no decision; the message names the proxy.
    """
    config = config or SearchConfig()
    config.check()
    dataset.check_batch_size(config.batch_size)
    execution = execution or Execution()
    reporter = _Reporter(
        memory or NoMemory(),
        progress or (lambda stage, done, total, note: None),
        config.num_proposals * _decisions_of(space),
    )
    search = _Search(space, proxy, dataset, config, execution, reporter)
    watch = execution.stopwatch
    try:
        with watch.measure("proposal"):
            masks = search.propose(evidence)
        proposals = tuple(None if one is None else space.genotype(one) for one in masks)
        decided = {
            genotype: one
            for genotype, one in zip(proposals, masks, strict=True)
            if genotype is not None and one is not None
        }
        with watch.measure("validation"):
            validation = search.validate(decided)
        totals = total_scores(validation, proxy)
        best = best_genotype(totals)
    except ScoreError as error:
        raise ScoreError(f"proxy {proxy.name}: {error}") from error
    return SearchResult(best, proposals, validation, totals, watch.seconds())


class _Search:
    """Both stages of one search, with shared evaluators."""

    def __init__(
        self,
        space: Space,
        proxy: Proxy,
        dataset: Dataset,
        config: SearchConfig,
        execution: Execution,
        reporter: "_Reporter",
    ) -> None:
        self.space, self.proxy, self.dataset = space, proxy, dataset
        self.config, self.execution, self.reporter = config, execution, reporter
        self.operation_score = get_operation_score(config.operation_score)
        self.budgets = make_budgets(
            space,
            dataset.num_classes,
            dataset.image_shape,
            max_params=config.max_params,
            max_flops=config.max_flops,
        )
        self.made: dict[tuple[str, bool], Evaluator] = {}

    def evaluator(self, proxy: Proxy, variables: Variables | None) -> Evaluator:
        """Return the evaluator that scores both proposals and networks."""
        key = (proxy.name, variables is None)
        if key not in self.made:
            self.made[key] = Evaluator(
                self.space,
                proxy,
                self.dataset,
                self.config,
                together=self.config.num_proposals,
                variables=variables,
                execution=self.execution,
                on_chunk=self.reporter.report_fraction,
            )
        return self.made[key]

    def propose(self, evidence: Trained | Accuracies | None) -> list[Masks | None]:
        config, proxy = self.config, self.proxy
        scored = self.operation_score.needs == "proxy"
        setting = Setting(
            self.space,
            config.seed,
            self.evaluator,
            proxy,
            trained=evidence if isinstance(evidence, Trained) else None,
            accuracies=evidence if isinstance(evidence, Accuracies) else None,
        )
        scores = self.operation_score.scores(setting)
        self.reporter.begin()
        self.evaluator(proxy, None).ahead = scored
        rule = DecisionRule(
            self.operation_score.perturbation,
            proxy.comparable if scored else np.asarray,
            lambda masks: all(budget.permits(masks) for budget in self.budgets),
        )
        return propose(
            setting.start(),
            self.space.phases(),
            scores,
            get_order(config.edge_order),
            num_proposals=config.num_proposals,
            seed=config.seed,
            rule=rule,
            memory=self.reporter,
        )

    def validate(self, decided: Mapping[str, Masks]) -> dict[str, np.ndarray]:
        """Return validation scores of genotypes with their discretised masks."""
        networks = self.evaluator(self.proxy, None)
        distinct, reporter = list(decided), self.reporter
        num_batches = self.config.num_validation_batches
        total = num_batches * len(distinct)

        def score(some: Sequence[str], start: int, stop: int) -> np.ndarray:
            before = start * len(distinct) + distinct.index(some[0]) * (stop - start)
            reporter.report("validation", before, total, some[0])
            masks = [decided[genotype] for genotype in some]
            return networks.score_networks(some, masks, start, stop)

        scores = validate(
            distinct,
            score,
            num_batches=num_batches,
            together=len(distinct) if networks.form.loops else 1,
            memory=reporter.memory,
        )
        reporter.report("validation", total, total, "done")
        return scores


def _decisions_of(space: Space) -> int:
    """Count the decisions of a proposal, including rounds of one-by-one dropping."""
    return sum(
        len(d.candidates) - d.keep if d.one_by_one else 1 for d in space.all_decisions()
    )


class _Reporter(NoMemory):
    """A search's memory that reports progress at each decision it keeps."""

    def __init__(self, memory: Memory, report: Progress, total: int) -> None:
        self.memory, self.report, self.total = memory, report, total
        self.done, self.last, self.note = 0, 0, "compiling"
        self.recall: Callable[..., Any] = memory.recall

    def begin(self) -> None:
        self.report("proposal", 0, self.total, self.note)

    def report_fraction(self, fraction: float) -> None:
        """Report that a fraction of the current step's masks is scored."""
        done = self.done + fraction * self.last if fraction < 1 else self.done
        self.report("proposal", done, self.total, self.note)

    def keep(self, records: Sequence[DecisionRecord]) -> None:
        self.memory.keep(records)
        if not records:
            return
        self.last = sum(record.edge is not None for record in records)
        self.done += self.last
        self.note = _describe(records[-1])
        self.report("proposal", self.done, self.total, self.note)


def _describe(record: DecisionRecord) -> str:
    if record.edge is None:
        return f"{record.phase}: survey"
    scores = record.scores[record.edge]
    listed = " ".join(_number(value) for value in scores)
    return f"{record.edge} keeps {', '.join(record.kept)} | {listed}"


def _number(score: Any) -> str:
    """Format one score, or those of an ensemble's members."""
    if isinstance(score, float):
        return f"{score:.6g}"
    return "+".join(f"{value:.4g}" for value in score)
