"""Scores of a space's networks; weights and minibatches follow from a seed."""

import zlib
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import flax.linen as nn
import jax
import numpy as np
from jax.sharding import Mesh

from zcpt_jax import minibatches
from zcpt_jax.budgets import all_decisions
from zcpt_jax.data import Dataset
from zcpt_jax.scoring import Scorer, default_chunk
from zcpt_jax.stopwatch import Stopwatch
from zcpt_jax.types import Batch, Masks, Proxy, Space, Variables
from zcpt_jax.validation import BLOCK

# Streams of minibatches; the order of edges draws from stream 0.
_PROPOSAL_STREAM = 1
_VALIDATION_STREAM = 2

Initialisations = Literal["one", "each"]


class _Network(NamedTuple):
    module: nn.Module
    key: jax.Array
    scorer: Scorer
    variables: Variables | None  # None where each minibatch has its own


class Evaluator:
    """Scores masks of the supernet, and networks of genotypes, by one proxy.

    Attributes:
      scorer: of the supernet.
    """

    def __init__(
        self,
        space: Space,
        proxy: Proxy,
        dataset: Dataset,
        *,
        batch_size: int,
        seed: int,
        together: int = 1,
        initialisations: Initialisations = "one",
        score_batches: int = 1,
        variables: Variables | None = None,
        chunk_size: int | None = None,
        mesh: Mesh | None = None,
        stopwatch: Stopwatch | None = None,
        on_chunk: Callable[[float], None] | None = None,
    ) -> None:
        """Prepares scoring; nothing is computed yet.

        Args:
          space: the space.
          proxy: what scores.
          dataset: where minibatches come from.
          batch_size: images of a minibatch.
          seed: of weights and minibatches.
          together: proposals that are scored in one call, to choose the chunk.
          initialisations: whether all steps and validation minibatches share ``one``
            draw of initial weights, or ``each`` has its own.
          score_batches: minibatches over which a mask's scores are summed.
          variables: of the supernet, where it is trained already.
          chunk_size: masks scored in one call by one device.
          mesh: devices that share the masks; one by default.
          stopwatch: takes the wall time by phase.
          on_chunk: called with the share of a call's masks that are scored.
        """
        self.space, self.proxy, self.dataset = space, proxy, dataset
        self.batch_size, self.seed = batch_size, seed
        self.score_batches, self.chunk_size = score_batches, chunk_size
        self.mesh = mesh
        self.each = initialisations == "each" and variables is None
        self.stopwatch = stopwatch or Stopwatch()
        self.supernet_key, self.network_key = jax.random.split(jax.random.key(seed))
        self.supernet = space.supernet(dataset.num_classes)
        # The masks of one decision of every proposal: what most calls ask for.
        step = together * max(len(d.candidates) for d in all_decisions(space))
        self.scorer = Scorer(
            proxy.score,
            self.supernet.apply,
            chunk_size=self._chunk(step),
            forward_only=proxy.forward_only,
            mesh=mesh,
        )
        if on_chunk is not None:
            self.scorer.on_chunk = on_chunk
        self._given = variables
        self._drawn: tuple[tuple[int, ...], Variables] | None = None
        self._networks: dict[str, _Network] = {}
        self._block: tuple[int, Batch] | None = None

    def score_masks(self, step: int, masks: Masks, owners: np.ndarray) -> np.ndarray:
        """Scores masks, each on the minibatches of its proposal at this step.

        Args:
          step: counts the steps of a search.
          masks: stack ``[K, ...]``.
          owners: int ``[K]``, the proposal of each.

        Returns:
          ``[K]``, higher is better; ``[K, M]`` of an ensemble of M proxies.
        """
        distinct, which = np.unique(owners, return_inverse=True)
        total: np.ndarray | None = None
        for number in range(self.score_batches):
            last = (number,) if number else ()
            names = [(_PROPOSAL_STREAM, int(p), step, *last) for p in distinct]
            variables = self._supernet_variables((step, *last))
            scores = self._timed(
                self.scorer, variables, self._batches(names), masks, which
            )
            total = scores if total is None else total + scores
        assert total is not None
        return self.proxy.signed(total)

    def score_network(self, genotype: str, start: int, stop: int) -> np.ndarray:
        """Scores the network of a genotype on validation minibatches.

        Args:
          genotype: of the space.
          start: the first minibatch.
          stop: one past the last, at most ``BLOCK`` later.

        Returns:
          ``[stop - start]`` as the proxy gives them; an ensemble ``[..., M]``.
        """
        if genotype not in self._networks:
            self._networks[genotype] = self._build(genotype, stop - start)
        if self._block is None or self._block[0] != start:
            names = [(_VALIDATION_STREAM, index) for index in range(start, stop)]
            if start:  # a short last block takes the shape that is compiled already
                names += names[:1] * (BLOCK - len(names))
            self._block = (start, self._batches(names))
        network, batches = self._networks[genotype], self._block[1]
        if network.variables is None:
            numbers = range(start, stop)
            keys = [jax.random.fold_in(network.key, number) for number in numbers]
            drawn = [self._init(network.module, key) for key in keys]
            fresh = jax.tree.map(lambda *leaves: np.stack(leaves), *drawn)
            rows = np.arange(stop - start)
            return self._timed(network.scorer, fresh, batches, {}, rows)
        # A score that neither sees images nor draws is the same on every minibatch.
        alike = self.proxy.data_free and not self.proxy.draws
        rows = np.arange(1 if alike else stop - start)
        scores = self._timed(network.scorer, network.variables, batches, {}, rows)
        return np.repeat(scores, stop - start, axis=0) if alike else scores

    def forget(self, genotype: str) -> None:
        """Lets go of a genotype's network, its weights and what was compiled for it."""
        self._networks.pop(genotype, None)

    def _build(self, genotype: str, count: int) -> _Network:
        module = self.space.network(genotype, self.dataset.num_classes)
        key = jax.random.fold_in(self.network_key, zlib.crc32(genotype.encode()))
        # Weights of their own would make every convolution a batched one under vmap.
        chunk = 1 if self.each else min(self._chunk(count), count)
        scorer = Scorer(
            self.proxy.score,
            lambda v, x, _, **rngs: module.apply(v, x, **rngs),
            chunk_size=chunk,
            own_variables=self.each,
            mesh=self.mesh,
        )
        variables = None if self.each else self._init(module, key)
        return _Network(module, key, scorer, variables)

    def _chunk(self, count: int) -> int:
        """Masks that one device scores in one call, of ``count`` in all."""
        devices = 1 if self.mesh is None else self.mesh.size
        return self.chunk_size or default_chunk(-(-count // devices))

    def _supernet_variables(self, name: tuple[int, ...]) -> Variables:
        if self._given is not None:
            return self._given
        name = name if self.each else ()
        if self._drawn is None or self._drawn[0] != name:
            key = self.supernet_key
            for number in name:
                key = jax.random.fold_in(key, number)
            self._drawn = (name, self._init(self.supernet, key))
        return self._drawn[1]

    def _init(self, module: nn.Module, key: jax.Array) -> Variables:
        with self.stopwatch.measure("initialisation"):
            return self.space.init_variables(module, key, self.dataset.image_shape)

    def _batches(self, names: Sequence[tuple[int, ...]]) -> Batch:
        with self.stopwatch.measure("data"):
            return minibatches.draw(
                self.dataset, self.seed, names, self.batch_size, self.proxy.data_free
            )

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
