"""The function that is compiled to score groups of masks in one call.

On accelerators a call loops over dozens of groups, and the members of a group go
through the network as one batch; on CPU a call takes one mask.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from zcpt_jax import lowering
from zcpt_jax.lowering import Lowering
from zcpt_jax.types import NOISE, ApplyFn, Batch, Masks, ScoreFn, Variables

_MASKS = 64
"""Masks per call and device, where calls have a loop: any number compiles in the same
time, and waiting for a call costs as much as a few masks."""


class Inputs(NamedTuple):
    """Pure, traced functions that make a call's variables and minibatches.

    Attributes:
      variables: from data on the device and an index to the variables of a group.
      batch: from data on the device and an index to the minibatch of a mask.
    """

    variables: Callable[[Any, Any], Variables]
    batch: Callable[[Any, Any], Batch]


GIVEN = Inputs(
    lambda resident, number: resident["variables"],
    lambda resident, number: jax.tree.map(lambda x: x[number], resident["batches"]),
)
"""Inputs whose data on the device are ``variables``, and ``batches`` ``[M, ...]``."""


class Rows(NamedTuple):
    """R masks to score.

    Attributes:
      masks: masks, every leaf ``[R, ...]``; empty for a network without masks.
      batches: int ``[R]``, index of each mask's minibatch.
      weights: int ``[R]``, index of each mask's initial weights.
      owners: int ``[R]``, owner of each mask; masks of one owner share their decisions.
    """

    masks: Masks
    batches: np.ndarray
    weights: np.ndarray
    owners: np.ndarray


class Scored(NamedTuple):
    """A proxy and the network that it scores.

    Attributes:
      score_fn: the proxy's function.
      apply_fn: the network.
      inputs: functions that make variables and minibatches.
      forward_only: whether ``score_fn`` takes no derivative.
    """

    score_fn: ScoreFn
    apply_fn: ApplyFn
    inputs: Inputs
    forward_only: bool


def groups_of_call(form: Lowering, width: int) -> int:
    """Return the number of groups per call and device.

    Args:
      form: lowering of operations.
      width: number of members of a group.
    """
    return max(1, _MASKS // width) if form.loops else 1


def make_call(scored: Scored, form: Lowering, width: int, mesh: Mesh | None) -> Any:
    """Build the jitted function of one call.

    Args:
      scored: the proxy and the network.
      form: lowering of operations.
      width: number of members of a group.
      mesh: devices of this process that share the groups, None for one device.

    Returns:
      A function of data on the devices, masks ``[G, width, ...]``, indices of
      minibatches ``[G, width]`` and of initial weights ``[G]``, and the number of
      groups to score, ``[1]`` per device. It returns scores ``[G, width]`` or
      ``[G, width, M]``. With a mesh all arguments but the first are split over the
      devices.
    """
    together = form.groups and scored.forward_only and width > 1
    may_skip = form.skips == "all" or (form.skips == "forward" and scored.forward_only)
    skip = may_skip and (width == 1 or together)
    form = form.replace(together=together, skip=skip, chunk=width)

    def group(resident: Any, masks: Any, batches: Any, weights: Any) -> Any:
        variables = scored.inputs.variables(resident, weights)

        def member(mask: Any, number: Any) -> jax.Array:
            batch = scored.inputs.batch(resident, number)
            apply_fn = _with_key(scored.apply_fn, batch.key)
            return scored.score_fn(apply_fn, variables, batch, mask)

        if width == 1:
            return member(_take(masks, 0), batches[0])[None]
        return jax.vmap(member)(masks, batches)

    def call(
        resident: Any, masks: Any, batches: Any, weights: Any, count: Any
    ) -> jax.Array:
        with lowering.using(form):
            return _each_group(group, resident, (masks, batches, weights), count[0])

    if mesh is None:
        return jax.jit(call)
    share, every = PartitionSpec(*mesh.axis_names), PartitionSpec()
    specs = (every, share, share, share, share)
    spread = functools.partial(jax.shard_map, mesh=mesh, check_vma=False)
    return jax.jit(spread(call, in_specs=specs, out_specs=share))


def _with_key(apply_fn: ApplyFn, key: jax.Array | None) -> ApplyFn:
    run: Any = apply_fn
    return run if key is None else functools.partial(run, rngs={NOISE: key})


def _each_group(
    group: Callable[..., jax.Array], resident: Any, groups: Any, count: Any
) -> jax.Array:
    """Return scores ``[G, width, ...]``: those of ``count`` groups, then zeros."""
    total = len(groups[-1])
    if total == 1:
        return group(resident, *_take(groups, 0))[None]
    run = jax.jit(group)  # traced once for both eval_shape and the loop
    shape = jax.eval_shape(run, resident, *_take(groups, 0))

    def body(number: Any, scores: jax.Array) -> jax.Array:
        return scores.at[number].set(run(resident, *_take(groups, number)))

    scores = jnp.zeros((total, *shape.shape), shape.dtype)
    return jax.lax.fori_loop(0, count, body, scores)


def _take(tree: Any, number: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf[number], tree)
