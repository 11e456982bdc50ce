"""Final evaluation: training of a found network from scratch.

The recipes are those of the published trainings (:class:`Recipe`, and the flagfiles in
``launch/flagfiles``); batches are split over a one-dimensional device mesh.
"""

from zcpt_jax.training._augment import Augmentation, augment
from zcpt_jax.training._choice import make_input
from zcpt_jax.training._compile import evaluate_network
from zcpt_jax.training._device_data import DeviceData
from zcpt_jax.training._export import (
    NetworkFile,
    OwnSpace,
    load_checkpoint,
    load_network,
    save_network,
)
from zcpt_jax.training._host_data import HostData
from zcpt_jax.training._input import Feed, Input, Inputs, Placement
from zcpt_jax.training._optimiser import make_optimiser, make_schedule
from zcpt_jax.training._order import epoch_order
from zcpt_jax.training._preemption import Preempted
from zcpt_jax.training._recipe import Recipe
from zcpt_jax.training._report import best_test, write_report
from zcpt_jax.training._step import TrainState, initial_state, make_train_step
from zcpt_jax.training._store import Saving
from zcpt_jax.training._train import Outcome, train_network

__all__ = [
    "Augmentation",
    "DeviceData",
    "Feed",
    "HostData",
    "Input",
    "Inputs",
    "NetworkFile",
    "Outcome",
    "OwnSpace",
    "Placement",
    "Preempted",
    "Recipe",
    "Saving",
    "TrainState",
    "augment",
    "best_test",
    "epoch_order",
    "evaluate_network",
    "initial_state",
    "load_checkpoint",
    "load_network",
    "make_input",
    "make_optimiser",
    "make_schedule",
    "make_train_step",
    "save_network",
    "train_network",
    "write_report",
]
