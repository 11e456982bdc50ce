"""The records and callables that every other room of the library exchanges.

Letters used in shapes: ``B`` images of a minibatch, ``H, W, C`` height, width and
channels, ``E`` edges of a mask group, ``O`` candidate operations of an edge, ``K``
masks that are scored together.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

import flax.linen as nn
import jax
import numpy as np

Variables = Mapping[str, Any]
"""What Flax's ``init`` returns: ``{'params': ..., 'batch_stats': ...}``."""

Array = jax.Array | np.ndarray

Masks = Mapping[str, Array]
"""Operation weights: one array ``[E, O]`` a group, stacks have a leading ``K``.
Besides, there may be :data:`AS_NETWORK`."""

Norm = Literal["running", "batch", "identity"]
"""How BatchNorm acts while scoring: with the stored statistics, with those of the
minibatch, or not at all."""

Combine = Callable[[np.ndarray], np.ndarray]
"""Scores ``[n, M]`` of M proxies, higher is better for each, to one score ``[n]``."""


NOISE = "noise"
"""The random stream of networks that draw numbers while they run, as Flax names it:
``apply(variables, images, masks, rngs={NOISE: key})``."""


AS_NETWORK = "as_network"
"""The entry of masks, a scalar, that says what decided masks stand for.

With 0, and without it, for a supernet: a ReLU of an operation of weight zero counts as
the published code counts it there. With 1 for the discrete network, which does not have
that operation, so that the ReLU does not count at all."""


AUXILIARY = "auxiliary"
"""The collection in which networks hand out the logits ``[B, classes]`` of an auxiliary
head: ``logits, out = apply(variables, images, mutable=[AUXILIARY])``, then
``out[AUXILIARY]["logits"]``."""


Progress = Callable[[str, float, int, str], None]
"""``(stage, done, total, note)``, called after every step of a long computation."""


class InputError(ValueError):
    """What the user gave cannot be used; the message says what to do instead."""


class ScoreError(ArithmeticError):
    """Scores that decide nothing: not a number, or infinite."""


class Batch(NamedTuple):
    """One minibatch.

    Attributes:
      images: float32 ``[B, H, W, C]``, normalised.
      labels: int32 ``[B]``.
      key: PRNG key of networks that draw random numbers while they run (stream
        :data:`NOISE`), None for those that do not.
    """

    images: Array
    labels: Array
    key: jax.Array | None = None


def digest(*parts: bytes) -> str:
    """The SHA-256 of some bytes, in hexadecimal: tells contents apart in settings."""
    found = hashlib.sha256()
    for part in parts:
        found.update(part)
    return found.hexdigest()


def check_seed(seed: int) -> None:
    """Raise InputError unless a seed is one: JAX keys drop higher bits."""
    if not 0 <= seed < 2**32:
        raise InputError(f"seed must be from 0 to 2**32 - 1, got {seed}")


class ApplyFn(Protocol):
    """A network as a function, for instance ``module.apply`` of a Flax module."""

    def __call__(self, variables: Any, images: Any, masks: Any, /) -> Any:
        """Returns logits ``[B, classes]`` for ``images`` ``[B, H, W, C]``."""
        ...


class ScoreFn(Protocol):
    """A proxy as a pure function."""

    def __call__(
        self, apply_fn: ApplyFn, variables: Any, batch: Batch, masks: Any, /
    ) -> jax.Array:
        """Returns one scalar for one mask (an ensemble: one number a member)."""
        ...


@dataclass(frozen=True)
class Proxy:
    """A scoring function with its conventions, stated in one place.

    Attributes:
      name: what flags and reports call it.
      score: the function; it can be used on its own.
      norm: how BatchNorm acts while scoring; ``mixed`` if the members of an ensemble
        differ.
      needs_labels: whether the labels of the batch enter the score.
      data_free: whether the score is independent of the images' values.
      draws: whether it draws random numbers, from the key of the batch.
      forward_only: whether it takes no derivative, so that operations of weight zero
        may be skipped and the images of masks put together.
      over_scales: whether the scales of BatchNorm are weights that it sums over, so
        that it matters which BatchNorms have them.
      higher_is_better: whether a better network has the higher score; where it has
        the lower one, the search turns the sign.
      range: the values a healthy network can give, in words.
      reference: paper and equation.
      members: of an ensemble; its ``score`` gives one number for each of them.
      combine: how an ensemble makes one score of those, given networks to compare.
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
        """Turn scores so that higher is better, those of each member of an ensemble.

        Args:
          scores: scores of n networks, ``[n]``, or ``[n, M]`` of an ensemble of M.

        Returns:
          float64 of the same shape.
        """
        members = self.members or (self,)
        signs = np.array([1.0 if one.higher_is_better else -1.0 for one in members])
        return np.asarray(scores, np.float64) * signs

    def combined(self, signed: np.ndarray) -> np.ndarray:
        """Combine the signed scores of an ensemble; those of one proxy stay.

        Args:
          signed: what :meth:`signed` gives for the n networks that are compared.

        Returns:
          float64 ``[n]``; of an ensemble it says how networks stand among these n.
        """
        return signed if self.combine is None else self.combine(signed)

    def comparable(self, scores: Array) -> np.ndarray:
        """Turn the scores of networks that are compared into numbers to compare.

        Args:
          scores: scores as the proxy gives them, ``[n]``, or ``[n, M]`` of an ensemble.

        Returns:
          float64 ``[n]``, higher is better.
        """
        return self.combined(self.signed(scores))


@dataclass(frozen=True)
class Decision:
    """One choice of a search: which ``keep`` of several candidates survive.

    Attributes:
      name: the edge (or node) that is decided, such as ``'3<-1'``; no two decisions
        of a phase share a name.
      candidates: names of the candidates, length ``O``.
      regions: for each group the boolean array ``[O, E, O]`` of the mask entries
        that are zeroed when a candidate is removed. Groups left out are untouched.
      keep: how many candidates survive.
      one_by_one: whether candidates go one at a time, the others scored anew without
        it; otherwise all that go, go by the same scores.
    """

    name: str
    candidates: tuple[str, ...]
    regions: Mapping[str, np.ndarray]
    keep: int = 1
    one_by_one: bool = False


@dataclass(frozen=True)
class Phase:
    """Decisions that are open together.

    Attributes:
      name: what progress bars and reports call it.
      tracks: sequences of decisions that advance in lockstep: one step decides one
        decision of each track, in order, on the same minibatch (DARTS: a normal
        edge, then a reduce edge). Most spaces have one track.
    """

    name: str
    tracks: tuple[tuple[Decision, ...], ...]


@dataclass(frozen=True)
class Drawing:
    """A genotype as a picture: a directed graph, laid out by the space.

    Attributes:
      title: one line.
      nodes: name of a node to its position ``(x, y)``; x grows with depth.
      edges: ``(source, target, label)``; an edge without influence has label ``''``
        or a name listed in ``muted``.
      muted: labels drawn pale, such as ``none``.
      labels: name of a node to a text below it, such as the operation at the node;
        equal texts have one colour.
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
    """A search space: what the search needs to know of it, and nothing else.

    Implementations are frozen dataclasses whose fields are the supernet's options.
    Subclass it to inherit the methods that have a body here.
    """

    @property
    def name(self) -> str:
        """What flags, genotype files and golden files call the space."""
        ...

    def init_masks(self) -> Masks:
        """The undecided masks, one array ``[E, O]`` (or ``[E]``) a group."""
        ...

    def phases(self) -> tuple[Phase, ...]:
        """All decisions of a search, in the order in which they come up."""
        ...

    def all_decisions(self) -> list[Decision]:
        """Every decision of the phases, in order of phase and track."""
        return [d for phase in self.phases() for track in phase.tracks for d in track]

    def most_candidates(self) -> int:
        """The number of candidates of the widest decision."""
        return max(len(decision.candidates) for decision in self.all_decisions())

    def supernet(self, num_classes: int) -> nn.Module:
        """The supernet; ``apply(variables, images, masks)`` gives the logits."""
        ...

    def network(self, genotype: str, num_classes: int) -> nn.Module:
        """The discrete network; ``apply(variables, images)`` gives the logits."""
        ...

    def masked_network(self, num_classes: int, scales: bool) -> nn.Module | None:
        """All candidates at once, which masks turn into each discrete network.

        Under decided masks with :data:`AS_NETWORK` its scores are those of the network
        with the same weights. One compiled function then scores all networks. Where it
        is the supernet, that function is the one that decides.

        Args:
          num_classes: number of logits.
          scales: whether every BatchNorm must have the scale that it has in the
            networks; without, fresh ones may be left out.

        Returns:
          The module, or None if there is no such module: networks are then compiled
          one by one. That is so unless a space says otherwise.
        """
        del num_classes, scales
        return None

    def init_networks(
        self, module: nn.Module, key: jax.Array, image_shape: tuple[int, ...]
    ) -> Variables:
        """Fresh variables of a discrete network, or of :meth:`masked_network`.

        By default drawn as those of the supernet.
        """
        return self.init_variables(module, key, image_shape)

    def evaluation_network(
        self, genotype: str, num_classes: int, auxiliary: bool = False
    ) -> nn.Module:
        """The discrete network as it is trained from scratch in the end.

        Args:
          genotype: in any form that :meth:`parse` takes.
          num_classes: number of logits.
          auxiliary: whether it has an auxiliary head, see :data:`AUXILIARY`.

        Raises:
          InputError: if the space's networks have no such head.
        """
        if auxiliary:
            raise InputError(
                f"the networks of {self.name} have no auxiliary head; train without one"
            )
        return self.network(genotype, num_classes)

    def published(self) -> Mapping[str, str]:
        """Genotypes that papers have published, by the names they are known by."""
        return {}

    def genotype(self, masks: Masks) -> str:
        """The genotype of fully decided masks, in the space's usual form."""
        ...

    def parse(self, text: str) -> str:
        """The canonical form of a genotype written by hand, or ``InputError``."""
        ...

    def init_variables(
        self, module: nn.Module, key: jax.Array, image_shape: tuple[int, ...]
    ) -> Variables:
        """Fresh variables of a supernet or network for images ``[H, W, C]``.

        A pure function of the key, which may be traced.
        """
        drawn = module.init(key, np.zeros((1, *image_shape), np.float32))
        # What an auxiliary head hands out is no variable.
        return {name: tree for name, tree in drawn.items() if name != AUXILIARY}

    def drawings(self, genotype: str) -> tuple[Drawing, ...]:
        """Pictures of a genotype, one a cell."""
        del genotype
        return ()

    def forms(self, genotype: str) -> Mapping[str, str]:
        """Other notations of a genotype that people use, by what they are called."""
        del genotype
        return {}

    def table_key(self, genotype: str) -> str:
        """What tables of trained networks file a genotype under."""
        return genotype

    def table_keys(self) -> frozenset[str] | None:
        """The keys of all genotypes, None if a table holds this space alone."""
        return None

    def whole(self, num_classes: int) -> nn.Module:
        """All candidates at once, with the parameters of the discrete networks."""
        return self.supernet(num_classes)

    def owner(self, path: tuple[str, ...]) -> Owner | tuple[Owner, ...] | None:
        """Which mask entry a layer of :meth:`whole` belongs to, None for all.

        Budgets count with it: ``path`` is a parameter's path without its last name.
        A stack of layers has an owner for each slice of its parameters' first axis.

        Raises:
          NotImplementedError: if the space does not say, and so has no budgets.
        """
        raise NotImplementedError
