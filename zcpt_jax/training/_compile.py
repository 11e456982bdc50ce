"""Training and test steps, each one compiled call on a device mesh."""

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
    """Return the sharding of each array of a state.

    Args:
      state: state of arrays or of their shapes.
      mesh: one-dimensional device mesh.
      fully_sharded: whether large arrays are split over the devices; otherwise all
        arrays are replicated.
    """
    if fully_sharded:
        return sharding.spread(mesh, state)
    everywhere = NamedSharding(mesh, PartitionSpec())
    return jax.tree.map(lambda _: everywhere, state)


def place(host: TrainState, placed: Any) -> TrainState:
    """Copy a state from the host to the devices with the given shardings."""
    state: TrainState = jax.tree.map(sharding.put, host, placed)
    return state


def compile_step(
    train: Callable[..., TrainState], data: Input, seed: int, placed: Any
) -> Callable[..., TrainState]:
    """Compile the step from a feed to the next state.

    Args:
      train: step function from :func:`make_train_step`.
      data: input that converts feeds to images.
      seed: seed of all random numbers; each step has its own keys.
      placed: shardings of the state.

    Returns:
      A function of the state, which is donated, the step's index, a feed and the
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
    """Make a function that tests variables.

    Args:
      module: the network.
      data: input with the test images.
      batch_size: number of images in a test batch.

    Returns:
      A function of the variables that returns ``test_loss``, and ``test_top1`` and
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
    """Test a trained network.

    Args:
      module: the network.
      variables: parameters and BatchNorm statistics of the network.
      data: input with the test images.
      batch_size: number of images in a batch, a multiple of the number of devices.

    Returns:
      ``test_loss``, and ``test_top1`` and ``test_top5`` in percent.

    Raises:
      InputError: if the batch cannot be split evenly, or an image is damaged.
    """
    return make_tester(module, data, batch_size)(variables)


def in_percent(counts: Counts) -> dict[str, float]:
    """Convert counts to means over the tested images, accuracies in percent."""
    loss, top1, top5, images = (float(value) for value in counts)
    return {
        "test_loss": loss / images,
        "test_top1": 100 * top1 / images,
        "test_top5": 100 * top5 / images,
    }
