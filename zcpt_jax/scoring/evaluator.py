"""Scoring of a space's networks with weights and minibatches drawn from a seed."""

import contextlib
import threading
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from zcpt_jax import lowering, sharding
from zcpt_jax.data import Dataset
from zcpt_jax.scoring._calls import Inputs, Rows
from zcpt_jax.scoring.config import Execution, ScoringConfig
from zcpt_jax.scoring.initial_weights import NETWORK, SUPERNET, InitialWeights
from zcpt_jax.scoring.minibatches import VALIDATION_BLOCK, Feed, Minibatches
from zcpt_jax.scoring.scorer import Pending, Scorer
from zcpt_jax.types import AS_NETWORK, Batch, Masks, Proxy, Space, Variables

# Random streams of minibatches; edge orders draw from stream 0.
_PROPOSAL_STREAM = 1
_VALIDATION_STREAM = 2

_WEIGHTS = 128
"""Maximum number of draws of initial weights in a call."""


@dataclass(frozen=True)
class _Network:
    """A compiled module: the supernet, the masked network or a genotype's network.

    Attributes:
      module: the module.
      scorer: scorer of the module.
      masked: whether the module takes masks.
    """

    module: nn.Module
    scorer: Scorer
    masked: bool


class Evaluator:
    """Evaluator of supernet masks and genotypes' networks by one proxy.

    Attributes:
      form: lowering of operations.
      ahead: whether the first call that scores masks also compiles the masked network,
        in a parallel thread: for searches, which validate at the end.
    """

    def __init__(
        self,
        space: Space,
        proxy: Proxy,
        dataset: Dataset,
        config: ScoringConfig | None = None,
        *,
        together: int = 1,
        variables: Variables | None = None,
        execution: Execution | None = None,
        on_chunk: Callable[[float], None] | None = None,
    ) -> None:
        """Prepare scoring; nothing is computed yet.

        Args:
          space: the search space.
          proxy: the proxy that scores.
          dataset: source of minibatches.
          config: settings that determine the scores.
          together: number of proposals scored in one call.
          variables: variables of a trained supernet; None draws initial weights.
          execution: devices and lowering.
          on_chunk: called with the fraction of a call's masks scored so far.

        Raises:
          InputError: if a setting is out of range.
        """
        config = config or ScoringConfig()
        config.check()
        execution = execution or Execution()
        self.space, self.proxy, self.dataset = space, proxy, dataset
        self.config, self._mesh = config, execution.mesh
        self.form = execution.form or lowering.of_mesh(execution.mesh)
        self.each = config.initialisations == "each" and variables is None
        self.stopwatch = execution.stopwatch
        self._on_chunk = on_chunk
        self.ahead = False
        self._minibatches = Minibatches(
            dataset,
            config.seed,
            config.batch_size,
            data_free=proxy.data_free,
            inside=self.form.inside,
        )
        self._feed_size = max(together * config.score_batches, VALIDATION_BLOCK)
        self._together = together
        self._weights = InitialWeights(
            space, dataset.image_shape, config.seed, _WEIGHTS
        )
        self._given = variables
        self._networks: dict[Any, _Network] = {}
        self._feeds: dict[tuple[Any, ...], Any] = {}
        self._resident: dict[str, Any] | None = None
        self._drawn: tuple[Any, Any] = (None, None)
        self._masked = space.masked_network(dataset.num_classes, proxy.over_scales)

    @property
    def scorer(self) -> Scorer:
        """Scorer of the supernet."""
        return self._supernet().scorer

    def prepare(self) -> None:
        """Compile the supernet and the masked network, each in its own thread.

        This is done only where calls draw their own weights, because then the inputs
        are known in advance. Later calls wait for the compilation they need. Several
        processes instead compile at their first call, in the same order, because they
        agree on how many masks fit.
        """
        alone = sharding.places(self._mesh).processes == 1
        if not (self.form.inside and alone) or self._given is not None:
            return
        networks = [self._supernet()]
        if self._masked is not None:
            networks.append(self._masked_network())
        distinct = {id(network.scorer): network for network in networks}
        for network in distinct.values():
            threading.Thread(
                target=self._compile_ahead, args=(network,), daemon=True
            ).start()

    def _compile_ahead(self, network: _Network) -> None:
        with contextlib.suppress(Exception):  # the next call waits and raises it again
            self._compile(network)

    def _compile(self, network: _Network) -> None:
        feed = self._minibatches.feed([(_PROPOSAL_STREAM, 0, 0)], self._feed_size)
        resident = {
            **self._minibatches.shapes(),
            "feed": feed,
            **self._weights.named([(SUPERNET,)]),
        }
        masks = self._entries(self.space.init_masks(), 0.0, 1)
        one = np.zeros(1, int)
        network.scorer.prepare(resident, Rows(masks, one, one, one))

    def score_masks(self, step: int, masks: Masks, owners: np.ndarray) -> np.ndarray:
        """Score masks, each on the minibatches of its proposal at this step.

        Args:
          step: number of the search step.
          masks: stack of masks ``[K, ...]``.
          owners: int ``[K]``, the proposal of each mask.

        Returns:
          Raw scores ``[K]`` of the proxy, or ``[K, M]`` for an ensemble of M proxies.
        """
        if self.ahead:  # not earlier: a resumed search may recall all scores
            self.ahead = False
            self.prepare()
        distinct, which = np.unique(owners, return_inverse=True)
        repeats, count = self.config.score_batches, len(owners)
        lasts = [(number,) if number else () for number in range(repeats)]

        def names_at(step: int) -> list[tuple[int, ...]]:
            return [
                (_PROPOSAL_STREAM, int(p), step, *last)
                for last in lasts
                for p in distinct
            ]

        weights: list[tuple[int, ...]] = [(SUPERNET,)]
        if self.each:
            weights = [(SUPERNET, step, *last) for last in lasts]
        minibatch = np.concatenate([n * len(distinct) + which for n in range(repeats)])
        numbers = np.repeat(np.arange(repeats), count)
        rows = Rows(
            jax.tree.map(
                lambda leaf: np.concatenate([leaf] * repeats),
                self._entries(masks, 0.0, count, stacked=True),
            ),
            minibatch,
            numbers if self.each else np.zeros_like(numbers),
            minibatch,
        )
        network = self._supernet()
        pending = self._start(network, names_at(step), weights, rows)
        if self.form.inside:  # draw the next feed while the devices compute
            self._feed(names_at(step + 1))
        found = self._read(network, pending, rows)
        return found.reshape(repeats, count, *found.shape[1:]).sum(axis=0)

    def score_networks(
        self,
        genotypes: Sequence[str],
        masks: Sequence[Masks] | None,
        start: int,
        stop: int,
    ) -> np.ndarray:
        """Score the networks of genotypes on validation minibatches.

        Args:
          genotypes: n genotypes of the space.
          masks: discretised masks of the genotypes. If they are None or the space has
            no masked network, each network is compiled by itself.
          start: index of the first minibatch.
          stop: one past the last index, at most ``start + VALIDATION_BLOCK``.

        Returns:
          Raw scores ``[n, stop - start]`` of the proxy; ``[..., M]`` for an ensemble.
        """
        if masks is None or self._masked is None:
            parts = [self._score_one(g, start, stop) for g in genotypes]
            return np.concatenate(parts)
        most = _WEIGHTS // VALIDATION_BLOCK
        parts = [
            self._score_masked(
                genotypes[i : i + most], masks[i : i + most], start, stop
            )
            for i in range(0, len(genotypes), most)
        ]
        return np.concatenate(parts)

    def _score_masked(
        self, genotypes: Sequence[str], masks: Sequence[Masks], start: int, stop: int
    ) -> np.ndarray:
        stacks = {g: np.stack([one[g] for one in masks]) for g in masks[0]}
        entries = self._entries(stacks, 1.0, len(genotypes), stacked=True)
        return self._score_on_validation(
            self._masked_network(), genotypes, entries, start, stop
        )

    def _score_one(self, genotype: str, start: int, stop: int) -> np.ndarray:
        if genotype not in self._networks:
            module = self.space.network(genotype, self.dataset.num_classes)
            self._networks[genotype] = self._build(
                module, genotype, [stop - start], masked=False
            )
        network = self._networks[genotype]
        return self._score_on_validation(network, [genotype], {}, start, stop)

    def _score_on_validation(
        self,
        network: _Network,
        genotypes: Sequence[str],
        entries: Masks,
        start: int,
        stop: int,
    ) -> np.ndarray:
        # A data-free score without random draws is the same on every minibatch.
        alike = self.proxy.data_free and not self.proxy.draws and not self.each
        minibatches = range(start, start + 1 if alike else stop)
        count, each = len(genotypes), len(minibatches)
        names = [(_VALIDATION_STREAM, index) for index in minibatches]
        owners = np.repeat(np.arange(count), each)
        digests = [zlib.crc32(genotype.encode()) for genotype in genotypes]
        weights: list[tuple[int, ...]] = [(NETWORK, digest) for digest in digests]
        if self.each:
            weights = [(*name, index) for name in weights for index in minibatches]
        rows = Rows(
            {group: np.repeat(leaf, each, axis=0) for group, leaf in entries.items()},
            np.tile(np.arange(each), count),
            np.arange(count * each) if self.each else owners,
            owners,
        )
        pending = self._start(network, names, weights, rows)
        found = self._read(network, pending, rows)
        found = found.reshape(count, each, *found.shape[1:])
        return np.repeat(found, stop - start, axis=1) if alike else found

    def drop(self, genotype: str) -> None:
        """Discard the compiled programs of a genotype's network."""
        self._networks.pop(genotype, None)

    def _supernet(self) -> _Network:
        module = self.space.supernet(self.dataset.num_classes)
        return self._shared(module, "supernet")

    def _masked_network(self) -> _Network:
        assert self._masked is not None
        return self._shared(self._masked, "networks")

    def _shared(self, module: nn.Module, name: str) -> _Network:
        if module not in self._networks:
            most = self.space.most_candidates()
            self._networks[module] = self._build(
                module, name, [most] * self._together, masked=True
            )
        return self._networks[module]

    def _build(
        self, module: nn.Module, name: str, sizes: Sequence[int], masked: bool
    ) -> _Network:
        run: Any = module.apply
        if not masked:
            run = lambda v, x, _, **rngs: module.apply(v, x, **rngs)  # noqa: E731
        scorer = Scorer(
            self.proxy.score,
            run,
            form=self.form,
            forward_only=self.proxy.forward_only,
            mesh=self._mesh,
            inputs=Inputs(self._weights.inside(module), self._batch_of),
            sizes=sizes,
            name=f"{self.proxy.name}, {name}",
        )
        if self._on_chunk is not None and name == "supernet":
            scorer.on_chunk = self._on_chunk
        return _Network(module, scorer, masked)

    def _batch_of(self, resident: Any, number: Any) -> Batch:
        return self._minibatches.batch(resident, resident["feed"], number)

    def _entries(
        self, masks: Masks, as_network: float, count: int, stacked: bool = False
    ) -> dict[str, Any]:
        """Return masks in the form the compiled module takes, ``[count, ...]``."""
        entries = {g: np.asarray(w) if stacked else w[None] for g, w in masks.items()}
        if self._masked is not None:
            entries[AS_NETWORK] = np.full(count, as_network, np.float32)
        return entries

    def _start(
        self,
        network: _Network,
        minibatches: Sequence[tuple[int, ...]],
        weights: Sequence[tuple[int, ...]],
        rows: Rows,
    ) -> list[tuple[np.ndarray, Pending]]:
        """Start scoring rows; return the rows of each pending call."""
        scorer = network.scorer
        if self._resident is None:
            with self.stopwatch.measure("data"):
                self._resident = scorer.put(self._minibatches.resident())
        resident = {**self._resident, "feed": self._feed(minibatches)}
        if self._given is None and self.form.inside:
            resident |= scorer.put(self._weights.named(weights))
            return [(np.arange(len(rows.owners)), self._timed(scorer, resident, rows))]
        calls = []
        for number, name in enumerate(weights):
            mine = np.flatnonzero(rows.weights == number)
            part = jax.tree.map(lambda leaf, mine=mine: leaf[mine], rows)
            given = {"variables": self._variables(network, name)}
            call = self._timed(scorer, {**resident, **given}, part)
            calls.append((mine, call))
        return calls

    def _timed(self, scorer: Scorer, resident: Any, rows: Rows) -> Pending:
        start, known = time.perf_counter(), self.stopwatch.programs
        pending = scorer.start(resident, rows)
        new = [program for program in scorer.programs if program not in known]
        if new:  # compiled by this call, or by a thread that it waited for
            self.stopwatch.add("compile", time.perf_counter() - start)
            known += new
        return pending

    def _read(
        self, network: _Network, calls: Sequence[tuple[np.ndarray, Pending]], rows: Rows
    ) -> np.ndarray:
        before = network.scorer.busy_seconds
        parts = [(mine, call.result()) for mine, call in calls]
        self.stopwatch.busy_seconds += network.scorer.busy_seconds - before
        shape = (len(rows.owners), *parts[0][1].shape[1:])
        scores = np.empty(shape, np.float32)
        for mine, part in parts:
            scores[mine] = part
        return scores

    def _feed(self, names: Sequence[tuple[int, ...]]) -> Feed:
        """Put minibatches on the devices; keep those of this step and the next."""
        key = tuple(names)
        if key not in self._feeds:
            with self.stopwatch.measure("data"):
                drawn = self._minibatches.feed(names, self._feed_size)
                while len(self._feeds) > 1:
                    self._feeds.pop(next(iter(self._feeds)))
                self._feeds[key] = self._supernet().scorer.put(drawn)
        return self._feeds[key]

    def _variables(self, network: _Network, name: tuple[int, ...]) -> Variables:
        """Put variables on the devices, for calls that do not draw their own."""
        if self._given is not None and not network.masked:
            raise NotImplementedError("trained weights are those of the supernet")
        if self._drawn[0] != (network.module, name):
            with self.stopwatch.measure("initialisation"):
                drawn = self._given or self._weights.on_host(network.module, name)
                drawn = network.scorer.put(drawn)
            self._drawn = ((network.module, name), drawn)
        return self._drawn[1]
