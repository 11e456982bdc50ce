"""Operation scores, which rate the candidates of a decision in searches and studies.

Xiang et al. 2023, section 3. Each consists of a perturbation of masks and a score of
the perturbed masks, so that one loop searches with all of them.
"""

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from zcpt_jax.masks import DISCRETISE, REMOVE, Perturbation
from zcpt_jax.nn import capture
from zcpt_jax.scoring.evaluator import Evaluator
from zcpt_jax.search.enumeration import Enumeration, flatten, flatten_stack
from zcpt_jax.search.proposal import ScoreStep
from zcpt_jax.tables import Table
from zcpt_jax.types import (
    ApplyFn,
    Array,
    Batch,
    InputError,
    Masks,
    Proxy,
    Space,
    Variables,
    digest,
)

_RANDOM_STREAM = 3  # for random numbers that replace scores; the search uses 0 to 2

_MOST = 2_000_000
"""Maximum number of networks of a space for best-acc and avg-acc."""


def accuracy(
    apply_fn: ApplyFn, variables: Variables, batch: Batch, masks: Any
) -> jax.Array:
    """Return the fraction of images that a trained network classifies correctly.

    Args:
      apply_fn: the network.
      variables: trained variables of the network, including BatchNorm statistics.
      batch: images ``[B, H, W, C]`` and labels ``[B]``.
      masks: masks, passed through to the network.

    Returns:
      A scalar in [0, 1].
    """
    logits = capture.forward(apply_fn, variables, batch.images, masks, norm="running")
    return (logits.argmax(axis=-1) == jnp.asarray(batch.labels)).mean()


ACCURACY = Proxy(
    name="accuracy",
    score=accuracy,
    norm="running",
    needs_labels=True,
    range="0 to 1; of a trained supernet",
)


@dataclass(frozen=True)
class Trained:
    """A trained supernet.

    Attributes:
      variables: weights and BatchNorm statistics.
      alphas: map from group to logits ``[E, O]``, whose softmax gives the architecture
        weights.
    """

    variables: Variables
    alphas: Mapping[str, Array]

    def digest(self) -> str:
        """Return the digest of all variables and alphas."""
        leaves = jax.tree.leaves((self.variables, self.alphas))
        return digest(*(np.asarray(leaf).tobytes() for leaf in leaves))


def mixture(alphas: Mapping[str, Any], undecided: Masks) -> dict[str, Any]:
    """Return the architecture weights of alphas: the softmax over the candidates.

    Args:
      alphas: map from group to logits ``[E, O]`` (or ``[O]``).
      undecided: the space's ``init_masks``; they are zero where there is no candidate.

    Returns:
      Map from group to weights of the same shape, zero where there is no candidate.
    """
    result = {}
    for group, logits in alphas.items():
        there = np.asarray(undecided[group]) != 0
        # With -inf, softmax gives exactly zero and no gradient.
        result[group] = jax.nn.softmax(jnp.where(there, logits, -np.inf), axis=-1)
    return result


class Accuracies:
    """Accuracies of all networks of a space, looked up by masks."""

    def __init__(self, space: Space, table: Table, column: str | None = None) -> None:
        """Look up all networks.

        Args:
          space: the search space.
          table: table of the space's networks.
          column: name of the table's column; by default the first.

        Raises:
          InputError: if there is no such column, the table lacks a network, or the
            space has more than two million networks.
        """
        enumeration = Enumeration(space)
        if enumeration.size > _MOST:
            raise InputError(
                f"{space.name} has {enumeration.size:,} networks; best-acc and avg-acc "
                f"look all of them up and take spaces of at most {_MOST:,}"
            )
        self.column, values = table.accuracies(column)
        masks = [enumeration.masks(number) for number in range(enumeration.size)]
        keys = [space.table_key(space.genotype(one)) for one in masks]
        missing = next((key for key in keys if key not in table.rows), None)
        if missing is not None:
            raise InputError(f"the table has no row for {missing} of {space.name}")
        self.values = values[[table.rows[key] for key in keys]]
        self._used = np.stack([flatten(one) != 0 for one in masks]).astype(np.float32)

    def digest(self) -> str:
        """Return the digest of the accuracies, in the order of the enumeration."""
        return digest(np.asarray(self.values, np.float64).tobytes())

    def under(self, masks: Masks, how: Callable[[np.ndarray], Any]) -> np.ndarray:
        """Return a statistic of the accuracies of networks that each mask allows.

        Args:
          masks: stack of masks ``[K, ...]``.
          how: function from accuracies ``[n]`` to a number, such as their maximum.

        Returns:
          ``[K]``, NaN where no network is allowed.
        """
        gone = (flatten_stack(masks) == 0).astype(np.float32)
        allowed = self._used @ gone.T == 0  # [networks, K]
        return np.array(
            [how(self.values[rows]) if rows.any() else np.nan for rows in allowed.T]
        )


@dataclass(frozen=True)
class Setting:
    """Inputs from which operation scores are computed.

    Attributes:
      space: the search space.
      seed: seed of all draws.
      evaluate: function that makes the evaluator of a proxy, with the given variables
        or, for None, those of an untrained supernet.
      proxy: proxy for zc-pt and disc-zc.
      trained: trained supernet for darts, darts-pt and disc-acc.
      accuracies: accuracies for best-acc and avg-acc.
    """

    space: Space
    seed: int
    evaluate: Callable[[Proxy, Variables | None], Evaluator]
    proxy: Proxy
    trained: Trained | None = None
    accuracies: Accuracies | None = None

    def start(self) -> Masks:
        """Return a search's initial masks: the trained mixture, if there is one."""
        undecided = self.space.init_masks()
        if self.trained is None:
            return undecided
        weights = mixture(self.trained.alphas, undecided)
        return {group: np.asarray(value) for group, value in weights.items()}


def by_proxy(setting: Setting) -> ScoreStep:
    """Return a function that scores masks by a proxy of the untrained supernet."""
    return setting.evaluate(setting.proxy, None).score_masks


def by_accuracy(setting: Setting) -> ScoreStep:
    """Return a function that scores masks by the trained supernet's accuracy."""
    assert setting.trained is not None
    return setting.evaluate(ACCURACY, setting.trained.variables).score_masks


def by_alphas(setting: Setting) -> ScoreStep:
    """Return a function that sums the trained architecture weights masks leave."""
    weights = flatten(setting.start()).astype(np.float64)

    def score(step: int, masks: Masks, owners: np.ndarray) -> np.ndarray:
        del step, owners
        return (flatten_stack(masks) != 0) @ weights

    return score


def by_table(how: Callable[[np.ndarray], Any]) -> Callable[[Setting], ScoreStep]:
    """Return an operation score's ``make`` for a statistic of accuracies.

    Masks are scored by the statistic over all networks that they allow.
    """

    def make(setting: Setting) -> ScoreStep:
        accuracies = setting.accuracies
        assert accuracies is not None
        return lambda step, masks, owners: accuracies.under(masks, how)

    return make


def by_chance(setting: Setting) -> ScoreStep:
    """Return a function that draws scores from the seed, the step and the masks."""

    def score(step: int, masks: Masks, owners: np.ndarray) -> np.ndarray:
        drawn = np.empty(len(owners))
        for proposal in np.unique(owners):
            rows = owners == proposal
            asked = [np.asarray(masks[g])[rows].tobytes() for g in sorted(masks)]
            entropy = [setting.seed, _RANDOM_STREAM, int(proposal), step]
            entropy.append(zlib.crc32(b"".join(asked)))  # since tracks share a step
            drawn[rows] = np.random.default_rng(entropy).random(rows.sum())
        return drawn

    return score


Needs = Literal["proxy", "supernet", "table", "nothing"]


@dataclass(frozen=True)
class OperationScore:
    """Method to score the candidates of a decision.

    Attributes:
      name: name in flags and reports.
      perturbation: perturbation of the masks.
      needs: required input.
      make: function from a setting to the function that scores masks.
      meaning: description of one line.
    """

    name: str
    perturbation: Perturbation
    needs: Needs
    make: Callable[[Setting], ScoreStep]
    meaning: str

    def scores(self, setting: Setting) -> ScoreStep:
        """Return the function that scores masks in a setting.

        Raises:
          InputError: if the setting lacks the required input.
        """
        if self.needs == "supernet" and setting.trained is None:
            raise InputError(
                f"operation score {self.name} needs a trained supernet: train one with "
                "launch/train_supernet.py and name its folder with --supernet"
            )
        if self.needs == "table" and setting.accuracies is None:
            raise InputError(
                f"operation score {self.name} needs a table of accuracies (--table)"
            )
        return self.make(setting)


_ALL = (
    OperationScore("zc-pt", REMOVE, "proxy", by_proxy, "proxy without it (the paper)"),
    OperationScore("disc-zc", DISCRETISE, "proxy", by_proxy, "proxy with only it"),
    OperationScore(
        "darts", DISCRETISE, "supernet", by_alphas, "its weight in a trained supernet"
    ),
    OperationScore(
        "darts-pt", REMOVE, "supernet", by_accuracy, "trained accuracy without it"
    ),
    OperationScore(
        "disc-acc",
        DISCRETISE,
        "supernet",
        by_accuracy,
        "trained accuracy with only it",
    ),
    OperationScore(
        "best-acc", DISCRETISE, "table", by_table(np.max), "best network that has it"
    ),
    OperationScore(
        "avg-acc", DISCRETISE, "table", by_table(np.mean), "mean network that has it"
    ),
    OperationScore("random", REMOVE, "nothing", by_chance, "random numbers"),
)

OPERATION_SCORES: dict[str, OperationScore] = {score.name: score for score in _ALL}
"""All operation scores by name."""


def get_operation_score(name: str) -> OperationScore:
    """Return the operation score of the given name.

    Raises:
      InputError: if the name is unknown; the message lists the known names.
    """
    if name not in OPERATION_SCORES:
        raise InputError(
            f"unknown operation score {name!r}; known: {', '.join(OPERATION_SCORES)}"
        )
    return OPERATION_SCORES[name]
