"""Flags that several commands have, each defined when a command first asks for it."""

import functools
from typing import Any

from absl import flags

from zcpt_jax.proxies import PROXIES
from zcpt_jax.search.edge_orders import ORDERS
from zcpt_jax.search.operation_scores import OPERATION_SCORES
from zcpt_jax.spaces import SPACES
from zcpt_jax.types import InputError

_TEXT: dict[str, tuple[str | None, str]] = {
    "space": ("nasbench201", f"FILE.py:CLASS, or one of {', '.join(SPACES)}"),
    "dataset": ("digits", "a TFDS name, folder:PATH, npz:FILE or digits"),
    "data_dir": (None, "where TFDS keeps its datasets"),
    "edge_order": ("random", f"one of {', '.join(ORDERS)}"),
    "proxy": ("nwot", f"one of {', '.join(PROXIES)}, or several: nwot+synflow"),
    "operation_score": ("zc-pt", f"one of {', '.join(OPERATION_SCORES)}"),
    "supernet": (None, "folder of a trained one, for darts, darts-pt and disc-acc"),
    "table": (None, "accuracies of trained networks: a CSV, or as published"),
    "column": (None, "of the table; default: the first"),
    "output_dir": (None, "default: in runs/, named after the settings"),
}
_INTEGER: dict[str, tuple[int | None, str]] = {
    "image_size": (None, "default: the dataset's own"),
    "batch_size": (64, "images of a minibatch"),
    "score_batches": (1, "minibatches that the score of a mask is summed over"),
    "seed": (0, "everything random derives from it"),
    "epochs": (None, "how often all images are gone through; default: the recipe's"),
    "max_steps": (None, "stops earlier than the epochs"),
    "save_every": (None, "steps between states on disk; default: the recipe's"),
    "chunk_size": (None, "masks that a device puts together; default: what suits it"),
}


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
def initialisations() -> Any:
    """Whether initial weights are drawn once or for each step."""
    return flags.DEFINE_enum(
        "initialisations", "one", ["one", "each"], "weights: one draw, or one a step"
    )


@functools.cache
def overwrite() -> Any:
    """Whether what lies in the output directory is dropped."""
    return flags.DEFINE_bool("overwrite", False, "start anew in output_dir")


def given(*holders: Any) -> dict[str, Any]:
    """The flags that are not left to the library's default, by name."""
    return {flag.name: flag.value for flag in holders if flag.value is not None}


def check_counts(*holders: Any) -> None:
    """Before any data is read: refuses counts below 1, and seeds out of range.

    Raises:
      InputError: naming the flag.
    """
    for flag in holders:
        if flag.name == "seed":
            if not 0 <= flag.value < 2**32:
                raise InputError(
                    f"--seed must be from 0 to 2**32 - 1, got {flag.value}"
                )
        elif flag.value is not None and flag.value < 1:
            raise InputError(f"--{flag.name} must be at least 1, got {flag.value}")
