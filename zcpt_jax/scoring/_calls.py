"""The function of one call: what scores groups of masks, to be compiled.

On accelerators a call takes dozens of groups, which follow one another in a loop inside
it, and the members of a group go through the network side by side; on CPU a call takes
one mask.
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
"""Masks a call and device, where calls have a loop: compiling takes the same for any
number, and waiting for a call costs as much as a few masks."""


class Inputs(NamedTuple):
    """How a call makes what it scores with. Both are pure and traced.

    Attributes:
      variables: of what lies on the device and a number, the variables of a group.
      batch: of what lies on the device and a number, the minibatch of a mask.
    """

    variables: Callable[[Any, Any], Variables]
    batch: Callable[[Any, Any], Batch]


GIVEN = Inputs(
    lambda resident, number: resident["variables"],
    lambda resident, number: jax.tree.map(lambda x: x[number], resident["batches"]),
)
"""What lies on the device are ``variables``, and ``batches`` ``[M, ...]``."""


class Rows(NamedTuple):
    """What is to be scored: R masks.

    Attributes:
      masks: every leaf ``[R, ...]``; empty for a network without masks.
      batches: int ``[R]``, the number of each mask's minibatch.
      weights: int ``[R]``, the number of its initial weights.
      owners: int ``[R]``; masks of one owner share what is decided.
    """

    masks: Masks
    batches: np.ndarray
    weights: np.ndarray
    owners: np.ndarray


class Scored(NamedTuple):
    """What scores what.

    Attributes:
      score_fn: a proxy.
      apply_fn: the network.
      inputs: how a call makes variables and minibatches.
      forward_only: whether ``score_fn`` takes no derivative.
    """

    score_fn: ScoreFn
    apply_fn: ApplyFn
    inputs: Inputs
    forward_only: bool


def groups_of_call(form: Lowering, width: int) -> int:
    """Groups of a call and device.

    Args:
      form: how operations are written.
      width: members of a group.
    """
    return max(1, _MASKS // width) if form.loops else 1


def make_call(scored: Scored, form: Lowering, width: int, mesh: Mesh | None) -> Any:
    """The jitted function of one call.

    Args:
      scored: what scores what.
      form: how operations are written.
      width: members of a group.
      mesh: devices of this process that share the groups, None for one device.

    Returns:
      A function of what lies on the devices, masks ``[G, width, ...]``, numbers of
      minibatches ``[G, width]`` and of initial weights ``[G]``, and how many of the
      groups to score, ``[1]`` a device. It gives scores ``[G, width]`` or
      ``[G, width, M]``. With a mesh all but the first are split over the devices.
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
    """The scores of the first ``count`` groups, ``[G, width, ...]``; zeros after."""
    total = len(groups[-1])
    if total == 1:
        return group(resident, *_take(groups, 0))[None]
    run = jax.jit(group)  # traced once, though its shape is asked for first
    shape = jax.eval_shape(run, resident, *_take(groups, 0))

    def body(number: Any, scores: jax.Array) -> jax.Array:
        return scores.at[number].set(run(resident, *_take(groups, number)))

    scores = jnp.zeros((total, *shape.shape), shape.dtype)
    return jax.lax.fori_loop(0, count, body, scores)


def _take(tree: Any, number: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf[number], tree)
