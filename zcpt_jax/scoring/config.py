"""Settings of scores: those that decide them, and those that only say how."""

import dataclasses
from dataclasses import dataclass, field
from typing import Literal

from jax.sharding import Mesh

from zcpt_jax.lowering import Lowering
from zcpt_jax.stopwatch import Stopwatch
from zcpt_jax.types import InputError, check_seed

Initialisations = Literal["one", "each"]


@dataclass(frozen=True)
class ScoringConfig:
    """Settings that decide the scores of masks and networks.

    Attributes:
      batch_size: images of a minibatch.
      seed: weights and minibatches derive from it; from 0 to 2**32 - 1.
      initialisations: ``one`` as published: the supernet, and each proposal's network,
        have the same initial weights throughout. ``each`` draws new ones at each step
        and for each validation minibatch, so that one draw does not decide for all.
      score_batches: minibatches over which the score of a mask is summed; one as
        published.
    """

    batch_size: int = 64
    seed: int = 0
    initialisations: Initialisations = "one"
    score_batches: int = 1

    def check(self) -> None:
        """Raises InputError if a value is out of range."""
        check_seed(self.seed)
        self._check_counts("batch_size", "score_batches")
        if self.initialisations not in ("one", "each"):
            raise InputError(
                f"initialisations must be one or each, got {self.initialisations!r}"
            )

    def _check_counts(self, *names: str) -> None:
        for name in names:
            value = getattr(self, name)
            if value < 1:
                raise InputError(f"{name} must be at least 1, got {value}")

    def replace(self, **changes: object) -> "ScoringConfig":
        """Return a copy with other values of some fields."""
        return dataclasses.replace(self, **changes)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Execution:
    """How scores are computed. Nothing here decides what they are.

    Attributes:
      form: which form each operation takes, with which precision, and how many masks
        are put together; by default what suits the devices.
      mesh: devices that share the masks (:func:`zcpt_jax.sharding.make_mesh`); one by
        default. With several processes each makes the same calls.
      stopwatch: takes the wall time by phase.
    """

    form: Lowering | None = None
    mesh: Mesh | None = None
    stopwatch: Stopwatch = field(default_factory=Stopwatch)
