"""The fused call: many masks scored by one compiled function, vmapped off CPU."""

import functools
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from zcpt_jax import sharding
from zcpt_jax.skipping import skipping
from zcpt_jax.types import (
    NOISE,
    ApplyFn,
    Batch,
    InputError,
    Masks,
    ScoreFn,
    Variables,
)


class Scorer:
    """Scores stacks of masks; compiles once and serves every later call.

    Masks are scored in chunks of one size, the last one padded, so that one
    compilation serves all. A chunk that does not fit into memory is halved for good.

    The score of a mask does not depend on the chunk it is in, nor on how many devices
    share a call: on CPU bit for bit for forward proxies, elsewhere to float32 rounding.

    Attributes:
      chunk_size: masks a call and device, None until the first call settles it.
      compilations: how many functions were compiled.
      compile_seconds: what that took.
      on_chunk: called with the share of masks scored so far, in (0, 1].
    """

    def __init__(
        self,
        score_fn: ScoreFn,
        apply_fn: ApplyFn,
        *,
        chunk_size: int | None = None,
        precision: str = "highest",
        forward_only: bool = False,
        own_variables: bool = False,
        mesh: Mesh | None = None,
    ) -> None:
        """Prepares scoring; nothing is compiled yet.

        Args:
          score_fn: a proxy, or any function with its signature.
          apply_fn: the network.
          chunk_size: masks a call and device; by default what suits the device: one on
            CPU, all of them elsewhere.
          precision: of matrix products and convolutions. TPUs and recent GPUs
            otherwise round inputs to fewer bits, which changes rankings.
          forward_only: whether ``score_fn`` takes no derivative; on CPU, masks scored
            one by one then skip operations of weight zero.
          own_variables: whether each mask comes with variables of its own.
          mesh: a row of devices that share the masks of a call evenly; by default JAX's
            default device scores them all.

        Raises:
          InputError: if ``chunk_size`` is not positive.
        """
        if chunk_size is not None and chunk_size < 1:
            raise InputError(f"chunk_size must be at least 1, got {chunk_size}")
        self.chunk_size = chunk_size
        self.compilations = 0
        self.compile_seconds = 0.0
        self.on_chunk: Callable[[float], None] = lambda share: None
        self._compiled: dict[Any, Callable[..., jax.Array]] = {}
        self._mesh, self._own = mesh, own_variables
        self._held: tuple[Any, Any] = (None, None)
        skip = forward_only and jax.default_backend() == "cpu"

        def one(variables: Variables, batches: Batch, mask: Masks, index: Any) -> Any:
            batch = jax.tree.map(lambda leaf: leaf[index], batches)
            with jax.default_matmul_precision(precision):
                return score_fn(_with_key(apply_fn, batch.key), variables, batch, mask)

        def many(variables: Variables, batches: Batch, masks: Masks, index: Any) -> Any:
            if len(index) > 1:
                axes = (0 if own_variables else None, None, 0, 0)
                return jax.vmap(one, axes)(variables, batches, masks, index)
            variables = _first(variables) if own_variables else variables
            with skipping(skip):
                return one(variables, batches, _first(masks), index[0])[None]

        self._function = _spread(many, mesh, own_variables)

    def __call__(
        self,
        variables: Variables,
        batches: Batch,
        masks: Masks,
        which: np.ndarray | None = None,
    ) -> np.ndarray:
        """Scores K masks.

        Args:
          variables: the network's variables; every leaf ``[K, ...]`` if each mask has
            its own.
          batches: one batch (``images [B, H, W, C]``) that all masks share, or, with
            ``which``, several (``images [M, B, H, W, C]``). Its key, if it has one,
            goes to the network as the random stream ``'noise'``.
          masks: stack of masks, every leaf ``[K, ...]``.
          which: int ``[K]``, the batch of each mask; ``masks`` may then be empty, to
            score one network on K batches.

        Returns:
          float32 ``[K]``, on the host; ``[K, M]`` if ``score_fn`` gives M numbers.

        Raises:
          InputError: if the leaves of ``masks`` differ in K or K is zero.
          MemoryError: if a single mask does not fit.
        """
        count = _stack_size(masks) if which is None else len(which)
        if which is None:
            batches = jax.tree.map(lambda leaf: leaf[None], batches)
        if self.chunk_size is None:
            self.chunk_size = default_chunk(-(-count // self._devices))
        batches = self._everywhere(jax.tree.map(jnp.asarray, batches))
        if not self._own:
            variables = self._hold(variables)
        scores: list[np.ndarray] = []
        done = 0
        while done < count:
            together = self.chunk_size * self._devices
            rows = np.minimum(np.arange(done, done + together), count - 1)
            index = np.zeros_like(rows) if which is None else which[rows]
            chunk, own, index = self._share(
                (_take(masks, rows), _take(variables, rows) if self._own else (), index)
            )
            try:
                part = np.asarray(
                    self._run(own if self._own else variables, batches, chunk, index)
                )
            except jax.errors.JaxRuntimeError as error:
                self._halve(error)
                continue
            scores.append(part[: count - done])
            done += len(scores[-1])
            self.on_chunk(done / count)
        return np.concatenate(scores)

    @property
    def _devices(self) -> int:
        return 1 if self._mesh is None else self._mesh.size

    def _share(self, tree: Any) -> Any:
        if self._mesh is None:
            return jax.tree.map(jnp.asarray, tree)
        return sharding.split(self._mesh, tree)

    def _everywhere(self, tree: Any) -> Any:
        return tree if self._mesh is None else sharding.replicate(self._mesh, tree)

    def _hold(self, variables: Variables) -> Variables:
        """The variables on every device; those of the last call are there already."""
        if self._held[0] is not variables:
            self._held = (variables, self._everywhere(variables))
        return self._held[1]

    def _run(self, *args: Any) -> jax.Array:
        """Runs the function compiled for these shapes, compiling it if it is new."""
        leaves, tree = jax.tree.flatten(args)
        key = (tree, tuple((leaf.shape, leaf.dtype) for leaf in leaves))
        if key not in self._compiled:
            start = time.perf_counter()
            self._compiled[key] = self._function.lower(*args).compile()
            self.compilations += 1
            self.compile_seconds += time.perf_counter() - start
        return self._compiled[key](*args)

    def _halve(self, error: jax.errors.JaxRuntimeError) -> None:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise error
        if self.chunk_size == 1:
            raise MemoryError(
                "one mask and one batch do not fit into the device's memory; use a "
                "smaller batch or a smaller supernet"
            ) from error
        assert self.chunk_size is not None
        self.chunk_size //= 2


def score_masks(
    score_fn: ScoreFn,
    apply_fn: ApplyFn,
    variables: Variables,
    batch: Batch,
    masks: Masks,
    *,
    chunk_size: int | None = None,
) -> np.ndarray:
    """Scores K masks on one batch: :class:`Scorer` for a single use.

    Keep a :class:`Scorer` to score again without compiling again.

    Args:
      score_fn: a proxy, or any function with its signature.
      apply_fn: the network.
      variables: its variables.
      batch: images ``[B, H, W, C]`` and labels ``[B]``.
      masks: stack of masks, every leaf ``[K, ...]``.
      chunk_size: masks a call.

    Returns:
      float32 ``[K]``, or ``[K, M]`` if ``score_fn`` gives M numbers.
    """
    return Scorer(score_fn, apply_fn, chunk_size=chunk_size)(variables, batch, masks)


def _with_key(apply_fn: ApplyFn, key: jax.Array | None) -> ApplyFn:
    run: Any = apply_fn
    return run if key is None else functools.partial(run, rngs={NOISE: key})


def _spread(many: Callable[..., Any], mesh: Mesh | None, own_variables: bool) -> Any:
    """``many``, compiled; each device of the mesh runs it on its share of the masks."""
    if mesh is None:
        return jax.jit(many)
    every, share = PartitionSpec(), PartitionSpec(*mesh.axis_names)
    own = share if own_variables else every
    shared = jax.shard_map(
        many,
        mesh=mesh,
        in_specs=(own, every, share, share),
        out_specs=share,
        check_vma=False,
    )
    # Every process gets every score.
    return jax.jit(shared, out_shardings=NamedSharding(mesh, every))


def _first(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf[0], tree)


def _take(tree: Any, rows: np.ndarray) -> Any:
    return jax.tree.map(lambda leaf: np.asarray(leaf)[rows], tree)


def _stack_size(masks: Masks) -> int:
    sizes = {leaf.shape[0] for leaf in jax.tree.leaves(masks)}
    if len(sizes) != 1 or 0 in sizes:
        raise InputError(
            "masks must be a stack: every leaf [K, ...] with the same K of at least 1, "
            f"got leading sizes {sorted(sizes)}"
        )
    return sizes.pop()


def default_chunk(count: int) -> int:
    """Masks a call that suit the default device.

    On CPU vmap saves nothing, costs memory, and 2.4 times as much where weights are
    differentiated; and masks scored one by one skip operations of weight zero.

    Args:
      count: masks to be scored together.

    Returns:
      All of them on an accelerator, one on CPU.
    """
    return 1 if jax.default_backend() == "cpu" else count
