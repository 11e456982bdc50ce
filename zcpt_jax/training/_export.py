"""Trained networks as two files: a description and the weights."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from flax import serialization

from zcpt_jax.io.checkpoints import read_final, read_record
from zcpt_jax.io.files import read_json, write_atomically
from zcpt_jax.spaces import SPACES, build_space, get_space
from zcpt_jax.training._store import KIND
from zcpt_jax.types import InputError, Space, Variables, digest

NETWORK, WEIGHTS = "network.json", "network.msgpack"
_WEIGHTS_DIGEST = "weights_sha256"
_KINDS = {
    "options": (dict, "an object"),
    "num_classes": (int, "a whole number"),
    "image_size": (int, "a whole number"),
}
"""Types of entries that are neither text nor lists, and their names."""


@dataclass(frozen=True)
class NetworkFile:
    """Content of ``network.json``.

    Attributes:
      space: name of the space.
      options: options of the space.
      genotype: genotype of the network.
      dataset: name of the dataset that the network was trained on.
      num_classes: number of classes of that dataset.
      image_size: height and width of its images in pixels.
      mean: mean of each channel that is subtracted, with images in [0, 1].
      std: standard deviation of each channel that images are divided by.
      space_file: digest of the file that defines the space, None for a space of this
        package.
      classes: names of the classes in the order of the logits, empty where unknown.
    """

    space: str
    options: Mapping[str, Any]
    genotype: str
    dataset: str
    num_classes: int
    image_size: int
    mean: Sequence[float]
    std: Sequence[float]
    space_file: str | None = None
    classes: Sequence[str] = dataclasses.field(default_factory=list)

    def module(self, own: "OwnSpace | None" = None, *, auxiliary: bool = False) -> Any:
        """Build the network.

        Args:
          own: space of the user's own; by default a space of this package.
          auxiliary: whether it has an auxiliary head.

        Raises:
          InputError: if the network is of another space, or its file was edited.
        """
        space = self._space(own)
        return space.evaluation_network(
            self.genotype, self.num_classes, auxiliary=auxiliary
        )

    def _space(self, own: "OwnSpace | None") -> Space:
        if self.space_file is None and self.space in SPACES:
            return get_space(self.space, **self.options)
        if own is None:
            raise InputError(
                f"the network is of the space {self.space!r}, which is not one of this "
                "package; name the file that defines it with --space=FILE.py:CLASS"
            )
        if own.space.name != self.space:
            raise InputError(
                f"the network is of the space {self.space!r}, --space is "
                f"{own.space.name!r}"
            )
        if own.digest != self.space_file:
            raise InputError(
                f"the file of the space {self.space!r} has changed since the network "
                "was trained; use the file as it was"
            )
        return build_space(type(own.space), **self.options)


@dataclass(frozen=True)
class OwnSpace:
    """A space that a file of the user's own defines.

    Attributes:
      space: the space.
      digest: digest of the file.
    """

    space: Space
    digest: str


def save_network(
    folder: Path,
    record: NetworkFile,
    variables: Variables,
    own: OwnSpace | None = None,
) -> None:
    """Write both files, the weights first.

    Args:
      folder: folder to write to.
      record: description of the network.
      variables: parameters and BatchNorm statistics; those of an auxiliary head are
        left out.
      own: space of the user's own.

    Raises:
      InputError: if a file cannot be written.
    """
    kept = _without_head(record, variables, own)
    data = serialization.msgpack_serialize(kept)
    write_atomically(folder / WEIGHTS, data)
    fields = {**dataclasses.asdict(record), _WEIGHTS_DIGEST: digest(data)}
    write_atomically(folder / NETWORK, json.dumps(fields, indent=2) + "\n")


def load_network(
    folder: str | Path, own: OwnSpace | None = None
) -> tuple[NetworkFile, nn.Module, dict[str, Any]]:
    """Load the trained network in a folder.

    Args:
      folder: folder that :func:`save_network` or a retraining wrote to.
      own: space of the user's own, for a network of one.

    Returns:
      Description, module and variables; ``module.apply(variables, images)`` gives the
      logits.

    Raises:
      InputError: if there is no network, or its files are damaged or do not match.
    """
    folder = Path(folder)
    record, expected_digest = _read_record(folder)
    module, expected = record.module(own), _shapes(_expected(record, own))
    try:
        data = (folder / WEIGHTS).read_bytes()
        variables = serialization.msgpack_restore(data)
        fitting = _shapes(variables) == expected
    except Exception as error:  # msgpack's errors have no common base class.
        raise InputError(
            f"{folder / WEIGHTS} cannot be read ({type(error).__name__}: {error}); "
            "restore it from a copy, or run launch/retrain.py again"
        ) from error
    if not fitting:
        raise InputError(
            f"the weights in {folder / WEIGHTS} are not those of the network in "
            f"{folder / NETWORK}; restore both from the same copy"
        )
    if digest(data) != expected_digest:
        raise InputError(
            f"{folder / WEIGHTS} is not the file that {folder / NETWORK} was written "
            "for: its checksum differs; restore both from the same copy"
        )
    if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(variables)):
        raise InputError(f"{folder / WEIGHTS} has weights that are not finite")
    return record, module, variables


def _read_record(folder: Path) -> tuple[NetworkFile, str]:
    """Read the description, and the digest of the weights."""
    fields = read_json(folder / NETWORK)
    known = {field.name for field in dataclasses.fields(NetworkFile)}
    known.add(_WEIGHTS_DIGEST)
    if not isinstance(fields, dict) or set(fields) != known:
        raise InputError(
            f"{folder} holds no {NETWORK} with the entries {sorted(known)}; train a "
            "network there with launch/retrain.py"
        )
    for name, value in fields.items():
        expected = _expected_value(name, value)
        if expected is not None:
            raise InputError(
                f"{name!r} in {folder / NETWORK} must be {expected}, got {value!r}; "
                "restore it from a copy, or run launch/retrain.py again"
            )
    expected_digest = fields.pop(_WEIGHTS_DIGEST)
    return NetworkFile(**fields), expected_digest


def _expected_value(name: str, value: Any) -> str | None:
    """Say what an entry must be, None if it is that."""
    if name in _KINDS:
        kind, expected = _KINDS[name]
        return None if type(value) is kind else expected
    if name in ("mean", "std"):
        least = 0.0 if name == "mean" else np.nextafter(0.0, 1.0)
        numbers = isinstance(value, list) and all(type(v) is float for v in value)
        good = numbers and len(value) == 3 and all(least <= v < np.inf for v in value)
        return None if good else "three positive numbers"
    if name == "classes":
        names = isinstance(value, list) and all(isinstance(v, str) for v in value)
        return None if names else "a list of names"
    missing = name == "space_file" and value is None
    return None if missing or isinstance(value, str) else "text"


def load_checkpoint(
    folder: str | Path, own: OwnSpace | None = None, *, best: bool = False
) -> tuple[NetworkFile, nn.Module, dict[str, Any]]:
    """Load the network of a training's last or best checkpoint.

    Args:
      folder: folder of the training, which must be finished unless ``best``.
      own: space of the user's own, for a network of one.
      best: whether to load the checkpoint with the best test result.

    Returns:
      Description, module and variables, as from :func:`load_network`.

    Raises:
      InputError: if there is no such checkpoint, or it is damaged.
    """
    config = read_record(folder, KIND)["config"]
    names = [field.name for field in dataclasses.fields(NetworkFile)]
    record = NetworkFile(**{name: config[name] for name in names})
    # Orbax needs the whole stored tree, with the auxiliary head and moving averages.
    whole = dict(_expected(record, own, auxiliary=config["auxiliary"] > 0))
    like = {**whole, "ema": {} if config["ema"] is None else whole}
    like.setdefault("batch_stats", {})
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), like)
    found = read_final(folder, {"network": zeros}, KIND, best=best)["network"]
    variables = found["ema"] or {n: found[n] for n in ("params", "batch_stats")}
    return record, record.module(own), _without_head(record, variables, own)


def _without_head(
    record: NetworkFile, variables: Variables, own: OwnSpace | None
) -> dict[str, Any]:
    """Remove the variables of the auxiliary head."""

    def take(tree: Any, like: Any) -> Any:
        if isinstance(like, Mapping):
            return {name: take(tree[name], like[name]) for name in like}
        return np.asarray(tree)

    found: dict[str, Any] = take(variables, _expected(record, own))
    return found


def _expected(
    record: NetworkFile, own: OwnSpace | None, auxiliary: bool = False
) -> dict[str, Any]:
    """Shapes of the network's variables."""
    size = record.image_size
    images = jax.ShapeDtypeStruct((1, size, size, 3), np.float32)
    init = record.module(own, auxiliary=auxiliary).init
    shapes = jax.eval_shape(init, jax.random.key(0), images)
    kept = ("params", "batch_stats")
    return {name: shapes[name] for name in kept if name in shapes}


def _shapes(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: (tuple(leaf.shape), str(leaf.dtype)), tree)
