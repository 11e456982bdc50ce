"""One training step: alphas on one minibatch, then weights on another."""

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
    """Training state, updated by every step.

    Attributes:
      variables: variables of the supernet.
      alphas: logits of the architecture weights by group.
      weights_optimiser: state of the weights' Optax optimiser.
      alphas_optimiser: state of the alphas' Optax optimiser.
    """

    variables: Any
    alphas: Any
    weights_optimiser: Any
    alphas_optimiser: Any

    def items(self) -> dict[str, Any]:
        """Split the state into trained arrays and optimiser states."""
        trained = {"variables": self.variables, "alphas": self.alphas}
        optimisers = {
            "weights": self.weights_optimiser,
            "alphas": self.alphas_optimiser,
        }
        return {"trained": trained, "optimisers": optimisers}

    @staticmethod
    def of(items: Mapping[str, Any]) -> "State":
        """Rebuild the state from :meth:`items`."""
        trained, optimisers = items["trained"], items["optimisers"]
        return State(**trained, **{f"{k}_optimiser": v for k, v in optimisers.items()})


class Optimisers(NamedTuple):
    """Optimisers of the weights and of the alphas."""

    weights: optax.GradientTransformation
    alphas: optax.GradientTransformation


Step = Callable[[State, Any, Batch, Batch], tuple[State, dict[str, jax.Array]]]


def make_optimisers(config: SupernetConfig, steps: int) -> Optimisers:
    """Make SGD and Adam with weight decay added to the clipped gradient, as in PyTorch.

    Args:
      config: the recipe.
      steps: number of steps over which the learning rate of the weights falls.
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
    """Keys of initial weights (those of a search with this seed), alphas and noise."""

    weights: jax.Array
    alphas: jax.Array
    noise: jax.Array


def make_keys(seed: int) -> Keys:
    """Derive independent keys from a seed."""
    root = jax.random.key(seed)
    # 2 and 3, because folding in 0 or 1 can give the same keys as splitting in two.
    alphas, noise = (jax.random.fold_in(root, number) for number in (2, 3))
    return Keys(jax.random.split(root)[0], alphas, noise)


def make_state(
    space: Space,
    module: nn.Module,
    image_shape: tuple[int, ...],
    optimisers: Optimisers,
    config: SupernetConfig,
) -> State:
    """Make the initial training state.

    Args:
      space: the search space.
      module: supernet of the space.
      image_shape: shape ``(H, W, C)`` of an image.
      optimisers: optimisers, whose initial states are zero.
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
    """Draw alphas near zero, so that architecture weights are nearly uniform.

    Args:
      undecided: initial masks from the space's ``init_masks``.
      key: PRNG key, consumed.
      scale: standard deviation of the alphas.

    Returns:
      Float32 logits ``[E, O]`` (or ``[n]``) by group; zero where there is no candidate.
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
    """Make one step of alphas and weights, compiled at its first call.

    Args:
      apply_fn: supernet as a function, Flax's ``module.apply``.
      undecided: initial masks from the space's ``init_masks``.
      optimisers: optimisers of weights and alphas.
      seed: seed of the noise that networks draw.

    Returns:
      A function of the state, the step's index and the minibatches of weights and of
      alphas. It returns the next state, and loss and accuracies before the updates.
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

    # States are not donated, since they are written to disk while the next step runs.
    @jax.jit
    def step(
        state: State, number: jax.Array, for_weights: Batch, for_alphas: Batch
    ) -> tuple[State, dict[str, jax.Array]]:
        keys = jax.random.split(jax.random.fold_in(noise_key, number))
        variables, params = state.variables, state.variables["params"]
        # As published, the forward pass of the alphas also updates running statistics.
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
