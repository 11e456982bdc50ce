"""Training loop of a found network from scratch."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import flax.linen as nn
import jax
import numpy as np
from jax.sharding import Mesh

from zcpt_jax.training._compile import compile_step, make_tester, place, placement
from zcpt_jax.training._input import Input
from zcpt_jax.training._optimiser import make_optimiser, make_schedule
from zcpt_jax.training._preemption import Preempted, Preemption
from zcpt_jax.training._recipe import Recipe
from zcpt_jax.training._step import TrainState, initial_state, make_train_step
from zcpt_jax.training._store import Saving, Store
from zcpt_jax.types import InputError, Progress, ScoreError, Variables


@dataclass(frozen=True)
class Outcome:
    """Result of a training.

    Attributes:
      variables: parameters and running statistics after the last step, on the host.
      test: ``test_loss``, ``test_top1`` and ``test_top5`` after the last step, the
        latter two in percent.
    """

    variables: Variables
    test: Mapping[str, float]


class _Run(NamedTuple):
    """Constants of a training."""

    recipe: Recipe
    data: Input
    step: Callable[..., TrainState]
    test: Callable[[Variables], dict[str, float]]
    rate: Callable[[int], float]
    store: Store
    epoch: int  # Steps per epoch.
    save_every: int
    log_every: int
    progress: Progress

    @property
    def total(self) -> int:
        return self.recipe.epochs * self.epoch


def train_network(
    module: nn.Module,
    variables: Variables,
    data: Input,
    recipe: Recipe,
    mesh: Mesh,
    saving: Saving,
    *,
    fully_sharded: bool = False,
    progress: Progress | None = None,
) -> Outcome:
    """Train a network, or resume an earlier run.

    The minibatch is split over the device mesh. The seed and the step determine the
    order of images, augmentation and dropped paths, so a resumed run gives the result
    of an uninterrupted one, bit for bit if the devices compute deterministically.

    Args:
      module: the network, with an auxiliary head if the recipe uses one.
      variables: initial variables of the network.
      data: training and test images.
      recipe: the recipe.
      mesh: one-dimensional device mesh.
      saving: settings of what is written to disk, and how often.
      fully_sharded: whether large arrays of the state are also split over the devices
        rather than replicated.
      progress: callback after every step.

    Returns:
      The trained variables and their test results.

    Raises:
      InputError: if a setting is out of range, or the folder was made with other
        settings, is damaged or cannot be written.
      ScoreError: if the loss becomes infinite or not a number.
      Preempted: if the run was asked to end early.
    """
    recipe.check()
    groups = mesh.size if recipe.batch_norm == "device" else 1
    if recipe.batch_size % mesh.size:
        raise InputError(
            f"batch_size must be a multiple of the {mesh.size} devices, got "
            f"{recipe.batch_size}"
        )
    epoch = data.steps_per_epoch(recipe.batch_size)
    updates = -(-epoch // recipe.accumulate)
    optimiser = make_optimiser(recipe, updates)
    schedule = make_schedule(recipe, updates)
    state = initial_state(variables, optimiser, recipe)
    placed = placement(state, mesh, fully_sharded)
    train = make_train_step(module, recipe, optimiser, epoch, groups=groups)
    with Store(saving, mesh, steps=recipe.epochs * epoch) as store:
        run = _Run(
            recipe,
            data,
            compile_step(train, data, recipe.seed, placed),
            make_tester(module, data, recipe.batch_size),
            lambda number: float(schedule(number // recipe.accumulate)),
            store,
            epoch,
            saving.save_every or epoch,
            saving.log_every,
            progress or (lambda stage, done, total, note: None),
        )
        done, host = store.restore(state)
        state, tested = _go_on(run, place(host, placed), done)
        # Resuming a finished run makes no step and so no test.
        tested = tested or run.test(state.tested())
        return Outcome(store.fetch(state.tested()), tested)


def _go_on(
    run: _Run, state: TrainState, done: int
) -> tuple[TrainState, dict[str, float]]:
    """Run the steps from ``done`` on; return state and last test, empty if none."""
    tested: dict[str, float] = {}
    feeds = run.data.train_batches(run.recipe.seed, run.recipe.batch_size, done)
    since, note = (time.perf_counter(), done), "compiling"
    with Preemption() as preemption:
        run.progress("training", done, run.total, note)
        for number in range(done, run.total):
            feed = next(feeds)
            state = run.step(state, np.int32(number), feed, run.data.resident)
            now, line = number + 1, {}
            ended = now % run.epoch == 0
            if ended or now % run.log_every == 0:
                line = _metrics(run, state, number)
                speed = (now - since[1]) / (time.perf_counter() - since[0])
                if ended:
                    tested = run.test(state.tested())
                    line |= tested
                run.store.log(now, line)
                note = _describe(line, speed * run.recipe.batch_size)
                since = (time.perf_counter(), now)
            asked = preemption.reached(now)
            if ended or asked or now % run.save_every == 0:
                line = line or _metrics(run, state, number)  # Raises if not finite.
                run.store.save(now, state, line.get("test_top1"))
            run.progress("training", now, run.total, note)
            if asked and now < run.total:
                raise Preempted(f"asked to end after step {now} of {run.total}")
    return state, tested


def _metrics(run: _Run, state: TrainState, number: int) -> dict[str, float]:
    """Compute means over the epoch so far.

    Raises:
      ScoreError: if the loss is not a finite number.
    """
    seen = jax.tree.map(float, run.store.fetch(state.seen))
    loss = seen.loss / seen.images
    if not np.isfinite(loss):
        raise ScoreError(
            f"the loss is {loss} by step {number + 1} of {run.total}; train with a "
            f"learning_rate below {run.recipe.learning_rate}, or clip gradients"
        )
    return {
        "epoch": (number + 1) / run.epoch,
        "loss": loss,
        "top1": 100 * seen.top1 / seen.images,
        "top5": 100 * seen.top5 / seen.images,
        "learning_rate": run.rate(number),
    }


def _describe(line: Mapping[str, float], speed: float) -> str:
    note = f"loss {line['loss']:.3f}, top-1 {line['top1']:.1f} %, {speed:,.0f} images/s"
    if "test_top1" in line:
        note += f", test {line['test_top1']:.2f} %"
    return note
