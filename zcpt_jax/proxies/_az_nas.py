"""AZ-NAS: changes of features and gradients from block to block."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from zcpt_jax.nn import capture
from zcpt_jax.proxies._inputs import noise_images
from zcpt_jax.proxies._reach import reach
from zcpt_jax.proxies._spectra import eigenvalues, gram
from zcpt_jax.types import ApplyFn, Batch, InputError, Proxy, Variables

_IMAGES = 32
"""Number of noise images: half the published number, at half the cost. The scores
average over images and positions, of which 8x8 feature maps still have 2048."""

_SEED = 0


def az_expressivity(
    apply_fn: ApplyFn, variables: Variables, batch: Batch, masks: Any
) -> jax.Array:
    """Sum over blocks of the entropy of the principal components of their features.

    The entropy is that of the eigenvalues, divided by their sum, of the covariance of
    the channels over noise images and positions (Lee and Ham 2024; with their code's
    1e-8 inside the logarithm). BatchNorm uses the statistics of the batch.

    A network marks its blocks: the stem and the cells (the newest state at a
    :class:`zcpt_jax.nn.CutPoint`) and the last feature map (the input of a
    :class:`zcpt_jax.nn.GlobalAverage`). Layers between a cell and the next mark belong
    to the cell's block; in NAS-Bench-201 the published code counts the two reductions
    separately and omits the last BatchNorm and ReLU. In a network without marks each
    layer whose output is a feature map is a block, and counts if it is part of the
    network under the masks.

    The published code draws new weights (He et al.); here the network's weights are
    used. It gives -inf to a network with a constant block; here that block scores zero.

    Args:
      apply_fn: network as a function.
      variables: variables of the network.
      batch: minibatch; only the shape of its images and its key are used.
      masks: architecture weights, one array per group.

    Returns:
      A scalar, non-negative.

    Raises:
      InputError: if the network has no feature map.
    """
    blocks = _find_blocks(apply_fn, variables, batch, masks)
    entropies = jnp.stack(_entropies(blocks))
    return (entropies * jnp.stack(blocks.counts)).sum()


def az_progressivity(
    apply_fn: ApplyFn, variables: Variables, batch: Batch, masks: Any
) -> jax.Array:
    """Smallest increase of the entropy from a block to the next.

    Entropies and blocks are those of :func:`az_expressivity` (Lee and Ham 2024). In a
    network without marks, the next blocks are the layers that read a layer's output.

    Args:
      apply_fn: network as a function.
      variables: variables of the network.
      batch: minibatch; only the shape of its images and its key are used.
      masks: architecture weights, one array per group.

    Returns:
      A scalar, mostly negative; the lowest possible value if the masks leave no two
      successive blocks.

    Raises:
      InputError: if the network has no two successive blocks.
    """
    blocks = _find_blocks(apply_fn, variables, batch, masks)
    entropies = _entropies(blocks)
    most = max(x.shape[-1] for x in blocks.features)
    increases = [
        jnp.where(
            blocks.counts[source] & blocks.counts[target],
            entropies[target] - entropies[source],
            jnp.inf,
        )
        for source, target in _steps(blocks, "az_progressivity")
    ]
    smallest = jnp.stack(increases).min()
    return jnp.where(jnp.isfinite(smallest), smallest, -math.log(most))


def az_trainability(
    apply_fn: ApplyFn, variables: Variables, batch: Batch, masks: Any
) -> jax.Array:
    """Mean over blocks of 2 - s - 1/s, s the spectral norm of the block's Jacobian.

    Blocks are those of :func:`az_expressivity`. Let v be an array of random signs at a
    block's output and g = J^T v the resulting gradient at the previous block's output;
    J^T is approximated by the mean of g v^T over images and positions. If a block
    reduces the resolution, the values of g at one position of v count as channels (Lee
    and Ham 2024; with their code's 1e-6 added to s in 1/s).

    A block whose output is its input scores -inf in their code; here it scores about
    -1e6, like a block without any gradient. In a network without marks, every pair of
    layers counts if one reads the other's output under the masks.

    Args:
      apply_fn: network as a function.
      variables: variables of the network.
      batch: minibatch; only the shape of its images and its key are used.
      masks: architecture weights, one array per group.

    Returns:
      A scalar, at most zero.

    Raises:
      InputError: if the network has no two successive blocks, or has a block that
        increases the resolution.
    """
    blocks = _find_blocks(apply_fn, variables, batch, masks)
    key = jax.random.key(_SEED) if batch.key is None else batch.key
    parts = _parts(blocks)
    jacobians, dead, counts = [], [], []
    for source, target in _steps(blocks, "az_trainability"):
        shape = blocks.features[target].shape
        # The images were drawn from the key itself.
        key_of_block = jax.random.fold_in(key, target)
        signs = jax.random.rademacher(key_of_block, shape, jnp.float32)
        grads = _pull_back(parts[target][0], blocks.features, source, signs)
        same = grads.shape == shape
        dead.append((grads == signs).all() if same else jnp.zeros((), bool))
        alive = (grads != 0).any()
        counts.append(blocks.counts[target] & (alive | blocks.marked))
        rows = _fold(grads, shape)
        columns = signs.reshape(-1, shape[-1])
        jacobians.append(rows.T @ columns / columns.shape[0])
    squares = jnp.stack([v[-1] for v in eigenvalues([gram(j) for j in jacobians])])
    norms = jnp.where(jnp.stack(dead), 0, jnp.sqrt(jnp.maximum(squares, 0)))
    scores = 2 - norms - 1 / (norms + 1e-6)
    count = jnp.stack(counts)
    mean = jnp.where(count, scores, 0).sum() / jnp.maximum(count.sum(), 1)
    return jnp.where(count.any(), mean, 2 - 1e6)


class _Blocks(NamedTuple):
    features: list[jax.Array]  # output [B, H, W, C] of each block
    counts: list[jax.Array]  # boolean scalars: is the block part of the network
    marked: bool  # whether the network marks its blocks
    # Each block's output as a function of all blocks' outputs.
    outputs: Callable[[list[jax.Array]], list[jax.Array]]


def _find_blocks(
    apply_fn: ApplyFn, variables: Variables, batch: Batch, masks: Any
) -> _Blocks:
    """Run the network on noise images and capture its blocks."""
    images = noise_images(batch, _IMAGES)

    def run_marked(tap: capture.StateTap) -> None:
        capture.forward(
            apply_fn,
            variables,
            images,
            masks,
            norm="batch",
            on_block=tap,
            on_features=tap,
        )

    def run_layers(tap: capture.LayerTap) -> None:
        def on_map(path: capture.Path, out: jax.Array) -> jax.Array:
            return tap(path, out) if out.ndim == 4 else out

        capture.forward(
            apply_fn, variables, images, masks, norm="batch", on_layer=on_map
        )

    features: list[jax.Array] = []
    paths: list[capture.Path] = []

    def look(x: jax.Array) -> jax.Array:
        features.append(x)
        return x

    def look_at_layer(path: capture.Path, out: jax.Array) -> jax.Array:
        paths.append(path)
        return look(out)

    run_marked(look)
    marked = len(features) > 1
    if marked:
        counts = [jnp.ones((), bool)] * len(features)
    else:
        features.clear()
        run_layers(look_at_layer)
        reached = reach(apply_fn, variables, batch, masks)
        counts = [reached[path] for path in paths]
    if not features:
        raise InputError(
            "the proxies of AZ-NAS need feature maps [B, H, W, C]; no layer of this "
            "network gives one"
        )

    def outputs(inputs: list[jax.Array]) -> list[jax.Array]:
        outs: list[jax.Array] = []

        def swap(x: jax.Array) -> jax.Array:
            outs.append(x)
            return inputs[len(outs) - 1]

        if marked:
            run_marked(swap)
        else:
            run_layers(lambda path, out: swap(out))
        return outs

    return _Blocks(features, counts, marked, outputs)


def _parts(blocks: _Blocks) -> list[tuple[core.ClosedJaxpr, list[int]]]:
    """Split :attr:`outputs` into one function per block.

    Returns:
      For each block, the function and the indices of the blocks whose outputs it reads.
    """
    closed = jax.make_jaxpr(blocks.outputs)(blocks.features)
    jaxpr = closed.jaxpr
    parts = []
    for out in jaxpr.outvars:
        needed = {out}
        eqns = []
        for eqn in reversed(jaxpr.eqns):
            if needed.intersection(eqn.outvars):
                eqns.append(eqn)
                needed |= {v for v in eqn.invars if isinstance(v, core.Var)}
        read = [number for number, v in enumerate(jaxpr.invars) if v in needed]
        part = jaxpr.replace(outvars=[out], eqns=eqns[::-1])
        parts.append((core.ClosedJaxpr(part, closed.consts), read))
    return parts


def _pull_back(
    part: core.ClosedJaxpr, features: list[jax.Array], source: int, signs: jax.Array
) -> jax.Array:
    """Gradient at the output of block ``source`` of the cotangent ``signs``."""

    def rerun(x: jax.Array) -> jax.Array:
        inputs = [*features[:source], x, *features[source + 1 :]]
        return core.jaxpr_as_fun(part)(*inputs)[0]

    return jax.vjp(rerun, features[source])[1](signs)[0]


def _steps(blocks: _Blocks, name: str) -> list[tuple[int, int]]:
    """Pairs of successive blocks ``(source, target)``."""
    if blocks.marked:  # Only the previous block, not a cell's other input.
        steps = [(block - 1, block) for block in range(1, len(blocks.features))]
    else:
        read = [sources for _, sources in _parts(blocks)]
        steps = [(s, t) for t, sources in enumerate(read) for s in sources]
    if not steps:
        raise InputError(
            f"{name} compares successive blocks; the network has no two of them. Mark "
            "the states between blocks with zcpt_jax.nn.CutPoint"
        )
    return steps


def _entropies(blocks: _Blocks) -> list[jax.Array]:
    """Entropy of each block's normalised principal components."""
    matrices = []
    for x in blocks.features:
        rows = x.reshape(-1, x.shape[-1])
        rows = rows - rows.mean(axis=0, keepdims=True)
        matrices.append(gram(rows) / rows.shape[0])
    found = []
    for values in eigenvalues(matrices):
        values = jnp.maximum(values, 0)  # Rounding can make them negative.
        total = values.sum()
        share = values / jnp.where(total > 0, total, 1)
        found.append(-(share * jnp.log(share + 1e-8)).sum())
    return found


def _fold(grads: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Reshape gradients ``[B, H, W, C]`` to rows, one per position of ``shape``.

    If the ratio of the two resolutions is not an integer, for instance after a pool
    that pads its input, both borders are zero-padded or cropped by the same width.
    """
    batch, *sizes, channels = grads.shape
    steps = [round(size / out) for size, out in zip(sizes, shape[1:3], strict=True)]
    if min(steps) == 0:
        raise InputError(
            "az_trainability needs blocks that do not raise the resolution; here "
            f"{sizes[0]}x{sizes[1]} is followed by {shape[1]}x{shape[2]}"
        )
    margins = [(0, 0, 0)] * 4
    for axis, (size, out, step) in enumerate(
        zip(sizes, shape[1:3], steps, strict=True), 1
    ):
        missing = out * step - size
        margins[axis] = (missing // 2, missing - missing // 2, 0)
    padded = jax.lax.pad(grads, np.float32(0), margins)
    parts = padded.reshape(batch, shape[1], steps[0], shape[2], steps[1], channels)
    return parts.transpose(0, 1, 3, 2, 4, 5).reshape(-1, math.prod(steps) * channels)


_REFERENCE = "Lee and Ham, AZ-NAS: Assembling Zero-Cost Proxies, CVPR 2024"

AZ_EXPRESSIVITY = Proxy(
    name="az_expressivity",
    score=az_expressivity,
    norm="batch",
    needs_labels=False,
    data_free=True,
    draws=True,
    range="from 0 to the logarithm of the channels, a block",
    reference=_REFERENCE,
)

AZ_PROGRESSIVITY = Proxy(
    name="az_progressivity",
    score=az_progressivity,
    norm="batch",
    needs_labels=False,
    data_free=True,
    draws=True,
    range="between -10 and 1",
    reference=_REFERENCE,
)

AZ_TRAINABILITY = Proxy(
    name="az_trainability",
    score=az_trainability,
    norm="batch",
    needs_labels=False,
    data_free=True,
    draws=True,
    range="at most 0; about -1e6 for each block that lets no gradient through",
    reference=_REFERENCE,
)
