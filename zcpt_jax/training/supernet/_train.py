"""Training loop of a supernet, and loading of trained supernets."""

import contextlib
import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from zcpt_jax.data import Dataset
from zcpt_jax.io.checkpoints import Kind, TrainingFolder, read_final, read_record
from zcpt_jax.search.operation_scores import Trained
from zcpt_jax.spaces import space_options
from zcpt_jax.training._preemption import Preempted, Preemption
from zcpt_jax.training.supernet._config import SupernetConfig
from zcpt_jax.training.supernet._step import (
    State,
    Step,
    initial_alphas,
    make_optimisers,
    make_state,
    make_step,
)
from zcpt_jax.types import Batch, InputError, Progress, ScoreError, Space

# Random streams of minibatches; searches use streams below 10.
_WEIGHTS_STREAM, _ALPHAS_STREAM = 11, 12

_METRICS = ("loss", "accuracy", "alphas_accuracy")

_KIND = Kind("a trained supernet", "launch/train_supernet.py")


def train_supernet(
    space: Space,
    dataset: Dataset,
    config: SupernetConfig,
    *,
    checkpoints: str | Path | None,
    progress: Progress | None = None,
    environment: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    space_file: str | None = None,
) -> Trained:
    """Train the supernet of a space, or resume an earlier run.

    Each step updates the alphas on a minibatch of the dataset's second half, then the
    weights on one of its first half. A resumed run gives the result of an uninterrupted
    one, bit for bit if the device computes deterministically: on CPU and TPU, and on
    GPUs with ``XLA_FLAGS=--xla_gpu_deterministic_ops=true``.

    Args:
      space: the search space.
      dataset: images, of which both halves are used.
      config: the recipe.
      checkpoints: folder of the training run, None to write nothing.
      progress: callback after every step.
      environment: versions, command and the like, stored in the folder.
      overwrite: whether to start again, whatever is in the folder.
      space_file: digest of the file that defines a space of the user's own.

    Returns:
      The trained variables, including running BatchNorm statistics, and alphas.

    Raises:
      InputError: if a setting is out of range, or the folder was made with other
        settings, is damaged or cannot be written.
      ScoreError: if the loss becomes infinite or not a number.
      Preempted: if the run was asked to end (SIGTERM); it has saved a checkpoint.
    """
    config.check()
    halves = dataset.halves()
    images = len(halves[0].source)
    if config.batch_size > images:
        raise InputError(
            f"batch_size must be from 1 to {images}, half of the images of "
            f"{dataset.name}, as weights and alphas are trained on a half each; got "
            f"{config.batch_size}"
        )
    total = config.steps(images)
    module = space.supernet(dataset.num_classes)
    optimisers = make_optimisers(config, total)
    state = make_state(space, module, dataset.image_shape, optimisers, config)
    step = make_step(module.apply, space.init_masks(), optimisers, config.seed)
    done = 0
    with contextlib.ExitStack() as stack:
        folder = None
        if checkpoints is not None:
            settings = _settings(space, dataset, config, space_file)
            folder = stack.enter_context(
                TrainingFolder(
                    checkpoints,
                    settings,
                    kind=_KIND,
                    steps=total,
                    environment=environment,
                    overwrite=overwrite,
                )
            )
            found = folder.restore(state.items())
            if found is not None:
                done, state = found[0], State.of(found[1])
        preemption = stack.enter_context(Preemption())
        state = _run(
            step, state, halves, config, done, total, folder, progress, preemption
        )
    return Trained(state.variables, state.alphas)


def _run(
    step: Step,
    state: State,
    halves: tuple[Dataset, Dataset],
    config: SupernetConfig,
    done: int,
    total: int,
    folder: TrainingFolder | None,
    progress: Progress | None,
    preemption: Preemption,
) -> State:
    """Run the steps from ``done`` to ``total``."""
    report = progress or (lambda stage, done, total, note: None)
    report("training", done, total, "compiling" if done < total else "finished")
    batches = _batches(halves, config, done) if done < total else ()
    for number in range(done, total):
        state, metrics = step(state, np.int32(number), *batches)
        asked = preemption.reached(number + 1)
        if number + 1 < total:  # Read while the device computes.
            batches = _batches(halves, config, number + 1)
        line = {name: float(metrics[name]) for name in _METRICS}
        if not math.isfinite(line["loss"]):
            raise ScoreError(
                f"the loss is {line['loss']} at step {number + 1} of {total}; train "
                f"with a learning_rate below {config.learning_rate}"
            )
        last = number + 1 == total
        if folder is not None and (last or (number + 1) % config.log_every == 0):
            folder.log({"step": number + 1, **line})
        due = last or asked or (number + 1) % config.save_every == 0
        if folder is not None and due:
            folder.save(number + 1, state.items())
        note = f"loss {line['loss']:.3f}, accuracy {line['accuracy']:.3f}"
        report("training", number + 1, total, note)
        if asked and not last:
            raise Preempted(f"asked to end after step {number + 1} of {total}")
    return state


def _batches(
    halves: tuple[Dataset, Dataset], config: SupernetConfig, number: int
) -> tuple[Batch, Batch]:
    """Draw the minibatches of weights and alphas, determined by seed and step."""
    weights, alphas = (
        half.batch(
            np.random.default_rng([config.seed, stream, number]), config.batch_size
        )
        for half, stream in zip(halves, (_WEIGHTS_STREAM, _ALPHAS_STREAM), strict=True)
    )
    return weights, alphas


def load_supernet(
    path: str | Path,
    space: Space,
    num_classes: int,
    image_shape: tuple[int, ...],
    space_file: str | None = None,
) -> Trained:
    """Load the supernet that :func:`train_supernet` wrote to a folder.

    Args:
      path: folder of the training run.
      space: space of the supernet, with the same options.
      num_classes: number of classes of the dataset.
      image_shape: shape ``(H, W, C)`` of an image; in the library's spaces the weights
        do not depend on it.
      space_file: digest of the file that defines a space of the user's own.

    Returns:
      The trained variables and alphas.

    Raises:
      InputError: if the folder has no supernet, or one that is unfinished, damaged or
        of another space.
    """
    there = read_record(path, _KIND)["config"]
    wanted = {**_space_settings(space, space_file), "num_classes": num_classes}
    differing = [
        f"{name}: {there.get(name)!r} there, {value!r} wanted"
        for name, value in wanted.items()
        if there.get(name) != value
    ]
    if differing:
        raise InputError(
            f"the supernet in {path} is another ({'; '.join(differing)}); choose the "
            "space and dataset it was trained with, or train one of this space"
        )
    module, key = space.supernet(num_classes), jax.random.key(0)
    like = {
        "variables": dict(space.init_variables(module, key, image_shape)),
        "alphas": initial_alphas(space.init_masks(), key, 0),
    }
    return Trained(**read_final(path, {"trained": like}, _KIND)["trained"])


def _settings(
    space: Space, dataset: Dataset, config: SupernetConfig, space_file: str | None
) -> dict[str, Any]:
    """Settings that determine the result."""
    recipe = dataclasses.asdict(config)
    for name in ("save_every", "log_every"):
        del recipe[name]
    return {
        **_space_settings(space, space_file),
        **dataset.settings(),
        **recipe,
    }


def _space_settings(space: Space, space_file: str | None) -> dict[str, Any]:
    options = json.loads(json.dumps(space_options(space)))  # Types as read from JSON.
    return {"space": space.name, "options": options, "space_file": space_file}
