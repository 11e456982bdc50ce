"""Flags of several commands, each defined when a command first requests it."""

import dataclasses
import functools
from typing import Any, TypeVar

from absl import flags

from zcpt_jax.data import KNOWN
from zcpt_jax.proxies import PROXIES
from zcpt_jax.scoring import ScoringConfig
from zcpt_jax.search import OPERATION_SCORES, ORDERS, SearchConfig
from zcpt_jax.spaces import SPACES
from zcpt_jax.types import InputError

Config = TypeVar("Config", bound=ScoringConfig)
Checked = TypeVar("Checked", bound=Any)

_TEXT: dict[str, tuple[str | None, str]] = {
    "space": (
        "nasbench201",
        f"search space: one of {', '.join(SPACES)}, or FILE.py:CLASS for your own",
    ),
    "dataset": (
        "digits",
        f"images: one of {', '.join(KNOWN)}",
    ),
    "data_dir": (None, "folder where TFDS keeps its datasets; default: TFDS's own"),
    "proxy": (
        "nwot",
        f"proxy that scores networks: one of {', '.join(PROXIES)}, or several as in "
        "nwot+synflow",
    ),
    "supernet": (
        None,
        "folder of a trained supernet, for the operation scores darts, darts-pt and "
        "disc-acc",
    ),
    "table": (
        None,
        "table with the accuracies of trained networks: a CSV file, or a tabular "
        "benchmark's own file",
    ),
    "column": (None, "column of the table with the accuracy; default: the first"),
    "output_dir": (
        None,
        "folder for the results; default: a folder in runs/ named after the settings",
    ),
}
_INTEGER: dict[str, tuple[int | None, str]] = {
    "image_size": (
        None,
        "height and width of images in pixels; default: the dataset's own",
    ),
    "epochs": (
        None,
        "number of times that all training images are used; default: the recipe's",
    ),
    "max_steps": (None, "stop after so many steps, before the last epoch is over"),
    "save_every": (
        None,
        "steps between checkpoints; default: the recipe's, or once an epoch",
    ),
    "chunk_size": (
        None,
        "masks that a device scores together; default: as many as fit and pay",
    ),
}
_SETTINGS: dict[str, str] = {
    "batch_size": "images of a minibatch; default: 64, or the recipe's",
    "seed": "seed of everything random, from 0 to 2**32 - 1",
    "score_batches": "minibatches over which the score of a mask is summed",
    "edge_order": f"order in which edges are decided, one of {', '.join(ORDERS)}",
    "num_proposals": "number of proposals, N of the paper",
    "num_validation_batches": "validation minibatches, V of the paper",
    "operation_score": "score that decides on edges, one of "
    f"{', '.join(OPERATION_SCORES)}",
    "max_params": "most parameters that the network may have, such as 3.5e6; "
    "default: no limit",
    "max_flops": "most multiply-adds (MACs, not FLOPs) that the network may need for "
    "one image, such as 600e6; default: no limit",
}
"""Meanings of the fields of ``SearchConfig``, which defines types and defaults."""


@functools.cache
def setting(name: str) -> Any:
    """Return the flag of a field of ``SearchConfig``."""
    default = getattr(SearchConfig(), name)
    if name == "initialisations":
        meaning = "initial weights: one draw for the whole search, or one for each step"
        return flags.DEFINE_enum(name, default, ["one", "each"], meaning)
    if name == "batch_size":  # Training commands have a different default.
        return flags.DEFINE_integer(name, None, _SETTINGS[name])
    define = {int: flags.DEFINE_integer, str: flags.DEFINE_string}
    holder: Any = define.get(type(default), flags.DEFINE_float)
    return holder(name, default, _SETTINGS[name])


def settings(kind: type[ScoringConfig]) -> tuple[Any, ...]:
    """Return the flags of all fields of a settings record."""
    return tuple(setting(field.name) for field in dataclasses.fields(kind))


def read_settings(kind: type[Config], **given: Any) -> Config:
    """Build a settings record from the flags.

    Args:
      kind: class of the record; each of its fields has a flag, except those given.
      **given: values of fields that have no flag.

    Raises:
      InputError: if a value is out of range; the message names the flag.
    """
    names = [field.name for field in dataclasses.fields(kind)]
    values = {name: setting(name).value for name in names if name not in given}
    config = kind(**{k: v for k, v in values.items() if v is not None}, **given)
    return checked(config)


def checked(config: Checked) -> Checked:
    """Check a record of settings whose fields have flags.

    Args:
      config: a dataclass with a method ``check``.

    Raises:
      InputError: if a value is out of range; the message names the flag.
    """
    names = {field.name for field in dataclasses.fields(config)}
    try:
        config.check()
    except InputError as error:
        flag = str(error).partition(" ")[0] in names
        raise InputError(f"--{error}" if flag else str(error)) from error
    return config


@functools.cache
def text(name: str) -> Any:
    """Return the text flag of that name."""
    default, meaning = _TEXT[name]
    return flags.DEFINE_string(name, default, meaning)


@functools.cache
def integer(name: str) -> Any:
    """Return the integer flag of that name."""
    default, meaning = _INTEGER[name]
    return flags.DEFINE_integer(name, default, meaning)


@functools.cache
def space_options() -> Any:
    """Return the flag for options of the space, such as ``channels=8``."""
    return flags.DEFINE_list(
        "space_options",
        [],
        "options of the search space, such as channels=8,stem=imagenet",
    )


@functools.cache
def overwrite() -> Any:
    """Return the flag that deletes earlier results in the output directory."""
    return flags.DEFINE_bool(
        "overwrite", False, "delete earlier results in output_dir and start anew"
    )


def given(*holders: Any) -> dict[str, Any]:
    """Return the values of the flags that are set, by name."""
    return {flag.name: flag.value for flag in holders if flag.value is not None}


def check_counts(*holders: Any) -> None:
    """Refuse counts below 1, before any data is read.

    Raises:
      InputError: if a count is below 1; the message names the flag.
    """
    for flag in holders:
        if flag.value is not None and flag.value < 1:
            raise InputError(f"--{flag.name} must be at least 1, got {flag.value}")
