"""Flags of a training's recipe: one for each of its settings."""

import dataclasses
from typing import Any

from absl import flags

from zcpt_jax.training import Recipe

from . import _flags

_NUMBERS = {
    "accumulate": "minibatches whose gradients make one update",
    "learning_rate": "of SGD, at first",
    "reference_batch": "images an update that learning_rate is for; scaled to others",
    "warmup_epochs": "over which the learning rate rises",
    "decay": "factor of the exponential schedule",
    "decay_epochs": "over which it is applied once an epoch, in a full training",
    "momentum": "of SGD",
    "weight_decay": "of all parameters",
    "clip": "norm that gradients are clipped to; 0: none",
    "label_smoothing": "of the training loss",
    "auxiliary": "weight of the auxiliary head's loss; 0: no head",
    "drop_path": "probability, at the end, that a path is dropped",
    "cutout": "side of the square that is cut out; 0: none",
    "ema": "share that averages of the weights keep; default: no averages",
}
_SWITCHES = {
    "every_step": "whether the cosine falls at every step, or after every epoch",
    "nesterov": "SGD looks ahead",
    "bfloat16": "activations in bfloat16; all else stays float32",
}
_CHOICES = {
    "schedule": (["cosine", "exponential"], "how the learning rate falls"),
    "batch_norm": (["global", "device"], "statistics of all devices, or of each"),
}


def _define() -> list[Any]:
    default = {field.name: field.default for field in dataclasses.fields(Recipe)}
    holders: list[Any] = [_flags.integer("epochs")]
    for name, meaning in _NUMBERS.items():
        whole = isinstance(default[name], int) or name == "reference_batch"
        define = flags.DEFINE_integer if whole else flags.DEFINE_float
        holders.append(define(name, None, f"{meaning}; default: {default[name]}"))
    for name, meaning in _SWITCHES.items():
        holders.append(flags.DEFINE_bool(name, None, meaning))
    for name, (values, meaning) in _CHOICES.items():
        holders.append(flags.DEFINE_enum(name, None, values, meaning))
    return holders


_HOLDERS = _define()
_BATCH_SIZE, _SEED = _flags.setting("batch_size"), _flags.setting("seed")


def read() -> Recipe:
    """The recipe that the flags say; what they leave out is as in :class:`Recipe`.

    Raises:
      InputError: if a value is out of range.
    """
    given = _flags.given(*_HOLDERS)
    if given.get("clip") == 0:
        given["clip"] = None
    if _BATCH_SIZE.present:
        given["batch_size"] = _BATCH_SIZE.value
    recipe = Recipe(seed=_SEED.value, **given)
    recipe.check()
    return recipe
