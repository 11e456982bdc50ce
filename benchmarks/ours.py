"""The measurements of this library."""

import time
from typing import Any

import jax
import numpy as np

from benchmarks.jobs import CLASSES, IMAGE_SIZE, Job
from zcpt_jax import lowering
from zcpt_jax import masks as mask_algebra
from zcpt_jax.proxies import get_proxy
from zcpt_jax.scoring.scorer import Scorer
from zcpt_jax.search.decision_rule import DecisionRule
from zcpt_jax.search.edge_orders import get_order
from zcpt_jax.search.proposal import propose
from zcpt_jax.spaces import get_space
from zcpt_jax.types import Batch, Masks


class _Supernet:
    """A supernet with its weights, scored by a proxy as a search scores it."""

    def __init__(self, job: Job, proposals: int) -> None:
        self.job = job
        self.space = get_space(job.space, **job.options)
        self.proxy = get_proxy(job.proxy)
        supernet = self.space.supernet(CLASSES)
        self.variables = self.space.init_variables(
            supernet, jax.random.key(job.seed), (IMAGE_SIZE, IMAGE_SIZE, 3)
        )
        most = self.space.most_candidates()
        self.scorer = Scorer(
            self.proxy.score,
            supernet.apply,
            form=lowering.default().replace(**job.form),
            forward_only=self.proxy.forward_only,
            sizes=[most] * proposals,
        )

    def batches(self, count: int, *name: int) -> Batch:
        """Minibatches ``[count, B, ...]``; one image where the proxy sees none."""
        if self.proxy.data_free:
            images = np.zeros((count, 1, IMAGE_SIZE, IMAGE_SIZE, 3), np.float32)
            return Batch(images, np.zeros((count, 1), np.int32))
        drawn = [self.job.batch(*name, row) for row in range(count)]
        images, labels = zip(*drawn, strict=True)
        return Batch(np.stack(images), np.stack(labels))

    def timed(
        self, batches: Batch, masks: Masks, which: np.ndarray
    ) -> tuple[np.ndarray, float]:
        """Scores, and the seconds they took, compilation left out."""
        compiling = self.scorer.compile_seconds
        start = time.perf_counter()
        scores = self.scorer(self.variables, batches, masks, which)
        seconds = time.perf_counter() - start
        return scores, seconds - (self.scorer.compile_seconds - compiling)


def step(job: Job) -> dict[str, Any]:
    """Compile time, and milliseconds a perturbation in the first step of a search.

    The chunk is that of a search of N proposals. On CPU it holds one decision's masks
    or fewer, and one decision is timed; elsewhere all N proposals' decisions are.
    """
    net = _Supernet(job, job.proposals)
    track = net.space.phases()[0].tracks[0]
    candidates = len(track[0].candidates)
    count = job.proposals if net.scorer.form.loops else 1
    undecided = net.space.init_masks()
    masks = mask_algebra.stack(
        [
            mask_algebra.removals(undecided, track[row % len(track)])
            for row in range(count)
        ]
    )
    which = np.repeat(np.arange(count), candidates)
    batches = net.batches(count, 0)
    net.timed(batches, masks, which)
    seconds = [net.timed(batches, masks, which)[1] for _ in range(job.repeats)]
    return {
        "compile_seconds": net.scorer.compile_seconds,
        "trace_seconds": sum(p.trace_seconds for p in net.scorer.programs),
        "ms": [1e3 * value / len(which) for value in seconds],
        "chunk": net.scorer.chunk_size,
        "device": jax.devices()[0].device_kind,
    }


def proposal(job: Job) -> dict[str, Any]:
    """Seconds of every step of one proposal in random order; leaves its masks.

    The decisions are those of our own scores, each step on a minibatch of its own. The
    chunk is that of a search of one proposal, so that the last rounds of a decision,
    with fewer candidates, pay for masks that only pad.
    """
    net = _Supernet(job, proposals=1)
    seconds: list[float] = []
    asked: list[Masks] = []

    def score(number: int, masks: Masks, owners: np.ndarray) -> np.ndarray:
        batches = net.batches(1, 1, number)
        if not asked:  # compiles and warms up
            net.timed(batches, masks, owners)
        scores, took = net.timed(batches, masks, owners)
        seconds.append(took)
        asked.append(masks)
        return scores

    masks, phases = net.space.init_masks(), net.space.phases()
    order = get_order("random")
    rule = DecisionRule(comparable=net.proxy.comparable)
    propose(masks, phases, score, order, num_proposals=1, seed=job.seed, rule=rule)
    counts = [len(next(iter(masks.values()))) for masks in asked]
    stacks: dict[str, Any] = {**mask_algebra.stack(asked), "counts": counts}
    np.savez(job.masks_file, **stacks)
    return {"seconds": seconds, "counts": counts}
