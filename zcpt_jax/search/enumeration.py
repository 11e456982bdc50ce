"""Enumeration of a space: all of its networks, by index."""

import itertools
import math
from collections.abc import Iterator

import numpy as np

from zcpt_jax import masks as mask_algebra
from zcpt_jax.types import InputError, Masks, Space


class Enumeration:
    """Enumeration of a space's discretised masks.

    Each decision is a digit of the index; the last one varies fastest. Isomorphic
    networks get distinct indices.

    Attributes:
      space: the search space.
      size: number of networks.
    """

    def __init__(self, space: Space) -> None:
        """Count the networks; no masks are made yet."""
        self.space = space
        self._decisions = space.all_decisions()
        self._choices = [
            list(itertools.combinations(range(len(d.candidates)), d.keep))
            for d in self._decisions
        ]
        self._undecided = space.init_masks()
        self.size = math.prod(len(choices) for choices in self._choices)

    def masks(self, number: int) -> Masks:
        """Return the discretised masks of one network, group to ``[E, O]``.

        Raises:
          InputError: if the index is out of range.
        """
        if not 0 <= number < self.size:
            raise InputError(
                f"{self.space.name} has the networks 0 to {self.size - 1:,}, got "
                f"{number}"
            )
        digits = []
        for choices in reversed(self._choices):
            number, digit = divmod(number, len(choices))
            digits.append(digit)
        masks = self._undecided
        for decision, choices, digit in zip(
            self._decisions, self._choices, reversed(digits), strict=True
        ):
            masks = mask_algebra.apply_decision(masks, decision, choices[digit])
        return masks

    def sample(self, count: int, seed: int) -> Iterator[int]:
        """Draw distinct indices at random, in the order drawn.

        Raises:
          InputError: if the space has fewer networks.
        """
        if not 1 <= count <= self.size:
            raise InputError(
                f"{self.space.name} has {self.size:,} networks; cannot draw {count:,} "
                "of them"
            )
        rng = np.random.default_rng([seed, 0x5A])
        seen: set[int] = set()
        while len(seen) < count:
            # Drawn digit by digit, as the size of large spaces exceeds 64 bits.
            number = 0
            for choices in self._choices:
                number = number * len(choices) + int(rng.integers(len(choices)))
            if number not in seen:
                seen.add(number)
                yield number


def flatten(masks: Masks) -> np.ndarray:
    """Concatenate all entries of masks to ``[D]``, with groups in order of name."""
    return np.concatenate([np.asarray(masks[group]).ravel() for group in sorted(masks)])


def flatten_stack(masks: Masks) -> np.ndarray:
    """Flatten a stack of masks ``[K, ...]`` to ``[K, D]`` like :func:`flatten`."""
    parts = [np.asarray(masks[group]) for group in sorted(masks)]
    return np.concatenate([part.reshape(len(part), -1) for part in parts], axis=1)
