"""One step of training: alphas on one minibatch, then weights on another."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from zcpt_jax.nn.train_forward import forward_in_training
from zcpt_jax.search.operation_scores import mixture
from zcpt_jax.training.supernet._config import SupernetConfig
from zcpt_jax.types import NOISE, Batch, Masks, Space


class State(NamedTuple):
    """Everything that a step changes.

    Attributes:
      variables: of the supernet.
      alphas: group to logits.
      weights_optimiser: Optax's state.
      alphas_optimiser: Optax's state.
    """

    variables: Any
    alphas: Any
    weights_optimiser: Any
    alphas_optimiser: Any

    def items(self) -> dict[str, Any]:
        """What is trained, and apart from it what only training needs."""
        trained = {"variables": self.variables, "alphas": self.alphas}
        optimisers = {
            "weights": self.weights_optimiser,
            "alphas": self.alphas_optimiser,
        }
        return {"trained": trained, "optimisers": optimisers}

    @staticmethod
    def of(items: Mapping[str, Any]) -> "State":
        """The state of :meth:`items`."""
        trained, optimisers = items["trained"], items["optimisers"]
        return State(**trained, **{f"{k}_optimiser": v for k, v in optimisers.items()})


class Optimisers(NamedTuple):
    """Of the weights and of the alphas."""

    weights: optax.GradientTransformation
    alphas: optax.GradientTransformation


Step = Callable[[State, Any, Batch, Batch], tuple[State, dict[str, jax.Array]]]


def make_optimisers(config: SupernetConfig, steps: int) -> Optimisers:
    """PyTorch's SGD and Adam: weight decay joins the gradient, after it is clipped.

    Args:
      config: the recipe.
      steps: over which the learning rate of the weights falls.
    """
    falling = optax.cosine_decay_schedule(
        config.learning_rate, steps, config.min_learning_rate / config.learning_rate
    )
    return Optimisers(
        weights=optax.chain(
            optax.clip_by_global_norm(config.clip),
            optax.add_decayed_weights(config.weight_decay),
            optax.sgd(falling, config.momentum),
        ),
        alphas=optax.chain(
            optax.add_decayed_weights(config.alpha_weight_decay),
            optax.adam(config.alpha_learning_rate, *config.alpha_betas),
        ),
    )


class Keys(NamedTuple):
    """Of the initial weights, as in a search of the same seed; of alphas; of noise."""

    weights: jax.Array
    alphas: jax.Array
    noise: jax.Array


def make_keys(seed: int) -> Keys:
    """Independent keys that follow from a seed."""
    root = jax.random.key(seed)
    # 2 and 3: folding in 0 or 1 can give the same keys as splitting in two.
    alphas, noise = (jax.random.fold_in(root, number) for number in (2, 3))
    return Keys(jax.random.split(root)[0], alphas, noise)


def make_state(
    space: Space,
    module: nn.Module,
    image_shape: tuple[int, ...],
    optimisers: Optimisers,
    config: SupernetConfig,
) -> State:
    """What training begins with.

    Args:
      space: the space.
      module: its supernet.
      image_shape: ``(H, W, C)``.
      optimisers: what they keep is zero at first.
      config: the recipe.
    """
    keys = make_keys(config.seed)
    variables = space.init_variables(module, keys.weights, image_shape)
    alphas = initial_alphas(space.init_masks(), keys.alphas, config.alpha_scale)
    return State(
        dict(variables),
        alphas,
        optimisers.weights.init(variables["params"]),
        optimisers.alphas.init(alphas),
    )


def initial_alphas(undecided: Masks, key: jax.Array, scale: float) -> dict[str, Any]:
    """Alphas near zero, so that the operation weights are nearly equal.

    Args:
      undecided: the space's ``init_masks``.
      key: consumed.
      scale: their deviation.

    Returns:
      group to float32 logits ``[E, O]`` (or ``[n]``); zero where no candidate is.
    """
    result = {}
    for number, group in enumerate(sorted(undecided)):
        weights = np.asarray(undecided[group])
        drawn = jax.random.normal(jax.random.fold_in(key, number), weights.shape)
        result[group] = jnp.where(weights != 0, scale * drawn, 0)
    return result


def make_step(
    apply_fn: Any, undecided: Masks, optimisers: Optimisers, seed: int
) -> Step:
    """One step of alphas and weights, compiled at its first call.

    Args:
      apply_fn: the supernet, as Flax's ``module.apply``.
      undecided: the space's ``init_masks``.
      optimisers: of weights and alphas.
      seed: of the noise that networks draw.

    Returns:
      A function of the state, the step's number and two minibatches: of the weights and
      of the alphas. It gives the next state, and loss and accuracies before it.
    """
    noise_key = make_keys(seed).noise

    def loss(
        params: Any, alphas: Any, others: Any, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, tuple[Any, jax.Array]]:
        logits, variables = forward_in_training(
            lambda v, x, m: apply_fn(v, x, m, rngs={NOISE: key}),
            {**others, "params": params},
            batch.images,
            mixture(alphas, undecided),
        )
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch.labels)
        accuracy = (logits.argmax(axis=-1) == batch.labels).mean()
        return losses.mean(), (variables, accuracy)

    # Nothing is donated: states are written to disk while the next step runs.
    @jax.jit
    def step(
        state: State, number: jax.Array, for_weights: Batch, for_alphas: Batch
    ) -> tuple[State, dict[str, jax.Array]]:
        keys = jax.random.split(jax.random.fold_in(noise_key, number))
        variables, params = state.variables, state.variables["params"]
        # The forward pass of the alphas updates running statistics too, as published.
        gradient, (variables, alphas_accuracy) = jax.grad(loss, 1, has_aux=True)(
            params, state.alphas, variables, for_alphas, keys[0]
        )
        change, alphas_optimiser = optimisers.alphas.update(
            gradient, state.alphas_optimiser, state.alphas
        )
        alphas = optax.apply_updates(state.alphas, change)
        (value, (variables, accuracy)), gradient = jax.value_and_grad(
            loss, has_aux=True
        )(params, alphas, variables, for_weights, keys[1])
        change, weights_optimiser = optimisers.weights.update(
            gradient, state.weights_optimiser, params
        )
        variables = {**variables, "params": optax.apply_updates(params, change)}
        metrics = {
            "loss": value,
            "accuracy": accuracy,
            "alphas_accuracy": alphas_accuracy,
        }
        return State(variables, alphas, weights_optimiser, alphas_optimiser), metrics

    return step
