"""Records and callables shared by all packages of the library.

Letters in shapes: ``B`` images of a minibatch, ``H, W, C`` height, width and channels,
``E`` edges of a mask group, ``O`` candidate operations of an edge, ``K`` masks that are
scored together.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

import flax.linen as nn
import jax
import numpy as np

Variables = Mapping[str, Any]
"""Flax variables, the result of ``init``: ``{'params': ..., 'batch_stats': ...}``."""

Array = jax.Array | np.ndarray

Masks = Mapping[str, Array]
"""Architecture weights: one array ``[E, O]`` per group; stacks have a leading ``K``.
The mapping may also contain :data:`AS_NETWORK`."""

Norm = Literal["running", "batch", "identity"]
"""Mode of BatchNorm while scoring: stored statistics, statistics of the minibatch, or
no normalisation."""

Combine = Callable[[np.ndarray], np.ndarray]
"""Function from scores ``[n, M]`` of M proxies, higher is better for each, to one
score ``[n]``."""


NOISE = "noise"
"""Flax name of the random stream for networks that draw numbers while they run:
``apply(variables, images, masks, rngs={NOISE: key})``."""


AS_NETWORK = "as_network"
"""Scalar entry of masks that says what discretised masks represent.

0, or no entry: a supernet, where a ReLU of a zero-weight operation is counted as in the
published code. 1: the discrete network, which lacks that operation, so its ReLU is not
counted at all."""


AUXILIARY = "auxiliary"
"""Collection in which networks return the logits ``[B, classes]`` of an auxiliary head:
``logits, out = apply(variables, images, mutable=[AUXILIARY])``, then
``out[AUXILIARY]["logits"]``."""


Progress = Callable[[str, float, int, str], None]
"""Callback ``(stage, done, total, note)``, called after each step of a long
computation."""


class InputError(ValueError):
    """Unusable input from the user; the message says what to do instead."""


class ScoreError(ArithmeticError):
    """Scores that allow no decision: NaN or infinite."""


class Batch(NamedTuple):
    """One minibatch.

    Attributes:
      images: float32 ``[B, H, W, C]``, normalised.
      labels: int32 ``[B]``.
      key: PRNG key for networks that draw random numbers while they run (stream
        :data:`NOISE`), None for other networks.
    """

    images: Array
    labels: Array
    key: jax.Array | None = None


def digest(*parts: bytes) -> str:
    """Return the hexadecimal SHA-256 of bytes, to identify contents in settings."""
    found = hashlib.sha256()
    for part in parts:
        found.update(part)
    return found.hexdigest()


def check_seed(seed: int) -> None:
    """Raise InputError if a seed is out of range; JAX keys drop higher bits."""
    if not 0 <= seed < 2**32:
        raise InputError(f"seed must be from 0 to 2**32 - 1, got {seed}")


class ApplyFn(Protocol):
    """A network as a function, for instance ``module.apply`` of a Flax module."""

    def __call__(self, variables: Any, images: Any, masks: Any, /) -> Any:
        """Return logits ``[B, classes]`` for ``images`` ``[B, H, W, C]``."""
        ...


class ScoreFn(Protocol):
    """A proxy as a pure function."""

    def __call__(
        self, apply_fn: ApplyFn, variables: Any, batch: Batch, masks: Any, /
    ) -> jax.Array:
        """Return a scalar for one mask, or one number per member of an ensemble."""
        ...


@dataclass(frozen=True)
class Proxy:
    """A scoring function together with its conventions.

    Attributes:
      name: name in flags and reports.
      score: the scoring function; it can be used on its own.
      norm: mode of BatchNorm while scoring; ``mixed`` if the members of an ensemble
        differ.
      needs_labels: whether the score depends on the labels of the batch.
      data_free: whether the score is independent of the images' values.
      draws: whether it draws random numbers from the key of the batch.
      forward_only: whether it takes no derivative, so that zero-weight operations may
        be skipped and the images of several masks batched together.
      over_scales: whether it sums over the scales of BatchNorm, so that it matters
        which BatchNorms have them.
      higher_is_better: whether a better network has the higher score; otherwise the
        search negates the score.
      range: the values a healthy network can give, in words.
      reference: paper and equation.
      members: members of an ensemble; its ``score`` gives one number for each of them.
      combine: function that combines the members' scores of networks to compare.
    """

    name: str
    score: ScoreFn
    norm: Norm | Literal["mixed"]
    _: KW_ONLY
    needs_labels: bool = False
    data_free: bool = False
    draws: bool = False
    forward_only: bool = False
    over_scales: bool = False
    range: str = "any"
    reference: str = ""
    higher_is_better: bool = True
    members: tuple["Proxy", ...] = ()
    combine: Combine | None = None

    def signed(self, scores: Array) -> np.ndarray:
        """Negate lower-is-better scores, for each member of an ensemble by itself.

        Args:
          scores: scores of n networks, ``[n]``, or ``[n, M]`` for an ensemble of M.

        Returns:
          float64 of the same shape.
        """
        members = self.members or (self,)
        signs = np.array([1.0 if one.higher_is_better else -1.0 for one in members])
        return np.asarray(scores, np.float64) * signs

    def combined(self, signed: np.ndarray) -> np.ndarray:
        """Combine the signed scores of an ensemble; return one proxy's unchanged.

        Args:
          signed: result of :meth:`signed` for the n networks that are compared.

        Returns:
          float64 ``[n]``; for an ensemble, relative to these n networks.
        """
        return signed if self.combine is None else self.combine(signed)

    def comparable(self, scores: Array) -> np.ndarray:
        """Convert the raw scores of n networks into comparable numbers.

        Args:
          scores: raw scores of the proxy, ``[n]``, or ``[n, M]`` for an ensemble of M.

        Returns:
          float64 ``[n]``, higher is better.
        """
        return self.combined(self.signed(scores))


@dataclass(frozen=True)
class Decision:
    """One choice of a search: which ``keep`` of several candidates survive.

    Attributes:
      name: name of the edge (or node) to decide, such as ``'3<-1'``; unique within a
        phase.
      candidates: names of the candidates, length ``O``.
      regions: for each group, the boolean array ``[O, E, O]`` of the mask entries
        that are zeroed when a candidate is removed. Groups left out are untouched.
      keep: number of candidates that survive.
      one_by_one: whether candidates are dropped one at a time and the remaining ones
        scored again; otherwise all are dropped by the same scores.
    """

    name: str
    candidates: tuple[str, ...]
    regions: Mapping[str, np.ndarray]
    keep: int = 1
    one_by_one: bool = False


@dataclass(frozen=True)
class Phase:
    """Decisions that are open at the same time.

    Attributes:
      name: name in progress bars and reports.
      tracks: sequences of decisions that advance in lockstep: one step decides one
        decision of each track, in order, on the same minibatch (DARTS: a normal
        edge, then a reduce edge). Most spaces have one track.
    """

    name: str
    tracks: tuple[tuple[Decision, ...], ...]


@dataclass(frozen=True)
class Drawing:
    """Picture of a genotype: a directed graph, laid out by the space.

    Attributes:
      title: title of one line.
      nodes: map from a node's name to its position ``(x, y)``; x grows with depth.
      edges: ``(source, target, label)``; an edge without influence has label ``''``
        or a name listed in ``muted``.
      muted: labels drawn pale, such as ``none``.
      labels: map from a node's name to a text below it, such as the operation at the
        node; equal texts have the same colour.
    """

    title: str
    nodes: Mapping[str, tuple[float, float]]
    edges: tuple[tuple[str, str, str], ...]
    muted: frozenset[str] = frozenset()
    labels: Mapping[str, str] = field(default_factory=dict)


class Owner(NamedTuple):
    """The mask entry that a parameter of a supernet belongs to."""

    group: str
    entry: tuple[int, ...]


class Space(Protocol):
    """A search space, as far as the search needs to know it.

    Implementations are frozen dataclasses whose fields are the supernet's options.
    Subclass it to inherit the methods that have a body here.
    """

    @property
    def name(self) -> str:
        """Name of the space in flags, genotype files and golden files."""
        ...

    def init_masks(self) -> Masks:
        """Return the undecided masks, one array ``[E, O]`` (or ``[E]``) per group."""
        ...

    def phases(self) -> tuple[Phase, ...]:
        """Return all decisions of a search, in the order in which they open."""
        ...

    def all_decisions(self) -> list[Decision]:
        """Return every decision of the phases, in order of phase and track."""
        return [d for phase in self.phases() for track in phase.tracks for d in track]

    def most_candidates(self) -> int:
        """Return the number of candidates of the widest decision."""
        return max(len(decision.candidates) for decision in self.all_decisions())

    def supernet(self, num_classes: int) -> nn.Module:
        """Build the supernet; ``apply(variables, images, masks)`` gives the logits."""
        ...

    def network(self, genotype: str, num_classes: int) -> nn.Module:
        """Build the discrete network; ``apply(variables, images)`` gives the logits."""
        ...

    def masked_network(self, num_classes: int, scales: bool) -> nn.Module | None:
        """Build a module of all candidates that masks turn into any discrete network.

        Under discretised masks with :data:`AS_NETWORK` its scores are those of the
        network with the same weights, so one compiled function scores all networks. If
        it is the supernet itself, the decisions use the same function.

        Args:
          num_classes: number of logits.
          scales: whether every BatchNorm must have the scale that it has in the
            networks; if False, freshly initialised scales may be left out.

        Returns:
          The module, or None (the default) if there is none; networks are then
          compiled one by one.
        """
        del num_classes, scales
        return None

    def init_networks(
        self, module: nn.Module, key: jax.Array, image_shape: tuple[int, ...]
    ) -> Variables:
        """Initialise the variables of a discrete network or of :meth:`masked_network`.

        By default they are drawn like the supernet's.
        """
        return self.init_variables(module, key, image_shape)

    def evaluation_network(
        self, genotype: str, num_classes: int, auxiliary: bool = False
    ) -> nn.Module:
        """Build the discrete network in the form that is trained from scratch.

        Args:
          genotype: genotype in any form that :meth:`parse` takes.
          num_classes: number of logits.
          auxiliary: whether it has an auxiliary head, see :data:`AUXILIARY`.

        Raises:
          InputError: if the space's networks have no auxiliary head.
        """
        if auxiliary:
            raise InputError(
                f"the networks of {self.name} have no auxiliary head; train without one"
            )
        return self.network(genotype, num_classes)

    def published(self) -> Mapping[str, str]:
        """Return published genotypes by the names they are known by."""
        return {}

    def genotype(self, masks: Masks) -> str:
        """Return the genotype of discretised masks, in the space's usual form."""
        ...

    def parse(self, text: str) -> str:
        """Return the canonical form of a handwritten genotype or raise InputError."""
        ...

    def init_variables(
        self, module: nn.Module, key: jax.Array, image_shape: tuple[int, ...]
    ) -> Variables:
        """Initialise the variables of a supernet or network for images ``[H, W, C]``.

        This is a pure function of the key, which may be traced.
        """
        drawn = module.init(key, np.zeros((1, *image_shape), np.float32))
        # The output of an auxiliary head is not a variable.
        return {name: tree for name, tree in drawn.items() if name != AUXILIARY}

    def drawings(self, genotype: str) -> tuple[Drawing, ...]:
        """Return pictures of a genotype, one per cell."""
        del genotype
        return ()

    def forms(self, genotype: str) -> Mapping[str, str]:
        """Return other common notations of a genotype, by their names."""
        del genotype
        return {}

    def table_key(self, genotype: str) -> str:
        """Return the key of a genotype in tables of trained networks."""
        return genotype

    def table_keys(self) -> frozenset[str] | None:
        """Return the keys of all genotypes, None if tables hold only this space."""
        return None

    def whole(self, num_classes: int) -> nn.Module:
        """Build a module of all candidates with the discrete networks' parameters."""
        return self.supernet(num_classes)

    def owner(self, path: tuple[str, ...]) -> Owner | tuple[Owner, ...] | None:
        """Return the mask entry that a layer of :meth:`whole` belongs to.

        Budgets use it. ``path`` is a parameter's path without its last name. The result
        is None for a layer of every network. A stack of layers has one owner for each
        slice of its parameters' first axis.

        Raises:
          NotImplementedError: if the space does not define owners; it then has no
            budgets.
        """
        raise NotImplementedError
