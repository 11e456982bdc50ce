"""The training step and the test step of a final training."""

from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from zcpt_jax.nn.train_forward import forward_in_training
from zcpt_jax.training._input import Inputs
from zcpt_jax.training._recipe import Recipe
from zcpt_jax.types import AUXILIARY, Variables


class Counts(NamedTuple):
    """Sums over images, which can be added over minibatches.

    Attributes:
      loss: sum of the losses.
      top1: number of images whose label has the highest logit.
      top5: number of images whose label is among the five highest logits.
      images: number of images.
    """

    loss: jax.Array
    top1: jax.Array
    top5: jax.Array
    images: jax.Array


class TrainState(NamedTuple):
    """Training state, updated by every step.

    Attributes:
      params: parameters of the network, float32.
      batch_stats: running statistics of BatchNorm.
      optimiser: state of the Optax optimiser.
      ema: moving averages of ``params`` and ``batch_stats``; empty if not used.
      seen: counts of the epoch so far, of each minibatch before its update.
    """

    params: Any
    batch_stats: Any
    optimiser: Any
    ema: Any
    seen: Counts

    def tested(self) -> Variables:
        """Return the variables that are tested and exported."""
        if self.ema:
            return dict(self.ema)
        return {"params": self.params, "batch_stats": self.batch_stats}


def initial_state(
    variables: Variables, optimiser: optax.GradientTransformation, recipe: Recipe
) -> TrainState:
    """Return the initial training state."""
    params, stats = variables["params"], variables.get("batch_stats", {})
    ema = {"params": params, "batch_stats": stats} if recipe.ema is not None else {}
    return TrainState(params, stats, optimiser.init(params), ema, no_counts())


def no_counts() -> Counts:
    """Return counts of zero."""
    return Counts(*jnp.zeros(4))


def make_train_step(
    module: nn.Module,
    recipe: Recipe,
    optimiser: optax.GradientTransformation,
    steps_per_epoch: int,
    *,
    groups: int = 1,
) -> Callable[..., TrainState]:
    """Make one step of SGD; the caller compiles it.

    Args:
      module: the network, with an auxiliary head if the recipe uses one.
      recipe: the recipe.
      optimiser: optimiser from :func:`make_optimiser`.
      steps_per_epoch: number of minibatches in an epoch.
      groups: number of parts of the minibatch with separate BatchNorm statistics.

    Returns:
      A function of the state, the step's index, a batch and a key that returns the next
      state.
    """

    def apply_fn(variables: Any, images: Any, masks: Any, /) -> Any:
        del masks
        return module.apply(variables, images, mutable=[AUXILIARY])

    def loss_of(params: Any, stats: Any, batch: Inputs, rate: Any, key: Any) -> Any:
        low = jnp.bfloat16 if recipe.bfloat16 else jnp.float32
        variables = {
            "params": jax.tree.map(lambda p: p.astype(low), params),
            "batch_stats": stats,
        }
        (logits, sown), after = forward_in_training(
            apply_fn,
            variables,
            batch.images.astype(low),
            groups=groups,
            drop_path=rate if recipe.drop_path else None,
            key=key,
        )
        logits = logits.astype(jnp.float32)
        loss = mean_loss(logits, batch)
        if recipe.auxiliary:
            head = sown[AUXILIARY]["logits"].astype(jnp.float32)
            loss = loss + recipe.auxiliary * mean_loss(head, batch)
        counts = count(logits, batch.labels, batch.weights)
        return loss, (after.get("batch_stats", {}), counts)

    def mean_loss(logits: jax.Array, batch: Inputs) -> jax.Array:
        losses = _losses(logits, batch.labels, recipe.label_smoothing)
        return (losses * batch.weights).sum() / batch.weights.sum()

    def step(state: TrainState, number: Any, batch: Inputs, key: Any) -> TrainState:
        epoch = number // steps_per_epoch
        rate = recipe.drop_path * epoch / recipe.epochs
        gradient, (stats, counts) = jax.grad(loss_of, has_aux=True)(
            state.params, state.batch_stats, batch, rate, key
        )
        change, optimiser_state = optimiser.update(
            gradient, state.optimiser, state.params
        )
        params = optax.apply_updates(state.params, change)
        ema = _averages(state.ema, {"params": params, "batch_stats": stats}, recipe.ema)
        fresh = number % steps_per_epoch == 0
        seen = jax.tree.map(lambda a, b: jnp.where(fresh, 0, a) + b, state.seen, counts)
        return TrainState(params, stats, optimiser_state, ema, seen)

    return step


def make_test_step(module: nn.Module) -> Callable[..., Counts]:
    """Make the test of one minibatch; the caller compiles it.

    Args:
      module: the network.

    Returns:
      A function of variables and a batch that returns counts.
    """

    def step(variables: Variables, batch: Inputs) -> Counts:
        logits: Any = module.apply(variables, batch.images)
        return count(logits, batch.labels, batch.weights)

    return step


def count(logits: Any, labels: Any, weights: Any) -> Counts:
    """Count the loss and the correct predictions of a minibatch.

    Args:
      logits: logits ``[B, classes]``.
      labels: labels ``[B]``.
      weights: weights ``[B]``, zero for images that do not count.
    """
    chex.assert_shape(
        [labels, weights],
        logits.shape[:1],
        custom_message="logits are [B, classes], labels and weights [B]",
    )
    own = jnp.take_along_axis(logits, labels[:, None], axis=1)
    # Among equal logits the first counts as the highest, as in argmax, so that a
    # constant network is correct only by chance. Non-finite logits count as wrong.
    earlier = jnp.arange(logits.shape[1])[None] < labels[:, None]
    above = ((logits > own) | ((logits == own) & earlier)).sum(axis=1)
    valid = jnp.isfinite(logits).all(axis=1)
    losses = _losses(logits, labels, 0.0)
    return Counts(
        jnp.where(weights > 0, losses * weights, 0).sum(),
        (((above < 1) & valid) * weights).sum(),
        (((above < 5) & valid) * weights).sum(),
        weights.sum(),
    )


def _losses(logits: jax.Array, labels: Any, smoothing: float) -> jax.Array:
    targets = jax.nn.one_hot(labels, logits.shape[-1])
    return optax.softmax_cross_entropy(logits, optax.smooth_labels(targets, smoothing))


def _averages(old: Any, new: Any, keep: float | None) -> Any:
    if keep is None:
        return old
    return optax.incremental_update(new, old, 1 - keep)
