"""PyTorch's SGD, and the learning-rate schedules."""

import jax
import jax.numpy as jnp
import optax

from zcpt_jax.training._recipe import Recipe


def make_schedule(recipe: Recipe, updates_per_epoch: int) -> optax.Schedule:
    """Make the schedule of the learning rate.

    Fewer epochs than the published recipe's keep the shape: the first and last rate
    stay the same.

    Args:
      recipe: the recipe.
      updates_per_epoch: number of updates in one epoch.

    Returns:
      A function of the number of previous updates.
    """
    peak = recipe.learning_rate
    if recipe.reference_batch is not None:
        peak *= recipe.batch_size * recipe.accumulate / recipe.reference_batch
    warmup = recipe.warmup_epochs * updates_per_epoch

    def rate(update: jax.typing.ArrayLike) -> jax.Array:
        update = jnp.asarray(update, jnp.float32)
        epoch = update / updates_per_epoch
        if not recipe.every_step:
            # Half an update is added, since rounding can give less than an integer.
            epoch = jnp.floor(epoch + 0.5 / updates_per_epoch)
        falling = peak * _share(recipe, epoch)
        if not warmup:
            return falling
        return jnp.where(update < warmup, peak * (update + 1) / warmup, falling)

    return rate


def _share(recipe: Recipe, epoch: jax.Array) -> jax.Array:
    """Fraction of the learning rate that remains after ``epoch`` epochs."""
    if recipe.schedule == "cosine":
        # Equals (1 + cos x) / 2, which loses precision near the end.
        return jnp.cos(jnp.pi / 2 * epoch / recipe.epochs) ** 2
    return recipe.decay ** (epoch * (recipe.decay_epochs / recipe.epochs))


def make_optimiser(
    recipe: Recipe, updates_per_epoch: int
) -> optax.GradientTransformationExtraArgs:
    """Make SGD with weight decay added to the clipped gradient, as in PyTorch.

    Args:
      recipe: the recipe.
      updates_per_epoch: number of updates in one epoch, for the schedule.

    Returns:
      A transformation for every minibatch; with ``accumulate`` it returns zeros until
      that many minibatches are accumulated.
    """
    parts = [optax.add_decayed_weights(recipe.weight_decay)]
    if recipe.clip is not None:
        parts.insert(0, optax.clip_by_global_norm(recipe.clip))
    schedule = make_schedule(recipe, updates_per_epoch)
    sgd = optax.sgd(schedule, recipe.momentum, recipe.nesterov)
    together = optax.chain(*parts, sgd)
    if recipe.accumulate == 1:
        return optax.with_extra_args_support(together)
    steps = optax.MultiSteps(together, recipe.accumulate)
    return optax.with_extra_args_support(steps.gradient_transformation())
