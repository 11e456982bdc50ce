"""Trains a network that a search found, from scratch: its input."""

from zcpt_jax.training._augment import Augmentation, augment
from zcpt_jax.training._choice import make_input
from zcpt_jax.training._device_data import DeviceData
from zcpt_jax.training._host_data import HostData
from zcpt_jax.training._input import Feed, Input, Inputs, Placement
from zcpt_jax.training._order import epoch_order

__all__ = [
    "Augmentation",
    "DeviceData",
    "Feed",
    "HostData",
    "Input",
    "Inputs",
    "Placement",
    "augment",
    "epoch_order",
    "make_input",
]
