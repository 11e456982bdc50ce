"""Recipe of a final training."""

import math
from dataclasses import dataclass
from typing import Literal

from zcpt_jax.types import InputError, check_seed

Schedule = Literal["cosine", "exponential"]


@dataclass(frozen=True)
class Recipe:
    """Settings of the training of a network from scratch.

    The defaults are those of DARTS for CIFAR-10, except the auxiliary head, which most
    spaces do not have.

    Attributes:
      seed: seed of initial weights, order of images, augmentation and dropped paths,
        from 0 to 2**32 - 1.
      epochs: number of passes over all training images.
      batch_size: number of images in a minibatch, summed over devices and processes.
      accumulate: number of minibatches whose gradients are averaged for one update.
      learning_rate: initial learning rate of SGD for ``reference_batch`` images per
        update.
      reference_batch: number of images per update to which ``learning_rate`` applies;
        it is scaled linearly to other numbers (Goyal et al. 2017). None for no scaling.
      warmup_epochs: number of epochs over which the learning rate rises from zero, step
        by step.
      schedule: ``cosine`` falls to zero; ``exponential`` multiplies the learning rate
        by ``decay`` after each of ``decay_epochs`` epochs.
      every_step: whether the cosine falls at every step rather than after every epoch,
        as in the published code for DARTS.
      decay: factor per epoch of the exponential schedule.
      decay_epochs: number of times that ``decay`` is applied, once per epoch. With
        fewer epochs the total decay stays the same, and so does the final rate.
      momentum: momentum of SGD.
      nesterov: whether SGD uses Nesterov momentum.
      weight_decay: coefficient of weight decay, added to the gradient of all
        parameters.
      clip: norm that gradients are clipped to, None for no clipping.
      label_smoothing: label smoothing of the training loss.
      auxiliary: weight of the auxiliary head's loss, zero for no head.
      drop_path: final probability that a path is dropped; it rises linearly from zero
        over the epochs.
      cutout: side in pixels of the square cut out of training images, zero for none.
      ema: decay of the parameters' moving averages per minibatch, None for no averages.
        With averages, the network is tested with them.
      bfloat16: whether activations are bfloat16; parameters, statistics and losses stay
        float32.
      batch_norm: whether statistics are over the whole minibatch (``global``) or over
        each device's part of it (``device``).
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
        """Raise InputError if a value is out of range."""
        check_seed(self.seed)
        for name, value in vars(self).items():
            finite = not isinstance(value, float) or math.isfinite(value)
            _require(finite, name, "finite", value)
        _require(
            self.reference_batch is None or self.reference_batch >= 1,
            "reference_batch",
            "at least 1",
            self.reference_batch,
        )
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
