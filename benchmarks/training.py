"""Training steps of DARTS_V2 on CIFAR by this library: compile time and images/s."""

import time
from typing import Any

import jax
import numpy as np

from benchmarks.jobs import Tell, Training
from zcpt_jax.data import load_splits
from zcpt_jax.sharding import make_mesh
from zcpt_jax.spaces import get_space
from zcpt_jax.training import (
    DeviceData,
    Recipe,
    TrainState,
    initial_state,
    make_optimiser,
    make_train_step,
)
from zcpt_jax.training._compile import compile_step, place, placement


def measure(job: Training, tell: Tell) -> None:
    """Compile the step that ``launch/retrain.py`` runs, and time it.

    Images come from the device and are augmented there, as in a real training.

    Args:
      job: sizes and precision.
      tell: takes numbers as soon as they are known.
    """
    recipe = Recipe(
        batch_size=job.batch_size,
        auxiliary=0.4,
        drop_path=0.2,
        bfloat16=job.precision == "bfloat16",
    )
    splits = load_splits(job.dataset)
    data = DeviceData(splits, cutout=recipe.cutout)
    step, state = _step(job, recipe, data)
    feeds = data.train_batches(recipe.seed, recipe.batch_size)
    start = time.perf_counter()
    lowered = step.lower(state, np.int32(0), next(feeds), data.resident)
    traced = time.perf_counter()
    compiled = lowered.compile()
    done = time.perf_counter()
    tell({"trace_seconds": traced - start, "compile_seconds": done - start})
    seconds = _time(job, compiled, state, feeds, data.resident)
    tell({"ours_ms": 1e3 * seconds, "ours_images": job.batch_size / seconds})


def _step(job: Training, recipe: Recipe, data: DeviceData) -> tuple[Any, TrainState]:
    """The step to compile, and the state that it begins with."""
    space = get_space("darts", channels=job.channels, cells=job.cells)
    genotype = space.published()["DARTS_V2"]
    module = space.evaluation_network(genotype, data.num_classes, auxiliary=True)
    key = jax.random.key(recipe.seed)
    variables = space.init_variables(module, key, data.image_shape)
    epoch = data.steps_per_epoch(recipe.batch_size)
    optimiser = make_optimiser(recipe, epoch)
    state = initial_state(variables, optimiser, recipe)
    placed = placement(state, make_mesh(1, "batch"), fully_sharded=False)
    train = make_train_step(module, recipe, optimiser, epoch)
    return compile_step(train, data, recipe.seed, placed), place(state, placed)


def _time(job: Training, step: Any, state: Any, feeds: Any, resident: Any) -> float:
    """Seconds of a step, the mean over those that fit into ``job.seconds``."""
    for number in range(job.warm_up):
        state = step(state, np.int32(number), next(feeds), resident)
    jax.block_until_ready(state)
    start, count = time.perf_counter(), 0
    while count < 1 or time.perf_counter() - start < job.seconds:
        for _ in range(job.warm_up):
            state = step(state, np.int32(count), next(feeds), resident)
            count += 1
        jax.block_until_ready(state)
    return (time.perf_counter() - start) / count
