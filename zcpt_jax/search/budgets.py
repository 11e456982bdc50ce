"""Budgets: bounds on the size of networks, before and during a search.

A network's parameters and multiply-adds are a sum over the layers it keeps, so lower
and upper bounds of what partly decided masks can lead to are known at each decision.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from zcpt_jax.nn.size import layer_flops, param_counts
from zcpt_jax.types import Array, Decision, InputError, Masks, Owner, Space


@dataclass(frozen=True)
class Costs:
    """Costs of networks, in parameters or multiply-adds.

    Attributes:
      fixed: cost of the layers that every network has.
      entries: map from group to the cost of each mask entry, in the mask's shape.
    """

    fixed: float
    entries: Mapping[str, np.ndarray]

    def of(self, masks: Masks) -> float:
        """Return the cost of the network of discretised masks."""
        kept = (self.entries[g][np.asarray(masks[g]) != 0].sum() for g in self.entries)
        return self.fixed + float(sum(kept))


def param_costs(space: Space, num_classes: int, image_shape: tuple[int, ...]) -> Costs:
    """Return the parameter costs of a space's discrete networks.

    Raises:
      InputError: if the space does not say which layers belong to which candidate.
    """
    shapes = param_counts(space.whole(num_classes), image_shape)
    pieces: list[tuple[Owner | None, float]] = []
    for path, size in shapes.items():
        owner = _owner(space, path[:-1])
        if isinstance(owner, Owner) or owner is None:
            pieces.append((owner, size))
        else:  # a stack, whose parameters have one slice per owner
            pieces += [(one, size / len(owner)) for one in owner]
    return _sum_up(space, pieces)


def flop_costs(space: Space, num_classes: int, image_shape: tuple[int, ...]) -> Costs:
    """Return multiply-adds of a space's discrete networks for an image ``(H, W, C)``.

    Raises:
      InputError: if the space does not say which layers belong to which candidate.
    """
    pieces: list[tuple[Owner | None, float]] = []
    for path, flops in layer_flops(space.whole(num_classes), image_shape).items():
        owner = _owner(space, path)
        if not (isinstance(owner, Owner) or owner is None):
            owner = owner[int(path[-1])]  # the path of a slice ends in its index
        pieces.append((owner, flops))
    return _sum_up(space, pieces)


def _owner(space: Space, path: tuple[str, ...]) -> Owner | tuple[Owner, ...] | None:
    try:
        return space.owner(path)
    except NotImplementedError as error:
        raise InputError(
            f"{space.name} does not say which layers belong to which operation, so "
            "that it has no budgets; give it a method owner (see Space.owner)"
        ) from error


def _sum_up(space: Space, pieces: Iterable[tuple[Owner | None, float]]) -> Costs:
    masks = space.init_masks()
    entries = {group: np.zeros(np.shape(mask)) for group, mask in masks.items()}
    fixed = 0.0
    for owner, cost in pieces:
        if owner is None:
            fixed += cost
        else:
            entries[owner.group][owner.entry] += cost
    return Costs(fixed, entries)


class Budget:
    """A limit on a cost, such as the parameters of the network found.

    Attributes:
      name: name of the limited cost, for messages.
      limit: maximum allowed cost.
    """

    def __init__(
        self, name: str, limit: float, costs: Costs, decisions: Sequence[Decision]
    ) -> None:
        """Prepare the bounds.

        Args:
          name: name of the limited cost.
          limit: maximum allowed cost.
          costs: costs of networks.
          decisions: all decisions of a search, in the order of their phases.

        Raises:
          InputError: if decisions overlap partially: a candidate of a later decision
            must contain an earlier decision completely or not at all.
        """
        self.name, self.limit = name, limit
        self._fixed = costs.fixed
        self._groups = sorted(costs.entries)
        self._entries = np.concatenate([costs.entries[g].ravel() for g in self._groups])
        self._steps, self._free, self._top = self._nest(costs, decisions)

    def _nest(
        self, costs: Costs, decisions: Sequence[Decision]
    ) -> tuple[list["_Step"], np.ndarray, list[int]]:
        """Find which decisions are contained in the candidates of later ones."""
        free = np.ones(len(self._entries), bool)
        covers: list[np.ndarray] = []
        steps: list[_Step] = []
        top: list[int] = []
        for decision in decisions:
            candidates, taken = [], set()
            for index in range(len(decision.candidates)):
                region = self._flat(
                    {
                        g: decision.regions[g][index]
                        if g in decision.regions
                        else np.zeros(costs.entries[g].shape, bool)
                        for g in self._groups
                    }
                )
                inner = [i for i in top if (covers[i] & region).any()]
                if any((covers[i] & ~region).any() for i in inner):
                    raise InputError(
                        f"budgets need decisions that nest; a candidate of "
                        f"{decision.name!r} holds a part of an earlier decision"
                    )
                own = region.copy()
                for i in inner:
                    own &= ~covers[i]
                candidates.append((np.flatnonzero(region), np.flatnonzero(own), inner))
                taken |= set(inner)
                free &= ~region
            cover = np.zeros(len(free), bool)
            for region, _, _ in candidates:
                cover[region] = True
            covers.append(cover)
            top = [i for i in top if i not in taken] + [len(steps)]
            steps.append(_Step(decision.keep, candidates))
        return steps, np.flatnonzero(free), top

    def _flat(self, arrays: Mapping[str, Array]) -> np.ndarray:
        return np.concatenate([np.asarray(arrays[g]).ravel() for g in self._groups])

    def reach(self, masks: Masks) -> tuple[float, float]:
        """Return lower and upper bounds of the cost that masks can lead to."""
        on = self._flat(masks) != 0
        cost = self._entries * on
        bounds: list[tuple[float, float]] = []
        for step in self._steps:
            lows, highs = [], []
            for region, own, inner in step.candidates:
                if not on[region].any():
                    continue  # already dropped
                base = cost[own].sum()
                lows.append(base + sum(bounds[i][0] for i in inner))
                highs.append(base + sum(bounds[i][1] for i in inner))
            low, high = sorted(lows)[: step.keep], sorted(highs)[-step.keep :]
            bounds.append((sum(low), sum(high)))
        always = self._fixed + cost[self._free].sum()
        least, most = (sum(bounds[i][side] for i in self._top) for side in (0, 1))
        return float(always + least), float(always + most)

    def permits(self, masks: Masks) -> bool:
        """Return whether partly decided masks can still end within the limit."""
        return self.reach(masks)[0] <= self.limit

    def check(self, masks: Masks, space: str) -> None:
        """Reject a limit that every network exceeds.

        Raises:
          InputError: if the lower bound exceeds the limit; the message has both bounds.
        """
        least, most = self.reach(masks)
        if least > self.limit:
            raise InputError(
                f"no network of {space} has at most {self.limit:,.0f} {self.name}; "
                f"they have from {least:,.0f} to {most:,.0f}"
            )


@dataclass(frozen=True)
class _Step:
    keep: int
    # For each candidate: all its entries, its entries in no earlier decision, and the
    # indices of the earlier decisions it contains.
    candidates: list[tuple[np.ndarray, np.ndarray, list[int]]]


def make_budgets(
    space: Space,
    num_classes: int,
    image_shape: tuple[int, ...],
    *,
    max_params: float | None = None,
    max_flops: float | None = None,
) -> tuple[Budget, ...]:
    """Make the budgets of a search and check that networks can meet them.

    Args:
      space: the search space.
      num_classes: number of classes.
      image_shape: shape ``(H, W, C)`` of an image.
      max_params: maximum number of parameters, None for no limit.
      max_flops: maximum number of multiply-adds for one image, None for no limit.

    Raises:
      InputError: if a budget cannot be met.
    """
    asked: tuple[tuple[str, float | None, Callable[..., Costs]], ...] = (
        ("parameters", max_params, param_costs),
        ("multiply-adds", max_flops, flop_costs),
    )
    decisions = space.all_decisions()
    budgets = []
    for name, limit, count in asked:
        if limit is not None:
            costs = count(space, num_classes, image_shape)
            budget = Budget(name, limit, costs, decisions)
            budget.check(space.init_masks(), space.name)
            budgets.append(budget)
    return tuple(budgets)
