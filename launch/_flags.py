"""Flags that several commands have, each defined when a command first asks for it."""

import dataclasses
import functools
from typing import Any, TypeVar

from absl import flags

from zcpt_jax.proxies import PROXIES
from zcpt_jax.scoring import ScoringConfig
from zcpt_jax.search import OPERATION_SCORES, ORDERS, SearchConfig
from zcpt_jax.spaces import SPACES
from zcpt_jax.types import InputError

Config = TypeVar("Config", bound=ScoringConfig)

_TEXT: dict[str, tuple[str | None, str]] = {
    "space": ("nasbench201", f"FILE.py:CLASS, or one of {', '.join(SPACES)}"),
    "dataset": ("digits", "a TFDS name, folder:PATH, npz:FILE or digits"),
    "data_dir": (None, "where TFDS keeps its datasets"),
    "proxy": ("nwot", f"one of {', '.join(PROXIES)}, or several: nwot+synflow"),
    "supernet": (None, "folder of a trained one, for darts, darts-pt and disc-acc"),
    "table": (None, "accuracies of trained networks: a CSV, or as published"),
    "column": (None, "of the table; default: the first"),
    "output_dir": (None, "default: in runs/, named after the settings"),
}
_INTEGER: dict[str, tuple[int | None, str]] = {
    "image_size": (None, "default: the dataset's own"),
    "epochs": (None, "how often all images are gone through; default: the recipe's"),
    "max_steps": (None, "stops earlier than the epochs"),
    "save_every": (None, "steps between states on disk; default: the recipe's"),
    "chunk_size": (None, "masks that a device puts together; default: what suits it"),
}


_SETTINGS: dict[str, str] = {
    "batch_size": "images of a minibatch",
    "seed": "weights, minibatches and orders derive from it; from 0 to 2**32 - 1",
    "score_batches": "minibatches over which the score of a mask is summed",
    "edge_order": f"order in which edges are decided, one of {', '.join(ORDERS)}",
    "num_proposals": "number of proposals, N of the paper",
    "num_validation_batches": "validation minibatches, V of the paper",
    "operation_score": f"what decides on edges, one of {', '.join(OPERATION_SCORES)}",
    "max_params": "most parameters of the network, such as 3.5e6; default: no limit",
    "max_flops": "most multiply-adds (MACs) for one image, such as 600e6; default: no "
    "limit",
}
"""The fields of ``SearchConfig``; their types and defaults are its own."""


@functools.cache
def setting(name: str) -> Any:
    """The flag of a field of ``SearchConfig``."""
    default = getattr(SearchConfig(), name)
    if name == "initialisations":
        meaning = "initial weights: one draw for the whole search, or one each step"
        return flags.DEFINE_enum(name, default, ["one", "each"], meaning)
    define = {int: flags.DEFINE_integer, str: flags.DEFINE_string}
    holder: Any = define.get(type(default), flags.DEFINE_float)
    return holder(name, default, _SETTINGS[name])


def settings(kind: type[ScoringConfig]) -> tuple[Any, ...]:
    """The flags of all fields of a record of settings."""
    return tuple(setting(field.name) for field in dataclasses.fields(kind))


def read_settings(kind: type[Config], **given: Any) -> Config:
    """The record of settings that the flags say.

    Args:
      kind: the record; each of its fields has a flag, but for those given.
      given: values of fields.

    Raises:
      InputError: if a value is out of range; the message names the flag.
    """
    names = [field.name for field in dataclasses.fields(kind)]
    values = {name: setting(name).value for name in names if name not in given}
    config = kind(**values, **given)
    try:
        config.check()
    except InputError as error:
        flag = str(error).partition(" ")[0] in names
        raise InputError(f"--{error}" if flag else str(error)) from error
    return config


@functools.cache
def text(name: str) -> Any:
    """The flag of that name, a text."""
    default, meaning = _TEXT[name]
    return flags.DEFINE_string(name, default, meaning)


@functools.cache
def integer(name: str) -> Any:
    """The flag of that name, an integer."""
    default, meaning = _INTEGER[name]
    return flags.DEFINE_integer(name, default, meaning)


@functools.cache
def space_options() -> Any:
    """Options of the space, such as ``channels=8``."""
    return flags.DEFINE_list(
        "space_options", [], "options of the space, such as channels=8,stem=imagenet"
    )


@functools.cache
def overwrite() -> Any:
    """Whether what lies in the output directory is dropped."""
    return flags.DEFINE_bool("overwrite", False, "start anew in output_dir")


def given(*holders: Any) -> dict[str, Any]:
    """The flags that are not left to the library's default, by name."""
    return {flag.name: flag.value for flag in holders if flag.value is not None}


def check_counts(*holders: Any) -> None:
    """Refuse counts below 1, before any data is read.

    Raises:
      InputError: naming the flag.
    """
    for flag in holders:
        if flag.value is not None and flag.value < 1:
            raise InputError(f"--{flag.name} must be at least 1, got {flag.value}")
