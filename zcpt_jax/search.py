"""Zero-Cost-PT: proposals by perturbation, then validation, from one seed.

Xiang et al., Zero-Cost Operation Scoring in Differentiable Architecture Search, AAAI
2023. :func:`zero_cost_pt` puts the two stages of :mod:`zcpt_jax.proposal` and
:mod:`zcpt_jax.validation` together with a space, a proxy and a dataset.
"""

import dataclasses
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from zcpt_jax.budgets import Budget, all_decisions
from zcpt_jax.data import Dataset
from zcpt_jax.orders import get_order
from zcpt_jax.proposal import Memory, NoMemory, Step, propose
from zcpt_jax.scoring import Scorer, default_chunk
from zcpt_jax.stopwatch import Stopwatch
from zcpt_jax.types import (
    Batch,
    InputError,
    Masks,
    Proxy,
    ScoreError,
    Space,
    Variables,
)
from zcpt_jax.validation import (
    BLOCK,
    NoValidationMemory,
    ValidationMemory,
    best_genotype,
    validate,
)

# Streams of minibatches; the order of edges draws from stream 0.
_PROPOSAL_STREAM = 1
_VALIDATION_STREAM = 2
_RANDOM_STREAM = 3  # of proposals drawn at random

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
      validation: distinct genotype to its V scores, as the proxy gives them.
      seconds: wall time by phase: data, initialisation, compile, proposal, validation.
      chunk_size: masks that were scored in one call.
    """

    genotype: str
    proposals: tuple[str, ...]
    validation: dict[str, np.ndarray]
    seconds: dict[str, float]
    chunk_size: int | None


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
    random_proposals: bool = False,
    initialisations: Literal["one", "each"] = "one",
    budgets: Sequence[Budget] = (),
    chunk_size: int | None = None,
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
      edge_order: a name in :data:`zcpt_jax.orders.ORDERS`.
      num_proposals: N of the paper.
      num_validation_batches: V of the paper.
      batch_size: images of a minibatch.
      seed: from 0 to 2**32 - 1.
      random_proposals: whether decisions are drawn at random instead of scored: the
        random search that Zero-Cost-PT is compared with, validation included.
      initialisations: ``one`` as published: a supernet, and each proposal's network,
        have the same initial weights throughout. ``each`` draws new ones at each step
        and for each validation minibatch, so that one draw does not decide for all.
      budgets: what the network found must keep (:func:`zcpt_jax.make_budgets`).
      chunk_size: masks scored in one call; by default what suits the device.
      memory: where scores are kept and recalled from, to resume.
      progress: called after every step.
      stopwatch: takes the wall time by phase; a new one by default.

    Returns:
      The genotype found and how it came about.

    Raises:
      InputError: if an argument is out of range.
      ScoreError: if scores decide nothing; it names the proxy, edge and minibatch.
    """
    for name, value in (
        ("num_proposals", num_proposals),
        ("num_validation_batches", num_validation_batches),
        ("batch_size", batch_size),
    ):
        if value < 1:
            raise InputError(f"{name} must be at least 1, got {value}")
    if not 0 <= seed < 2**32:  # JAX keys drop higher bits
        raise InputError(f"seed must be from 0 to 2**32 - 1, got {seed}")
    dataset.check_batch_size(batch_size)
    order = get_order(edge_order)
    run = _Search(
        space,
        proxy,
        dataset,
        num_proposals=num_proposals,
        batch_size=batch_size,
        seed=seed,
        initialisations=initialisations,
        chunk_size=chunk_size,
        stopwatch=stopwatch or Stopwatch(),
    )
    memory = memory or NoRunMemory()
    report = progress or (lambda stage, done, total, note: None)
    total = num_proposals * sum(
        len(d.candidates) - d.keep if d.one_by_one else 1 for d in all_decisions(space)
    )
    telling = _Telling(memory, report, total, run.sign)
    run.scorer.on_chunk = telling.tell_share
    report("proposal", 0, total, telling.note)
    try:
        with run.stopwatch.measure("proposal"):
            masks = propose(
                space.init_masks(),
                space.phases(),
                run.draw_scores if random_proposals else run.score_masks,
                order,
                num_proposals=num_proposals,
                seed=seed,
                memory=telling,
                permits=lambda masks: all(b.permits(masks) for b in budgets),
            )
        proposals = tuple(space.genotype(mask) for mask in masks)
        with run.stopwatch.measure("validation"):
            validation = _validate(
                run, proposals, num_validation_batches, memory, report
            )
        best = best_genotype({g: run.sign * v for g, v in validation.items()})
    except ScoreError as error:
        raise ScoreError(f"proxy {proxy.name}: {error}") from error
    return SearchResult(
        best, proposals, validation, run.stopwatch.seconds(), run.scorer.chunk_size
    )


def _validate(
    run: "_Search",
    proposals: Sequence[str],
    num_batches: int,
    memory: ValidationMemory,
    report: Progress,
) -> dict[str, np.ndarray]:
    distinct = list(dict.fromkeys(proposals))
    total = num_batches * len(distinct)

    def score(genotype: str, start: int, stop: int) -> np.ndarray:
        before = start * len(distinct) + distinct.index(genotype) * (stop - start)
        report("validation", before, total, genotype)
        return run.score_network(genotype, start, stop)

    scores = validate(proposals, score, num_batches=num_batches, memory=memory)
    report("validation", total, total, "done")
    return scores


class _Telling:
    """Turns signs between search and memory, and tells of each decision."""

    def __init__(
        self, memory: Memory, report: Progress, total: int, sign: float
    ) -> None:
        self.memory, self.report, self.total, self.sign = memory, report, total, sign
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


class _Network(NamedTuple):
    module: nn.Module
    key: jax.Array
    scorer: Scorer
    variables: Variables | None  # None where each minibatch has its own


class _Search:
    """The supernet, its scorer, and the minibatches of one search."""

    def __init__(
        self,
        space: Space,
        proxy: Proxy,
        dataset: Dataset,
        *,
        num_proposals: int,
        batch_size: int,
        seed: int,
        initialisations: Literal["one", "each"],
        chunk_size: int | None,
        stopwatch: Stopwatch,
    ) -> None:
        self.space, self.proxy, self.dataset = space, proxy, dataset
        self.batch_size, self.seed, self.stopwatch = batch_size, seed, stopwatch
        self.sign = 1.0 if proxy.higher_is_better else -1.0
        self.chunk_size, self.each = chunk_size, initialisations == "each"
        self.supernet_key, self.network_key = jax.random.split(jax.random.key(seed))
        self.supernet = space.supernet(dataset.num_classes)
        # The masks of one decision of every proposal: what most calls ask for.
        step = num_proposals * max(len(d.candidates) for d in all_decisions(space))
        chunk = chunk_size or default_chunk(step, proxy.weight_gradients)
        self.scorer = Scorer(proxy.score, self.supernet.apply, chunk_size=chunk)
        self.variables: tuple[int, Variables] | None = None
        self.networks: dict[str, _Network] = {}
        self.block: tuple[int, Batch] | None = None

    def score_masks(self, step: int, masks: Masks, owners: np.ndarray) -> np.ndarray:
        """Scores masks ``[K]``, each on the minibatch of its proposal at this step."""
        draw = step if self.each else 0
        if self.variables is None or self.variables[0] != draw:
            key = self.supernet_key
            if self.each:
                key = jax.random.fold_in(key, draw)
            self.variables = (draw, self._init(self.supernet, key))
        distinct, which = np.unique(owners, return_inverse=True)
        batches = self._batches([(_PROPOSAL_STREAM, int(p), step) for p in distinct])
        scores = self._timed(self.scorer, self.variables[1], batches, masks, which)
        return self.sign * scores

    def draw_scores(self, step: int, masks: Masks, owners: np.ndarray) -> np.ndarray:
        """Random numbers in place of scores, from the seed and what is asked."""
        drawn = np.empty(len(owners))
        for proposal in np.unique(owners):
            rows = owners == proposal
            asked = [np.asarray(masks[g])[rows].tobytes() for g in sorted(masks)]
            entropy = [self.seed, _RANDOM_STREAM, int(proposal), step]
            entropy.append(zlib.crc32(b"".join(asked)))  # tracks share a step
            drawn[rows] = np.random.default_rng(entropy).random(rows.sum())
        return drawn

    def score_network(self, genotype: str, start: int, stop: int) -> np.ndarray:
        """Scores the network of a genotype on validation minibatches."""
        if genotype not in self.networks:
            module = self.space.network(genotype, self.dataset.num_classes)
            key = jax.random.fold_in(self.network_key, zlib.crc32(genotype.encode()))
            together = 1 if self.each else stop - start
            chunk = self.chunk_size or default_chunk(
                together, self.proxy.weight_gradients
            )
            scorer = Scorer(
                self.proxy.score,
                lambda v, x, _, **rngs: module.apply(v, x, **rngs),
                chunk_size=min(chunk, together),
            )
            variables = None if self.each else self._init(module, key)
            self.networks[genotype] = _Network(module, key, scorer, variables)
        if self.block is None or self.block[0] != start:
            names = [(_VALIDATION_STREAM, index) for index in range(start, stop)]
            if start:  # a short last block takes the shape that is compiled already
                names += names[:1] * (BLOCK - len(names))
            self.block = (start, self._batches(names))
        network, batches = self.networks[genotype], self.block[1]
        if network.variables is None:
            parts = []
            for row in range(stop - start):
                key = jax.random.fold_in(network.key, start + row)
                fresh = self._init(network.module, key)
                one = np.array([row])
                parts.append(self._timed(network.scorer, fresh, batches, {}, one))
            return np.concatenate(parts)
        # A data-free score is the same on every minibatch.
        rows = np.arange(1 if self.proxy.data_free else stop - start)
        scores = self._timed(network.scorer, network.variables, batches, {}, rows)
        return np.resize(scores, stop - start)

    def _init(self, module: nn.Module, key: jax.Array) -> Variables:
        with self.stopwatch.measure("initialisation"):
            return self.space.init_variables(module, key, self.dataset.image_shape)

    def _batches(self, names: Sequence[tuple[int, ...]]) -> Batch:
        """Stacked minibatches ``[M, B, ...]``, each from the seed and its name."""
        rngs = [np.random.default_rng([self.seed, *name]) for name in names]
        if self.proxy.data_free:
            shape = (len(names), 1, *self.dataset.image_shape)
            images, labels = np.zeros(shape, np.float32), np.zeros(shape[:2], np.int32)
        else:
            with self.stopwatch.measure("data"):
                drawn = [self.dataset.batch(r, self.batch_size) for r in rngs]
                images = np.stack([batch.images for batch in drawn])
                labels = np.stack([batch.labels for batch in drawn])
        keys = np.stack([r.integers(2**32, size=2, dtype=np.uint32) for r in rngs])
        return Batch(images, labels, jax.random.wrap_key_data(jnp.asarray(keys)))

    def _timed(
        self,
        scorer: Scorer,
        variables: Variables,
        batches: Batch,
        masks: Masks,
        which: np.ndarray,
    ) -> np.ndarray:
        before = scorer.compile_seconds
        scores = scorer(variables, batches, masks, which)
        self.stopwatch.add("compile", scorer.compile_seconds - before)
        return scores
