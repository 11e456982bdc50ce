"""The recipe of a final training."""

from dataclasses import dataclass
from typing import Literal

from zcpt_jax.types import InputError, check_seed

Schedule = Literal["cosine", "exponential"]


@dataclass(frozen=True)
class Recipe:
    """How a network is trained from scratch.

    The defaults are DARTS's for CIFAR-10, but for the auxiliary head, which most spaces
    do not have.

    Attributes:
      seed: initial weights, order of images, augmentation and dropped paths derive from
        it; from 0 to 2**32 - 1.
      epochs: how often all training images are gone through.
      batch_size: images of a minibatch, on all devices and of all processes together.
      accumulate: minibatches whose gradients are averaged for one update.
      learning_rate: of SGD, at first, for ``reference_batch`` images an update.
      reference_batch: the learning rate is scaled linearly to other numbers of images
        (Goyal et al. 2017); None leaves it as it is.
      warmup_epochs: over which it rises from zero, step by step.
      schedule: ``cosine`` falls to zero; ``exponential`` is multiplied by ``decay``
        after every one of ``decay_epochs``.
      every_step: whether the cosine falls at every step, or after every epoch as in the
        published code for DARTS.
      decay: of the exponential schedule.
      decay_epochs: over which ``decay`` is applied once an epoch. With fewer epochs it
        is applied as often, so that the rate ends where it should.
      momentum: of SGD.
      nesterov: whether it looks ahead.
      weight_decay: added to the gradient, of all parameters.
      clip: the norm that gradients are clipped to, None leaves them.
      label_smoothing: of the training loss.
      auxiliary: weight of the auxiliary head's loss, zero for none.
      drop_path: probability at the end that a path is dropped; it rises linearly from
        zero over the epochs.
      cutout: side of the square that is cut out of training images, zero for none.
      ema: the share of the parameters' moving averages that each minibatch keeps, None
        for none. The network is then tested with the averages.
      bfloat16: whether activations are bfloat16; parameters, statistics and losses stay
        float32.
      batch_norm: statistics over the minibatch of all devices, or of each device's own
        share of it.
    """

    seed: int = 0
    epochs: int = 600
    batch_size: int = 96
    accumulate: int = 1
    learning_rate: float = 0.025
    reference_batch: int | None = None
    warmup_epochs: float = 0.0
    schedule: Schedule = "cosine"
    every_step: bool = False
    decay: float = 0.97
    decay_epochs: int = 250
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 3e-4
    clip: float | None = 5.0
    label_smoothing: float = 0.0
    auxiliary: float = 0.0
    drop_path: float = 0.2
    cutout: int = 16
    ema: float | None = None
    bfloat16: bool = False
    batch_norm: Literal["global", "device"] = "global"

    def check(self) -> None:
        """Raises InputError if a value is out of range."""
        check_seed(self.seed)
        for name in ("epochs", "batch_size", "accumulate", "decay_epochs"):
            _require(getattr(self, name) >= 1, name, "at least 1", getattr(self, name))
        for name in ("warmup_epochs", "weight_decay", "auxiliary", "cutout"):
            _require(getattr(self, name) >= 0, name, "at least 0", getattr(self, name))
        for name in ("momentum", "label_smoothing", "drop_path"):
            value = getattr(self, name)
            _require(0 <= value < 1, name, "from 0 to below 1", value)
        _require(
            self.learning_rate > 0, "learning_rate", "positive", self.learning_rate
        )
        _require(0 < self.decay <= 1, "decay", "from above 0 to 1", self.decay)
        _require(self.clip is None or self.clip > 0, "clip", "positive", self.clip)
        _require(
            self.ema is None or 0 <= self.ema < 1, "ema", "from 0 to below 1", self.ema
        )
        _require(
            self.warmup_epochs < self.epochs,
            "warmup_epochs",
            f"below the {self.epochs} epochs",
            self.warmup_epochs,
        )


def _require(holds: bool, name: str, expected: str, value: object) -> None:
    if not holds:
        raise InputError(f"{name} must be {expected}, got {value}")
