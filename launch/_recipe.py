"""Flags of a training recipe, one for each of its settings."""

import dataclasses
from typing import Any

from absl import flags

from zcpt_jax.training import Recipe

from . import _flags

_NUMBERS = {
    "accumulate": "minibatches whose gradients are averaged for one update",
    "learning_rate": "initial learning rate of SGD",
    "reference_batch": "images of an update that learning_rate is meant for; it is "
    "scaled to others",
    "warmup_epochs": "epochs over which the learning rate rises from zero",
    "decay": "factor of the exponential schedule",
    "decay_epochs": "epochs over which decay is applied once an epoch",
    "momentum": "momentum of SGD",
    "weight_decay": "weight decay of all parameters",
    "clip": "norm that gradients are clipped to, 0 for no clipping",
    "label_smoothing": "label smoothing of the training loss",
    "auxiliary": "weight of the auxiliary head's loss, 0 for no head",
    "drop_path": "probability, at the end of training, that a path is dropped",
    "cutout": "side of the square that is cut out of images, in pixels, 0 for none",
    "ema": "decay of the moving averages of the weights, such as 0.9999",
}
_SWITCHES = {
    "every_step": "lower the cosine at every step, rather than after every epoch",
    "nesterov": "use Nesterov momentum",
    "bfloat16": "compute activations in bfloat16; all else stays float32",
}
_CHOICES = {
    "schedule": (["cosine", "exponential"], "schedule of the learning rate"),
    "batch_norm": (
        ["global", "device"],
        "images whose statistics BatchNorm uses: of all devices, or of each device",
    ),
}


def _define() -> list[Any]:
    default = {field.name: field.default for field in dataclasses.fields(Recipe)}
    holders: list[Any] = [_flags.integer("epochs")]
    for name, meaning in _NUMBERS.items():
        whole = isinstance(default[name], int) or name == "reference_batch"
        define = flags.DEFINE_integer if whole else flags.DEFINE_float
        usual = "none" if default[name] is None else default[name]
        holders.append(define(name, None, f"{meaning}; default: {usual}"))
    for name, meaning in _SWITCHES.items():
        holders.append(flags.DEFINE_bool(name, None, f"{meaning}; default: no"))
    for name, (values, meaning) in _CHOICES.items():
        text = f"{meaning}; default: {default[name]}"
        holders.append(flags.DEFINE_enum(name, None, values, text))
    return holders


_HOLDERS = _define()
_BATCH_SIZE, _SEED = _flags.setting("batch_size"), _flags.setting("seed")


def read() -> Recipe:
    """Build the recipe from the flags; unset flags keep the default of :class:`Recipe`.

    Raises:
      InputError: if a value is out of range.
    """
    given = _flags.given(*_HOLDERS)
    if given.get("clip") == 0:
        given["clip"] = None
    if _BATCH_SIZE.value is not None:
        given["batch_size"] = _BATCH_SIZE.value
    return _flags.checked(Recipe(seed=_SEED.value, **given))
