"""Edge orders, which determine the open decision that a search takes next.

Xiang et al. 2023, section 4.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from zcpt_jax.types import InputError


@dataclass(frozen=True)
class EdgeOrder:
    """An edge order.

    Attributes:
      name: name in flags.
      survey: when all open decisions are scored to rank them: never, once at the start
        of a phase, or at each step.
      pick: ``(rng, open decisions) -> one of them``, for orders without a survey.
      priority: function from a decision's scores ``[O]`` to a number, for orders with a
        survey; the decision with the lowest number comes first.
    """

    name: str
    survey: Literal["never", "once", "each_step"]
    pick: Callable[[np.random.Generator, Sequence[int]], int] | None = None
    priority: Callable[[np.ndarray], float] | None = None

    def rank(self, scores: Sequence[np.ndarray]) -> list[int]:
        """Rank positions in ``scores`` by priority; ties keep their order.

        Decisions whose scores are all NaN come last.
        """
        assert self.priority is not None
        keys = [np.inf if np.isnan(s).all() else self.priority(s) for s in scores]
        return [int(index) for index in np.argsort(keys, kind="stable")]


def _first(rng: np.random.Generator, undecided: Sequence[int]) -> int:
    del rng
    return undecided[0]


def _last(rng: np.random.Generator, undecided: Sequence[int]) -> int:
    del rng
    return undecided[-1]


def _random(rng: np.random.Generator, undecided: Sequence[int]) -> int:
    return undecided[int(rng.integers(len(undecided)))]


def _lowest(scores: np.ndarray) -> float:
    return float(np.nanmin(scores))


def _mean(scores: np.ndarray) -> float:
    return float(np.nanmean(scores))


_ALL = (
    EdgeOrder("random", "never", pick=_random),
    EdgeOrder("fixed", "never", pick=_first),
    EdgeOrder("reverse", "never", pick=_last),
    # The published code never sorts the dictionary behind the '-once' orders, which
    # makes them 'reverse'; we follow the paper's text. In '-edge-iter' it draws a
    # second minibatch to choose the operation; we reuse the scores of the first.
    EdgeOrder("global-op-iter", "each_step", priority=_lowest),
    EdgeOrder("global-op-once", "once", priority=_lowest),
    EdgeOrder("global-edge-iter", "each_step", priority=_mean),
    EdgeOrder("global-edge-once", "once", priority=_mean),
)

ORDERS: dict[str, EdgeOrder] = {order.name: order for order in _ALL}
"""All edge orders by name."""


def get_order(name: str) -> EdgeOrder:
    """Return the edge order of the given name.

    Raises:
      InputError: if the name is unknown; the message lists the known names.
    """
    if name not in ORDERS:
        raise InputError(f"unknown edge order {name!r}; known: {', '.join(ORDERS)}")
    return ORDERS[name]
