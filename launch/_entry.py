"""Console commands of the installed package, such as ``zcpt-search``."""

import runpy
import sys

from zcpt_jax.types import InputError

from ._packages import require

_TRAIN = ("chex", "orbax", "tensorboardX")


def _run(name: str, *packages: str) -> None:
    try:
        require(*packages, extra="train")
    except InputError as error:
        sys.exit(f"error: {error}")
    # Run it as the main module, because --help lists the flags of the main module.
    runpy.run_module(f"{__package__}.{name}", run_name="__main__", alter_sys=True)


def convert_table() -> None:
    """Run ``zcpt-convert-table``."""
    _run("convert_table")


def correlate() -> None:
    """Run ``zcpt-correlate``."""
    _run("correlate")


def evaluate() -> None:
    """Run ``zcpt-evaluate``."""
    _run("evaluate", *_TRAIN)


def prepare_data() -> None:
    """Run ``zcpt-prepare-data``."""
    _run("prepare_data")


def retrain() -> None:
    """Run ``zcpt-retrain``."""
    _run("retrain", *_TRAIN)


def score() -> None:
    """Run ``zcpt-score``."""
    _run("score")


def search() -> None:
    """Run ``zcpt-search``."""
    _run("search")


def train_supernet() -> None:
    """Run ``zcpt-train-supernet``."""
    _run("train_supernet", *_TRAIN)
