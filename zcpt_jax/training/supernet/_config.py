"""The recipe of a supernet's training."""

from dataclasses import dataclass

from zcpt_jax.types import InputError, check_seed


@dataclass(frozen=True)
class SupernetConfig:
    """The recipe; its defaults are the published ones.

    Attributes:
      seed: initial weights (those of a search with this seed), initial alphas,
        minibatches and noise derive from it; from 0 to 2**32 - 1.
      batch_size: images of a minibatch, of which each step takes two.
      epochs: how often the images that weights are trained on are gone through, in
        number: each minibatch is drawn anew from all of them.
      max_steps: stops earlier; the learning rate still falls to its end.
      learning_rate: of the weights, by SGD, at first.
      min_learning_rate: at the end of the cosine, which falls at every step (the
        published one falls after every epoch).
      momentum: of the weights.
      weight_decay: of the weights.
      clip: the norm that gradients of the weights are clipped to.
      alpha_learning_rate: of the alphas, by Adam.
      alpha_betas: of Adam.
      alpha_weight_decay: of the alphas.
      alpha_scale: the deviation of initial alphas.
      save_every: steps between states on disk; no influence on the result.
      log_every: steps between lines of metrics; no influence on the result.
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
        """How many steps the training takes.

        Args:
          num_images: that weights are trained on.
        """
        steps = self.epochs * -(-num_images // self.batch_size)
        return steps if self.max_steps is None else min(steps, self.max_steps)

    def check(self) -> None:
        """Raises InputError if a value is out of range."""
        check_seed(self.seed)
        for name in ("batch_size", "epochs", "max_steps", "save_every", "log_every"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name} must be at least 1, got {value}")
        if not 0 <= self.min_learning_rate <= self.learning_rate != 0:
            raise InputError(
                "learning rates must be positive and fall, got "
                f"learning_rate={self.learning_rate} and "
                f"min_learning_rate={self.min_learning_rate}"
            )
