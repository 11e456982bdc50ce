"""The steps of a training as single compiled calls on a row of devices."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from zcpt_jax import sharding
from zcpt_jax.training._input import Feed, Input
from zcpt_jax.training._step import Counts, TrainState, make_test_step, no_counts
from zcpt_jax.types import Variables


def placement(state: TrainState, mesh: Mesh, fully_sharded: bool) -> Any:
    """Where each array of a state is kept.

    Args:
      state: arrays, or their shapes.
      mesh: the row of devices.
      fully_sharded: whether large arrays are split over them, or all are copied.
    """
    if fully_sharded:
        return sharding.spread(mesh, state)
    everywhere = NamedSharding(mesh, PartitionSpec())
    return jax.tree.map(lambda _: everywhere, state)


def place(host: TrainState, placed: Any) -> TrainState:
    """A state on the host, moved to where it is kept."""
    state: TrainState = jax.tree.map(sharding.put, host, placed)
    return state


def compile_step(
    train: Callable[..., TrainState], data: Input, seed: int, placed: Any
) -> Callable[..., TrainState]:
    """A step from what crosses to the devices to the next state.

    Args:
      train: of :func:`make_train_step`.
      data: makes images of what crosses.
      seed: of everything drawn; each step has keys of its own.
      placed: where the state is kept.

    Returns:
      A function of the state, which is donated, the step's number, a feed and the
      data's resident arrays.
    """
    root = jax.random.key(seed)

    def step(state: TrainState, number: Any, feed: Feed, resident: Any) -> TrainState:
        augmenting, dropping = jax.random.split(jax.random.fold_in(root, number))
        return train(
            state, number, data.train_inputs(resident, feed, augmenting), dropping
        )

    return jax.jit(step, donate_argnums=0, out_shardings=placed)


def make_tester(
    module: nn.Module, data: Input, batch_size: int
) -> Callable[[Variables], dict[str, float]]:
    """A function that tests variables.

    Args:
      module: the network.
      data: the images.
      batch_size: of the test.

    Returns:
      A function of the variables that gives ``test_loss``, and ``test_top1`` and
      ``test_top5`` in percent.
    """
    test = make_test_step(module)

    @jax.jit
    def step(variables: Variables, feed: Feed, resident: Any, counts: Counts) -> Counts:
        found = test(variables, data.test_inputs(resident, feed))
        return jax.tree.map(lambda a, b: a + b, counts, found)

    def run(variables: Variables) -> dict[str, float]:
        counts = no_counts()
        for feed in data.test_batches(batch_size):
            counts = step(variables, feed, data.resident, counts)
        return in_percent(counts)

    return run


def evaluate_network(
    module: nn.Module, variables: Variables, data: Input, batch_size: int
) -> dict[str, float]:
    """Tests a trained network.

    Args:
      module: the network.
      variables: its parameters and statistics.
      data: the images.
      batch_size: a multiple of the number of devices.

    Returns:
      ``test_loss``, and ``test_top1`` and ``test_top5`` in percent.

    Raises:
      InputError: if the batch cannot be dealt out, or an image is damaged.
    """
    return make_tester(module, data, batch_size)(variables)


def in_percent(counts: Counts) -> dict[str, float]:
    """Means over the tested images."""
    loss, top1, top5, images = (float(value) for value in counts)
    return {
        "test_loss": loss / images,
        "test_top1": 100 * top1 / images,
        "test_top5": 100 * top5 / images,
    }
