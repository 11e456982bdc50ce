"""Settings of scoring: those that determine scores, and those of execution."""

from dataclasses import dataclass, field
from typing import Literal

from jax.sharding import Mesh

from zcpt_jax.lowering import Lowering
from zcpt_jax.stopwatch import Stopwatch
from zcpt_jax.types import InputError, check_seed

Initialisations = Literal["one", "each"]


@dataclass(frozen=True)
class ScoringConfig:
    """Settings that determine the scores of masks and networks.

    Attributes:
      batch_size: number of images in a minibatch.
      seed: seed of weights and minibatches, from 0 to 2**32 - 1.
      initialisations: ``one``, as published: the supernet, and each proposal's network,
        keep the same initial weights throughout. ``each``: new weights are drawn at
        each step and for each validation minibatch, so that no single draw decides.
      score_batches: number of minibatches over which the score of a mask is summed; 1
        as published.
    """

    batch_size: int = 64
    seed: int = 0
    initialisations: Initialisations = "one"
    score_batches: int = 1

    def check(self) -> None:
        """Raise InputError if a value is out of range."""
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


@dataclass(frozen=True)
class Execution:
    """Settings of how scores are computed, which do not determine the scores.

    Attributes:
      form: lowering of operations, their precision, and the number of masks scored
        together; by default as suits the devices.
      mesh: devices that share the masks (:func:`zcpt_jax.sharding.make_mesh`); by
        default one device. With several processes, each makes the same calls.
      stopwatch: stopwatch of the wall time by phase.
    """

    form: Lowering | None = None
    mesh: Mesh | None = None
    stopwatch: Stopwatch = field(default_factory=Stopwatch)
