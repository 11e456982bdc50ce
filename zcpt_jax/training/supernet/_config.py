"""Recipe of a supernet's training."""

import math
from dataclasses import dataclass

from zcpt_jax.types import InputError, check_seed


@dataclass(frozen=True)
class SupernetConfig:
    """Settings of a supernet's training, with the published defaults.

    Attributes:
      seed: seed of initial weights (those of a search with this seed), initial alphas,
        minibatches and noise, from 0 to 2**32 - 1.
      batch_size: number of images in a minibatch; each step uses two minibatches.
      epochs: number of images drawn for the weights, as a multiple of the images they
        are trained on; each minibatch is drawn from all of them.
      max_steps: upper limit of the number of steps, over which the learning rate still
        falls to its minimum; None for no limit.
      learning_rate: initial learning rate of the weights (SGD).
      min_learning_rate: final learning rate of the cosine, which falls at every step
        (the published one falls after every epoch).
      momentum: momentum of the weights' SGD.
      weight_decay: weight decay of the weights.
      clip: norm that gradients of the weights are clipped to.
      alpha_learning_rate: learning rate of the alphas (Adam).
      alpha_betas: decay rates of Adam.
      alpha_weight_decay: weight decay of the alphas.
      alpha_scale: standard deviation of the initial alphas.
      save_every: number of steps between checkpoints; does not affect the result.
      log_every: number of steps between lines of metrics; does not affect the result.
    """

    seed: int = 0
    batch_size: int = 64
    epochs: int = 50
    max_steps: int | None = None
    learning_rate: float = 0.025
    min_learning_rate: float = 0.001
    momentum: float = 0.9
    weight_decay: float = 3e-4
    clip: float = 5.0
    alpha_learning_rate: float = 3e-4
    alpha_betas: tuple[float, float] = (0.5, 0.999)
    alpha_weight_decay: float = 1e-3
    alpha_scale: float = 1e-3
    save_every: int = 500
    log_every: int = 50

    def steps(self, num_images: int) -> int:
        """Return the number of steps of the training.

        Args:
          num_images: number of images that weights are trained on.
        """
        steps = self.epochs * -(-num_images // self.batch_size)
        return steps if self.max_steps is None else min(steps, self.max_steps)

    def check(self) -> None:
        """Raise InputError if a value is out of range."""
        check_seed(self.seed)
        for name in ("batch_size", "epochs", "max_steps", "save_every", "log_every"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name} must be at least 1, got {value}")
        for name in ("momentum", "weight_decay", "alpha_weight_decay", "alpha_scale"):
            value = getattr(self, name)
            if not 0 <= value < math.inf:
                raise InputError(f"{name} must be at least 0, got {value}")
        for name in ("clip", "alpha_learning_rate", "learning_rate"):
            value = getattr(self, name)
            if not 0 < value < math.inf:
                raise InputError(f"{name} must be positive and finite, got {value}")
        if not all(0 <= beta < 1 for beta in self.alpha_betas):
            raise InputError(
                f"alpha_betas must be from 0 to below 1, got {self.alpha_betas}"
            )
        if not 0 <= self.min_learning_rate <= self.learning_rate != 0:
            raise InputError(
                "learning rates must be positive and fall, got "
                f"learning_rate={self.learning_rate} and "
                f"min_learning_rate={self.min_learning_rate}"
            )
