"""Test a trained network again: ``python launch/evaluate.py --run=DIR``.

DIR is the folder of launch/retrain.py, from which the newest or best checkpoint can be
restored, or a folder with only network.json and network.msgpack.
"""

import dataclasses
import sys
from pathlib import Path

if not __package__:  # Run as a file of a checkout.
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    __package__ = "launch"

from absl import flags  # noqa: E402

from zcpt_jax.data import Splits, load_splits, load_test_images  # noqa: E402
from zcpt_jax.training import (  # noqa: E402
    OwnSpace,
    evaluate_network,
    load_checkpoint,
    load_network,
    make_input,
)
from zcpt_jax.types import InputError  # noqa: E402

from . import _command, _devices, _flags  # noqa: E402
from ._accelerators import runs_on  # noqa: E402

_RUN = flags.DEFINE_string("run", None, "output folder of retrain.py")
_WHICH = flags.DEFINE_enum(
    "which",
    "exported",
    ["exported", "last", "best"],
    "weights to test: the exported file, the last checkpoint, or the best one",
)
_DATASET = flags.DEFINE_string(
    "test_dataset", None, "images to test on; default: the dataset of the training"
)
_SPACE = _flags.text("space")
_DATA_DIR, _BATCH_SIZE = _flags.text("data_dir"), _flags.setting("batch_size")
for _module in (_flags, _command, _devices):
    flags.adopt_module_key_flags(_module)


def main(argv: list[str]) -> None:
    """Test the network and the images that the flags specify."""
    _command.no_arguments(argv)
    mesh, sharding = _devices.share_batches()
    _flags.check_counts(_BATCH_SIZE)
    if _RUN.value is None:
        raise InputError("--run is needed: the folder of a trained network")
    load = load_network if _WHICH.value == "exported" else load_checkpoint
    best = {"best": True} if _WHICH.value == "best" else {}
    record, module, variables = load(_RUN.value, _own_space(), **best)
    name = _DATASET.value or record.dataset
    # The images that training tested on, or all test images of another dataset.
    size = record.image_size
    test = (
        load_splits(name, _DATA_DIR.value, size).test
        if name == record.dataset
        else load_test_images(name, _DATA_DIR.value, size)
    )
    if record.classes and test.classes:
        test = test.with_classes(record.classes)
    if test.num_classes != record.num_classes:
        raise InputError(
            f"{name} has {test.num_classes} classes, the network in "
            f"{_RUN.value} has {record.num_classes}"
        )
    # Any test dataset is normalised as in the network's training.
    test = dataclasses.replace(test, mean=record.mean, std=record.std)
    _command.print_start(runs_on(mesh), test)
    # Training images need not be decoded, so the test images replace them.
    with make_input(Splits(test, test), sharding=sharding) as data:
        found = evaluate_network(module, variables, data, _BATCH_SIZE.value or 64)
    print(f"{record.space} {record.genotype}")
    print(
        f"{name}: top-1 {found['test_top1']:.2f} %, top-5 {found['test_top5']:.2f} %, "
        f"loss {found['test_loss']:.4f} on {data.num_test_images:,} test images"
    )


def _own_space() -> OwnSpace | None:
    """The space of ``--space``, if a file of the user's own defines it."""
    if ":" not in _SPACE.value:  # The run says which space of this package it is of.
        return None
    space, digest = _command.load_space(_SPACE.value, [])
    return OwnSpace(space, digest) if digest else None


if __name__ == "__main__":
    _command.run(main)
